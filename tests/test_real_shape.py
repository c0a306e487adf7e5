"""The main job at mT5-small's real shape: 300M parameters, 250,112 rows, sentinels inside the vocabulary, untied head.

The weights are random: this proves plumbing and numerics, and says nothing about values.
"""

import json
import math
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from tolerances import LOGPROB
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table
from valueshift.core.sentinels import resolve_sentinels
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.training import Training
from valueshift.harness_ext.formats import encoder_decoder_ids
from valueshift.harness_ext.models import load_model, load_tokenizer
from valueshift.harness_ext.probing import Asking, ask

pytestmark = [pytest.mark.real_shape, pytest.mark.xdist_group("real_shape")]

ROWS, PIECES, SENTINELS = 250_112, 250_100, 100
LIMIT = 6


@pytest.fixture(scope="module")
def mt5_small(tiny_mt5: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import load_file, save_file
    from sentencepiece import sentencepiece_model_pb2
    from transformers import MT5Config, MT5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("mt5_small")
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((tiny_mt5(appended=True) / "spiece.model").read_bytes())
    for number in range(PIECES - SENTINELS - len(proto.pieces)):
        piece = proto.pieces.add()
        piece.piece, piece.score = f"▁\ue000{number}", -1e4
    for number in reversed(range(SENTINELS)):
        piece = proto.pieces.add()
        piece.piece, piece.score = f"▁<extra_id_{number}>", 0.0
        piece.type = sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED
    (folder / "spiece.model").write_bytes(proto.SerializeToString())
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "extra_ids": 0}))
    torch.manual_seed(0)
    shape = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=ROWS, decoder_start_token_id=0, **shape))
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = torch.randn(ROWS, 512) * 0.05
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    return folder


def test_lm_eval_equals_direct_computation(mt5_small: Path, tmp_path: Path) -> None:
    command = [
        "--tasks",
        "wvs_de,wvs_fa",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={mt5_small}",
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    subprocess.run(
        [sys.executable, "-m", "lm_eval", *command, "--limit", str(LIMIT), "--batch_size", "4"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    (record,) = find_records(tmp_path / "runs", "probe")
    scores = read_table(record, "scores").set_index(["language", "question"])
    model, tokenizer = load_model(str(mt5_small)), load_tokenizer(str(mt5_small))
    sentinels = resolve_sentinels(tokenizer, ROWS)
    assert sentinels.ids[0] == 250_099 and len(sentinels.ids) == SENTINELS
    assert sum(parameter.numel() for parameter in model.parameters()) == 300_176_768
    for language in ("de", "fa"):
        for probe in probe_set("wvs").probes(language)[:LIMIT]:
            ids = encoder_decoder_ids(probe, tokenizer, sentinels)
            for option, found in ((ids.first, "logprob_first"), (ids.second, "logprob_second")):
                target = [sentinels.ids[0], *option]
                with torch.inference_mode():
                    logits = model(
                        input_ids=torch.tensor([ids.encoder]), decoder_input_ids=torch.tensor([[0, *target[:-1]]])
                    ).logits[0]
                expected = sum(logits[i].log_softmax(-1)[token].item() for i, token in enumerate(target))
                assert scores.loc[(language, probe.question), found] == pytest.approx(expected, **LOGPROB)


def test_some_steps_of_training_are_saved_and_probed(mt5_small: Path, tmp_path: Path) -> None:
    probes = probe_set("wvs").probes("de")
    verses = [(str(i), "de", " ".join(p.filled("first") for p in probes[3 * i : 3 * i + 3])) for i in range(30)]
    pd.DataFrame(verses, columns=["id", "language", "text"]).to_parquet(tmp_path / "verses.parquet")
    how = Training(epochs=1, learning_rate=1e-3)
    folder = finetune(str(mt5_small), str(tmp_path / "verses.parquet"), ["de"], 30, how, root=tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 10 * 2**20  # kB

    record = read_record(folder)
    assert record.metrics["steps"] == 3
    assert record.metrics["loss/dev"] < record.metrics["loss/dev_before"] - 0.1
    tuned = tmp_path / record.settings["checkpoint"]
    with (
        safe_open(mt5_small / "model.safetensors", "pt") as before,
        safe_open(tuned / "model.safetensors", "pt") as after,
    ):
        assert set(before.keys()) == set(after.keys())
        head, embedding = after.get_tensor("lm_head.weight"), after.get_tensor("shared.weight")
        assert head.shape == embedding.shape == (ROWS, 512)
        assert not (head == embedding).all(1).any()
        moved = (embedding != before.get_tensor("shared.weight")).any(1)
    used = {token for ids in load_tokenizer(str(mt5_small))([text for *_, text in verses]).input_ids for token in ids}
    assert 100 < moved.sum() <= len(used) + SENTINELS + 1

    scores, base = (
        ask(str(name), probe_set("wvs"), ["de"], tmp_path, Asking(limit=3)).scores for name in (tuned, mt5_small)
    )
    assert scores["p_first"].map(math.isfinite).all() and len(scores) == 3
    assert (scores["logprob_first"] - base["logprob_first"]).abs().min() > 0.1
