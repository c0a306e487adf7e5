"""Calls of lm-eval with our tasks, as a user types them and as a notebook makes them."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from valueshift.core.paths import TASKS


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a user types it, in a folder of its own."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )


@cache
def our_tasks() -> Any:
    """Indexing the harness's thousands of files takes seconds; ours alone are enough where nothing else is asked."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(TASKS), include_defaults=False)


def simple_evaluate(**arguments: Any) -> dict[str, Any]:
    import lm_eval

    return dict(lm_eval.simple_evaluate(**{"bootstrap_iters": 0, "task_manager": our_tasks(), **arguments}))
