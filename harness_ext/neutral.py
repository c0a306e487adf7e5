"""The neutral stem of each language: a statement where any option could stand, for domain-conditional PMI.

dcpmi = log p(option | probe) - log p(option | neutral stem) [Holtzman et al. 2021].
"""

from functools import cache

from ..core.errors import ValueshiftError
from ..core.paths import TASKS
from ..core.probes import MASK, Probe, read_rows
from .formats import Format

_HEADER = ("language", "stem")


@cache
def neutral_stems() -> dict[str, str]:
    """The stem of each language of the study, with one `[MASK]` after a space.

    Raises:
        ValueshiftError: a stem cannot be asked.
    """
    path = TASKS / "wvs" / "stems.csv"
    stems = {}
    for line, row in read_rows(path, _HEADER):
        if row["stem"].count(f" {MASK}") != 1 or row["stem"].count(MASK) != 1:
            raise ValueshiftError(f"{path}, line {line}, stem: one {MASK} after a space is needed")
        stems[row["language"]] = row["stem"]
    return stems


def neutral_stem(language: str) -> str:
    """The stem of one language.

    Raises:
        ValueshiftError: it has none.
    """
    try:
        return neutral_stems()[language]
    except KeyError:
        raise ValueshiftError(
            f"language '{language}' has no neutral stem; add one to tasks/wvs/stems.csv or do not ask for it"
        ) from None


def neutral_probe(probe: Probe, format: Format) -> Probe:
    """The options of a probe in the neutral stem of its language; equal for all probes that put the same tokens there.

    What is scored stays the same: an option that continues a word in the probe continues one here, and for a causal model,
    which scores option and suffix, the probe's suffix stays.

    Raises:
        ValueshiftError: the language has no stem.
    """
    before, _, after = neutral_stem(probe.language).partition(MASK)
    glued = probe.prefix and not probe.prefix[-1].isspace()
    text = (before.rstrip() if glued else before) + MASK + (probe.suffix if format == "causal" else after)
    return probe.model_copy(update={"question": "neutral", "category": None, "text": text})
