"""`valueshift probes new`: a survey of your own as a probe set, for the same commands and for lm-eval."""

from pathlib import Path
from shutil import copyfile

from .errors import ValueshiftError
from .files import whole_folder
from .paths import TASKS, own_sets
from .probes import ProbeSet, probe_set, read_items, read_probes


def new_probe_set(name: str, items: Path, probes: Path, shares: Path | None = None) -> ProbeSet:
    """Make a probe set of a registry, probe files and, optionally, shares; an older one of the same name is replaced.

    Args:
        name: lower-case letters, digits and `_`; the tasks are called `<name>_<language>`.
        items: registry CSV with the columns of `core.probes.Item`.
        probes: folder of `<ISO 639-1 code>.csv`, each asking all or some of the items.
        shares: CSV `question,<ISO 3166-1 alpha-3>,...`: the share of people at the first pole, empty where unknown.

    Raises:
        ValueshiftError: the name is taken by a packaged set, a file is malformed, or a probe cannot be asked.
    """
    if (TASKS / name).is_dir():
        raise ValueshiftError(f"probe set {name} is part of valueshift; choose another name")
    registry = read_items(items)
    files = sorted(probes.glob("*.csv"))
    if not files:
        raise ValueshiftError(f"{probes} holds no <language>.csv")
    for file in files:
        if not (len(file.stem) == 2 and file.stem.isalpha() and file.stem.islower()):
            raise ValueshiftError(f"{file} must be named by its language, such as de.csv (ISO 639-1)")
        read_probes(file, name, file.stem, registry)
    with whole_folder(own_sets() / name) as folder:
        copyfile(items, folder / "items.csv")
        (folder / "probes").mkdir()
        (folder / "tasks").mkdir()
        for file in files:
            copyfile(file, folder / "probes" / file.name)
            task = f"{name}_{file.stem}"
            (folder / "tasks" / f"{task}.yaml").write_text(
                f"include: {TASKS / 'cloze_yaml'}\ntask: {task}\n"
                f"dataset_kwargs: {{probe_set: {name}, language: {file.stem}}}\n",
                encoding="utf-8",
            )
        members = "".join(f"  - {name}_{file.stem}\n" for file in files)
        (folder / "tasks" / f"{name}.yaml").write_text(f"group: {name}\ntask:\n{members}", encoding="utf-8")
        if shares is not None:
            _check_shares(shares, set(registry))
            (folder / "truth").mkdir()
            copyfile(shares, folder / "truth" / "shares.csv")
    return probe_set(name)


def _check_shares(path: Path, questions: set[str]) -> None:
    """Raises ValueshiftError unless the file holds shares in [0, 1] of these questions by country."""
    import pandas as pd

    try:
        table = pd.read_csv(path, index_col="question")
    except (OSError, ValueError) as error:
        raise ValueshiftError(
            f"{path} is no table of shares ({error}); its columns are question and countries"
        ) from error
    if bad := [country for country in table.columns if not (len(country) == 3 and country.isupper())]:
        raise ValueshiftError(f"{path}: column '{bad[0]}' is no country; use ISO 3166-1 alpha-3, such as DEU")
    if unknown := [question for question in table.index if question not in questions]:
        raise ValueshiftError(f"{path}: question {unknown[0]} is not in the registry")
    for country in table.columns:
        values = pd.to_numeric(table[country], errors="coerce")
        wrong = table.index[(values.isna() & table[country].notna()) | (values < 0) | (values > 1)]
        if len(wrong):
            raise ValueshiftError(
                f"{path}, question {wrong[0]}, {country}: {table[country][wrong[0]]} is no share from 0 to 1"
            )
