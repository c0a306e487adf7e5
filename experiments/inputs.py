"""What of a plan's inputs is on this machine, and whether it suffices."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ValueshiftError
from .plan import FromToy, Plan, Toy
from .yaml_lines import Location

if TYPE_CHECKING:
    from ..finetune.corpora.store import Corpus


_ENOUGH = 100
"""Sentences that can be split, as any larger number can."""


def impossible(plan: Plan) -> Iterator[tuple[Location, str]]:
    """What cannot be a model or a corpus, and runs that a corpus cannot serve: a language is lacking, or sentences are."""
    yield from _impossible_models(plan)
    corpora: dict[str, Corpus | None] = {}
    for source, given in plan.sources.items():
        try:
            corpora[source] = None if isinstance(given, FromToy) else _corpus(given)
        except ValueshiftError as error:
            yield ("sources", source), str(error)
    tried = set()
    for name, block in plan.finetune.items():
        for position, source in enumerate(block.sources):
            for run in block.runs():
                selection = (source, tuple(run["languages"]), block.size)
                if source not in corpora or selection in tried:
                    continue
                tried.add(selection)
                each = block.size // len(run["languages"])
                given = plan.sources[source]
                toy = _toy_corpus(plan.toy, given, each) if plan.toy and isinstance(given, FromToy) else None
                try:
                    _select(corpora[source] or toy, run["languages"], block.size)
                except ValueshiftError as error:
                    yield ("finetune", name, "sources", position), str(error)


def missing(plan: Plan) -> list[str]:
    """What has to be imported or will be downloaded, in a sentence each."""
    from huggingface_hub import try_to_load_from_cache

    from ..finetune.corpora.store import corpus_path

    imported = [given for given in plan.sources.values() if isinstance(given, str) and not given.endswith(".parquet")]
    return [
        f"corpus {name} is not on this machine; import it: valueshift corpus import {_kind(name)} PATH"
        for name in imported
        if not corpus_path(name).is_file()
    ] + [
        f"model {name} is not on this machine; it is downloaded when it is first asked"
        for name in _hub_names(plan).values()
        if not isinstance(try_to_load_from_cache(name, "config.json"), str)
    ]


def _kind(corpus: str) -> str:
    """The kind that a corpus is imported as, where its name says so."""
    from ..finetune.corpora.importing import KINDS

    kind = corpus.partition("_")[0]  # of news_reuters
    return kind if kind in KINDS else "KIND"


def _hub_names(plan: Plan) -> dict[str, str]:
    """By model, the name on the hub of those that lie in no folder."""
    return {model: given for model, given in plan.models.items() if isinstance(given, str) and not Path(given).is_dir()}


def _impossible_models(plan: Plan) -> Iterator[tuple[Location, str]]:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for model, given in _hub_names(plan).items():
        try:
            try_to_load_from_cache(given, "config.json")
        except HFValidationError:
            yield (
                ("models", model),
                f"'{given}' is no folder, and cannot be a name on the hub; give a model's folder, or OWNER/NAME",
            )


def _corpus(given: str) -> "Corpus | None":
    """The corpus of a name or an absolute path; None where it is yet to be imported.

    Raises:
        ValueshiftError: this cannot be a corpus.
    """
    from ..finetune.corpora.store import corpus_path, read_corpus

    path = Path(given)
    if path.is_absolute() and not (path.is_file() and path.suffix == ".parquet"):
        raise ValueshiftError(f"{given} is no Parquet file; give one, or the name of an imported corpus")
    return read_corpus(given) if path.is_absolute() or corpus_path(given).is_file() else None


def _toy_corpus(toy: Toy, given: FromToy, each: int) -> "Corpus":
    """What a toy's corpus will have: ids and languages, without text; enough to take `each` sentences, if it has them."""
    import pandas as pd

    from ..core.probes import probe_set
    from ..finetune.corpora.store import Corpus

    questions, copies = probe_set("wvs").items, 1
    if each > len(questions):  # else one copy of each will do, without the seconds that importing torch takes
        from ..finetune.toy import COPIES

        copies = COPIES
    ids = [f"{question}.{copy}" for copy in range(copies) for question in questions]
    rows = [(sentence, language) for sentence in ids for language in toy.languages]
    return Corpus(f"toy:{given.toy}", pd.DataFrame(rows, columns=["id", "language"]))


def _select(corpus: "Corpus | None", languages: list[str], size: int) -> None:
    """Try to take sentences as fine-tuning does; where there is no corpus yet, to split so many.

    Raises:
        ValueshiftError: this cannot be.
    """
    from ..finetune.corpora.selection import select, split_by_id

    if corpus:
        select(corpus, languages, size)
    else:
        split_by_id([str(number) for number in range(min(size // len(languages), _ENOUGH))])
