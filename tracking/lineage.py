"""Which finetune record made a checkpoint: what a probed or compared model was tuned on, by content digest."""

from pathlib import Path
from typing import Any

from ..core.errors import ValueshiftError
from ..core.records import RunRecord, read_record

TUNED_ON = ("languages", "corpus", "size", "seed", "placebo")
"""What is said of a tuned model, as inputs of its finetune record."""


def made_by(record: RunRecord, root: Path) -> RunRecord | None:
    """The finetune record in `root` of the model that a record is about; of a finetune record itself.

    None where the model was not made here, or where a record compares several.
    """
    if record.kind == "finetune":
        return record
    about = record.inputs.get("tuned", record.inputs.get("model"))
    wanted = about if isinstance(about, list) else [about]
    found = [made for made in _finetune_records(root) if made.settings.get("checkpoint_digest") in wanted]
    return found[0] if len(wanted) == 1 and found else None


def _finetune_records(root: Path) -> list[RunRecord]:
    """Those that can be read: a damaged one is its own publication's matter."""
    records = []
    for path in sorted(root.glob("finetune-*/record.json")):
        try:
            records.append(read_record(path.parent))
        except ValueshiftError:
            continue
    return records


def tuned_on(made: RunRecord) -> dict[str, Any]:
    """Languages, corpus, size, seed and placebo of a finetune record, as far as it has them."""
    inputs = dict(made.inputs)
    if isinstance(corpus := inputs.get("corpus"), dict):
        inputs["corpus"] = corpus.get("name")
    return {name: inputs[name] for name in TUNED_ON if inputs.get(name) is not None}


def label(made: RunRecord) -> str:
    """The same in a few words, such as `fa tanzil 2000 seed 0`."""
    about = tuned_on(made)
    words = [*about.get("languages", []), about.get("corpus"), about.get("size")]
    words += ["seed", about["seed"]] if "seed" in about else []
    words += ["placebo"] if about.get("placebo") else []
    return " ".join(str(word) for word in words if word is not None)
