"""What a run record is called in MLflow: the one list of names, and the pure functions that fill them in.

A record becomes one flat run of the experiment `valueshift` (or `MLFLOW_EXPERIMENT_NAME`). Runs are never nested: they
are linked by tags, so that `tags."valueshift.base" = "<digest>"` finds every comparison with a base.

- **Run name**: models, kind, corpus and languages, `mt5-small probe de fa`, `moved ← base comparison`; what differs
  comes first, since MLflow's columns are narrow. The end is the record's `created`, the start as many `seconds` before.
- **Tags**: `valueshift.` + `kind`, `digest`, `record` (folder name), `content` (see `content_key`), `status`
  (`publishing`, then `complete`: read only complete runs), the model digests under `model`, `base`, `tuned`, under
  `finetune` those of the finetune records that made the models, and under `runs.base` and `runs.tuned` those of the
  probe records that are compared.
  `mlflow.note.content`, the description, holds the record's notes.
- **Params**: `inputs` and `settings`, nested keys joined by dots, lists by commas: `model` as given, `probe_set`,
  `languages`, `probes` = digest of all probe files, `format`, `dtype`, `seed`; `version.<library>`; of a model that was
  fine-tuned here `tuned_on.languages`, `.corpus`, `.size`, `.seed`, `.placebo`, by which runs can be grouped. What is a tag
  or a dataset is no param. A value over 500 characters is not cut: the param says so and the whole is in `record.json`.
- **Metrics**: `<family>/<member>`, at most 150 a run, with the record's own values: **one quantity has one unit everywhere
  in data**, records, lm-eval's output, tables and MLflow alike. Shares and `p_first` are fractions from 0 to 1, correlations
  and cosines go from -1 to 1; a percentage is only in prose, with its sign. The families are in `FAMILIES`. The mean or
  total of a family is `<family>` alone, in MLflow's first section and with what differs at the beginning, since columns are
  narrow; correlations with different countries have no mean. Metrics of other names are passed on unchanged.
  The losses of a finetune run are `curve/<split>`, step by step.
- **Inputs**: the probe set (context `probes`), the survey (`survey`) and the corpus (`training`) as datasets by name and
  digest; each checkpoint as an external model by path and digest, never uploaded. A finetune run's checkpoint is its output.
- **Artifacts**: the record itself (`record.json`, `<table>.parquet`), and for reading, in six decimals, MLflow's own
  `<table>.json` of tables up to 5,000 rows and `profile-<probe set>.csv` and `.parquet` (question by language, `p_first`)
  of `scores`; `report/`, the folder of a report; `top100.json` of an attribution.
- **Views**: the experiment carries the saved views of `tracking.views`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from ..core.digests import digest, file_sha256
from ..core.limits import JSON_BYTES
from ..core.outside import regular_file
from ..core.records import RunRecord
from .lineage import Known, digests_of, known_models, label, tuned_on

KIND = "valueshift.kind"
DIGEST = "valueshift.digest"
RECORD = "valueshift.record"
CONTENT = "valueshift.content"
STATUS = "valueshift.status"
FINETUNE = "valueshift.finetune"
PUBLISHING, COMPLETE = "publishing", "complete"
MODELS = ("model", "base", "tuned")  # keys of a record's inputs that refer to models; each is a tag `valueshift.<key>`
DESCRIPTION = "mlflow.note.content"

METRICS_LIMIT = 150  # a run of thirteen languages has some 120; MLflow's pages are slow with many hundreds
PARAM_LIMIT = 500  # characters; MLflow cuts at 6,000 without a word, older servers refuse more than 500
DESCRIPTION_LIMIT = 4000  # characters; MLflow cuts tags at 8,000


class Family(NamedTuple):
    """Metrics that share the part of their name before the slash."""

    meaning: str
    overview: Literal["mean", "sum"] | None = None
    """How the members are summed up in the overview."""


FAMILIES: dict[str, Family] = {
    "p_first": Family("mean p_first per language [3.5]", "mean"),
    "first_share": Family("share of questions answered with the first option [3.4]", "mean"),
    "questions": Family("number of questions", "sum"),
    "kept": Family("share of common questions with the same answer, per language [5.2.1]", "mean"),
    "kept_cat": Family("the same per category"),
    "shifted": Family("number of answers that changed"),
    "readings_agree": Family("share of questions on which all readings give one answer", "mean"),
    "rho": Family("Spearman correlation with a country, `rho/<language>.<ISO3>` [5.1]"),
    "rho_low": Family("lower end of its 95% interval, over batteries"),
    "rho_high": Family("upper end"),
    "rho_n": Family("number of questions that it is over"),
    "rho_change": Family("its change by fine-tuning [Table 3]"),
    "rho_change_low": Family("lower end of the 95% interval of the change, over batteries"),
    "rho_change_high": Family("upper end"),
    "rho_change_n": Family("number of questions that the change is over"),
    "dissimilarity": Family("mean dissimilarity of languages [5.2.1, 6]"),
    "share": Family("share of a fine-tuning language among the top examples, `share/<test>.<tuned>` [7]"),
    "stability": Family("share of the top examples on which two projections agree"),
    "token_overlap": Family("share of the top examples that token overlap finds too"),
    "random_overlap": Family("the same of a random ranking"),
    "similarity": Family("correlation of two similarity structures [Fig. 5, 12]"),
    "parallelism": Family("mean cosine between the changes of languages [Fig. 4, 11]"),
}


def content_key(folder: Path, name: str | None = None) -> str:
    """Name of this very content: the record's name and a hash of `record.json`, which holds the time.

    Args:
        folder: of the record.
        name: of the record; else that of the folder, which is the same unless somebody has renamed it.

    Raises:
        ValueshiftError: there is no `record.json` that can be read.
    """
    path = regular_file(folder / "record.json", "run the command that made it again", JSON_BYTES)
    return f"{name or folder.name}.{file_sha256(path)[:16]}"


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


def _overview(metrics: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for name, family in FAMILIES.items():
        members = [value for metric, value in metrics.items() if metric.startswith(f"{name}/")]
        if members and family.overview and name not in metrics:
            yield name, sum(members) / (len(members) if family.overview == "mean" else 1)


def _all_metrics(record: RunRecord) -> list[tuple[str, float]]:
    """Overview, then family by family in the order of their first appearance."""
    together = record.metrics | dict(_overview(record.metrics))
    families = list(dict.fromkeys(name.split("/")[0] for name in together))
    return sorted(together.items(), key=lambda item: ("/" in item[0], families.index(item[0].split("/")[0])))


def metrics(record: RunRecord) -> dict[str, float]:
    """The run's metrics, the first `METRICS_LIMIT`."""
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


