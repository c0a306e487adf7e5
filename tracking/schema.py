"""What a run record is called in MLflow: the one list of names, and the pure functions that fill them in.

A record becomes one flat run of the experiment `valueshift` (or `MLFLOW_EXPERIMENT_NAME`). Runs are never nested: they
are linked by tags, so that `tags."valueshift.base" = "<digest>"` finds every comparison with a base.

- **Run name**: models, kind, corpus and languages, `mt5-small probe de fa`, `moved ← base comparison`; what differs
  comes first, since MLflow's columns are narrow. Start and end are the record's `created`.
- **Tags**: `valueshift.` + `kind`, `digest`, `record` (folder name), `content` (see `content_key`), `status`
  (`publishing`, then `complete`: read only complete runs), and the model digests under `model`, `base`, `tuned`.
  `mlflow.note.content`, the description, holds the record's notes.
- **Params**: `inputs` and `settings`, nested keys joined by dots, lists by commas: `model` as given and `model.digest`,
  `probe_set`, `languages`, `probes` = digest of all probe files, `format`, `dtype`, `seed`; `version.<library>`.
  A value over 500 characters is not cut: the param says so and the whole is in `record.json`.
- **Metrics**: `<family>/<member>`, at most 60 a run; the families are in `FAMILIES`. Records hold fractions; MLflow,
  whose charts show two decimals, gets percentages with one decimal. The mean or total of a family is in the first
  section, `0_overview/<family>`. Metrics of other names are passed on unchanged.
- **Datasets**: the probe set (context `probes`) and each model (context `model`, by path and digest; models are
  referred to, never uploaded).
- **Artifacts**: the record itself (`record.json`, `<table>.parquet`), and for reading, in six significant digits,
  `<table>.csv` of tables up to 5,000 rows and `profile-<probe set>.csv` (question by language, `p_first`) of `scores`.
- **View**: the experiment carries a shared view `valueshift`, whose columns are the overview and the kind.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from ..core.digests import digest, file_sha256
from ..core.errors import ValueshiftError
from ..core.records import RunRecord

KIND = "valueshift.kind"
DIGEST = "valueshift.digest"
RECORD = "valueshift.record"
CONTENT = "valueshift.content"
STATUS = "valueshift.status"
PUBLISHING, COMPLETE = "publishing", "complete"
MODELS = ("model", "base", "tuned")  # keys of a record's inputs that refer to models; each is a tag `valueshift.<key>`
DESCRIPTION = "mlflow.note.content"

VIEW = "valueshift"
OVERVIEW = "0_overview/"
METRICS_LIMIT = 60
PARAM_LIMIT = 500  # characters; MLflow cuts at 6,000 without a word, older servers refuse more than 500
DESCRIPTION_LIMIT = 4000  # characters; MLflow cuts tags at 8,000
CSV_ROWS_LIMIT = 5000


class Family(NamedTuple):
    """Metrics that share the part of their name before the slash."""

    meaning: str
    unit: Literal["fraction", "plain"]
    """A fraction of the record is a percentage with one decimal in MLflow."""
    overview: Literal["mean", "sum"] | None
    """How the members are summed up in the overview."""


FAMILIES: dict[str, Family] = {
    "p_first": Family("mean p_first per language [3.5]", "fraction", "mean"),
    "first_share": Family("share of questions answered with the first option [3.4]", "fraction", "mean"),
    "questions": Family("number of questions", "plain", "sum"),
    "kept": Family("share of common questions with the same answer, per language [5.2.1]", "fraction", "mean"),
    "kept_cat": Family("the same per category", "fraction", None),
    "readings_agree": Family("share of questions on which all readings give one answer", "fraction", "mean"),
    "rho": Family("Spearman correlation with a country, `rho/<language>.<ISO3>` [5.1]", "plain", None),
}


def content_key(folder: Path, record: RunRecord) -> str:
    """Name of this very content: the record's folder name and a hash of `record.json`, which holds the time."""
    return f"{record.name}.{file_sha256(folder / 'record.json')[:16]}"


def clean(name: str) -> str:
    """`name` with what MLflow refuses in names replaced by `_`: allowed are letters, digits, `_ - . : /` and space."""
    parts = [re.sub(r"[^\w\-.: ]", "_", part, flags=re.ASCII) for part in name.split("/")]
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:250] or "_"


