"""The report's shifts and its placebos: every number is that of analysis, or computed by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_records import LANGUAGES, arm_of, rows_of, same
from valueshift.analysis.placebo import changes_among_placebos, unchanged_among_placebos
from valueshift.analysis.shifts import agreement, unchanged, unchanged_difference
from valueshift.analysis.significance import adjusted
from valueshift.analysis.sources import category_consistency, unique_shifts
from valueshift.tracking.report import noise, shifts
from valueshift.tracking.report.arms import Study
from valueshift.tracking.report.exhibit import Exhibit

pytestmark = pytest.mark.xdist_group("report")  # what its tests share takes long to make


class TestShifts:
    def test_every_exhibit_is_named_once_and_says_what_is_missing(self, made: dict[str, Exhibit]) -> None:
        assert len(made) == 25
        absent = {name for name, exhibit in made.items() if exhibit.table.empty}
        assert absent == {"language_share", "parallel_overlap", "cross_test_overlap", "ceiling", "planted"}
        for name, exhibit in made.items():
            assert exhibit.missing if name in absent else exhibit.caption, name
        assert "run `valueshift attribute" in made["cross_test_overlap"].missing
        assert "--paraphrase" in made["ceiling"].missing
        assert "truth.csv" in made["planted"].missing

    def test_estimates_have_interval_and_n(self, made: dict[str, Exhibit]) -> None:
        plain = {"spread", "survey_plane", "direction", "influence", "placebo_shifts", "paper"}
        for name, exhibit in made.items():
            if name not in plain and not exhibit.table.empty:
                assert {"low", "high", "n"} <= set(exhibit.table.columns), name
            if "p" in exhibit.table.columns:
                np.testing.assert_array_equal(exhibit.table["adjusted"], adjusted(exhibit.table["p"]))

    def test_of_many_models_the_first_are_paired_and_the_caption_says_so(
        self, study: Study, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shifts, "PAIRED", 2)
        more = [replace(study.pretrained[0], name=f"more {number}", digest=str(number)) for number in range(40)]
        exhibit = shifts.agreement(replace(study, pretrained=(*study.pretrained, *more), arms=()))
        assert set(exhibit.table["first"]) | set(exhibit.table["second"]) == {one.name for one in study.pretrained}
        assert "Not all pairs are shown: of 42 pretrained models the first 2" in exhibit.caption

    def test_agreement_of_pretrained_and_of_tuned(self, study: Study, made: dict[str, Exhibit]) -> None:
        table = made["agreement"].table
        small, large = (model.answers for model in study.pretrained)
        before = table[table["stage"] == "pretrained"]
        assert before["language"].tolist() == ["all", *LANGUAGES]
        expected = agreement({"small": small, "large": large}, study.items)
        same(before.head(1), expected, ["first", "second", "agreement", "low", "high", "n"])
        after = table[(table["stage"] == "fine-tuned") & (table["language"] == "all")]
        tuned = {"small": arm_of(study, "pbc-fa-0").tuned.answers, "large": arm_of(study, "large-fa").tuned.answers}
        same(after, agreement(tuned, study.items), ["first", "second", "agreement", "low", "high", "n"])
        assert after[["source", "tuning", "size"]].to_numpy().tolist() == [["pbc", "fa", 2000]]

    def test_unchanged(self, study: Study, made: dict[str, Exhibit]) -> None:
        for name in ("pbc-ko-1", "placebo-3", "multi"):
            arm = arm_of(study, name)
            rows = rows_of(made["unchanged"], arm)
            columns = ["unchanged", "low", "high", "plain_low", "n", "ties", "dropped"]
            same(rows.head(1), unchanged(arm.base.answers, arm.tuned.answers, study.items, ()), columns)
            same(rows.tail(-1), unchanged(arm.base.answers, arm.tuned.answers, study.items), ["language", *columns])
            by_category = unchanged(arm.base.answers, arm.tuned.answers, study.items, "category")
            same(rows_of(made["unchanged_category"], arm), by_category, ["category", "unchanged", "low", "n", "reason"])
        assert set(made["unchanged_category"].table["category_name"]) <= {
            one.category_name for one in study.items.values()
        }
        assert set(made["unchanged"].runs) == {run for arm in study.arms for run in arm.runs}

    def test_spread_over_seeds_by_hand(self, made: dict[str, Exhibit]) -> None:
        table = made["unchanged"].table
        cell = table[(table["source"] == "pbc") & (table["tuning"] == "ko") & (table["language"] == "de")]["unchanged"]
        found = made["spread"].table
        (row,) = found[
            (found["over"] == "seeds")
            & (found["source"] == "pbc")
            & (found["tuning"] == "ko")
            & (found["language"] == "de")
        ].to_dict("records")
        assert row["replicates"] == 2
        assert row["mean"] == pytest.approx(sum(cell) / 2)
        assert row["deviation"] == pytest.approx(abs(cell.iloc[0] - cell.iloc[1]) / 2**0.5)
        languages = found[found["over"] == "fine-tuning languages"]
        assert set(languages["replicates"]) == {2}
        assert set(languages["seed"]) == {0, 1}

    def test_consistency_is_of_seeds_averaged_and_placebos_left_out(
        self, study: Study, made: dict[str, Exhibit]
    ) -> None:
        shares = pd.concat(
            unchanged(arm.base.answers, arm.tuned.answers, study.items, ("language", "category")).assign(
                source=arm.source, tuning_language=arm.tuning
            )
            for arm in study.real
            if arm.size == 2000 and not arm.multilingual and arm.base.name == "small"
        )
        keys = ["source", "tuning_language", "language", "category"]
        expected = category_consistency(shares.groupby(keys, as_index=False)["unchanged"].mean(), "pbc", "tanzil")
        table = made["category_consistency"].table
        both = table.merge(expected, on=["category", "averaging"], suffixes=("", "_expected"))
        assert len(both) == len(table) == 22
        np.testing.assert_allclose(both["pearson"], both["pearson_expected"])
        np.testing.assert_allclose(both["low"], both["low_expected"])

    def test_unique_shifts_and_sizes(self, study: Study, made: dict[str, Exhibit]) -> None:
        fa, ko, many = (arm_of(study, name) for name in ("pbc-fa-0", "pbc-ko-0", "many"))
        expected = unique_shifts(fa.base.answers, {"fa": fa.tuned.answers, "ko": ko.tuned.answers}, study.items)
        table = made["unique_shifts"].table
        rows = table[(table["source"] == "pbc") & (table["seed"] == 0)]
        same(rows, expected, ["language", "unique", "low", "high", "shifted", "n"])
        expected = unchanged_difference(fa.base.answers, fa.tuned.answers, many.tuned.answers, study.items)
        same(made["sizes"].table, expected, ["language", "first", "second", "difference", "low", "p", "n"])
        assert made["sizes"].table[["size_first", "size_second"]].drop_duplicates().to_numpy().tolist() == [
            [2000, 10000]
        ]


class TestNoise:
    def test_unchanged_among_placebos(self, study: Study, made: dict[str, Exhibit]) -> None:
        arm = arm_of(study, "pbc-fa-1")
        tuned = [arm.tuned, *(other.tuned for other in study.arms if other.placebo)]
        stayed, *placebos = (unchanged(arm.base.answers, one.answers, study.items, "language") for one in tuned)
        expected = unchanged_among_placebos(stayed, placebos)
        rows = rows_of(made["placebo"], arm)
        columns = ["language", "unchanged", "placebo_mean", "placebo_deviation", "rank", "rank_p", "z", "p", "placebos"]
        same(rows[rows["language"] != "all"], expected, columns)
        assert set(made["placebo"].table["run"]) == {arm_of(study, f"pbc-fa-{seed}").tuned.run for seed in (0, 1)}

    def test_shifts_beyond_placebos(self, study: Study, made: dict[str, Exhibit]) -> None:
        arm = arm_of(study, "pbc-fa-1")
        placebos = [other.tuned.answers for other in study.arms if other.placebo]
        questions = changes_among_placebos(arm.base.answers, arm.tuned.answers, placebos, study.items)
        beyond = questions[questions["shifted"] & (questions["adjusted"] <= 0.05)].groupby("language").size()
        rows = rows_of(made["placebo_shifts"], arm).set_index("language")
        assert rows["beyond"].sum() == beyond.sum() > 0
        assert rows["shifted"].to_dict() == questions.groupby("language")["shifted"].sum().to_dict()

    def test_few_placebos_have_a_rank_and_no_z(self, study: Study) -> None:
        few = replace(study, arms=tuple(arm for arm in study.arms if not arm.placebo or arm.seed < 2))
        table = noise.placebo(few, shifts.unchanged(few)).table
        assert table["z"].isna().all() and table["p"].isna().all()
        assert set(table["rank_p"]) <= {1 / 3, 2 / 3, 1}
        beyond = noise.placebo_shifts(few).table
        assert beyond["beyond"].isna().all()
        assert set(beyond["reason"]) == {"fewer than 5 placebo runs"}
