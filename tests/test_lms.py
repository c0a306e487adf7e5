"""Facts about our harness models and about asking every family through lm-eval: formats, engines, caches, records."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from commands import typed
from tolerances import LOGPROB, PROBABILITY
from valueshift.core.errors import ValueshiftError
from valueshift.core.languages import LANGUAGES
from valueshift.core.paths import TASKS
from valueshift.core.probes import MASK, probe_set
from valueshift.harness_ext import families
from valueshift.harness_ext.models import load_model, load_tokenizer
from valueshift.harness_ext.neutral import neutral_probe, neutral_stem, neutral_stems
from valueshift.harness_ext.probing import Asking, ask, scorer_for
from valueshift.harness_ext.results import runs_from_samples
from valueshift.harness_ext.scoring import score_probes

TinyModel = Callable[[str], Path]
MODEL_OF = {"untied": "hf-encdec", "gpt2": "hf", "llama": "hf", "bert": "hf-mlm", "xlm-roberta": "hf-mlm"}
LIMIT = 24


@cache
def our_tasks(also: str | None = None) -> Any:
    """The harness's index of our tasks alone, read once: reading its own thirteen thousand takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=[str(TASKS), *([also] if also else [])], include_defaults=False)


def evaluate(model: Any, path: Path | None = None, tasks: tuple[str, ...] = ("wvs_de",), **more: Any) -> dict[str, Any]:
    import lm_eval

    if path is not None:
        more["model_args"] = f"pretrained={path},device=cpu" + more.pop("arguments", "")
    more.setdefault("task_manager", our_tasks())
    return dict(lm_eval.simple_evaluate(model=model, tasks=list(tasks), limit=LIMIT, bootstrap_iters=0, **more))


def responses(found: dict[str, Any], task: str = "wvs_de") -> list[tuple[tuple[float, bool], ...]]:
    return [tuple(tuple(response[0]) for response in row["resps"]) for row in found["samples"][task]]


@pytest.mark.parametrize("kind", MODEL_OF)
def test_lm_eval_and_valueshift_probe_agree(tiny_model: TinyModel, tmp_path: Path, kind: str) -> None:
    """The same inputs, so the same digest, the same raw columns within rounding, whoever computed them."""
    path = tiny_model(kind)
    tasks = ("wvs_de", "wvs_ko")
    found = evaluate(MODEL_OF[kind], path, tasks, batch_size=4)
    samples = [row for task in tasks for row in found["samples"][task]]
    (run,) = runs_from_samples(found["config"], samples, "this run")
    mine = ask(str(path), probe_set("wvs"), ("de", "ko"), tmp_path, Asking(limit=LIMIT, device="cpu", batch_size=5))
    assert run.inputs == mine.inputs
    keys = ["language", "question"]
    both = run.scores.merge(mine.scores, on=keys, suffixes=("", "_mine"))
    assert len(both) == 2 * LIMIT
    for column in ("logprob_first", "logprob_second", "p_first"):
        assert both[column].tolist() == pytest.approx(both[f"{column}_mine"].tolist(), **LOGPROB)
    for column in ("tokens_first", "tokens_second", "bytes_first", "bytes_second"):
        assert both[column].equals(both[f"{column}_mine"].rename(column))


