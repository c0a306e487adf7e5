"""Run records joined into a study: which probe records are of pretrained models, which of models tuned on what."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...analysis.answers import Answers
from ...analysis.influences import Attributed
from ...analysis.readings import reading_named
from ...core.errors import ValueshiftError
from ...core.limits import CSV_BYTES
from ...core.outside import regular_file
from ...core.probes import REGISTRIES, read_items, registry_folder
from ...core.records import KINDS, RunRecord, Whole, read_table, whole_records
from ...core.surveys import has_survey_truth, survey_truth
from ...core.tables import EXAMPLES, INFLUENCE, QUERIES, SHARES
from ..lineage import corpus
from .arms import Arm, Attribution, Model, Study
from .models import Found, common_reading, left_out, models_of, without_variants

PAPER_BATCH = 8
PLANT = ("checkpoint", "language", "question", "p_first")


def collect(folders: Sequence[Path], truth: Path | None = None) -> Study:
    """The study of run records, joined by content digests of models, never by path or name.

    The study is about the probe set that most records asked; records of another wording of the same items give the noise
    ceiling, records of other surveys are left out, and the notes say so. A probe record whose model a finetune record made
    becomes an arm with the record of the model that it started from. What cannot be read is left out, which the notes say.

    Args:
        folders: run records, or folders that hold run records.
        truth: the planted profiles of a toy study, CSV `checkpoint,language,question,p_first`; `truth.csv` in one of the
            folders, or of the one toy that a grid built there, where it is not given.

    Raises:
        ValueshiftError: a folder holds no record, there is no probe record that can be read, or the planted profiles cannot be
            read.
    """
    notes: list[str] = []
    found = _records(folders, notes)
    by_kind: dict[str, list[Found]] = {kind: [] for kind in KINDS}
    for one in found:
        by_kind[one.record.kind].append(one)
    if not by_kind["probe"]:
        raise ValueshiftError(
            " ".join([f"{_named(folders)} holds no probe record; run `valueshift probe MODEL` first.", *notes])
        )
    probes = without_variants(by_kind["probe"], by_kind["finetune"], notes)
    main = _most([str(one.record.inputs["probe_set"]) for one in probes])
    items = read_items(registry_folder(main) / "items.csv")
    reading = common_reading(probes, notes)
    by_set: dict[str, list[Found]] = {}
    for one in probes:
        by_set.setdefault(str(one.record.inputs["probe_set"]), []).append(one)
    models = models_of(by_set.pop(main), reading, items, notes)
    if not models:
        raise ValueshiftError(" ".join([f"{_named(folders)} holds no probe record that can be read.", *notes]))
    wordings = []
    for name, others in by_set.items():
        if REGISTRIES.get(name, name) != REGISTRIES.get(main, main):
            notes.append(f"{_count(others)} of probe set {name} left out: report its records on their own.")
            continue
        again = models_of(others, reading, items, notes)
        wordings += [(models[digest], other) for digest, other in again.items() if digest in models]
        notes.append(
            f"{_count(others)} of probe set {name}, another wording of {main}: used for the noise ceiling only."
        )
    arms = _arms(by_kind["finetune"], models, notes)
    attributions = _attributions(by_kind["attribution"], main, arms, by_kind["finetune"], notes)
    made = {_made(one) for one in by_kind["finetune"]}
    pretrained = tuple(model for digest, model in models.items() if digest not in made)
    shown = {model.digest for model in (*pretrained, *(arm.tuned for arm in arms))}
    bases = {arm.base.digest for arm in arms}
    if alone := [model.name for model in pretrained if model.digest not in bases]:
        notes.append(f"Taken as pretrained, since no finetune record among the runs made them: {', '.join(alone)}.")
    survey = survey_truth(main) if has_survey_truth(main) else None
    if survey and (others := [one for one in probes if _survey(one) not in (None, survey.provenance)]):
        notes.append(
            f"{_count(others)} hold alignment with another survey than this report, which is of {survey.provenance}; they "
            f"have {_survey(others[0])}."
        )
    return Study(
        probe_set=main,
        items=items,
        pretrained=pretrained,
        arms=tuple(arms),
        wordings=tuple(pair for pair in wordings if pair[0].digest in shown),
        attributions=tuple(attributions),
        truth=survey,
        plant=_plant(folders, truth),
        records=tuple(Whole(one.folder, one.record) for one in found if one.record.kind != "report"),
        notes=tuple(notes),
    )


def _records(folders: Sequence[Path], notes: list[str]) -> list[Found]:
    """The records, each once, oldest first."""
    found: dict[str, Found] = {}
    for folder in folders:
        whole, damaged = whole_records(folder, *KINDS)
        if not whole and not damaged:
            raise ValueshiftError(f"{folder} is no run record and holds none; give run records, or their folder")
        for one in whole:
            try:
                _usable(one.record)
            except ValueshiftError as error:
                damaged.append(ValueshiftError(f"{one.folder / 'record.json'}: {error}"))
            else:
                found[one.record.name] = Found(*one)
        notes += map(left_out, damaged)
    return sorted(found.values(), key=lambda one: one.record.created)


def _usable(record: RunRecord) -> None:
    """Raises ValueshiftError where a probe record is of a survey or a reading that is not known here."""
    if record.kind == "probe":
        reading_named(str(record.settings.get("reading") or "sum"))
        if not (registry_folder(name := record.inputs["probe_set"]) / "items.csv").is_file():
            raise ValueshiftError(
                f"inputs.probe_set: '{name}' is not on this machine; import or make it, or remove the record"
            )


def _survey(one: Found) -> str | None:
    """The survey that a probe record was compared with, as it says."""
    stated = one.record.settings.get("survey")
    return str(stated["provenance"]) if stated else None


def _arms(records: Iterable[Found], models: Mapping[str, Model], notes: list[str]) -> list[Arm]:
    arms: dict[str, Arm] = {}
    unprobed, baseless = [], []
    for one in records:
        inputs, settings = one.record.inputs, one.record.settings
        base, tuned = models.get(one.model), models.get(_made(one))
        if tuned is None:
            unprobed.append(str(settings.get("checkpoint", one.record.name)))
        elif base is None:
            baseless.append(str(settings.get("model", one.model)))
        elif base.asked != tuned.asked:
            notes.append(
                f"{tuned.run} is left out: it was asked in {' and '.join(tuned.asked)}, its base in {' and '.join(base.asked)}."
            )
        elif reworded := _reworded(base, tuned):
            notes.append(
                f"{tuned.run} is left out: in {', '.join(reworded)} it was asked another wording than its base; probe both again."
            )
        elif not set(base.profile.columns) & set(tuned.profile.columns):
            notes.append(f"{tuned.run} is left out: it and its base were asked in different languages.")
        else:
            arms[tuned.digest] = Arm(
                base=base,
                tuned=tuned,
                source=_source(one),
                languages=tuple(inputs["languages"]),
                size=int(inputs["size"]),
                training=_training(inputs),
                seed=int(inputs["seed"]),
                placebo=bool(inputs["placebo"]),
                finetune=one.record.name,
            )
    if unprobed:
        notes.append(f"Fine-tuned models that were not probed: {len(unprobed)}. Run `valueshift probe {unprobed[0]}`.")
    for name in dict.fromkeys(baseless):
        notes.append(
            f"Fine-tuned models whose base was not probed: {baseless.count(name)}. Run `valueshift probe {name}`."
        )
    if unequal := sum(_unequal(arm.base.answers, arm.tuned.answers) for arm in arms.values()):
        notes.append(
            f"Fine-tuned models that were asked other questions than their base: {unequal} of {len(arms)}. Answers are joined by "
            "question, and what one side lacks is counted as dropped."
        )
    places = list(models)
    return sorted(
        arms.values(),
        key=lambda arm: (
            *(places.index(arm.base.digest), arm.placebo, arm.source, arm.multilingual, arm.tuning),
            *(arm.size, arm.training, arm.seed),
        ),
    )


def _made(one: Found) -> str:
    """Digest of the model that a finetune record made."""
    return str(one.record.settings["checkpoint_digest"])


def _source(one: Found) -> str:
    """Name of the corpus; of a file that is named by its language (`corpus/fa.parquet`) the folder's."""
    given = Path(str(one.record.settings.get("corpus", "")))
    by_language = given.suffix == ".parquet" and given.stem in one.record.inputs["languages"]
    return given.parent.name if by_language and given.parent.name else str(corpus(one.record).get("name"))


