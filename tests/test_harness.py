"""Facts about lm-eval with our tasks: found without a flag, right on untied models, never mixing models, honest about flags."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import typed
from tolerances import LOGPROB
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import TASKS
from valueshift.core.probes import Probe, probe_set
from valueshift.core.sentinels import resolve_sentinels
from valueshift.harness_ext.formats import encoder_decoder_ids, strings
from valueshift.harness_ext.models import load_tokenizer

TinyMT5 = Callable[..., Path]


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a user types it, in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )


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


@cache
def our_tasks() -> Any:
    """Indexing the harness's thousands of files takes seconds; ours alone are enough where nothing else is asked."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS), include_defaults=False)


def simple_evaluate(**arguments: Any) -> dict[str, Any]:
    import lm_eval

    return dict(lm_eval.simple_evaluate(**{"bootstrap_iters": 0, "task_manager": our_tasks(), **arguments}))


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


def test_without_the_mend_the_head_is_lost(tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    """The harness ties the head of an untied mT5 under transformers 5; the hook is what keeps it."""
    code = (
        "import sys, torch, transformers\n"
        "from lm_eval.models.huggingface import HFLM\n"
        "lm = HFLM(pretrained=sys.argv[1], device='cpu')\n"
        "print(torch.equal(lm.model.lm_head.weight, lm.model.shared.weight), transformers.__version__.split('.')[0])\n"
    )

    def tied(**environment: str) -> list[str]:
        command = [sys.executable, "-c", code, str(tiny_mt5())]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
        return done.stdout.split()[-2:]

    without, major = tied(VALUESHIFT_HOOK="off")
    assert tied() == ["False", major]
    assert without == str(major == "5")


def test_a_tied_model_stays_tied_and_is_not_touched(tiny_mt5: TinyMT5, caplog: pytest.LogCaptureFixture) -> None:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(tiny_mt5(untied=False)), device="cpu")
    assert lm.model.lm_head.weight.data_ptr() == lm.model.shared.weight.data_ptr()
    assert "not tied" not in caplog.text
    HFLM(pretrained=str(tiny_mt5()), device="cpu")
    assert caplog.text.count("is not tied to its embedding") == int(_transformers_5())


def _transformers_5() -> bool:
    import transformers

    return str(transformers.__version__).startswith("5")


def test_an_untied_model_object_keeps_its_head(tiny_mt5: TinyMT5) -> None:
    from lm_eval.models.huggingface import HFLM
    from transformers import MT5ForConditionalGeneration

    model = MT5ForConditionalGeneration.from_pretrained(tiny_mt5())
    before = model.lm_head.weight.clone()
    lm = HFLM(pretrained=model, tokenizer=load_tokenizer(str(tiny_mt5())))
    assert torch.equal(lm.model.lm_head.weight, before)
    found = simple_evaluate(model=lm, tasks=["wvs_de"], limit=3)
    assert found["results"]["wvs_de"]["questions,none"] == 3


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


def test_the_command_line_finds_the_tasks_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tracking").mkdir()
    done = run("lm_eval", "validate", "--tasks", "wvs,wvs_de,wvs_arora,hofstede_arora", cwd=tmp_path)
    assert "All tasks found and valid" in done.stdout, done.stderr
    off = run("lm_eval", "validate", "--tasks", "wvs", cwd=tmp_path, VALUESHIFT_HOOK="off")
    assert off.returncode == 1 and "Tasks not found: wvs" in off.stdout
    shown = subprocess.run(
        [sys.executable, "-c", "from valueshift.cli import main; main()", "tasks", "path"],
        capture_output=True,
        text=True,
    )
    by_path = run("lm_eval", "validate", "--tasks", "wvs_de", "--include_path", shown.stdout.strip(), cwd=tmp_path)
    assert "All tasks found and valid" in by_path.stdout


def test_a_users_include_path_wins_over_ours(tmp_path: Path) -> None:
    from lm_eval.tasks import TaskManager

    (tmp_path / "mine.yaml").write_text("task: wvs_de\ndataset_path: json\n")
    manager = TaskManager(include_path=str(tmp_path))
    assert manager.task_index["wvs_de"].yaml_path == (tmp_path / "mine.yaml").resolve()
    assert manager.task_index["wvs_fa"].yaml_path.is_relative_to(TASKS)
    assert "wvs_de" not in TaskManager(include_path=None, include_defaults=False).all_tasks


