"""Models and their answers from probe records: one reading, one format a model, languages joined."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ...analysis.answers import answers_of
from ...analysis.readings import read
from ...core.errors import ValueshiftError
from ...core.probes import Item
from ...core.records import RunRecord, read_scores
from .arms import Model


@dataclass(frozen=True)
class Found:
    """A run record and where it is."""

    folder: Path
    record: RunRecord

    @property
    def model(self) -> str:
        """Digest of the model that was probed, or tuned."""
        return str(self.record.inputs["model"])

    @property
    def named(self) -> str:
        """The model as its user named it."""
        return str(self.record.settings.get("model") or self.record.name).rstrip("/")

    @property
    def asked(self) -> tuple[str, str]:
        """Format and dtype."""
        return str(self.record.inputs["format"]), str(self.record.inputs["dtype"])

    @property
    def reading(self) -> str:
        """How its answers are read."""
        return str(self.record.settings.get("reading") or "sum")


def without_variants(probes: Sequence[Found], finetunes: Iterable[Found], notes: list[str]) -> list[Found]:
    """Probe records but for those of intermediate and merged checkpoints, which are called `<digest of the run>-...`."""
    starts = tuple(f"{one.record.digest}-" for one in finetunes)
    variants = [one for one in probes if one.named.rpartition("/")[2].startswith(starts)]
    if variants:
        names = ", ".join(sorted({one.named.rpartition("/")[2] for one in variants}))
        notes.append(f"Left out, as intermediate or merged checkpoints of a fine-tuned model: {names}.")
    return [one for one in probes if one not in variants]


def common_reading(probes: Sequence[Found], notes: list[str]) -> str:
    """The reading of all records; the paper's where they differ, which every record can be read by."""
    readings = sorted({one.reading for one in probes})
    if len(readings) == 1:
        return readings[0]
    notes.append(f"The records are read as {' and '.join(readings)}; here all answers are read as sum.")
    return "sum"


def models_of(probes: Sequence[Found], reading: str, items: Mapping[str, Item], notes: list[str]) -> dict[str, Model]:
    """Digest to model; what cannot be read is left out, which the notes say.

    Of records that asked one model in several formats or dtypes the commonest are kept; a language that several records
    asked is taken from the one that asked most, of equals the newest.
    """
    commonest = Counter(one.asked for one in probes)
    by_model: dict[str, list[Found]] = {}
    for one in probes:
        by_model.setdefault(one.model, []).append(one)
    names = _names({digest: records[0].named for digest, records in by_model.items()})
    models = {}
    for digest, records in by_model.items():
        asked = max((one.asked for one in records), key=lambda one: commonest[one])
        if left := [one.record.name for one in records if one.asked != asked]:
            notes.append(f"{names[digest]} is taken as asked in {' and '.join(asked)}; left out: {', '.join(left)}.")
        kept = [one for one in records if one.asked == asked]
        best: dict[str, tuple[int, Found]] = {}
        tables: dict[str, pd.DataFrame] = {}
        for one in kept:
            try:
                found = _scores(one, items)
            except ValueshiftError as error:
                notes.append(left_out(error))
                continue
            tables[one.record.name] = found
            for language, count in found["language"].value_counts(sort=False).items():
                code = str(language)
                if code not in best or count >= best[code][0]:
                    best[code] = count, one
        if not best:
            continue
        taken: dict[str, list[str]] = {name: [] for name in tables}
        for code, (_, one) in best.items():
            taken[one.record.name].append(code)
        parts = [rows[rows["language"].isin(taken[name])] for name, rows in tables.items()]
        scores = pd.concat(parts, ignore_index=True)
        try:
            scores = read(scores, reading, items)
        except ValueshiftError as error:
            notes.append(left_out(ValueshiftError(f"{names[digest]}: {error}")))
            continue
        models[digest] = Model(
            name=names[digest],
            digest=digest,
            asked=asked,
            wording={code: str(one.record.inputs["probes"][code]) for code, (_, one) in best.items()},
            answers=answers_of(scores),
            records=tuple(tables),
        )
    return models


def _scores(one: Found, items: Mapping[str, Item]) -> pd.DataFrame:
    scores = read_scores(one.folder, one.record)
    if unknown := sorted(set(scores["question"].unique()) - set(items)):
        raise ValueshiftError(
            f"{one.folder / 'scores.parquet'}, column question: {unknown[0]} is not in the registry of "
            f"{one.record.inputs['probe_set']}; probe the model again"
        )
    return scores


def left_out(error: ValueshiftError) -> str:
    """The note on a record that cannot be used."""
    return f"Left out: {error}."


def _names(named: Mapping[str, str]) -> dict[str, str]:
    """Digest to a short name that no other model has: the last part of its path, all of it, or with its digest."""
    names = {digest: name.rpartition("/")[2] for digest, name in named.items()}
    for longer in (named, {digest: f"{name} ({digest})" for digest, name in named.items()}):
        often = Counter(names.values())
        names = {digest: longer[digest] if often[name] > 1 else name for digest, name in names.items()}
    return names
