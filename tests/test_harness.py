"""Facts about lm-eval with our tasks: found without a flag, right on untied models, never mixing models, honest about flags."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import typed
from harness_calls import simple_evaluate
from tolerances import LOGPROB
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import Probe, probe_set
from valueshift.core.sentinels import resolve_sentinels
from valueshift.harness_ext.formats import encoder_decoder_ids, strings
from valueshift.harness_ext.models import load_tokenizer

TinyMT5 = Callable[..., Path]


def direct(model: Any, tokenizer: Any, probe: Probe) -> tuple[float, float]:
    """Log-probabilities of both options by plain transformers calls, one at a time, sentinel by id."""
    sentinels = resolve_sentinels(tokenizer, model.get_input_embeddings().weight.shape[0])
    ids = encoder_decoder_ids(probe, tokenizer, sentinels)
    found = []
    for option in (ids.first, ids.second):
        target = [sentinels.ids[0], *option]
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor([ids.encoder]), decoder_input_ids=torch.tensor([[0, *target[:-1]]])
            ).logits[0]
        found.append(sum(logits[i].log_softmax(-1)[token].item() for i, token in enumerate(target)))
    return found[0], found[1]


def log_probabilities(samples: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    return {row["doc"]["question"]: (row["resps"][0][0][0], row["resps"][1][0][0]) for row in samples}


@cache
def directly(path: Path, language: str, untied: bool) -> dict[str, tuple[float, float]]:
    """`direct` for every probe of a language, by question."""
    from transformers import MT5ForConditionalGeneration

    model, tokenizer = MT5ForConditionalGeneration.from_pretrained(path).eval(), load_tokenizer(str(path))
    head_is_own = not torch.equal(model.lm_head.weight, model.shared.weight)
    assert head_is_own == untied
    return {probe.question: direct(model, tokenizer, probe) for probe in probe_set("wvs").probes(language)}


@pytest.mark.parametrize(("untied", "batch_size"), [(True, 1), (True, 8), (True, "auto"), (False, 8)])
def test_log_probabilities_equal_direct_computation(tiny_mt5: TinyMT5, untied: bool, batch_size: int | str) -> None:
    path = tiny_mt5(untied=untied)
    languages = ("de", "fa")
    found = simple_evaluate(
        model="hf",
        model_args=f"pretrained={path},device=cpu",
        tasks=[f"wvs_{language}" for language in languages],
        batch_size=batch_size,
    )
    for language in languages:
        samples = found["samples"][f"wvs_{language}"]
        assert all(row["doc"]["exact"] for row in samples) and len(samples) == 273
        scored, expected = log_probabilities(samples), directly(path, language, untied)
        assert scored.keys() == expected.keys()
        for question, pair in scored.items():
            assert pair == pytest.approx(expected[question], **LOGPROB)


def test_results_hold_what_a_reader_needs(tiny_mt5: TinyMT5) -> None:
    found = simple_evaluate(
        model="hf", model_args=f"pretrained={tiny_mt5()},device=cpu", tasks=["wvs_de"], batch_size=16
    )
    row = found["results"]["wvs_de"]
    samples = found["samples"]["wvs_de"]
    assert row["questions,none"] == 273
    assert row["p_first,none"] == pytest.approx(sum(s["p_first"] for s in samples) / 273)
    assert row["first_share,none"] == pytest.approx(sum(s["first_share"] for s in samples) / 273)
    assert found["configs"]["wvs_de"]["metadata"]["probes_digest"] == probe_set("wvs").digest("de")
    assert found["versions"]["wvs_de"] == 1.0 and found["n-shot"]["wvs_de"] == 0
    doc = samples[0]["doc"]
    assert {"tokens_first", "tokens_second", "exact", "format", "model_digest", "text"} <= doc.keys()


def test_few_shot_flags_of_a_suite_do_not_reach_a_probe(tiny_mt5: TinyMT5) -> None:
    arguments = {"model": "hf", "model_args": f"pretrained={tiny_mt5()},device=cpu", "tasks": ["wvs_de"], "limit": 4}
    plain, shots = simple_evaluate(**arguments), simple_evaluate(**arguments, num_fewshot=5)
    assert shots["n-shot"]["wvs_de"] == 0
    assert log_probabilities(plain["samples"]["wvs_de"]) == log_probabilities(shots["samples"]["wvs_de"])


def test_caches_never_mix_models(tiny_mt5: TinyMT5, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "requests"))

    def ask(path: Path, **cached: Any) -> dict[str, tuple[float, float]]:
        arguments = f"pretrained={path},device=cpu"
        found = simple_evaluate(model="hf", model_args=arguments, tasks=["wvs_de"], limit=6, **cached)
        return log_probabilities(found["samples"]["wvs_de"])

    caches = {"use_cache": str(tmp_path / "responses"), "cache_requests": True}
    models = [tiny_mt5(), tiny_mt5(untied=False), tiny_mt5(appended=True)]
    plain = [ask(path) for path in models]
    assert plain[0] != plain[1] != plain[2]
    for _ in range(2):  # the second time everything comes from the caches
        assert [ask(path, **caches) for path in models] == plain


def test_a_model_without_sentinels_is_one_sentence_and_status_2(tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    from transformers import MT5Config, MT5ForConditionalGeneration

    model = tmp_path / "no_sentinels"
    tokenizer = load_tokenizer(str(tiny_mt5()))
    shape = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 1990}
    MT5ForConditionalGeneration(MT5Config(**shape, decoder_start_token_id=0)).save_pretrained(model)
    tokenizer.save_pretrained(model)
    arguments = ["--tasks", "wvs_de", "--model", "hf", "--model_args", f"pretrained={model}", "--device", "cpu"]
    done = typed("lm_eval", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "but the embedding has 1990 rows" in done.stderr and "Traceback" not in done.stderr


def test_nan_logits_are_named(tiny_mt5: TinyMT5) -> None:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(tiny_mt5()), device="cpu")
    with torch.no_grad():
        lm.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(
        ValueshiftError, match=r"gives NaN for 2 of 2 questions \(Q1, Q2\), .* load it in float32 or bfloat16"
    ):
        simple_evaluate(model=lm, tasks=["wvs_de"], limit=2)


def test_a_users_own_yaml_can_use_the_metric(tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    rows = [{"context": "Der Himmel ist <extra_id_0>.", "options": ["<extra_id_0> wichtig", "<extra_id_0> unwichtig"]}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "own.yaml").write_text(
        f"""