@pytest.mark.parametrize("kind", ["untied", "tied"])
def test_hf_encdec_is_the_stock_path_without_the_sentinel(tiny_model: TinyModel, kind: str) -> None:
    """The stock path adds the sentinel's log-probability to both options; answers and p_first are the same."""
    path = tiny_model(kind)
    stock, ours = evaluate("hf", path, batch_size=8), evaluate("hf-encdec", path, batch_size=8)
    model, tokenizer = load_model(str(path)), load_tokenizer(str(path))
    scorer = scorer_for("encoder-decoder", model, tokenizer)
    probes = probe_set("wvs").probes("de")[:LIMIT]
    for probe, (first, second), mine in zip(probes, responses(stock), responses(ours), strict=True):
        encoder = torch.tensor([scorer.ids(probe).encoder])
        with torch.inference_mode():
            logits = model(input_ids=encoder, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
        sentinel = logits.log_softmax(-1)[scorer.sentinels.ids[0]].item()
        assert [first[0] - sentinel, second[0] - sentinel] == pytest.approx([mine[0][0], mine[1][0]], **LOGPROB)
    assert stock["results"]["wvs_de"]["p_first,none"] == pytest.approx(
        ours["results"]["wvs_de"]["p_first,none"], **PROBABILITY
    )


def test_hf_encdec_leaves_other_tasks_to_the_stock_path(tiny_model: TinyModel, tmp_path: Path) -> None:
    rows = [{"context": "Der Himmel ist", "options": [" wichtig", " unwichtig"]}] * 2
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path}/rows.json}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: context\ndoc_to_choice: options\n"
        'doc_to_target: 0\ntarget_delimiter: ""\n'
    )
    manager = our_tasks(str(tmp_path))
    path, tasks = tiny_model("untied"), ("own", "wvs_de")
    mixed = evaluate("hf-encdec", path, tasks, task_manager=manager)
    stock = evaluate("hf", path, ("own",), task_manager=manager)
    for mine, theirs in zip(responses(mixed, "own"), responses(stock, "own"), strict=True):
        assert [value for value, _ in mine] == pytest.approx([value for value, _ in theirs], **LOGPROB)
    for mine, alone in zip(responses(mixed), responses(evaluate("hf-encdec", path)), strict=True):
        assert [value for value, _ in mine] == pytest.approx([value for value, _ in alone], **LOGPROB)


def test_hf_encdec_is_for_encoder_decoder_models_in_a_fit_format(tiny_model: TinyModel) -> None:
    with pytest.raises(ValueshiftError, match="hf-encdec asks encoder-decoder models, not gpt2; use --model hf"):
        evaluate("hf-encdec", tiny_model("gpt2"))
    with pytest.raises(ValueshiftError, match="overflow in float16 and give NaN; choose dtype bfloat16"):
        evaluate("hf-encdec", tiny_model("untied"), arguments=",dtype=float16")
    found = evaluate("hf-encdec", tiny_model("untied"), arguments=",dtype=bfloat16", batch_size="auto")
    assert found["results"]["wvs_de"]["questions,none"] == LIMIT


def test_a_masked_model_is_sent_to_hf_mlm(tiny_model: TinyModel) -> None:
    with pytest.raises(ValueshiftError, match=r"bert is a masked model; .* use --model hf-mlm"):
        evaluate("hf", tiny_model("bert"))


def test_hf_mlm_says_what_it_cannot_do(tiny_model: TinyModel) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model

    lm = get_model("hf-mlm")(pretrained=str(tiny_model("bert")), device="cpu")
    request = Instance("generate_until", {}, ("Das ist", {}), 0, ("gsm", 0, 1))
    with pytest.raises(ValueshiftError, match="gsm asks for generate_until, which a masked model cannot do"):
        lm.generate_until([request])
    with pytest.raises(ValueshiftError, match="which a masked model cannot do"):
        lm.loglikelihood_rolling([request])


def test_hf_mlm_scores_any_continuation(tiny_model: TinyModel) -> None:
    """Without a mask token in the context the continuation stands at its end."""
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_model

    lm = get_model("hf-mlm")(pretrained=str(tiny_model("bert")), device="cpu", batch_size=2)
    contexts = ("Die Familie ist", "Die Familie ist [MASK]")
    found = lm.loglikelihood(
        [Instance("loglikelihood", {}, (context, " wichtig"), 0, ("own", 0, 1)) for context in contexts]
    )
    assert found[0] == pytest.approx(found[1], **LOGPROB)


def test_the_models_are_known_on_the_command_line(tiny_model: TinyModel, tmp_path: Path) -> None:
    model = ["--model", "hf-mlm", "--model_args", f"pretrained={tiny_model('xlm-roberta')}"]
    done = typed("lm_eval", "--tasks", "wvs_de", "--limit", 8, "--device", "cpu", *model, cwd=tmp_path)
    assert done.returncode == 0 and "p_first" in done.stdout, done.stderr


