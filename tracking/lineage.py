"""Which finetune record made a checkpoint: what a probed or compared model was tuned on, by content digest."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from ..core.records import RunRecord, whole_records

TUNED_ON = ("languages", "corpus", "size", "seed", "placebo")
"""What is said of a tuned model, as inputs of its finetune record."""


class Known(NamedTuple):
    """A model as people know it."""

    name: str
    path: str


def made_by(record: RunRecord, made: Mapping[str, RunRecord]) -> tuple[RunRecord, ...]:
    """The finetune records of the models that a record is about, in their order; a finetune record is its own.

    Empty where one of the models was not made here.

    Args:
        record: any.
        made: those of `makers`.
    """
    if record.kind == "finetune":
        return (record,)
    wanted = digests_of(record.inputs.get("tuned", record.inputs.get("model")))
    return tuple(made[digest] for digest in wanted) if all(digest in made for digest in wanted) else ()


def makers(root: Path) -> dict[str, RunRecord]:
    """The finetune records in `root` by the digest of the checkpoint that each made; damaged ones are left out."""
    return {str(one.record.settings["checkpoint_digest"]): one.record for one in whole_records(root, "finetune")[0]}


def digests_of(value: Any) -> list[str]:
    """Digests in one of the shapes `"digest"`, `{"digest": ...}`, or a list of either."""
    if isinstance(value, list):
        return [found for item in value for found in digests_of(item)]
    if isinstance(value, Mapping):
        value = value.get("digest")
    return [value] if isinstance(value, str) else []


def tuned_on(made: Sequence[RunRecord]) -> dict[str, Any]:
    """Languages, corpus, size, seed and placebo of finetune records, as far as all of them agree."""
    each = [{**one.inputs, "corpus": corpus(one).get("name")} for one in made]
    common = {name: each[0].get(name) for name in TUNED_ON} if each else {}
    return {
        name: value
        for name, value in common.items()
        if value is not None and all(inputs.get(name) == value for inputs in each)
    }


def corpus(made: RunRecord) -> Mapping[str, Any]:
    """Name and digest of the corpus of a finetune record."""
    found = made.inputs.get("corpus")
    return found if isinstance(found, Mapping) else {"name": found}


def label(made: Sequence[RunRecord]) -> str:
    """What models were tuned on in a few words, such as `fa tanzil 2000 seed 0`."""
    about = tuned_on(made)
    words = [*about.get("languages", []), about.get("corpus"), about.get("size")]
    words += ["seed", about["seed"]] if "seed" in about else []
    words += ["placebo"] if about.get("placebo") else []
    return " ".join(str(word) for word in words if word is not None)


def known_models(made: Sequence[RunRecord]) -> dict[str, Known]:
    """Digest to name and path of every model that these records know: those that they made, and what they began with."""
    models = {}
    for one in made:
        if isinstance(path := one.settings.get("model"), str):
            models[str(one.inputs.get("model"))] = Known(PurePath(path).name, path)
        models[str(one.settings.get("checkpoint_digest"))] = Known(label([one]), str(one.settings.get("checkpoint")))
    return models
