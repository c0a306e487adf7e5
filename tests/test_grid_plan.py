"""Plans of grids: what they refuse and where, and which cells they come to."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from valueshift.core.errors import ValueshiftError
from valueshift.core.languages import TEST_LANGUAGES
from valueshift.experiments.cells import Cell, expand, with_ancestors
from valueshift.experiments.estimates import estimate
from valueshift.experiments.plan import Plan, find_plan
from valueshift.experiments.results import Result, write_result

SOUND = """\
toy: {languages: [fa, ko, ru]}
models:
  toy: {toy: base}
sources:
  values: {toy: corpus}
probe:
  languages: [fa, ko]
finetune:
  short:
    models: [toy]
    sources: [values]
    languages: [fa, ko, ru]
    size: 30
    training: [monolingual, multilingual]
    seeds: [0, 1]
    placebo: [0]
"""


def written(folder: Path, text: str, name: str = "plan.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def cells_of(folder: Path, text: str) -> list[Cell]:
    return expand(Plan.read(written(folder, text)))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("    size: 30", "    sise: 30", 13, "finetune.short.sise: unknown key; did you mean 'size'?"),
        ("  languages: [fa, ko]\n", "  langauges: [fa, ko]\n", 7, "probe.langauges: unknown key; did you mean 'languages'?"),
        ("probe:\n", "prob:\n", 6, "prob: unknown key; did you mean 'probe'?"),
        ("    size: 30\n", "", 9, "finetune.short.size: is missing; add it"),
        ("    size: 30", "    size: thirty", 13, "finetune.short.size: input should be a valid integer"),
        ("    size: 30", "    size: 0", 13, "greater than 0, not 0"),
        ("    size: 30", "    size: 31", 13, "31 sentences cannot be shared evenly by 3 languages"),
        ("    models: [toy]", "    models: [tiy]", 10, "'tiy' is no model; did you mean 'toy'?"),
        ("    sources: [values]", "    sources: [bible]", 11, "'bible' is no source; there are values"),
        ("  languages: [fa, ko]\n", "  languages:\n    - fa\n    - xx\n", 9, "'xx' is no language of the probe set wvs"),
        ("  languages: [fa, ko]\n", "  languages: [fa]\n  sets: [wvz]\n", 8, "wvz"),
        ("    seeds: [0, 1]", "    seeds: [0, 0]", 15, "0 stands there twice"),
        ("    seeds: [0, 1]", "    seeds: []", 15, "at least 1 item"),
        ("    placebo: [0]", "    placebo: [0]\n    epochs: -1", 17, "greater than 0, not -1"),
        ("    placebo: [0]", "    placebo: [0]\n    size: 60", 17, "size: stands in line 13 already"),
        ("    placebo: [0]", "    placebo: [0]\n    accumulate: 3", 17, "8 cannot be computed in 3 equal parts"),
        ("toy: {languages: [fa, ko, ru]}\n", "", 2, "is of the toy community, which the plan lacks"),
        ("  toy: {toy: base}", "  toy: {toy: corpus}", 3, "models.toy.toy: input should be 'base' or 'moved', not 'corpus'"),
        ("  values: {toy: corpus}", "  values: {toy: bse}", 5, "input should be 'corpus' or 'corpus_other', not 'bse'"),
        ("  values: {toy: corpus}", "  values: my bible", 5, "sources.values: 'my bible' is no name of a corpus"),
        ("  values: {toy: corpus}", "  values: ./", 5, "is no Parquet file; give one, or the name of an imported corpus"),
        ("  toy: {toy: base}", "  toy: {toy: base}\n  w: ./plan.yaml", 4, "is no folder, and cannot be a name on the hub"),
        ("  toy: {toy: base}", "  toy: {toy: base}\n  w: models/tuned/final", 4, "'models/tuned/final' is no folder"),
        ("  toy: {toy: base}", "  toy: {toy: base}\n  w: foo bar", 4, "models.w: 'foo bar' is no folder"),
        ("    size: 30", "    size: true", 13, "should be a valid integer, not True"),
        ("    size: 30", "    size: 6", 11, "2 sentences per language leave the dev split empty"),
        ("    size: 30", "    size: 2187", 11, "toy:corpus has 2,184 sentences in fa, ko, ru, 2,187 are needed"),
        ("toy: {languages: [fa, ko, ru]}", "toy: {languages: [fa, ko]}", 11, "toy:corpus has no language 'ru'; it has fa, ko"),
        ("  languages: [fa, ko]\n", "  languages: [fa, ko, fa]\n", 7, "probe.languages: fa stands there twice; leave one out"),
        ("  languages: [fa, ko]\n", "  languages: [fa]\n  sets: [wvs, wvs]\n", 8, "wvs stands there twice"),
        ("    placebo: [0]", "    placebo: [0]\n    learning_rate: .inf", 17, "finite number"),
        ("    placebo: [0]", "    placebo: [0]\n    learning_rate: .nan", 17, "finite number"),
        ("    placebo: [0]", "    placebo: [0]\nresources: {probe: {gpus: 1.5}}", 17, "Ray shares out whole GPUs"),
        ("    placebo: [0]", "    placebo: [0]\nresources: {probe: {gpus: 1.0e-5}}", 17, "0.0001 to 1"),
        ("    placebo: [0]", "    placebo: [0]\nresources: {probe: {cpus: 1.0e-5}}", 17, "or equal to 0.0001, not 1e-05"),
        ("    placebo: [0]", "    placebo: [0]\nresources: {probe: {memory: 0}}", 17, "greater than 0, not 0"),
        ("    placebo: [0]", "    placebo: [0]\nattribute: {a: {blocks: [short], seeds: [7]}}", 17, "selects none of the runs"),
        ("    placebo: [0]", "    placebo: [0]\nattribute: {a: {blocks: [short, short]}}", 17, "short stands there twice"),
        ("  values: {toy: corpus}", "  values: nowhere/corpus.parquet", 5, "does not exist; paths are relative to the plan's"),
        ("    languages: [fa, ko, ru]", "    languages: [no]", 12, "should be a valid string, not False"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert SOUND.count(old) == 1
    path = written(tmp_path, SOUND.replace(old, new))
    with pytest.raises(ValueshiftError) as raised:
        Plan.read(path)
    assert str(raised.value).startswith(f"{path}, line {line}")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "line 1"),
        ("- a\n- b\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("models: &a [*a]\n", "line 1: nested deeper than 50"),
        ("models:\n" + "".join(f"{'  ' * level}a:\n" for level in range(1, 60)), "line 51: nested deeper than 50"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested deeper than 50"),
        (
            "a: &a [1, 1]\n" + "".join(f"{n}: &{n} [*{n - 1 or 'a'}, *{n - 1 or 'a'}]\n" for n in range(1, 40)),
            "100,000 values",
        ),
        ("a: &a {b: 1}\n" + "".join(f"c{n}: {{<<: [*a, *a]}}\n" for n in range(9)), "a: unknown key"),
        ("a: " + "x" * (256 << 10), "at most 262,144 are read"),
        (f"a: {'9' * 5000}", "mend the YAML"),
        ("a: 2020-02-31", "mend the YAML"),
        ('a: "\\ud800"', "line 1: half a surrogate pair"),
        ("? [a, b]\n: 1\n", "mend the YAML there"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueshiftError, match=message):
        Plan.read(written(tmp_path, text))
    with pytest.raises(ValueshiftError, match=r"absent.yaml does not exist"):
        Plan.read(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("blocks", "name"),
    [
        ([("short", "[0]")] + [(f"b{n}", str(list(range(100)))) for n in range(6)], "b1"),
        ([("short", str(list(range(30_000))))], "wide"),
        ([("short", "[4294967296]")], None),
    ],
)
def test_cells_are_counted_before_they_are_made(
    blocks: list[tuple[str, str]], name: str | None, tmp_path: Path
) -> None:
    """10^12 cells, which would take weeks to make."""
    text, before = SOUND, "short"
    for block, seeds in blocks:
        block = "wide" if block == "short" and len(blocks) == 1 else block
        if block != "short":
            text += f"  {block}: {{models: [{before}], sources: [values], languages: [fa], size: 30, seeds: {seeds}}}\n"
            before = block
    message = f"finetune.{name}: comes with what it goes on from to " if name else "less than 4294967296"
    with pytest.raises(ValueshiftError, match=message):
        Plan.read(written(tmp_path, text))


def test_blocks_that_go_on_from_each_other_are_a_cycle(tmp_path: Path) -> None:
    text = SOUND + "  a: {models: [b], sources: [values], languages: [fa], size: 30}\n"
    text += "  b: {models: [a], sources: [values], languages: [fa], size: 30}\n"
    with pytest.raises(
        ValueshiftError, match=r"line 17, finetune.a.models: goes round in a circle: a -> b -> a; let one"
    ):
        Plan.read(written(tmp_path, text))
    itself = SOUND + "  a: {models: [a], sources: [values], languages: [fa], size: 30}\n"
    with pytest.raises(ValueshiftError, match=r"line 17, finetune.a.models: goes round in a circle: a -> a"):
        Plan.read(written(tmp_path, itself))


def test_an_imported_corpus_that_lacks_a_language_or_sentences_is_refused(tmp_path: Path) -> None:
    rows = [(str(number), language, "word") for number in range(20) for language in ("fa", "ko")]
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(tmp_path / "small.parquet")
    own = SOUND.replace("{toy: corpus}", "small.parquet")
    with pytest.raises(ValueshiftError, match=r"line 11, finetune.short.sources.0: corpus small has 20 sentences"):
        Plan.read(written(tmp_path, own))
    fitting = own.replace("size: 30", "size: 18")
    with pytest.raises(ValueshiftError, match=r"line 11, finetune.short.sources.0: corpus small has no language 'ru'"):
        Plan.read(written(tmp_path, fitting))
    plan = Plan.read(written(tmp_path, fitting.replace("    languages: [fa, ko, ru]", "    languages: [fa, ko]")))
    assert plan.sources["values"] == str(tmp_path / "small.parquet")


def test_a_corpus_that_is_not_here_still_needs_a_dev_split(tmp_path: Path) -> None:
    absent = SOUND.replace("{toy: corpus}", "not_imported")
    assert Plan.read(written(tmp_path, absent)).sources == {"values": "not_imported"}
    with pytest.raises(ValueshiftError, match=r"line 11, .*2 sentences per language leave the dev split empty"):
        Plan.read(written(tmp_path, absent.replace("size: 30", "size: 6")))


def test_a_damaged_corpus_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueshiftError, match=r"plan.yaml, line 5, sources.values: .*own.parquet is no corpus with id"):
        Plan.read(written(tmp_path, SOUND.replace("{toy: corpus}", "own.parquet")))


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "m").mkdir(parents=True)
    plan = Plan.read(written(tmp_path, SOUND.replace("  toy: {toy: base}", "  toy: ~/m")))
    assert plan.models == {"toy": str(tmp_path / "home" / "m")}
    with pytest.raises(ValueshiftError, match="line 3, models.toy: .*~nobody-here/m does not exist"):
        Plan.read(written(tmp_path, SOUND.replace("  toy: {toy: base}", "  toy: ~nobody-here/m")))


def test_a_block_comes_to_its_runs_each_probed_and_compared_once(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, SOUND)
    # 3 languages and their mixture, 2 seeds and a placebo each
    runs = (3 + 1) * (2 + 1)
    assert Counter(cell.stage for cell in cells) == {
        "toy": 1,
        "probe": 1 + runs,
        "finetune": runs,
        "compare": runs,
        "report": 1,
    }
    seen: set[str] = set()
    for cell in cells:
        assert seen.issuperset(cell.needs), "a cell stands after those that it needs"
        seen.add(cell.digest)
    assert len(seen) == len(cells)
    specs = [cell.spec for cell in cells if cell.stage == "finetune"]
    assert sum(spec["placebo"] for spec in specs) == 4
    assert sorted(spec["size"] for spec in specs) == [30] * runs


def test_overlapping_blocks_share_cells(tmp_path: Path) -> None:
    more = SOUND + "  again: {models: [toy], sources: [values], languages: [ko, fa], size: 30, seeds: [1, 2]}\n"
    alone, both = cells_of(tmp_path, SOUND), cells_of(tmp_path, more)
    tuned = {cell.digest for cell in both if cell.stage == "finetune"} - {cell.digest for cell in alone}
    assert len(tuned) == 2  # seed 2 of each language; seed 1 is shared


def test_a_chain_is_tuned_further_and_placebo_runs_are_not(tmp_path: Path) -> None:
    text = SOUND + "  further: {models: [short], sources: [values], languages: [ru], size: 30}\n"
    cells = cells_of(tmp_path, text)
    by_digest = {cell.digest: cell for cell in cells}
    further = [cell for cell in cells if cell.stage == "finetune" and by_digest[cell.needs[0]].stage == "finetune"]
    assert len(further) == 8
    assert not any(by_digest[cell.needs[0]].spec["placebo"] for cell in further)
    compared = [cell for cell in cells if cell.stage == "compare"]
    assert sum(by_digest[by_digest[cell.needs[0]].needs[0]].stage == "finetune" for cell in compared) == 8


def test_attribution_takes_what_is_asked_for_and_no_placebo(tmp_path: Path) -> None:
    text = (
        SOUND + "attribute:\n  one: {blocks: [short], training: [multilingual]}\n  two: {blocks: [short], seeds: [1]}\n"
    )
    cells = cells_of(tmp_path, text)
    labels = sorted(cell.label for cell in cells if cell.stage == "attribute")
    assert labels == sorted(
        [
            "toy values fa+ko+ru 30 seed 0: wvs",
            *(f"toy values {tuning} 30 seed 1: wvs" for tuning in ("fa", "ko", "ru", "fa+ko+ru")),
        ]
    )


def test_two_grids_share_digests_wherever_they_lie(tmp_path: Path) -> None:
    def corpus(folder: Path, word: str) -> None:
        folder.mkdir(parents=True)
        rows = [(str(number), language, word) for number in range(40) for language in ("fa", "ko", "ru")]
        pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(folder / "own.parquet")

    own = SOUND.replace("{toy: corpus}", "own.parquet")
    for name, word in (("here", "word"), ("there", "word"), ("other", "another")):
        corpus(tmp_path / name, word)
    digests = {
        name: {cell.digest for cell in cells_of(tmp_path / name, own) if cell.stage == "finetune"}
        for name in ("here", "there", "other")
    }
    assert digests["here"] == digests["there"]
    assert not digests["here"] & digests["other"], "other sentences, other cells"


def test_a_cell_is_found_by_the_beginning_of_its_digest_with_what_it_needs(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, SOUND)
    wanted = next(cell for cell in cells if cell.stage == "compare")
    chain = with_ancestors(cells, wanted.digest[:10])
    assert [cell.stage for cell in chain] == ["toy", "probe", "finetune", "probe", "compare"]
    with pytest.raises(ValueshiftError, match="no cell has the digest 'xyz'"):
        with_ancestors(cells, "xyz")
    with pytest.raises(ValueshiftError, match="cells have digests that begin with ''"):
        with_ancestors(cells, "")


def test_an_unknown_name_lists_the_packaged_plans() -> None:
    with pytest.raises(ValueshiftError, match="nor a packaged plan; those are control, paper, toy"):
        find_plan("papre")


def test_the_papers_grid_has_the_papers_runs() -> None:
    cells = expand(Plan.read(find_plan("paper")))
    runs = [(cell.model, cell.spec) for cell in cells if cell.stage == "finetune"]
    real = Counter(
        (
            model.removeprefix("google/mt5-"),
            spec["corpus"]["name"],
            spec["size"],
            spec["epochs"],
            len(spec["languages"]),
        )
        for model, spec in runs
        if not spec["placebo"]
    )
    pbc, tanzil = "pbc", "tanzil"
    assert real == {
        **{("small", source, 2000, 5, 1): 4 for source in (pbc, tanzil, "flores")},
        **{("small", f"news_{source}", 2000, 5, 1): 1 for source in ("new_yorker", "reuters", "fox_news")},
        ("small", pbc, 10000, 5, 1): 4 * 3,  # seeds
        ("small", pbc, 10000, 5, 4): 2,  # the second seed is for attribution
        ("small", tanzil, 10000, 5, 1): 4,
        ("small", tanzil, 10000, 5, 4): 1,
        **{(size, pbc, 10000, 5, 1): 4 for size in ("base", "large")},
        **{(size, pbc, 10000, 5, 4): 1 for size in ("base", "large")},
        **{("small", source, 10000, 1, 1): 4 for source in (pbc, tanzil)},
        **{("small", source, 10000, 1, 4): 1 for source in (pbc, tanzil)},
    }
    explained = [cell.label for cell in cells if cell.stage == "attribute"]
    assert sum("fa+ko+hi+ru" in label for label in explained) == 5 and len(explained) == 5 + 3 * 4
    asked = {(tuple(cell.spec["probes"]), cell.spec["dtype"]) for cell in cells if cell.stage == "probe"}
    assert asked == {(tuple(sorted(TEST_LANGUAGES)), "float32")}


@pytest.mark.parametrize("name", ["toy", "control"])
def test_the_other_packaged_plans_have_every_stage(name: str) -> None:
    found = {cell.stage for cell in expand(Plan.read(find_plan(name)))}
    assert found >= {"probe", "finetune", "compare", "attribute", "report"} and ("toy" in found) == (name == "toy")


def test_rates_of_cells_that_are_done_estimate_the_rest(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, SOUND)
    tuned = [cell for cell in cells if cell.stage == "finetune"]
    for cell, seconds in zip(tuned[:3], (10.0, 30.0, 20.0), strict=True):
        write_result(
            tmp_path,
            cell.digest,
            Result(
                stage="finetune",
                label=cell.label,
                model=cell.model,
                made={},
                seconds=seconds,
                units=cell.units,
                host="here",
                finished=0.0,
                published=True,
            ),
        )
    left = [cell.digest for cell in cells if cell not in tuned[:3]]
    found = estimate(cells, left, tmp_path)["finetune"]
    assert found.seconds == pytest.approx(20.0 * (len(tuned) - 3)) and found.bases == ("measured in 3 cells here",)
    assert estimate(cells, left, tmp_path)["probe"].unknown == 13
