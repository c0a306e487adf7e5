"""`valueshift demo`: the main job on the toy community, from checkpoints to MLflow, with the commands a user would type."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from ..core.errors import ValueshiftError
from ..core.files import writable
from ..core.paths import mlflow_uri

LANGUAGES = ("de", "fa")


def run_demo(output: Path) -> None:
    """Build the toy community, ask both of its checkpoints with lm-eval, and compare them; all of it tracked.

    Raises:
        ValueshiftError: a step fails; it names the step.
    """
    writable(output)
    toy, runs = output / "toy", output / "runs"
    environment = {
        **os.environ,
        "VALUESHIFT_RUNS": str(runs),
        "MLFLOW_TRACKING_URI": mlflow_uri(runs),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    valueshift = [sys.executable, "-c", "from valueshift.cli import main; main()"]
    _step("Toy community", [*valueshift, "toy", "build", "--output", str(toy)], environment, "valueshift")
    tasks = ",".join(f"wvs_{language}" for language in LANGUAGES)
    for checkpoint in ("base", "moved"):
        command = [sys.executable, "-m", "lm_eval", "--tasks", tasks, "--model", "hf"]
        command += ["--model_args", f"pretrained={toy / checkpoint}", "--device", "cpu", "--batch_size", "16"]
        command += ["--log_samples", "--output_path", str(output / "lm_eval" / checkpoint)]
        _step(f"The survey, asked of {checkpoint}", command, environment, "lm_eval")
    results = [str(output / "lm_eval" / checkpoint) for checkpoint in ("base", "moved")]
    _step("What shifted", [*valueshift, "compare", *results], environment, "valueshift")
    print(f"\nEverything is in {output}: toy/ (checkpoints), lm_eval/ (harness results), runs/ (records, mlflow.db)")
    print(f"Look at it in MLflow: valueshift ui --output {runs}")
    print("Next: the same with a real model: see README.md")


def _step(title: str, command: list[str], environment: dict[str, str], shown_as: str) -> None:
    arguments = command[3:]  # after `python -c CODE` or `python -m MODULE`
    print(f"\n== {title}\n$ {shown_as} {shlex.join(arguments)}", flush=True)
    done = subprocess.run(command, env=environment, check=False)
    if done.returncode:
        raise ValueshiftError(f"the demo stopped at '{title}' (status {done.returncode}); the messages above say why")
