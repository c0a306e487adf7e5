"""Facts about the hook: what it patches of lm-eval, that it stays patched, and that it can be left out."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from fake_harness import MODULES, PATCHED, WAYS, write_harness
from harness_calls import run, simple_evaluate
from lm_eval.api.model import LM
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import TASKS
from valueshift.harness_ext import families, heads, patches
from valueshift.harness_ext.models import load_tokenizer

TinyMT5 = Callable[..., Path]


def python(
    *arguments: str, path: Path, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A Python whose `PYTHONPATH` is `path`."""
    variables = {**os.environ, "PYTHONPATH": str(path), **environment}
    return subprocess.run([sys.executable, *arguments], env=variables, cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What is wrong with a patched module that was loaded in some way: way -> module -> sentence, empty where nothing is."""
    path = write_harness(tmp_path_factory.mktemp("harness"))
    done = python(str(Path(__file__).with_name("fake_harness.py")), path=path)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("module", PATCHED)
@pytest.mark.parametrize("way", WAYS)
def test_a_module_has_each_patch_once_however_it_is_loaded(
    loads: dict[str, dict[str, str]], way: str, module: str
) -> None:
    assert loads[way][module] == ""


IMPORT_ALL = "import importlib\nfor name in %r: importlib.import_module(name)\nprint('imported')" % [
    name for name in PATCHED if name != "lm_eval.tasks.manager"
]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tasks/manager": None}, "has no lm_eval.tasks.manager: valueshift leaves it as it is"),
        ({"evaluator": MODULES["evaluator"].replace("simple_evaluate", "other")}, "lm_eval.evaluator stays as it is"),
        ({"models/huggingface": "HFLM = None\n"}, "lm_eval.models.huggingface stays as it is"),
        ({"api/registry": ""}, "lm_eval.models stays as it is"),
        ({}, ""),
    ],
)
def test_a_harness_that_a_patch_does_not_fit_is_imported_and_that_is_said_once(
    changed: dict[str, str | None], said: str, tmp_path: Path
) -> None:
    done = python("-c", IMPORT_ALL, path=write_harness(tmp_path, **changed))
    assert done.stdout == "imported\n", done.stderr
    assert len(done.stderr.splitlines()) == bool(said) and said in done.stderr
    assert not said or "install 'lm_eval>=0.4.13,<0.5'" in done.stderr


def test_the_tested_harness_is_the_required_one() -> None:
    from importlib.metadata import requires

    from packaging.requirements import Requirement
    from valueshift.plugin import HARNESS

    required = next(Requirement(text) for text in requires("valueshift") or () if text.startswith("lm_eval"))
    assert Requirement(HARNESS) == required


@pytest.mark.parametrize("of", ["PYTHONPATH", "the working directory"])
def test_another_folder_of_our_name_is_never_run(of: str, tmp_path: Path) -> None:
    """Neither at a start of Python nor when lm-eval is imported; nor a module of the hook's name."""
    harness, other = write_harness(tmp_path / "harness"), tmp_path / "valueshift" / "__init__.py"
    other.parent.mkdir()
    for file in (other, tmp_path / "valueshift_lm_eval.py"):
        file.write_text("raise SystemExit('this was run')")
    path = Path(f"{tmp_path}{os.pathsep}{harness}") if of == "PYTHONPATH" else harness
    done = python("-c", IMPORT_ALL, path=path, cwd=tmp_path)
    assert done.stdout == "imported\n", done.stderr
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"valueshift leaves lm-eval as it is: 'valueshift' is {other} here")


def test_the_head_is_kept_whatever_happened_in_the_import_and_lost_without_the_hook(tiny_mt5: TinyMT5) -> None:
    """The harness ties the head of an untied mT5 under transformers 5; the hook is what keeps it."""
    code = (
        "import importlib, sys, torch, transformers\n"
        "import lm_eval.evaluator\n"
        "sys.modules['accelerate'] = None\n"
        "try: import lm_eval.models.huggingface\n"
        "except ImportError: del sys.modules['accelerate']\n"
        "importlib.util.find_spec('lm_eval.models.huggingface')\n"
        "from lm_eval.models.huggingface import HFLM\n"
        "importlib.reload(lm_eval.evaluator)\n"
        "lm = HFLM(pretrained=sys.argv[1], device='cpu')\n"
        "print(torch.equal(lm.model.lm_head.weight, lm.model.shared.weight), transformers.__version__.split('.')[0])\n"
    )

    def tied(**environment: str) -> list[str]:
        command = [sys.executable, "-c", code, str(tiny_mt5())]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
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
    on = run(*command[:-2], cwd=tmp_path)
    assert [line for line in on.stdout.splitlines() if "p_first" in line] == [
        line for line in done.stdout.splitlines() if "p_first" in line
    ]


