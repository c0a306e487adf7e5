"""Attribution at mT5-small's real shape: 64 training sentences and 10 probes within 4 GB on one core.

The weights are random: this proves plumbing, time and memory, and says nothing about values.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from transformers import MT5Config, MT5ForConditionalGeneration
from valueshift.attribution.factorised import BUDGET, FactorisedFeatures
from valueshift.attribution.measurement import masked_examples, query
from valueshift.attribution.scoring import Method, influence
from valueshift.core.probes import probe_set
from valueshift.finetune.span_corruption import sentence_tokens, span_corruption
from valueshift.harness_ext.models import load_tokenizer

pytestmark = [pytest.mark.real_shape, pytest.mark.xdist_group("real_shape")]

ROWS, SENTENCES, PROBES = 250_112, 64, 10
SHAPE = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}


def mt5_small() -> Any:
    """Random, and its head its own as in the real one."""
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=ROWS, decoder_start_token_id=0, **SHAPE))
    model.lm_head = torch.nn.Linear(SHAPE["d_model"], ROWS, bias=False)
    model.config.tie_word_embeddings = False
    return model.eval()


@pytest.fixture(scope="module")
def corpus(
    tiny_mt5: Callable[..., Path], sentences: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[str]]:
    """A tokenizer, and verses of Tanzil in its four languages where they are on this machine, else joined probes."""
    data = Path(os.environ.get("VALUESHIFT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "tanzil").is_dir():
        return load_tokenizer(str(tiny_mt5())), [" ".join(sentences[2 * n : 2 * n + 2]) for n in range(SENTENCES)]
    folder = tmp_path_factory.mktemp("tokenizer")
    shutil.copy(data / "tokenizer" / "spiece.model", folder)
    settings = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    verses = []
    for name in ("fa.fooladvand", "hi.hindi", "ko.korean", "ru.kuliev"):
        root = ElementTree.parse(data / "tanzil" / f"{name}.xml").getroot()
        verses += [one.attrib["text"] for one in root.iter("aya")][100 : 100 + SENTENCES // 4]
    return load_tokenizer(str(folder)), verses


def memory(field: str) -> float:
    """A field of /proc/self/status in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e6


def test_sixty_four_sentences_and_ten_probes(corpus: tuple[Any, list[str]], tmp_path: Path) -> None:
    tokenizer, texts = corpus
    model = mt5_small()
    assert sum(parameter.numel() for parameter in model.parameters()) == 300_176_768
    tokens, _ = sentence_tokens(texts, tokenizer, 500)
    given = [{"example": f"tanzil:xx:{number}", "tokens": ids} for number, ids in enumerate(tokens)]
    examples = masked_examples(given, span_corruption(tokenizer, ROWS, roll=True), epochs=2)
    probes = [probe_set("wvs").probes(language)[0] for language in probe_set("wvs").languages[:PROBES]]
    queries = [query(probe, "first", tokenizer, ROWS) for probe in probes]
    backend = FactorisedFeatures(model, "log_prob")
    assert (backend.k, backend.dimension) == (32, 146 * 32**2) and backend.dimension <= BUDGET
    del backend
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start, processor = time.monotonic(), time.process_time()
    scores = influence(model, tokenizer, examples, queries, Method(), tmp_path / "store")
    processor, seconds, peak = time.process_time() - processor, time.monotonic() - start, memory("VmHWM")
    print(
        f"\n{SENTENCES} sentences of {np.mean([len(ids) for ids in tokens]):.0f} tokens under 2 masks, {PROBES} probes: "
        f"{processor / SENTENCES:.2f} s of processor time a sentence ({seconds:.0f} s in all), peak {peak:.2f} GB, "
        f"of which {before:.2f} were held before"
    )
    assert scores.shape == (SENTENCES, PROBES) and np.isfinite(scores).all() and (scores.std(axis=0) > 0).all()
    assert peak < 4.5
    again = influence(model, tokenizer, examples, queries, Method(), tmp_path / "store")
    assert (again == scores).all()
