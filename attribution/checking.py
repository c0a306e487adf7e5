"""`valueshift attribute check`: the checks of a run or of the planted community, with their tables on disk."""

from pathlib import Path

import pandas as pd

from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import whole_file
from .attributing import Attributing, prepare
from .checks import Kept, Subject, check, recall
from .planted import plant
from .scoring import Method
from .subjects import of_planted, of_run

LARGEST_PAPER = 4096
"""Dimensions of the paper's projection."""


def check_run(
    base: str, tuned: str, root: Path, how: Attributing, *, models: int, removals: int, paper: bool, seed: int = 0
) -> tuple[Path, dict[str, pd.DataFrame]]:
    """Check the attribution of a fine-tuned model by training it again; what is trained is kept in `<root>/checks/`.

    Args:
        base: as in `attributing.attribute`.
        tuned: likewise.
        root: likewise.
        how: likewise.
        models: trained on random halves.
        removals: queries whose top sentences are left out, two models each.
        paper: whether TRAK as published stands beside, at as many dimensions as the sentences allow.
        seed: of all draws.

    Returns:
        The folder of the tables, and the tables `lds`, `removal` and `randomisation`.

    Raises:
        ValueshiftError: as `attributing.attribute`, or no answer shifted.
    """
    ready = prepare(base, tuned, root, how)
    if ready.shifts.empty:
        raise ValueshiftError(f"no answer shifted between {base} and {tuned}, so there is nothing to check")
    return _checked(of_run(ready, root, how), how.method, root, models, removals, paper, seed)


def check_planted(
    root: Path, method: Method, *, models: int, removals: int, seed: int = 0
) -> tuple[Path, dict[str, pd.DataFrame]]:
    """Check a method on the planted community of this seed, beside TRAK as published.

    Returns:
        The folder of the tables, and the tables of `check_run` and `recall` (method, supporting, contradicting).

    Raises:
        ValueshiftError: the folder cannot be written.
    """
    community = plant(seed=seed)
    return _checked(
        of_planted(community, seed),
        method,
        root,
        models,
        removals,
        True,
        seed,
        planted=(community.role("supporting"), community.role("contradicting")),
    )


def _checked(
    subject: Subject,
    method: Method,
    root: Path,
    models: int,
    removals: int,
    paper: bool,
    seed: int,
    planted: tuple[Kept, Kept] | None = None,
) -> tuple[Path, dict[str, pd.DataFrame]]:
    if models < 3:
        raise ValueshiftError(f"{models} models give no correlation; train 3 or more, better 20")
    methods = {"default": method} | ({"paper": paper_method(len(subject.examples))} if paper else {})
    work = root / "checks" / subject.identity
    tables, found = check(subject, methods, models=models, removals=removals, seed=seed, folder=work)
    if planted:
        rows = [{"method": name} | recall(scores, *planted) for name, scores in found.scores.items()]
        tables["recall"] = pd.DataFrame(rows)
    folder = work / digest([method.model_dump(mode="json"), models, removals, paper, seed])
    for name, table in tables.items():
        with whole_file(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    return folder, tables


def paper_method(sentences: int) -> Method:
    """TRAK as published, projected to 4,096 dimensions or, of fewer sentences, to the largest power of two below half of them."""
    largest = 1 << max(1, (sentences // 2).bit_length() - 1)
    return Method.paper(k=min(LARGEST_PAPER, largest))
