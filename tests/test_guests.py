"""Facts about our tasks beside others: nothing of ours ends another's evaluation; what is wrong is nan with its reason."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from valueshift.core.errors import ValueshiftError
from valueshift.core.own_set import new_probe_set
from valueshift.core.paths import TASKS
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table

TinyModel = Callable[[str], Path]
LIMIT = 8


class Fake(LM):
    """Answers from a table in an instant: NaN for the questions in `nan`, else a number made of the texts."""

    backend: Any = "causal"
    tokenizer: Any = None

    def __init__(self, nan: tuple[str, ...] = (), **attributes: Any) -> None:
        super().__init__()
        self.nan, self.asked = nan, 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        self.asked += len(requests)
        return [
            (
                math.nan
                if request.doc.get("question") in self.nan
                else -(sum(map(ord, "".join(request.args))) % 97) / 9,
                False,
            )
            for request in requests
        ]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError


class Suite:
    """A folder with a task that is not ours, and how to run it beside ours."""

    def __init__(self, folder: Path) -> None:
        rows = [{"context": "Der Himmel ist", "options": [" wichtig", " unwichtig"]}] * 2
        (folder / "rows.json").write_text(json.dumps(rows))
        (folder / "theirs.yaml").write_text(
            "task: theirs\ndataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{test: '{folder}/rows.json'}}}}\n"
            "test_split: test\noutput_type: multiple_choice\ndoc_to_text: context\ndoc_to_choice: options\ndoc_to_target: 0\n"
        )
        self.folder = folder

    def run(self, lm: Any, *tasks: str, **more: Any) -> dict[str, Any]:
        import lm_eval
        from valueshift.core.paths import task_folders

        paths = [*map(str, task_folders()), str(self.folder)]
        manager = TaskManager(include_path=paths, include_defaults=False, metadata=more.pop("metadata", None))
        more = {"bootstrap_iters": 0, "limit": LIMIT, **more}
        return dict(lm_eval.simple_evaluate(model=lm, tasks=list(tasks), task_manager=manager, **more))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return Suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(autouse=True)
def _nothing_imported(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No release is on this machine; and the harness does not ask pip about it, which takes longer than all else."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)


def is_whole(found: dict[str, Any]) -> bool:
    """Whether the other task has its result."""
    return 0 <= found["results"]["theirs"]["acc,none"] <= 1 and len(found["samples"]["theirs"]) == 2


def number(found: dict[str, Any], metric: str = "p_first", task: str = "wvs_de") -> float:
    return float(found["results"][task][f"{metric},none"])


# Chat templates and system instructions

TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
FLAGS: list[dict[str, Any]] = [
    {"apply_chat_template": True},
    {"system_instruction": "You are a pirate."},
    {"apply_chat_template": True, "system_instruction": "You are a pirate.", "fewshot_as_multiturn": True},
]


class Talkative(Fake):
    """Has a chat template."""

    tokenizer_name = pretrained = "some/talkative"

    def apply_chat_template(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return "".join(f"<{message['role']}>{message['content']}" for message in messages)


def unreached(suite: Suite, lm: Any, flags: dict[str, Any], said: Callable[[], str]) -> None:
    """Ask with and without flags, and look whether they reach another task and none of ours."""
    tasks = ("theirs", "wvs_de", "wvs_fa")
    plain, flagged = (suite.run(lm, *tasks, limit=4, **more) for more in ({}, flags))
    for task in tasks[1:]:
        for one, other in zip(plain["samples"][task], flagged["samples"][task], strict=True):
            assert other["resps"] == one["resps"]
            assert other["arguments"] == one["arguments"]
            assert other["doc"] == {**one["doc"], "template": "ignored"}
    assert plain["samples"]["theirs"][0]["arguments"] != flagged["samples"]["theirs"][0]["arguments"]
    assert said().count("cloze statements are scored as plain text") == 1


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: "+".join(flags))
def test_chat_flags_of_a_suite_do_not_reach_a_statement(
    suite: Suite, flags: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    unreached(suite, Talkative(), flags, lambda: caplog.text)


@pytest.mark.parametrize(("model", "kind"), [("hf", "gpt2"), ("hf-encdec", "untied"), ("hf-mlm", "bert")])
def test_nor_do_they_through_any_family(
    suite: Suite, tiny_model: TinyModel, model: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    from lm_eval.api.registry import get_model

    lm = get_model(model)(pretrained=str(tiny_model(kind)), device="cpu")
    lm.tokenizer.chat_template = TEMPLATE
    unreached(suite, lm, FLAGS[-1], lambda: caplog.text)


def test_a_record_says_that_the_template_was_ignored(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(monkeypatch, tmp_path)
    suite.run(Fake(), "wvs_de", system_instruction="Speak.")
    (record,) = find_records(tmp_path / "runs", "probe")
    assert read_record(record).settings["template"] == "ignored"


# A question without a number


def test_a_question_that_comes_out_nan_is_unanswered_and_no_more(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracked(monkeypatch, tmp_path)
    found = suite.run(Fake(nan=("Q2", "Q5")), "theirs", "wvs_de", "wvs_fa")
    assert is_whole(found)
    samples = found["samples"]["wvs_de"]
    values = [row["p_first"] for row in samples if row["doc"]["question"] not in ("Q2", "Q5")]
    assert sum(math.isnan(row["p_first"]) for row in samples) == 2
    assert number(found) == pytest.approx(sum(values) / (LIMIT - 2), rel=1e-12)
    assert number(found, "questions") == LIMIT - 2
    assert caplog.text.count(f"wvs_de: the model gives NaN for 2 of {LIMIT} questions (Q2, Q5)") == 1
    (record,) = find_records(tmp_path / "runs", "probe")
    scores = read_table(record, "scores").query("language == 'de'").set_index("question")
    assert len(scores) == LIMIT
    assert scores.loc[["Q2", "Q5"], ["p_first", "answer"]].isna().all(axis=None)
    content = read_record(record)
    assert content.metrics["questions/de"] == LIMIT - 2
    assert content.metrics["p_first/de"] == pytest.approx(number(found), rel=1e-12)
    assert "The model gives NaN for 2 questions in de, which count as unanswered: Q2, Q5." in content.notes


def test_a_users_own_yaml_with_the_metric_survives_nan(
    suite: Suite, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from valueshift.harness_ext import metric

    found = [metric.two_options({}, [(first, False), (-2.0, False)]) for first in (-1.0, math.nan)]
    assert math.isnan(found[1]["p_first"])
    assert metric.count([row["questions"] for row in found]) == 1
    assert "the model gives NaN for 1 of 2 questions" in caplog.text
    assert metric.answered_mean([row["p_first"] for row in found]) == found[0]["p_first"]
    assert math.isnan(metric.answered_mean([math.nan]))


# Whatever else is wrong with ours


class Chat(Fake):
    """An API of chat completions: a name for a model, and no log-probabilities."""

    model = "some/chat"

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        if requests and "question" not in requests[0].doc:
            return super().loglikelihood(requests)
        raise NotImplementedError("Loglikelihood is not supported for chat completions. Consider others.")


def broken(*_: Any, **__: Any) -> Any:
    raise KeyError("a fault of ours")


class Broken:
    """A tokenizer that fails in a way that nobody has foreseen."""

    __call__ = encode = broken


def masked_lm(tiny_model: TinyModel) -> LM:
    from transformers import AutoConfig

    return Fake(backend=None, config=AutoConfig.from_pretrained(tiny_model("bert")))


def tokenized(tiny_model: TinyModel, kind: str, **attributes: Any) -> LM:
    from valueshift.harness_ext.models import load_tokenizer

    return Fake(tokenizer=load_tokenizer(str(tiny_model(kind))), **attributes)


TROUBLES: dict[str, tuple[Callable[[TinyModel], LM], str, dict[str, Any], str]] = {
    "family": (lambda _: Fake(backend=None), "wvs_de", {}, "cannot tell the family of Fake"),
    "format": (lambda _: Fake(), "wvs_de", {"format": "seq2seq"}, "unknown format 'seq2seq' in the metadata"),
    "masked": (masked_lm, "wvs_de", {}, "bert is a masked model"),
    "long": (lambda tiny: tokenized(tiny, "gpt2", max_length=4), "wvs_de", {}, "wvs de Q1 has"),
    "sentinels": (lambda tiny: tokenized(tiny, "gpt2", backend="seq2seq"), "wvs_de", {}, "sentinel"),
    "absent": (lambda _: Fake(), "hofstede_arora_de", {}, "probe set hofstede_arora is not on this machine"),
    "chat": (lambda _: Chat(), "wvs_de", {}, "Chat gives no log-probabilities"),
    "nan": (lambda _: Fake(nan=tuple(probe_set("wvs").items)), "wvs_de", {}, f"NaN for {LIMIT} of {LIMIT} questions"),
    "bug": (lambda _: Fake(tokenizer=Broken()), "wvs_de", {}, "KeyError: 'a fault of ours'"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_task_that_cannot_be_asked_is_nan_beside_others_and_an_error_alone(
    suite: Suite, tiny_model: TinyModel, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    make, task, metadata, reason = TROUBLES[trouble]
    found = suite.run(make(tiny_model), task, "theirs", metadata=metadata)
    assert is_whole(found)
    assert math.isnan(number(found, task=task))
    assert number(found, "questions", task) == 0
    assert reason in found["configs"][task]["metadata"]["unanswered"]
    assert caplog.text.count("is nan, as every task for which this holds") == 1
    json.dumps(found["samples"])
    with pytest.raises(ValueshiftError, match=reason):
        suite.run(make(tiny_model), task, metadata=metadata)


def test_one_reason_of_many_tasks_is_said_once(suite: Suite, caplog: pytest.LogCaptureFixture) -> None:
    found = suite.run(Fake(backend=None), "theirs", "wvs")
    assert caplog.text.count("cannot tell the family of Fake") == 1
    assert all(math.isnan(number(found, task=f"wvs_{code}")) for code in probe_set("wvs").languages)


def test_of_our_tasks_alone_one_that_can_be_asked_is_enough(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(monkeypatch, tmp_path)
    found = suite.run(Fake(), "wvs_de", "hofstede_arora_de")
    assert number(found, "questions") == LIMIT
    assert math.isnan(number(found, task="hofstede_arora_de"))
    (record,) = find_records(tmp_path / "runs", "probe")
    assert read_record(record).inputs["probe_set"] == "wvs"


def test_a_language_without_an_answer_is_a_note_of_the_record(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other languages are a whole record, not one that could take the place of a better one."""
    tracked(monkeypatch, tmp_path)

    class Half(Fake):
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            found = super().loglikelihood(requests)
            return [
                (math.nan, False) if one.doc["language"] == "fa" else two
                for one, two in zip(requests, found, strict=True)
            ]

    suite.run(Half(), "wvs_de", "wvs_fa")
    (record,) = find_records(tmp_path / "runs", "probe")
    content = read_record(record)
    assert list(content.inputs["probes"]) == ["de"]
    assert any(note.startswith("No answers in fa: the model gives NaN for 8 of 8") for note in content.notes)