def params(record: RunRecord, made: Sequence[RunRecord] = ()) -> dict[str, str]:
    """The run's params: inputs, settings and versions, flat; a setting named like an input is `setting.<name>`.

    Args:
        record: of the run.
        made: the finetune records of its models, as far as there are any.
    """
    inputs = dict(record.inputs)
    if isinstance(probes := inputs.get("probes"), Mapping):
        inputs = {"languages": list(probes), **inputs, "probes": digest(probes)}
    for key in (*MODELS, "finetune", *(["runs"] if _compared(record) else [])):
        inputs.pop(key, None)  # digests, which are tags
    settings = {key: value for key, value in record.settings.items() if key != "survey"}  # a dataset
    pairs = list(_flat(inputs))
    taken = {name for name, _ in pairs}
    pairs += [(f"setting.{name}" if name in taken else name, value) for name, value in _flat(settings)]
    pairs.sort(key=lambda pair: pair[0].split(".")[0] not in MODELS)
    pairs += [(f"version.{library}", number) for library, number in record.versions.items()]
    pairs = [*_flat({"tuned_on": tuned_on(made)}), *pairs]
    return _distinct(
        (name, value if len(value) <= PARAM_LIMIT else f"{len(value)} characters, whole in record.json")
        for name, value in pairs
        if value
    )


