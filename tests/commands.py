"""Commands as they are typed, each in a process of its own, forked from one that has imported the libraries.

A new Python imports torch, transformers, lm-eval and MLflow for seconds before a command begins. Where the start is the matter,
as with the hook or the console script, tests start one.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
LIBRARIES = ["lm_eval.models.huggingface", "valueshift.harness_ext.probing", "valueshift.tracking.publish"]


def typed(module: str, *arguments: object, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m MODULE ARGUMENTS` in a folder, in this environment and what is added to it."""
    FORKS.set_forkserver_preload(LIBRARIES)
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        words = [module, *map(str, arguments)]
        process = FORKS.Process(target=_run, args=(words, cwd, {**os.environ, **environment}, said))
        process.start()
        process.join()
        return subprocess.CompletedProcess(
            words, process.exitcode, *(path.read_text(encoding="utf-8") for path in said)
        )


def _run(words: list[str], cwd: Path, environment: Mapping[str, str], said: list[Path]) -> None:
    from valueshift.tracking import MLFLOW_SWITCHES

    for name in os.environ.keys() - environment.keys() - MLFLOW_SWITCHES.keys():
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(cwd)
    for descriptor, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv = words
    if words[0] == "valueshift":
        from valueshift.cli import main

        main()
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