task: own_two_options
dataset_path: json
dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.json}}}}
test_split: test
output_type: multiple_choice
doc_to_text: context
doc_to_choice: options
doc_to_target: 0
target_delimiter: ""
process_results: !function valueshift.harness_ext.metric.two_options
metric_list:
  - {{metric: p_first, aggregation: mean, higher_is_better: null}}
  - {{metric: questions, aggregation: count, higher_is_better: null}}
"""
    )
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        model="hf",
        model_args=f"pretrained={tiny_mt5()},device=cpu",
        tasks=["own_two_options"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
    )
    first, second = (response[0][0] for response in found["samples"]["own_two_options"][0]["resps"])
    expected = torch.tensor([first, second]).softmax(0)[0].item()
    assert found["results"]["own_two_options"]["p_first,none"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "suffix_begins_word"),
    [
        ("Das ist [MASK] für mich.", True),
        ("[MASK] ist die Familie.", True),
        ("Die Familie ist [MASK].", False),
        ("Ich bin [MASK], sehr sogar.", False),
        ("خانواده در زندگی من [MASK] است.", True),
        ("خانواده در زندگی من [MASK]است.", False),
        ("나는 가족이 [MASK] 생각한다.", True),
    ],
)
def test_whitespace_beside_the_mask_decides_the_pieces(tiny_mt5: TinyMT5, text: str, suffix_begins_word: bool) -> None:
    for appended in (False, True):
        tokenizer = load_tokenizer(str(tiny_mt5(appended=appended)))
        sentinels = resolve_sentinels(tokenizer)
        probe = Probe(
            probe_set="x", question="Q1", category=1, language="de", text=text, first="wichtig", second="unwichtig"
        )
        ids = encoder_decoder_ids(probe, tokenizer, sentinels)
        at = ids.encoder.index(sentinels.ids[0])
        pieces = tokenizer.convert_ids_to_tokens(list(ids.encoder))
        assert pieces[at + 1].startswith("▁") == suffix_begins_word
        assert ids.encoder.count(sentinels.ids[0]) == 1 and ids.encoder[-1] == tokenizer.eos_token_id
        assert tokenizer.convert_ids_to_tokens(ids.first[0]).startswith("▁")
        assert tokenizer.unk_token_id not in ids.encoder


def test_a_mask_glued_to_letters_glues_the_option(tiny_mt5: TinyMT5) -> None:
    tokenizer = load_tokenizer(str(tiny_mt5()))
    sentinels = resolve_sentinels(tokenizer)
    probe = Probe(
        probe_set="x",
        question="Q1",
        category=1,
        language="de",
        text="Sie ist un[MASK].",
        first="wichtig",
        second="fair",
    )
    ids = encoder_decoder_ids(probe, tokenizer, sentinels)
    assert not tokenizer.convert_ids_to_tokens(ids.first[0]).startswith("▁")
    text = strings(probe, "encoder-decoder", sentinels)
    assert tuple(tokenizer(text.context)["input_ids"]) == ids.encoder
    assert tuple(tokenizer(text.first, add_special_tokens=False)["input_ids"]) == (sentinels.ids[0], *ids.first)


def test_every_packaged_string_gives_the_exact_ids_where_sentinels_are_in_the_vocabulary(tiny_mt5: TinyMT5) -> None:
    tokenizer = load_tokenizer(str(tiny_mt5()))
    sentinels = resolve_sentinels(tokenizer)
    for language in probe_set("wvs").languages:
        for probe in probe_set("wvs").probes(language):
            ids, text = encoder_decoder_ids(probe, tokenizer, sentinels), strings(probe, "encoder-decoder", sentinels)
            assert tuple(tokenizer(text.context)["input_ids"]) == ids.encoder, (language, probe.question)
            for string, option in ((text.first, ids.first), (text.second, ids.second)):
                assert tuple(tokenizer(string, add_special_tokens=False)["input_ids"]) == (sentinels.ids[0], *option)


def test_strings_that_cannot_give_the_ids_are_reported(tiny_mt5: TinyMT5, caplog: pytest.LogCaptureFixture) -> None:
    """With appended sentinels a full stop after the mask becomes a word of its own in any string."""
    found = simple_evaluate(
        model="hf", model_args=f"pretrained={tiny_mt5(appended=True)},device=cpu", tasks=["wvs_de"], limit=273
    )
    inexact = [row["doc"]["question"] for row in found["samples"]["wvs_de"] if not row["doc"]["exact"]]
    assert inexact
    assert f"for {len(inexact)} of 273 questions this tokenizer cannot express the exact ids" in caplog.text