def _distinct(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of cleaned names; names that became equal are numbered, so that nothing is lost."""
    named: dict[str, Any] = {}
    for name, value in pairs:
        key, number = clean(name), 2
        while key in named:
            key, number = f"{clean(name)[:245]}_{number}", number + 1
        named[key] = value
    return named


def _family(name: str) -> Family | None:
    return FAMILIES.get(name.removeprefix(OVERVIEW).split("/")[0])


def _shown(name: str, value: float) -> float:
    family = _family(name)
    if family is None or family.unit == "plain":
        return value
    if not -1 <= value <= 1:
        raise ValueshiftError(f"metric {name} is {value:g}, but fractions and their changes lie between -1 and 1")
    return round(100 * value, 1)


def _overview(metrics: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, family in FAMILIES.items():
        members = [value for metric, value in metrics.items() if metric.startswith(f"{name}/")]
        if members and family.overview and f"{OVERVIEW}{name}" not in metrics:
            yield f"{OVERVIEW}{name}", sum(members) / (len(members) if family.overview == "mean" else 1)


def _all_metrics(record: RunRecord) -> list[tuple[str, float]]:
    """Overview and metrics as MLflow shows them, family by family in the order of their first appearance."""
    together = {name: _shown(name, value) for name, value in [*record.metrics.items(), *_overview(record.metrics)]}
    families = list(dict.fromkeys([OVERVIEW.rstrip("/"), *(name.split("/")[0] for name in together)]))
    return sorted(together.items(), key=lambda item: families.index(item[0].split("/")[0]))


def metrics(record: RunRecord) -> dict[str, float]:
    """The run's metrics, the first `METRICS_LIMIT`.

    Raises:
        ValueshiftError: a fraction is outside -1 to 1.
    """
    return _distinct(_all_metrics(record)[:METRICS_LIMIT])


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested inputs as text, by dotted names."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)) and all(isinstance(item, (str, int, float)) for item in value):
        yield name, ", ".join(str(item) for item in value)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def params(record: RunRecord) -> dict[str, str]:
    """The run's params: inputs, settings and versions, flat; a setting named like an input is `setting.<name>`."""
    inputs = dict(record.inputs)
    if isinstance(probes := inputs.get("probes"), Mapping):
        inputs = {"languages": list(probes), **inputs, "probes": digest(probes)}
    for key in MODELS:
        if isinstance(inputs.get(key), (str, list)):
            inputs[key] = {"digest": _digests(inputs[key])}
    pairs = list(_flat(inputs))
    taken = {name for name, _ in pairs}
    pairs += [(f"setting.{name}" if name in taken else name, value) for name, value in _flat(record.settings)]
    pairs.sort(key=lambda pair: pair[0].split(".")[0] not in MODELS)
    pairs += [(f"version.{library}", number) for library, number in record.versions.items()]
    return _distinct(
        (name, value if len(value) <= PARAM_LIMIT else f"{len(value)} characters, whole in record.json")
        for name, value in pairs
        if value
    )


def _digests(value: Any) -> list[str]:
    """Digests in one of the shapes `"digest"`, `{"digest": ...}`, or a list of either."""
    if isinstance(value, list):
        return [found for item in value for found in _digests(item)]
    if isinstance(value, Mapping):
        value = value.get("digest")
    return [value] if isinstance(value, str) else []


def _given_names(record: RunRecord, key: str) -> list[str]:
    """The models of `key` as the user gave them, else their digests."""
    given = record.settings.get(key)
    names = [given] if isinstance(given, str) else given
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return names
    return _digests(record.inputs.get(key))


def models(record: RunRecord) -> list[tuple[str, str]]:
    """Name as given and digest of every model that the record is about, each once."""
    found: dict[str, str] = {}
    for key in MODELS:
        digests, names = _digests(record.inputs.get(key)), _given_names(record, key)
        for position, identity in enumerate(digests):
            found.setdefault(identity, names[position] if len(names) == len(digests) else identity)
    return [(name, identity) for identity, name in found.items()]


def tags(record: RunRecord) -> dict[str, str]:
    """The tags that describe and link a run; `content` and `status` are the publisher's."""
    linked = {f"valueshift.{key}": " ".join(_digests(record.inputs.get(key))) for key in MODELS}
    return {KIND: record.kind, DIGEST: record.digest, RECORD: record.name} | {
        key: value for key, value in linked.items() if value
    }


def run_name(record: RunRecord) -> str:
    """Models, kind, corpus and languages in a few words."""

    def few(words: list[str], many: str) -> str:
        return " ".join(words) if len(words) <= 4 else f"{len(words)} {many}"

    about = params(record)
    models_of = [[PurePath(name).name for name in _given_names(record, key)] for key in ("tuned", "model", "base")]
    subject = " ← ".join(few(names, "models") for names in models_of if names) or record.digest
    languages = few(about.get("languages", "").split(", "), "languages")
    return " ".join(word for word in (subject, record.kind, about.get("corpus"), languages) if word)


def description(record: RunRecord) -> str:
    """The record's notes as Markdown, and what of the record is not among the metrics."""
    left_out = len(_all_metrics(record)) - METRICS_LIMIT
    sentences = [f"- {note}" for note in record.notes]
    if left_out > 0:
        sentences.append(f"- {left_out} more metrics are in the artifact `record.json`.")
    text = "\n".join(sentences)
    return text if len(text) <= DESCRIPTION_LIMIT else f"{len(record.notes)} notes are in the artifact `record.json`."


def shared_view() -> tuple[str, str]:
    """Tag of an experiment by which MLflow's runs page shows our columns under `?viewStateShareKey=valueshift`.

    MLflow documents no format for it; where a release reads another, the page falls back to its own columns.
    """
    overview = [f"metrics.`{OVERVIEW}{name}`" for name, family in FAMILIES.items() if family.overview == "mean"]
    return f"mlflow.sharedViewState.{VIEW}", json.dumps({"selectedColumns": [*overview, f"tags.`{KIND}`"]})