def _compared(record: RunRecord) -> Mapping[str, str]:
    """Digests of the probe records that a comparison is of."""
    runs = record.inputs.get("runs")
    return runs if isinstance(runs, Mapping) else {}


def _given_paths(record: RunRecord, key: str) -> list[str]:
    """The models of `key` as the user gave them; an attribution names the records of its models instead."""
    given = record.settings.get(key) if record.kind != "attribution" else None
    paths = [given] if isinstance(given, str) else given
    return paths if isinstance(paths, list) and all(isinstance(path, str) for path in paths) else []


def models(record: RunRecord, made: Sequence[RunRecord] = ()) -> dict[str, Known]:
    """Digest to name and path of every model that the record is about.

    Args:
        record: of the run.
        made: the finetune records of its models, as far as there are any.
    """
    found: dict[str, Known] = {}
    known = known_models(made)
    for key in MODELS:
        digests, paths = digests_of(record.inputs.get(key)), _given_paths(record, key)
        for position, identity in enumerate(digests):
            other = known.get(identity, Known(identity, identity))
            path = paths[position] if len(paths) == len(digests) else other.path
            found.setdefault(identity, Known(other.name if identity in known else PurePath(path).name, path))
    return found


def tags(record: RunRecord, made: Sequence[RunRecord] = ()) -> dict[str, str]:
    """The tags that describe and link a run; `content` and `status` are the publisher's."""
    linked = {f"valueshift.{key}": " ".join(digests_of(record.inputs.get(key))) for key in MODELS}
    linked |= {f"valueshift.runs.{side}": digest for side, digest in _compared(record).items()}
    linked[FINETUNE] = " ".join(one.digest for one in made)
    return {KIND: record.kind, DIGEST: record.digest, RECORD: record.name} | {
        key: value for key, value in linked.items() if value
    }


def run_name(record: RunRecord, made: Sequence[RunRecord] = ()) -> str:
    """Models, kind, what they were tuned on and test languages in a few words."""
    if record.kind == "report" and isinstance(runs := record.inputs.get("runs"), list):
        return f"report of {len(runs)} runs"

    def few(words: list[str], many: str) -> str:
        return " ".join(words) if len(words) <= 4 else f"{len(words)} {many}"

    known = models(record, made)
    named = {
        key: [known[identity].name for identity in digests_of(record.inputs.get(key))]
        or [PurePath(path).name for path in _given_paths(record, key)]
        for key in MODELS
    }
    if made and record.kind != "finetune":
        named["tuned" if named["tuned"] else "model"] = [label(made)]
    subject = " ← ".join(few(named[key], "models") for key in ("tuned", "model", "base") if named[key])
    asked = few(params(record).get("languages", "").split(", "), "languages")
    about = label([record]) if record.kind == "finetune" else asked
    return " ".join(word for word in (subject or record.digest, record.kind, about) if word)


def milliseconds(record: RunRecord) -> int:
    """The record's time as MLflow counts it."""
    return int(record.created.timestamp() * 1000)


def began(record: RunRecord) -> int:
    """When the work of a record began, as MLflow counts it; its end where that is not known."""
    return milliseconds(record) - int(1000 * (record.seconds or 0))


def description(record: RunRecord, left_out: Sequence[str] = ()) -> str:
    """The record's notes as Markdown, what of the record is not among the metrics, and what the server could not take."""
    more = len(_all_metrics(record)) - METRICS_LIMIT
    sentences = [f"- {note}" for note in record.notes]
    if isinstance(report := record.settings.get("report"), str) and not Path(report).exists():
        sentences.append(f"- {report} was gone when this run was published.")
    if more > 0:
        sentences.append(f"- {more} more metrics are in the artifact `record.json`.")
    if left_out:
        sentences.append(f"- This server does not take {', '.join(left_out)}: they are in the record `{record.name}`.")
    text = "\n".join(sentences)
    return text if len(text) <= DESCRIPTION_LIMIT else f"{len(record.notes)} notes are in the artifact `record.json`."
