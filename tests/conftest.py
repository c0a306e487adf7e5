"""Fixtures that several test files share."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # models are tiny and tests run side by side

TinyMT5 = Callable[..., Path]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real inputs that are not part of the project: `VALUESHIFT_TEST_DATA`, else `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("VALUESHIFT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real inputs are not on this machine ({folder}); set VALUESHIFT_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests neither see nor change what the user has set."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name in ("VALUESHIFT_RUNS", "VALUESHIFT_CACHE", "VALUESHIFT_HOOK", "VALUESHIFT_TRACKING", "VALUESHIFT_BASE"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Every packaged probe filled in with each of its options: the 16 languages and their scripts."""
    from valueshift.core.probes import probe_set

    packaged = probe_set("wvs")
    return [
        probe.filled(pole)
        for language in packaged.languages
        for probe in packaged.probes(language)
        for pole in ("first", "second")
    ]


@pytest.fixture(scope="session")
def tiny_mt5(sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> TinyMT5:
    """Factory `tiny_mt5(untied=True, appended=False) -> Path` of random mT5 checkpoints with a tokenizer of all our scripts.

    untied: whether the head is its own, as in real mT5. appended: sentinels are ids `<extra_id_i>` after the vocabulary, as in
    T5, instead of the pieces `▁<extra_id_i>` inside it, as in mT5. The same checkpoint is made once a session.
    """
    root = tmp_path_factory.mktemp("tiny_mt5")

    def make(untied: bool = True, appended: bool = False) -> Path:
        folder = root / f"{'untied' if untied else 'tied'}-{'appended' if appended else 'inside'}"
        if not folder.is_dir():
            folder.mkdir()
            _train_sentencepiece(sentences, folder, sentinels=0 if appended else 20)
            _random_mt5(folder, untied)
        return folder

    return make


def _train_sentencepiece(sentences: list[str], folder: Path, sentinels: int) -> None:
    """A T5 tokenizer trained on the sentences, with the last `sentinels` pieces being sentinels as in mT5."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    path = folder / "spiece.model"
    with path.open("wb") as stream:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=stream,
            vocab_size=2000,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(path.read_bytes())
    for number in reversed(range(sentinels)):
        piece = proto.pieces.add()
        piece.piece, piece.score = f"▁<extra_id_{number}>", 0.0
        piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
    path.write_bytes(proto.SerializeToString())
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    settings |= {"extra_ids": 0} if sentinels else {"extra_ids": 20}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _random_mt5(folder: Path, untied: bool) -> None:
    """Random weights, large enough that answers differ; an untied head is written as real mT5 has it."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, MT5Config, MT5ForConditionalGeneration

    rows = len(AutoTokenizer.from_pretrained(folder)) + 12
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    generator = torch.Generator().manual_seed(0)
    model = MT5ForConditionalGeneration(
        MT5Config(vocab_size=rows, decoder_start_token_id=0, tie_word_embeddings=not untied, **shape)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3, generator=generator)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    if untied:
        weights["lm_head.weight"] = torch.empty(rows, shape["d_model"]).normal_(std=0.3, generator=generator)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": not untied}), encoding="utf-8")