class Constant(LM):  # type: ignore[misc]
    """Answers every question in the same way, at once."""

    cloze_format = "causal"
    tokenizer = None

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(-1.0 - request.idx, False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        raise NotImplementedError


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, Any]]]:
    """What is handed over of each evaluation: results, samples. Nothing is written."""
    import lm_eval.evaluator as evaluator

    handed: list[tuple[Any, Any]] = []
    for name in ("evaluate", "simple_evaluate"):
        function = getattr(evaluator, name)
        while function.__code__.co_filename.endswith("patches.py"):
            function = function.__wrapped__
        monkeypatch.setattr(evaluator, name, function)
    monkeypatch.setattr(evaluator, "add_env_info", lambda _: None)  # asks the machine, for a second
    patches.asking(evaluator)
    patches.results(evaluator, lambda *given: handed.append(given), lambda: True)
    yield handed


OTHER = """
task: of_somebody_else
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: context
doc_to_choice: options
doc_to_target: 0
"""


def _somebodys_tasks(folder: Path) -> None:
    (folder / "rows.json").write_text(json.dumps([{"context": "a", "options": [" b", " c"], "probe_set": "mine"}]))
    (folder / "other.yaml").write_text(OTHER.replace("ROWS", str(folder / "rows.json")))
    (folder / "suite.yaml").write_text("group: my_suite\ntask: [wvs_de, wvs_fa, of_somebody_else]\n")
    ours = (TASKS / "wvs" / "wvs_de.yaml").read_text().replace("include: ../cloze_yaml", f"include: {TASKS}/cloze_yaml")
    (folder / "tagged.yaml").write_text(ours.replace("task: wvs_de", "task: my_de\ntag: my_tag"))


def _settings(name: str) -> dict[str, Any]:
    """Of a task, as somebody writes it into a script."""
    from valueshift.harness_ext.task import ClozeTask

    text = (TASKS / "cloze_yaml").read_text().replace("!function ", "")
    settings = yaml.safe_load(text) | {"task": name, "dataset_kwargs": {"probe_set": "wvs", "language": "de"}}
    return settings | {"class": ClozeTask, "process_results": None}


def _task_object(_: Path) -> Any:
    settings = _settings("an_object")
    return settings["class"](settings)


@pytest.mark.parametrize(
    ("named", "ran"),
    [
        (lambda _: "wvs_de", ["wvs_de"]),
        (lambda _: "my_suite", ["wvs_de", "wvs_fa"]),
        (lambda folder: str(folder / "tagged.yaml"), ["my_de"]),
        (lambda _: "my_tag", ["my_de"]),
        (lambda _: _settings("a_dictionary"), ["a_dictionary"]),
        (_task_object, ["an_object"]),
        (lambda _: "of_somebody_else", []),
    ],
)
def test_what_ran_is_handed_over_however_it_was_named(
    named: Callable[[Path], Any], ran: list[str], handed: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    from lm_eval.tasks import TaskManager

    _somebodys_tasks(tmp_path)
    manager = TaskManager(include_path=[str(TASKS), str(tmp_path)], include_defaults=False)
    arguments = {"tasks": [named(tmp_path)], "task_manager": manager, "limit": 2, "log_samples": False}
    found = simple_evaluate(model=Constant(), **arguments)
    assert "samples" not in found
    assert [list(samples) for _, samples in handed] == ([ran] if ran else [])
    for results, samples in handed:
        assert results["config"]["model"] == "Constant"
        for rows in samples.values():
            assert [(row["doc"]["question"], row["resps"]) for row in rows] == [
                (question, [[(-1.0, False)], [(-2.0, False)]]) for question in ("Q1", "Q2")
            ]


def test_evaluate_by_itself_is_handed_over_too(handed: list[tuple[Any, Any]]) -> None:
    import lm_eval.evaluator as evaluator
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=str(TASKS), include_defaults=False).load(["wvs_de"])
    found = evaluator.evaluate(Constant(), loaded, limit=3, bootstrap_iters=0, log_samples=False)
    ((results, samples),) = handed
    assert results["results"] == found["results"] and results["config"]["model"] == "Constant"
    assert len(samples["wvs_de"]) == 3 and "samples" not in found


