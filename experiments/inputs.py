"""What of a plan's inputs is on this machine, and whether it suffices."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ValueshiftError
from .plan import FromToy, Plan
from .yaml_lines import Location

if TYPE_CHECKING:
    from ..finetune.corpora.store import Corpus


def impossible(plan: Plan) -> Iterator[tuple[Location, str]]:
    """Runs that the corpora on this machine cannot serve: a language is lacking, or sentences are too few."""
    from ..finetune.corpora.selection import select

    corpora = {source: corpus for source, corpus in _corpora(plan) if not isinstance(corpus, str)}
    tried = set()
    for name, block in plan.finetune.items():
        for position, source in enumerate(block.sources):
            for run in block.runs():
                selection = (source, tuple(run["languages"]), block.size)
                if source not in corpora or selection in tried:
                    continue
                tried.add(selection)
                try:
                    select(corpora[source], run["languages"], block.size)
                except ValueshiftError as error:
                    yield ("finetune", name, "sources", position), str(error)


def missing(plan: Plan) -> list[str]:
    """What has to be imported or will be downloaded, in a sentence each."""
    from huggingface_hub import try_to_load_from_cache

    hub = [given for given in plan.models.values() if isinstance(given, str) and not Path(given).is_dir()]
    return [problem for _, problem in _corpora(plan) if isinstance(problem, str)] + [
        f"model {name} is not on this machine; it is downloaded when it is first asked"
        for name in hub
        if not isinstance(try_to_load_from_cache(name, "config.json"), str)
    ]


def _corpora(plan: Plan) -> "Iterator[tuple[str, Corpus | str]]":
    """By source, the corpus, or in a sentence why it is not on this machine."""
    from ..finetune.corpora.store import corpus_path, read_corpus

    for source, given in plan.sources.items():
        if isinstance(given, FromToy):
            continue
        path = Path(given) if given.endswith(".parquet") else corpus_path(given)
        if path.is_file():
            yield source, read_corpus(given)
        else:
            yield source, f"corpus {given} is not on this machine; import it: valueshift corpus import KIND PATH"