def test_a_damaged_survey_costs_the_alignment_alone(
    suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(*_: Any, **__: Any) -> Any:
        raise ValueshiftError("shares.parquet is damaged; import it again")

    tracked(monkeypatch, tmp_path)
    for module in ("task", "probe_record"):
        monkeypatch.setattr(f"valueshift.harness_ext.{module}.survey_truth", damaged)
    found = suite.run(Fake(), "theirs", "wvs_de", "wvs_fa")
    assert is_whole(found)
    assert number(found, "questions") == LIMIT
    assert not any(name.startswith("rho") for name in found["results"]["wvs_de"])
    assert caplog.text.count("no alignment with a survey: shares.parquet is damaged") == 1
    (record,) = find_records(tmp_path / "runs", "probe")
    assert (
        "There is no alignment with the survey: shares.parquet is damaged; import it again."
        in read_record(record).notes
    )


def test_an_alignment_that_fails_ends_nothing(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valueshift.harness_ext.task.pair_alignment", broken)
    found = suite.run(Fake(), "theirs", "wvs_de")
    assert is_whole(found)
    assert math.isnan(number(found, "rho_DEU"))


def test_predict_only_has_no_metrics(suite: Suite) -> None:
    found = suite.run(Fake(), "theirs", "wvs_de", predict_only=True)
    assert [name for name in found["results"]["wvs_de"] if "," in name] == []
    assert len(found["samples"]["wvs_de"]) == LIMIT


def test_every_process_has_a_sample_of_a_task_that_cannot_be_asked(suite: Suite) -> None:
    """The harness looks at the first one, in each of its processes."""
    from valueshift.harness_ext.task import ClozeTask

    task = ClozeTask({"task": "x", "dataset_kwargs": {"probe_set": "hofstede_arora", "language": "de"}, **CLOZE})
    for rank in range(3):
        task.build_all_requests(limit=1, samples=[40], rank=rank, world_size=3)
        assert task.instances == []
        task.apply_filters()
        assert len(task.instances) == 2
        assert [place for place, _ in task.doc_iterator(limit=1, samples=[40], rank=rank, world_size=3)] == [0]


CLOZE = {
    "test_split": "test",
    "output_type": "multiple_choice",
    "num_fewshot": 0,
    "target_delimiter": "",
    "doc_to_choice": "x",
}


# Which tasks a pattern means


@pytest.mark.parametrize("pattern", ["wvs_*", "wvs*", "*vs_*"])
def test_a_pattern_means_what_is_on_this_machine(pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    matched = [name for name in manager.match_tasks([pattern]) if name.startswith("wvs")]
    assert matched == sorted(f"wvs_{code}" for code in probe_set("wvs").languages)
    assert f"{pattern}: left out wvs_arora_" in caplog.text
    assert "valueshift probes import" in caplog.text
    assert manager.match_tasks(["wvs_arora_de"]) == ["wvs_arora_de"]
    assert manager.match_tasks(["wvs"]) == ["wvs"]


# Models of the harness that are no checkpoint


def test_the_dummy_model_is_asked_without_a_hub(suite: Suite) -> None:
    found = suite.run("dummy", "theirs", "wvs_de")
    assert is_whole(found)
    assert number(found, "questions") == LIMIT


def api(name: str, **attributes: Any) -> Any:
    """A client of the harness without the packages that its construction asks for."""
    from lm_eval.models import openai_completions

    kind = getattr(openai_completions, name)
    lm = kind.__new__(kind)
    LM.__init__(lm)
    for attribute, value in {"model": "some/model", "base_url": "http://127.0.0.1:9", **attributes}.items():
        setattr(lm, attribute, value)
    return lm


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("LocalChatCompletion", "Loglikelihood is not supported for chat completions"),
        ("OpenAIChatCompletion", "Loglikelihood .* is not supported for chat completions"),
        ("OpenAICompletionsAPI", "Prompt loglikelihoods are only supported"),
    ],
)
def test_an_api_without_log_probabilities_is_refused_before_anything_is_asked(
    suite: Suite, name: str, why: str
) -> None:
    with pytest.raises(ValueshiftError, match=rf"{name} gives no log-probabilities.*{why}.*--model local-completions"):
        suite.run(api(name), "wvs_de", apply_chat_template=True)


def test_gguf_is_asked_as_a_causal_model(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client counts the continuation's tokens by where they begin, so the space before the mask belongs to the option."""
    import re
    from types import SimpleNamespace

    def post(url: str, json: dict[str, Any]) -> Any:
        words = [*re.finditer(r" ?[^ ]+| +", json["prompt"])]
        logprobs = {
            "text_offset": [word.start() for word in words] + [len(json["prompt"])],
            "tokens": [word[0] for word in words] + ["x"],
            "token_logprobs": [None, *(-float(len(word[0])) for word in words[1:]), -1.0],
            "top_logprobs": [{"x": 0.0}] * (len(words) + 1),
        }
        return SimpleNamespace(raise_for_status=lambda: None, json=lambda: {"choices": [{"logprobs": logprobs}]})

    monkeypatch.setattr("requests.post", post)
    found = suite.run("gguf", "wvs_de", model_args="base_url=http://127.0.0.1:9")
    for row in found["samples"]["wvs_de"]:
        doc = row["doc"]
        before, after = doc["text"].split("[MASK]")
        spaces = len(before) - len(before.rstrip())
        assert doc["format"] == "causal"
        for response, option in zip(row["resps"], (doc["first"], doc["second"]), strict=True):
            assert response[0][0] == -(spaces + len(option) + len(after))


# Before weights are loaded


@pytest.mark.parametrize(
    ("task", "metadata", "reason"),
    [
        ("hofstede_arora_de", {}, "probe set hofstede_arora is not on this machine"),
        ("wvs_de", {"format": "seq2seq"}, "unknown format 'seq2seq'"),
        ("wvs_de", {"country": "XXX", "format": "masked"}, "XXX is not in the survey"),
        ("wvs_de", {"country": 7, "format": "masked"}, "country in the metadata is 7"),
        ("wvs_de", {}, "bert is a masked model; --model hf would score it as a left-to-right one: use --model hf-mlm"),
    ],
)
def test_what_the_arguments_tell_is_refused_before_weights_are_loaded(
    suite: Suite,
    tiny_model: TinyModel,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    metadata: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.setattr("lm_eval.models.huggingface.HFLM.__init__", broken)
    with pytest.raises(ValueshiftError, match=reason):
        suite.run("hf", task, model_args=f"pretrained={tiny_model('bert')}", metadata=metadata)


# Records


def tracked(monkeypatch: pytest.MonkeyPatch, folder: Path, uri: str = "http://127.0.0.1:9", **more: str) -> None:
    for name, value in {"MLFLOW_TRACKING_URI": uri, "VALUESHIFT_RUNS": str(folder / "runs"), **more}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def own_set(tmp_path: Path, cache: Path) -> str:
    """A second probe set, `mine`, of the first twelve items."""
    folder = tmp_path / "mine"
    (folder / "probes").mkdir(parents=True)
    for source, name in (
        (TASKS / "wvs" / "items.csv", "items.csv"),
        (TASKS / "wvs" / "probes" / "de.csv", "probes/de.csv"),
    ):
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:13]), encoding="utf-8")
    new_probe_set("mine", folder / "items.csv", folder / "probes")
    return "mine"