def test_a_harness_that_discovers_plugins_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    from types import SimpleNamespace

    from valueshift.harness_ext import patches

    manager = SimpleNamespace(TaskManager=type("TaskManager", (), {}), discover_plugin_task_paths=lambda: [])
    before = manager.TaskManager.__init__
    with caplog.at_level("INFO", logger="valueshift.hook"):
        patches.discovery(manager)
    assert manager.TaskManager.__init__ is before
    assert "discovery patch not applied: this lm-eval discovers plugins itself" in caplog.text


def test_the_hook_can_be_switched_off_altogether(tmp_path: Path) -> None:
    code = (
        "import lm_eval.tasks.manager as m, lm_eval.evaluator as e, lm_eval.models.huggingface as h, lm_eval.api.model as a\n"
        "import lm_eval._cli.run as r\n"
        "print([hasattr(f, '__wrapped__') for f in (m.TaskManager.__init__, e.simple_evaluate, e.evaluate,"
        " h.HFLM._create_model, a.hash_args, r.Run._execute)])"
    )

    def wrapped(**environment: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        ).stdout.strip()

    off = wrapped(VALUESHIFT_HOOK="off")
    on = wrapped()
    # `simple_evaluate` and `evaluate` are wrapped by the harness itself.
    assert off == "[False, True, True, False, False, False]"
    assert on == "[True, True, True, True, True, True]"


@pytest.mark.parametrize("flag", ["apply_chat_template", "system_instruction"])
def test_flags_that_would_change_the_question_are_refused(tiny_mt5: TinyMT5, flag: str) -> None:
    value: Any = True if flag == "apply_chat_template" else "You are a pirate."
    with pytest.raises(ValueshiftError, match=f"--{flag} cannot be used with wvs_de: a cloze statement"):
        simple_evaluate(model="hf", model_args=f"pretrained={tiny_mt5()},device=cpu", tasks=["wvs_de"], **{flag: value})


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


def test_other_tasks_keep_their_cache_keys() -> None:
    import lm_eval.api.model as model
    from valueshift.harness_ext.task import KeyedText

    keyed, other = KeyedText("context", "abc"), KeyedText("context", "def")
    unpatched = model.hash_args.__wrapped__
    assert model.hash_args("loglikelihood", ("context", " x")) == unpatched("loglikelihood", ("context", " x"))
    keys = {model.hash_args("loglikelihood", (context, " x")) for context in ("context", keyed, other)}
    assert len(keys) == 3


def test_without_the_hook_the_family_comes_from_the_metadata(tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    command = ["lm_eval", "--tasks", "wvs_de", "--model", "hf", "--model_args", f"pretrained={tiny_mt5(untied=False)}"]
    command += ["--device", "cpu", "--limit", "5", "--include_path", str(TASKS)]
    done = run(*command, cwd=tmp_path, VALUESHIFT_HOOK="off")
    assert "wvs_de" in done.stdout and done.returncode == 0, done.stderr
    on = simple_evaluate(
        model="hf", model_args=f"pretrained={tiny_mt5(untied=False)},device=cpu", tasks=["wvs_de"], limit=5
    )
    (row,) = [line.split("|") for line in done.stdout.splitlines() if "p_first" in line]
    assert float(row[7]) == pytest.approx(on["results"]["wvs_de"]["p_first,none"], abs=1e-3)  # four digits are printed


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
    with pytest.raises(ValueshiftError, match="gives NaN for question Q1; load it in float32 or bfloat16"):
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


def test_the_hook_works_with_any_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable lm-eval comes from a finder of its own; the hook patches what that finder loads."""
    import importlib.util

    from valueshift.plugin import Hook

    class Loader:
        def create_module(self, spec: Any) -> None:
            return None

        def exec_module(self, module: Any) -> None:
            module.answer = 41

    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            return importlib.util.spec_from_loader(name, Loader()) if name == "of_an_editable_install" else None

    def patch(module: Any) -> None:
        module.answer += 1

    monkeypatch.setattr(sys, "meta_path", [Hook({"of_an_editable_install": patch}), *sys.meta_path, Finder()])
    import of_an_editable_install

    assert of_an_editable_install.answer == 42
    del sys.modules["of_an_editable_install"]