def _training(inputs: Mapping[str, Any]) -> str:
    """What tells two trainings on the same sentences apart."""
    epochs = f"{inputs['epochs']:g} epoch{'' if inputs['epochs'] == 1 else 's'}"
    batch = "" if inputs["batch_size"] == PAPER_BATCH else f", batch {inputs['batch_size']}"
    return f"{epochs}, lr {inputs['learning_rate']:g}{batch}" + (", LoRA" if inputs.get("lora") else "")


def _reworded(base: Model, tuned: Model) -> list[str]:
    """Languages in which the two were asked the same questions in other words."""
    return [
        code
        for code, wording in base.wording.items()
        if wording != tuned.wording.get(code, wording) and not _unequal(base.answers, tuned.answers, code)
    ]


def _unequal(one: Answers, other: Answers, *languages: str) -> bool:
    """Whether two were asked different questions, in some of these languages or in any."""
    questions = list(dict.fromkeys((*one.questions, *other.questions)))
    languages = languages or tuple(dict.fromkeys((*one.languages, *other.languages)))
    asked = [~np.isnan(side.on(side.choices, questions, languages)) for side in (one, other)]
    return bool((asked[0] != asked[1]).any())


def _attributions(
    records: Iterable[Found], asked: str, arms: Sequence[Arm], finetunes: Iterable[Found], notes: list[str]
) -> list[Attribution]:
    where = {one.record.name: one.folder for one in finetunes}
    by_model = {arm.tuned.digest: arm for arm in arms}
    found = []
    for one in records:
        if one.record.inputs["probe_set"] != asked:
            notes.append(f"{one.record.name} is left out: it explains answers to {one.record.inputs['probe_set']}.")
            continue
        arm = by_model.get(str(one.record.inputs["tuned"][0]))
        if arm is None:
            notes.append(f"{one.record.name} is left out: the model that it explains is not among the runs.")
            continue
        notes += [f"{one.record.name}: {note}" for note in one.record.notes if note.startswith("UNSTABLE")]
        try:
            examples = read_table(where[arm.finetune], "examples", EXAMPLES)
            queries, influence = (
                read_table(one.folder, "queries", QUERIES),
                read_table(one.folder, "influence", INFLUENCE),
            )
            shares = read_table(one.folder, "shares", SHARES) if "shares" in one.record.tables else None
        except ValueshiftError as error:
            notes.append(left_out(error))
            continue
        training = examples.loc[examples["split"] == "train", ["example", "language"]]
        found.append(Attribution(arm, one.record.name, Attributed(queries, influence, training), shares))
    places = list(by_model)  # in the order of the arms, whichever was attributed first
    return sorted(found, key=lambda one: (places.index(one.arm.tuned.digest), one.record))