def sets_recorded(root: Path) -> list[str]:
    return sorted(str(read_record(record).inputs["probe_set"]) for record in find_records(root / "runs", "probe"))


def test_a_dead_server_costs_no_record(
    suite: Suite, tmp_path: Path, own_set: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracked(monkeypatch, tmp_path)
    found = suite.run(Fake(), "wvs_de", "mine_de", "theirs")
    assert is_whole(found)
    assert sets_recorded(tmp_path) == ["mine", "wvs"]
    said = capfd.readouterr().err
    assert said.count("is written; `valueshift publish` sends it to MLflow") == 2


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


def refusal(*_: Any, **__: Any) -> Any:
    from mlflow.exceptions import MlflowException

    raise MlflowException("refused")


def ctrl_c(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        ("tracking.publish.publish_all", refusal),
        ("tracking.publish.publish_all", ctrl_c),
        ("harness_ext.recording.compare", full_disk),
        ("harness_ext.recording.compare", ctrl_c),
        ("harness_ext.recording.kept_metrics", broken),
        ("harness_ext.recording.kept_metrics", ctrl_c),
    ],
)
def test_whatever_fails_after_the_answers_loses_no_record(
    suite: Suite, tmp_path: Path, own_set: str, monkeypatch: pytest.MonkeyPatch, where: str, fault: Callable[..., Any]
) -> None:
    tracked(monkeypatch, tmp_path)
    suite.run(Fake(), "wvs_de", "mine_de")
    base = next(
        record for record in find_records(tmp_path / "runs") if read_record(record).inputs["probe_set"] == "wvs"
    )
    tracked(monkeypatch, tmp_path / "second", VALUESHIFT_BASE=str(base))
    monkeypatch.setattr(f"valueshift.{where}", fault)
    assert is_whole(suite.run(Fake(), "theirs", "wvs_de", "mine_de"))
    assert sets_recorded(tmp_path / "second") == ["mine", "wvs"]