def _tie(model: Any) -> None:
    model.config.tie_word_embeddings = True
    model.lm_head.weight = model.shared.weight


def _copy(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.copy_(model.shared.weight)


def _as_bin(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _in_shards(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({"lm_head.weight": weights.pop("lm_head.weight")}, folder / "model-00002-of-00002.safetensors")
    save_file(weights, folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors").unlink()


def _unreadable(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")


def _unreadable_and_silent(folder: Path) -> None:
    _unreadable(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))


def _as_it_is(_: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("untied", "in_memory", "on_disk", "is_lost"),
    [
        (True, _as_it_is, _as_it_is, False),
        (True, _tie, _as_it_is, True),
        (True, _copy, _as_it_is, True),
        (True, _tie, _as_bin, True),
        (True, _tie, _in_shards, True),
        (True, _tie, _unreadable, True),  # config.json says that the head is its own
        (True, _tie, _unreadable_and_silent, False),  # nothing says anything
        (True, _tie, shutil.rmtree, False),
        (False, _as_it_is, _as_it_is, False),
        (False, _tie, _as_bin, False),
    ],
)
def test_a_head_that_was_lost_on_the_way_is_seen(
    untied: bool,
    in_memory: Callable[[Any], None],
    on_disk: Callable[[Path], None],
    is_lost: bool,
    tiny_mt5: TinyMT5,
    tmp_path: Path,
) -> None:
    from transformers import MT5ForConditionalGeneration

    folder = tmp_path / "model"
    shutil.copytree(tiny_mt5(untied=untied), folder)
    model = MT5ForConditionalGeneration.from_pretrained(folder)
    model.config.tie_word_embeddings = not untied
    in_memory(model)
    on_disk(folder)
    reason = heads.tied_on_the_way(model, folder)
    assert (reason is not None) == is_lost
    assert not is_lost or str(folder) in str(reason)
    assert heads.tied_on_the_way(model, None) is None  # what was never on a disk cannot be compared with it


@pytest.mark.parametrize("called", ["with a model object", "by name"])
def test_a_model_that_lost_its_head_gives_no_number(tiny_mt5: TinyMT5, called: str) -> None:
    """Whoever tied it: a path past the patches, or the one who made the object."""
    from lm_eval.models.huggingface import HFLM
    from transformers import MT5ForConditionalGeneration

    model = MT5ForConditionalGeneration.from_pretrained(tiny_mt5())
    _tie(model)
    lm = HFLM(pretrained=model, tokenizer=load_tokenizer(str(tiny_mt5())))
    if called == "by name":
        lm.pretrained = str(tiny_mt5())
    try:
        found = simple_evaluate(model=lm, tasks=["wvs_de"], limit=2)["results"]["wvs_de"]["p_first,none"]
    except ValueshiftError as error:  # the whole call is ours
        assert "is overwritten with the input embedding" in str(error)
    else:
        assert found != found


@pytest.mark.parametrize(
    ("untied", "hook", "refused"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_without_the_model_the_weights_say_whether_the_harness_will_lose_the_head(
    tiny_mt5: TinyMT5, monkeypatch: pytest.MonkeyPatch, untied: bool, hook: bool, refused: bool
) -> None:
    """With the hook off a task sees no model, only what the command line names."""
    monkeypatch.setattr(families, "head_is_kept", lambda: hook)
    metadata = {"pretrained": str(tiny_mt5(untied=untied))}
    if refused and _transformers_5():
        with pytest.raises(ValueshiftError, match="is overwritten with the input embedding"):
            families.current(metadata)
    else:
        assert families.current(metadata).format == "encoder-decoder"