def _plant(folders: Sequence[Path], truth: Path | None) -> pd.DataFrame | None:
    beside = [folder / "truth.csv" for folder in folders if (folder / "truth.csv").is_file()]
    built = [path for folder in folders for path in folder.glob("toys/*/truth.csv")]
    path = truth or (beside[0] if beside else built[0] if len(built) == 1 else None)
    if path is None:
        return None
    try:
        regular_file(path, "give the truth.csv of a toy", CSV_BYTES)
        table = pd.read_csv(path, dtype=dict.fromkeys(PLANT[:3], str))
        table["p_first"] = table["p_first"].astype("float64")
    except (OSError, ValueError, KeyError) as error:
        raise ValueshiftError(
            f"{path} is no table of planted profiles ({error}); give the truth.csv of a toy"
        ) from error
    if missing := [name for name in PLANT if name not in table.columns]:
        raise ValueshiftError(f"{path} has no column {missing[0]}; give the truth.csv of a toy")
    return table


def _most(names: Sequence[str]) -> str:
    """The commonest, of equally common ones the first by name."""
    return min(set(names), key=lambda name: (-names.count(name), name))


def _count(found: Sequence[Found]) -> str:
    return f"{len(found)} record{'' if len(found) == 1 else 's'}"


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders)) or "the list of folders"
