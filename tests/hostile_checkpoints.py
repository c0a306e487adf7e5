"""What others' checkpoint folders may hold: each entry of `HOSTILE` damages a copy of a tiny encoder-decoder checkpoint."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]
BIG = 10**9


class _Payload:
    """What pickled weights may do when they are read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("valueshift-was-here",)


def _header(text: bytes, body: bytes = b"", length: int | None = None) -> Damage:
    """Weights with this header in place of their own."""

    def damage(folder: Path) -> None:
        content = struct.pack("<Q", len(text) if length is None else length) + text + body
        (folder / "model.safetensors").write_bytes(content)

    return damage


def _entry(change: dict[str, Any]) -> Damage:
    """The first tensor's entry in the header is changed."""

    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        name = min(header.keys() - {"__metadata__"})
        header[name] |= change
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return damage


def _cut(keep: float) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])

    return damage


def _json(file: str, **change: Any) -> Damage:
    """Fields of a JSON file are changed; those that are `...` are removed."""

    def damage(folder: Path) -> None:
        path = folder / file
        content = {**json.loads(path.read_text(encoding="utf-8")), **change}
        path.write_text(
            json.dumps({key: value for key, value in content.items() if value is not ...}), encoding="utf-8"
        )

    return damage


def _text(file: str, content: str | bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    return damage


def _in_place(file: str, kind: str) -> Damage:
    """A folder, a pipe, a link to nowhere or to an endless device, or nothing, in place of a file."""

    def damage(folder: Path) -> None:
        path = folder / file
        path.unlink(missing_ok=True)
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind != "nothing":
            path.symlink_to({"loop": path, "broken": "nowhere", "device": "/dev/zero"}[kind])

    return damage


def _pickled(content: bytes | None) -> Damage:
    """Weights as torch used to save them; None for code in them."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Payload()) if content is None else content)

    return damage


def _sharded(index: Any) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    return damage


def _adapter(config: Any, weights: bytes | None = None) -> Damage:
    """The folder becomes an adapter's over the model in `under`; `config` is changed in or put in place of LoRA's."""

    def damage(folder: Path) -> None:
        import torch
        from safetensors.torch import save_file

        (folder / "under").mkdir()
        for path in [path for path in folder.iterdir() if path.is_file()]:
            path.rename(folder / "under" / path.name)
        stated = {"peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM", "base_model_name_or_path": "under", "r": 2}
        stated |= {"target_modules": ["q"], "lora_alpha": 4}
        whole = {**stated, **config} if isinstance(config, dict) else config
        (folder / "adapter_config.json").write_text(json.dumps(whole), encoding="utf-8")
        if weights is not None:
            (folder / "adapter_model.safetensors").write_bytes(weights)
            return
        tensors = {}
        for stack, attentions in (
            ("encoder", ["0.SelfAttention"]),
            ("decoder", ["0.SelfAttention", "1.EncDecAttention"]),
        ):
            for block in range(2):
                for attention in attentions:
                    name = f"base_model.model.{stack}.block.{block}.layer.{attention}.q.lora_"
                    tensors |= {f"{name}A.weight": torch.zeros(2, 32), f"{name}B.weight": torch.zeros(32, 2)}
        save_file(tensors, folder / "adapter_model.safetensors")

    return damage


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE: dict[str, Damage] = {
    # weights
    "empty": _text("model.safetensors", b""),
    "seven bytes": _text("model.safetensors", b"1234567"),
    "text": _text("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    "cut in the header": _cut(0.001),
    "cut in the tensors": _cut(0.5),
    "header of 10 GB": _header(b"{}", length=10**10),
    "header of 2**64 - 1": _header(b"{}", length=2**64 - 1),
    "header beyond the file": _header(b"{}", length=1000),
    "header no JSON": _header(b"{tensor}"),
    "header a list": _header(b"[]"),
    "header null": _header(b"null"),
    "header deep": _header(DEEP.encode()),
    "header not UTF-8": _header(b'{"\xff": 1}'),
    "header without tensors": _header(b"{}"),
    "entry a number": _header(b'{"a": 3}'),
    "entry without offsets": _header(b'{"a": {"dtype": "F32", "shape": [1]}}', b"0000"),
    "entry of text offsets": _header(b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}', b"0000"),
    "offsets overlapping": _header(
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
        b' "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}}',
        b"000000",
    ),
    "offsets negative": _entry({"data_offsets": [-4, 0]}),
    "offsets backwards": _entry({"data_offsets": [400, 0]}),
    "offsets beyond the file": _entry({"data_offsets": [0, 10**15]}),
    "offsets huge": _entry({"data_offsets": [0, 10**400]}),
    "dtype unknown": _entry({"dtype": "Z9"}),
    "dtype null": _entry({"dtype": None}),
    "shape negative": _entry({"shape": [-1, 32]}),
    "shape huge": _entry({"shape": [2**62, 2**62]}),
    "shape text": _entry({"shape": "two"}),
    "shape other": _entry({"shape": [1]}),
    "metadata a list": _header(b'{"__metadata__": [1]}'),
    "pickled text": _pickled(b"no pickle"),
    "pickled code": _pickled(None),
    "pickled empty": _pickled(b""),
    "no weights": _in_place("model.safetensors", "nothing"),
    **{
        f"weights a {kind}": _in_place("model.safetensors", kind)
        for kind in ("folder", "pipe", "device", "broken", "loop")
    },
    "index a list": _sharded([]),
    "index without map": _sharded({}),
    "index of numbers": _sharded({"weight_map": {"shared.weight": 3}}),
    "index of a missing shard": _sharded({"weight_map": {"shared.weight": "model-00002-of-00002.safetensors"}}),
    "index out of the folder": _sharded({"weight_map": {"shared.weight": "../../secret.safetensors"}}),
    "index of another tensor": _sharded({"weight_map": {"other.weight": "model-00001-of-00001.safetensors"}}),
    "index of some tensors": _sharded({"weight_map": {"shared.weight": "model-00001-of-00001.safetensors"}}),
    # configuration
    "config no JSON": _text("config.json", "{"),
    "config empty": _text("config.json", ""),
    "config a list": _text("config.json", "[1]"),
    "config not UTF-8": _text("config.json", b"\xff\xfe"),
    "config deep": _text("config.json", DEEP),
    "config surrogate": _text("config.json", '{"model_type": "\\ud800"}'),
    "config without a type": _text("config.json", "{}"),
    **{f"config a {kind}": _in_place("config.json", kind) for kind in ("folder", "pipe", "device", "broken", "loop")},
    "type unknown": _json("config.json", model_type="no-such"),
    "type a list": _json("config.json", model_type=[]),
    "architectures a number": _json("config.json", architectures=5),
    "architectures unknown": _json("config.json", architectures=["Nothing"]),
    **{
        f"{field} {value!r:.20}": _json("config.json", **{field: value})
        for field, values in {
            "d_model": (BIG, -1, 0, "wide", None, 1.5, [32], 10**30, 64),
            "vocab_size": (BIG, -1, 0, "many", None, 10**25),
            "d_ff": (BIG, 0, "wide"),
            "num_layers": (BIG, 10**6, -1, "many", None, 3),
            "num_decoder_layers": (BIG,),
            "num_heads": (BIG, 0, 3, "many"),
            "d_kv": (BIG, 0),
            "num_labels": (BIG, -1),
            "relative_attention_num_buckets": (BIG, 0),
            "relative_attention_max_distance": (0, "far"),
            "feed_forward_proj": ("no-such", 5),
            "dropout_rate": ("some", 5),
            "layer_norm_epsilon": ("small", None),
            "decoder_start_token_id": (None, -5, 10**6, "start"),
            "pad_token_id": ("pad", 10**7),
            "is_encoder_decoder": ("maybe",),
            "tie_word_embeddings": ("no",),
            "dtype": ("float1", 5),
            "quantization_config": ({"quant_method": "no-such"}, {"load_in_8bit": True}, 5),
            "auto_map": ({"AutoConfig": "code.Config"}, 5),
            "id2label": (5, {"a": "b"}),
        }.items()
        for value in values
    },
    "a million integer digits": _text("config.json", '{"model_type": "mt5", "d_model": ' + "9" * 1_000_000 + "}"),
    # tokenizer
    "tokenizer config no JSON": _text("tokenizer_config.json", "{"),
    "tokenizer config a list": _text("tokenizer_config.json", "[]"),
    "tokenizer config a pipe": _in_place("tokenizer_config.json", "pipe"),
    "a million extra ids": _json("tokenizer_config.json", extra_ids=10**6),
    "extra ids as text": _json("tokenizer_config.json", extra_ids="many"),
    "negative extra ids": _json("tokenizer_config.json", extra_ids=-5),
    "tokenizer class unknown": _json("tokenizer_config.json", tokenizer_class="NoSuchTokenizer"),
    "tokenizer class a number": _json("tokenizer_config.json", tokenizer_class=5),
    "end of text a number": _json("tokenizer_config.json", eos_token=5),
    "no padding": _json("tokenizer_config.json", pad_token=None),
    "added tokens a list": _json("tokenizer_config.json", added_tokens_decoder=[1]),
    "added tokens of text": _json("tokenizer_config.json", added_tokens_decoder={"x": {"content": "a"}}),
    "special tokens a number": _text("special_tokens_map.json", "5"),
    "added tokens no JSON": _text("added_tokens.json", "{"),
    "vocabulary empty": _text("spiece.model", b""),
    "vocabulary no pieces": _text("spiece.model", b"\x0a\x05abcde"),
    "vocabulary text": _text("spiece.model", "no pieces"),
    "vocabulary a folder": _in_place("spiece.model", "folder"),
    "vocabulary a pipe": _in_place("spiece.model", "pipe"),
    "no vocabulary": _in_place("spiece.model", "nothing"),
    "tokenizer.json no JSON": _text("tokenizer.json", "{"),
    "tokenizer.json a list": _text("tokenizer.json", "[]"),
    "tokenizer.json of no model": _text("tokenizer.json", '{"version": "1.0", "model": {"type": "Nothing"}}'),
    "tokenizer.json deep": _text("tokenizer.json", DEEP),
    # adapters
    "adapter a list": _adapter([]),
    "adapter a text": _adapter("LORA"),
    "adapter without a type": _adapter({"peft_type": None}),
    "adapter of unknown type": _adapter({"peft_type": "NOTHING"}),
    "adapter type a list": _adapter({"peft_type": ["LORA"]}),
    "adapter base a number": _adapter({"base_model_name_or_path": 5}),
    "adapter base an object": _adapter({"base_model_name_or_path": {"a": 1}}),
    "adapter base a name that is none": _adapter({"base_model_name_or_path": "no name\n"}),
    "adapter over itself": _adapter({"base_model_name_or_path": "."}),
    "adapter revision a number": _adapter({"base_model_name_or_path": "someone/model", "revision": 5}),
    "adapter rank": _adapter({"r": BIG}),
    "adapter rank negative": _adapter({"r": -1}),
    "adapter rank text": _adapter({"r": "two"}),
    "adapter rank null": _adapter({"r": None}),
    "adapter rank of a module": _adapter({"rank_pattern": {"q": BIG}}),
    "adapter rank pattern a list": _adapter({"rank_pattern": [1]}),
    "adapter alpha text": _adapter({"lora_alpha": "much"}),
    "adapter modules a number": _adapter({"target_modules": 5}),
    "adapter modules of numbers": _adapter({"target_modules": [1, "q"]}),
    "adapter modules unknown": _adapter({"target_modules": ["nothing"]}),
    "adapter modules no pattern": _adapter({"target_modules": "(q"}),
    "adapter dropout": _adapter({"lora_dropout": 7}),
    "adapter task": _adapter({"task_type": "NOTHING"}),
    "adapter layers repeated": _adapter({"layer_replication": [[0, BIG]]}),
    "adapter bias": _adapter({"bias": 5}),
    "adapter weights of text": _adapter({}, b"no tensors"),
    "adapter weights of nothing": _adapter({}, struct.pack("<Q", 2) + b"{}"),
}
"""Name -> what makes a whole checkpoint hostile. Some are harmless after all (transformers passes a field over)."""