@pytest.mark.parametrize("fault", [full_disk, broken, ctrl_c])
def test_a_record_that_cannot_be_written_costs_no_other(
    suite: Suite, tmp_path: Path, own_set: str, monkeypatch: pytest.MonkeyPatch, fault: Callable[..., Any]
) -> None:
    from valueshift.harness_ext import recording

    write, calls = recording.write_probe_record, []

    def failing(*arguments: Any, **options: Any) -> Path:
        calls.append(1)
        return fault() if len(calls) == 1 else write(*arguments, **options)

    tracked(monkeypatch, tmp_path)
    monkeypatch.setattr(recording, "write_probe_record", failing)
    assert is_whole(suite.run(Fake(), "theirs", "wvs_de", "mine_de"))
    assert sets_recorded(tmp_path) == (["mine", "wvs"] if fault is ctrl_c else ["mine"])


@pytest.mark.parametrize(
    ("base", "reason"),
    [("typo", "neither a run record nor"), ("fa", "was asked wvs in fa, not in de"), ("mine", "0 matching|0 of")],
)
def test_a_base_that_cannot_be_compared_with_is_said_before_anything_is_asked(
    suite: Suite,
    tmp_path: Path,
    own_set: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    base: str,
    reason: str,
) -> None:
    places = {"typo": tmp_path / "nowhere"}
    for name, task in {"fa": "wvs_fa", "mine": "mine_de"}.items():
        tracked(monkeypatch, tmp_path / name)
        suite.run(Fake(), task)
        (places[name],) = find_records(tmp_path / name / "runs")
    tracked(monkeypatch, tmp_path, VALUESHIFT_BASE=str(places[base]))
    alone = Fake()
    with pytest.raises(ValueshiftError, match=reason):
        suite.run(alone, "wvs_de")
    assert alone.asked == 0
    assert sets_recorded(tmp_path) == []
    caplog.clear()
    assert is_whole(suite.run(Fake(), "theirs", "wvs_de"))
    assert sets_recorded(tmp_path) == ["wvs"]
    assert find_records(tmp_path / "runs", "comparison") == []
    assert [record.levelname for record in caplog.records if "compar" in record.message] == ["WARNING", "ERROR"]


def test_a_base_of_one_set_is_no_fault_of_the_other(
    suite: Suite, tmp_path: Path, own_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracked(monkeypatch, tmp_path / "first")
    suite.run(Fake(), "wvs_de", limit=12)
    (base,) = find_records(tmp_path / "first" / "runs", "probe")
    tracked(monkeypatch, tmp_path, VALUESHIFT_BASE=str(base))
    suite.run(Fake(), "mine_de", "wvs_de", limit=12)
    assert sets_recorded(tmp_path) == ["mine", "wvs"]
    (comparison,) = find_records(tmp_path / "runs", "comparison")
    assert read_record(comparison).metrics["kept"] == 1
