"""Where things live. Every environment variable of the project is read here and listed in docs/configuration.md."""

import os
import sys
from pathlib import Path
from urllib.parse import quote

from .errors import ValueshiftError
from .names import PROBE_SET

PACKAGE = Path(__file__).resolve().parent.parent
TASKS = PACKAGE / "tasks"
_MLFLOW_CHOICES = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")


def runs_root(output: str | Path | None = None) -> Path:
    """Folder of run records: `output`, else `VALUESHIFT_RUNS`, else `./runs`."""
    return Path(output or os.environ.get("VALUESHIFT_RUNS") or "runs")


def existing_runs_root(output: str | Path | None = None) -> Path:
    """The runs root, for a command that only reads it.

    Raises:
        ValueshiftError: there is no such folder.
    """
    root = runs_root(output)
    if not root.is_dir():
        raise ValueshiftError(f"{root} is no folder; give the folder of your run records with --output")
    return root


def cache_root() -> Path:
    """Folder of imported data: `VALUESHIFT_CACHE`, else the platform's cache folder."""
    if chosen := os.environ.get("VALUESHIFT_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("valueshift")


def own_sets() -> Path:
    """Folder of imported probe sets and of those that users made: `<name>/{probes,items.csv,tasks,truth}`."""
    return cache_root() / "probe_sets"


def task_folders() -> list[Path]:
    """Folders of lm-eval task files: the package's, then those of users' own probe sets."""
    own = sorted(own_sets().glob("*/tasks"))
    return [TASKS, *(folder for folder in own if PROBE_SET.pattern.fullmatch(folder.parent.name))]


def hook_enabled() -> bool:
    """False when `VALUESHIFT_HOOK` is `off`: lm-eval is then left exactly as it is installed."""
    return os.environ.get("VALUESHIFT_HOOK", "").lower() != "off"


def tracking_enabled() -> bool:
    """Whether plain `lm_eval` runs are tracked: MLflow is in use and `VALUESHIFT_TRACKING` is not `off`.

    It is in use where one of MLflow's own variables names a store, an experiment or a run (`mlflow.set_tracking_uri` and
    `mlflow.set_experiment` set them too), or where a run is active in this process.
    """
    if os.environ.get("VALUESHIFT_TRACKING", "").lower() == "off":
        return False
    fluent = sys.modules.get("mlflow.tracking.fluent")  # without it no run can be active
    return any(map(os.environ.get, _MLFLOW_CHOICES)) or bool(fluent and fluent.active_run())


def base_run() -> Path | None:
    """`VALUESHIFT_BASE`: the record or lm-eval results folder that tracked `lm_eval` runs are compared with."""
    chosen = os.environ.get("VALUESHIFT_BASE")
    return Path(chosen) if chosen else None


def mlflow_uri(root: Path) -> str:
    """`MLFLOW_TRACKING_URI`, else SQLite in the runs root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / "mlflow.db")


def sqlite_uri(path: Path) -> str:
    """The URI of a SQLite file, by a name under which MLflow and SQLAlchemy find that file and make no other folder.

    SQLAlchemy reads `%20` as a blank and `?` as the end of the path, so these are quoted; but MLflow makes the folder of a
    `sqlite:///` URI without unquoting it, which it leaves alone where the driver is named.
    """
    plain = str(path.resolve())
    return f"sqlite+pysqlite:///{quote(plain)}" if "%" in plain or "?" in plain else f"sqlite:///{plain}"


def mlflow_experiment() -> str:
    """`MLFLOW_EXPERIMENT_NAME`, else `valueshift`."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or "valueshift"


def mlflow_experiment_id() -> str | None:
    """`MLFLOW_EXPERIMENT_ID`: an existing experiment, as MLflow itself understands it."""
    return os.environ.get("MLFLOW_EXPERIMENT_ID") or None


def mlflow_run_id() -> str | None:
    """`MLFLOW_RUN_ID`: an existing run to publish into, as MLflow itself understands it."""
    return os.environ.get("MLFLOW_RUN_ID") or None


def float32_overrides() -> dict[str, str]:
    """`NVIDIA_TF32_OVERRIDE` and `ONEDNN_DEFAULT_FPMATH_MODE` where they have libraries round products of float32 further."""
    names = ("NVIDIA_TF32_OVERRIDE", "ONEDNN_DEFAULT_FPMATH_MODE")
    found = {name: os.environ.get(name, "") for name in names}
    return {name: value for name, value in found.items() if value.upper() not in ("", "0", "STRICT")}


def launched_processes() -> int:
    """`WORLD_SIZE`: how many processes `accelerate launch` or torchrun has started; 1 where neither has."""
    stated = os.environ.get("WORLD_SIZE", "")
    return int(stated) if stated.isdecimal() else 1
