"""Names that users give become parts of paths: what is no name is refused before anything is written."""

from pathlib import Path

import pytest
from importers import IMPORTERS, make_own, members
from valueshift.core.errors import ValueshiftError
from valueshift.core.names import CORPUS, COUNTRY, LANGUAGE, PROBE_SET, SURVEY, Kind, checked
from valueshift.core.paths import task_folders
from valueshift.core.probes import imported_folder, probe_set, registry_folder
from valueshift.core.shown import written_out
from valueshift.core.surveys import has_survey_truth, survey_folder, survey_truth
from valueshift.finetune.corpora.importing import import_corpus
from valueshift.finetune.corpora.store import read_corpus

PATHS = ["..", "../../victim", "/tmp/victim", "a/b", "", ".", ".hidden", "a\\b", "a\x00b", "a\nb", "~", "-x", "a" * 300]
NO_SETS = [*PATHS, "Abc", "a-b", "1a", "a b", "ä", "a.b"]


@pytest.mark.parametrize("kind", [PROBE_SET, CORPUS, SURVEY, LANGUAGE, COUNTRY])
@pytest.mark.parametrize("name", PATHS)
def test_no_name_leads_anywhere(name: str, kind: Kind) -> None:
    with pytest.raises(ValueshiftError, match=f"name of {kind.what}"):
        checked(name, kind)


@pytest.mark.parametrize("name", NO_SETS)
def test_a_probe_set_that_cannot_be_called_so_is_neither_made_nor_looked_up(
    cache: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis.txt").write_text("years of work")
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    before = members(tmp_path)
    for use in (lambda name: make_own(folder, name), probe_set, registry_folder, imported_folder, survey_truth):
        with pytest.raises(ValueshiftError, match="name of a probe set"):
            use(name)
    assert members(tmp_path) == before


@pytest.mark.parametrize("name", PATHS)
def test_a_corpus_that_cannot_be_called_so_is_not_read_at_all(cache: Path, tmp_path: Path, name: str) -> None:
    for use in (lambda name: import_corpus("text", tmp_path / "nowhere", name=name), read_corpus):
        with pytest.raises(ValueshiftError, match="name of a corpus"):
            use(name)


@pytest.mark.parametrize("publication", ["", "***", "日報", "a" * 300])
def test_a_publication_that_names_no_corpus_is_refused_before_its_file_is_read(
    cache: Path, tmp_path: Path, publication: str
) -> None:
    with pytest.raises(ValueshiftError, match="to call its corpus by|too long a name of a corpus"):
        import_corpus("news", tmp_path / "nowhere", publications=["Reuters", publication])


@pytest.mark.parametrize("survey", ["../../elsewhere", "/tmp/x", ""])
def test_the_survey_of_a_registry_is_no_path(cache: Path, tmp_path: Path, survey: str) -> None:
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    items = folder / "items.csv"
    items.write_text(items.read_text(encoding="utf-8").replace("T1,Example,", f"T1,{survey},"), encoding="utf-8")
    with pytest.raises(ValueshiftError, match="line 2, survey"):
        make_own(folder)
    with pytest.raises(ValueshiftError, match="is no name of a survey"):
        survey_folder(survey)


@pytest.mark.parametrize("file", ["DE.csv", "deu.csv", "éà.csv", "d.csv"])
def test_a_probe_file_is_called_by_its_language(cache: Path, tmp_path: Path, file: str) -> None:
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    (folder / "probes" / "de.csv").rename(folder / "probes" / file)
    with pytest.raises(ValueshiftError, match="must be named by its language"):
        make_own(folder)
    with pytest.raises(ValueshiftError, match="has no language"):
        probe_set("wvs").probes("../../wvs/probes/de")


@pytest.mark.parametrize("name", ["wvs", "wvs_de", "wvs_arora", "hellaswag", "mmlu", "xnli", "glue", "arc"])
def test_a_name_of_another_task_is_refused(cache: Path, tmp_path: Path, name: str) -> None:
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    with pytest.raises(ValueshiftError, match="choose another name"):
        make_own(folder, name)
    assert not cache.exists()


def test_two_own_sets_have_no_task_in_common(cache: Path, tmp_path: Path) -> None:
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    make_own(folder)
    make_own(folder)  # the same again is no other
    with pytest.raises(ValueshiftError, match="lm-eval already has a task trains_de"):
        make_own(folder, "trains_de")


def test_what_is_left_of_a_write_is_no_folder_of_tasks(cache: Path, tmp_path: Path) -> None:
    make_own(IMPORTERS["own set"].files(tmp_path / "input"))
    for left in (".trains.1.abc.tmp", ".trains.1.abc.old", "Abc"):
        (cache / "probe_sets" / left / "tasks").mkdir(parents=True)
    assert [folder.parent.name for folder in task_folders()[1:]] == ["trains"]


def test_norwegian_is_a_language_though_yaml_takes_its_code_for_false(cache: Path, tmp_path: Path) -> None:
    import yaml

    folder = IMPORTERS["own set"].files(tmp_path / "input")
    (folder / "probes" / "de.csv").rename(folder / "probes" / "no.csv")
    make_own(folder, "on")
    tasks = cache / "probe_sets" / "on" / "tasks"
    assert yaml.safe_load((tasks / "on.yaml").read_text()) == {"group": "on", "task": ["on_en", "on_no"]}
    task = yaml.safe_load((tasks / "on_no.yaml").read_text())
    assert task["dataset_kwargs"] == {"probe_set": "on", "language": "no"} and Path(task["include"]).is_file()
    assert has_survey_truth("on")


def test_a_name_can_be_printed_and_stored() -> None:
    name = "a\udcff\x1b[31m\n\u202eb ü日"
    assert written_out(name) == "a\\udcff\\x1b[31m\\n\\u202eb ü日"
    assert written_out(name).encode() and written_out(written_out(name)) == written_out(name)