def test_without_the_hook_the_models_are_not_known() -> None:
    code = """
from lm_eval.api.registry import get_model
for name in ("hf-mlm", "hf-encdec"):
    try:
        print(get_model(name).__name__)
    except Exception as error:
        print("no model for this name found" in str(error))
"""

    def found(**environment: str) -> list[str]:
        environment = {**os.environ, **environment}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert found() == ["MaskedLM", "EncoderDecoderLM"]
    assert found(VALUESHIFT_HOOK="off") == ["True", "True"]


def test_a_harness_that_discovers_models_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    from types import ModuleType

    from lm_eval.api.registry import model_registry
    from valueshift.harness_ext import patches

    discovering = ModuleType("discovering")
    discovering.__file__ = __file__  # its source holds the word entry_points
    before = dict(model_registry.items())
    with caplog.at_level("INFO", logger="valueshift.hook"):
        patches.models(discovering)
    assert "models patch not applied: this lm-eval discovers plugins itself" in caplog.text
    assert dict(model_registry.items()) == before


def test_response_caches_mix_neither_engines_nor_families(
    tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hf and hf-encdec differ by a constant: half a probe from each would be wrong without a sign of it."""
    monkeypatch.setattr("lm_eval.caching.cache.PATH", str(tmp_path / "requests"))
    runs = [("hf", "untied"), ("hf-encdec", "untied"), ("hf", "gpt2"), ("hf", "llama"), ("hf-mlm", "bert")]
    plain = [responses(evaluate(model, tiny_model(kind))) for model, kind in runs]
    caches = {"use_cache": str(tmp_path / "responses"), "cache_requests": True}
    for _ in range(2):
        for (model, kind), expected in zip(runs, plain, strict=True):
            cached = responses(evaluate(model, tiny_model(kind), **caches))
            for mine, one in zip(cached, expected, strict=True):
                assert [value for value, _ in mine] == pytest.approx([value for value, _ in one], **LOGPROB)


def test_a_stopped_run_goes_on_from_the_response_cache(tiny_model: TinyModel, tmp_path: Path) -> None:
    """What was answered before a stop is in the cache, also where the other option of a probe is not."""
    from lm_eval.api.model import CachingLM
    from lm_eval.api.registry import get_model

    lm = get_model("hf-encdec")(pretrained=str(tiny_model("untied")), device="cpu")
    plain = responses(evaluate(lm))
    evaluate(lm, use_cache=str(tmp_path / "cache"))
    stored = CachingLM(lm, str(tmp_path / "cache_rank0.db")).dbdict
    assert len(stored) == 2 * LIMIT
    for key in list(stored)[::3]:
        del stored[key]
    stored.commit()
    stored.close()
    again = responses(evaluate(lm, use_cache=str(tmp_path / "cache")))
    for mine, one in zip(again, plain, strict=True):
        assert [value for value, _ in mine] == pytest.approx([value for value, _ in one], **LOGPROB)


class Engine:
    """What a model of an engine such as vLLM or SGLang looks like to us: no weights, arguments by name."""

    backend = "causal"
    tokenizer = None

    def __init__(self, **arguments: Any) -> None:
        self.model_args = arguments


def current(lm: Any, **metadata: Any) -> families.Asked:
    with families.asking(lm):
        return families.current(metadata)


def test_engines_are_told_apart_by_their_arguments(tiny_model: TinyModel) -> None:
    path = str(tiny_model("gpt2"))
    local = current(Engine(model=path))
    assert (local.format, local.name, local.digest) == ("causal", path, families.pretrained_digest(path))
    assert current(Engine(model_path=path)).digest == local.digest
    keys = {
        current(Engine(model="org/a")).key,
        current(Engine(model="org/b")).key,
        current(Engine(model="org/a", revision="v2")).key,
        current(Engine(model="org/a"), lora_local_path="adapter").key,
        current(Engine(model="org/a"), quantization="awq").key,
        current(Engine(), pretrained="org/c").key,
    }
    assert len(keys) == 6


def test_a_model_that_nothing_names_is_never_taken_for_another() -> None:
    assert current(Engine()).digest != current(Engine()).digest


def test_an_unknown_family_is_asked_for() -> None:
    class Strange:
        tokenizer = None

    with pytest.raises(ValueshiftError, match="cannot tell the family of Strange; pass the format: --metadata format="):
        current(Strange())
    assert current(Strange(), format="masked").format == "masked"
    with pytest.raises(ValueshiftError, match="unknown format 'seq2seq' in the metadata"):
        current(Strange(), format="seq2seq")


def test_a_loaded_model_is_told_apart_by_its_weights(tiny_model: TinyModel) -> None:
    from lm_eval.models.huggingface import HFLM

    path = str(tiny_model("gpt2"))
    lm = HFLM(pretrained=load_model(path, "causal"), tokenizer=load_tokenizer(path))
    before = current(lm, pretrained="org/stale")
    assert before.format == "causal"
    with torch.no_grad():
        lm.model.transformer.wte.weight[0, 0] += 1
    assert current(lm).digest != before.digest
    found = evaluate(lm)
    assert found["results"]["wvs_de"]["questions,none"] == LIMIT


def test_a_context_that_the_harness_would_cut_is_refused(tiny_model: TinyModel) -> None:
    with pytest.raises(ValueshiftError, match=r"wvs de Q1 has \d+ tokens, but the model takes 4 and would see it cut"):
        evaluate("hf", tiny_model("llama"), arguments=",max_length=4")


def test_every_language_has_a_stem_where_any_option_could_stand() -> None:
    assert set(neutral_stems()) == set(LANGUAGES)
    for language in LANGUAGES:
        stem = neutral_stem(language)
        assert stem.count(MASK) == 1 and f" {MASK}" in stem
    with pytest.raises(ValueshiftError, match="language 'xx' has no neutral stem"):
        neutral_stem("xx")


@pytest.mark.parametrize("kind", ["untied", "llama", "xlm-roberta"])
def test_neutral_columns_are_the_options_in_the_stem(tiny_model: TinyModel, tmp_path: Path, kind: str) -> None:
    path = str(tiny_model(kind))
    asked = probe_set("wvs")
    plain = ask(path, asked, ("de", "hi"), tmp_path, Asking(limit=LIMIT, device="cpu"))
    assert plain.scores[["neutral_first", "neutral_second"]].isna().all(axis=None)
    run = ask(path, asked, ("de", "hi"), tmp_path, Asking(limit=LIMIT, device="cpu", neutral=True))
    assert run.inputs["neutral"] == {language: neutral_stem(language) for language in ("de", "hi")}
    same = ["question", "logprob_first", "logprob_second"]
    pd.testing.assert_frame_equal(run.scores[same], plain.scores[same], rtol=1e-5, atol=1e-4)
    assert run.scores["closing_first"].notna().all() == (kind == "untied")

    model = load_model(path, str(run.inputs["format"]))
    scorer = scorer_for(run.inputs["format"], model, load_tokenizer(path))
    probes = [probe for language in ("de", "hi") for probe in asked.probes(language)[:LIMIT]]
    for probe, (_, row) in zip(probes, run.scores.iterrows(), strict=True):
        neutral = neutral_probe(probe, scorer.format)
        assert neutral.text.startswith(neutral_stem(probe.language).partition(MASK)[0])
        assert neutral.suffix == (probe.suffix if kind == "llama" else neutral_stem(probe.language).partition(MASK)[2])
        ((first, second),) = scorer.score([scorer.ids(neutral)])
        assert [row["neutral_first"], row["neutral_second"]] == pytest.approx(
            [first.logprob, second.logprob], **LOGPROB
        )
        if kind != "llama":
            asked_ids, neutral_ids = scorer.ids(probe), scorer.ids(neutral)
            tokens = [
                [getattr(one, "tokens", one) for one in (ids.first, ids.second)] for ids in (asked_ids, neutral_ids)
            ]
            assert tokens[0] == tokens[1]


def test_an_option_that_continues_a_word_does_so_in_the_stem() -> None:
    probe = probe_set("wvs").probes("de")[0].model_copy(update={"text": f"Sie ist un{MASK} für mich."})
    assert neutral_probe(probe, "encoder-decoder").text == f"Die Antwort lautet:{MASK}."
    assert neutral_probe(probe, "causal").text == f"Die Antwort lautet:{MASK} für mich."


def test_closing_is_scored_only_where_asked(tiny_model: TinyModel, tmp_path: Path) -> None:
    path, asked = str(tiny_model("untied")), probe_set("wvs")
    without = ask(path, asked, ("de",), tmp_path, Asking(limit=6, device="cpu", closing=False))
    assert without.scores[["closing_first", "closing_second"]].isna().all(axis=None)
    with_it = ask(path, asked, ("de",), tmp_path, Asking(limit=6, device="cpu"))
    assert with_it.scores[["closing_first", "closing_second"]].notna().all(axis=None)
    assert with_it.inputs == without.inputs


@pytest.mark.parametrize("kind", ["untied", "gpt2", "bert"])
def test_scores_do_not_depend_on_what_they_are_asked_with(tiny_model: TinyModel, tmp_path: Path, kind: str) -> None:
    """Permuted probes give permuted rows."""
    path = str(tiny_model(kind))
    format = families.family(
        load_model(path, {"untied": "encoder-decoder", "gpt2": "causal", "bert": "masked"}[kind]).config
    )
    scorer = scorer_for(format, load_model(path, format), load_tokenizer(path))
    probes = probe_set("wvs").probes("ru")[::11]
    order = torch.randperm(len(probes), generator=torch.Generator().manual_seed(3)).tolist()
    straight = score_probes(scorer, probes, quiet=True)
    permuted = score_probes(scorer, [probes[i] for i in order], 4, quiet=True)
    for place, found in zip(order, permuted, strict=True):
        assert [s.logprob for s in found] == pytest.approx([s.logprob for s in straight[place]], **LOGPROB)


def test_processes_share_the_documents(tiny_model: TinyModel, tmp_path: Path) -> None:
    """Two processes, each with every second document, as accelerate divides them; together the answers of one."""
    script = tmp_path / "ask.py"
    script.write_text(
        "import json, sys, lm_eval, torch.distributed\n"
        "from lm_eval.api.registry import get_model\n"
        "lm = get_model('hf-encdec')(pretrained=sys.argv[1], device='cpu', batch_size=4)\n"
        "from lm_eval.tasks import TaskManager\n"
        "tasks = TaskManager(include_path=sys.argv[3], include_defaults=False)\n"
        "lm._rank, lm._world_size = lm.accelerator.process_index, lm.accelerator.num_processes\n"
        "found = lm_eval.simple_evaluate(model=lm, tasks=['wvs_de'], limit=25, bootstrap_iters=0,"
        " task_manager=tasks)\n"
        "if lm.rank == 0:\n"
        "    rows = sorted((row['doc_id'], [r[0][0] for r in row['resps']]) for row in found['samples']['wvs_de'])\n"
        "    json.dump([lm.world_size, rows], open(sys.argv[2], 'w'))\n"
        "torch.distributed.destroy_process_group()\n"
    )

    def asked(processes: int) -> Any:
        out = tmp_path / f"{processes}.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command += [str(script), str(tiny_model("untied")), str(out), str(TASKS)]
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "ACCELERATE_USE_CPU": "true"}, capture_output=True, text=True
        )
        assert out.is_file(), done.stderr[-3000:]
        return json.loads(out.read_text())

    world, rows = asked(2)
    alone = responses(evaluate("hf-encdec", tiny_model("untied")))
    assert world == 2 and [number for number, _ in rows] == list(range(25))
    for (_, mine), one in zip(rows, alone, strict=False):
        assert mine == pytest.approx([value for value, _ in one], **LOGPROB)
