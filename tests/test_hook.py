"""Facts about the hook: what it patches of lm-eval, that it stays patched, and that it can be left out."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness_calls import run, simple_evaluate
from valueshift.core.paths import TASKS
from valueshift.harness_ext.models import load_tokenizer

TinyMT5 = Callable[..., Path]


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
