"""The report's alignment with people: every number is that of analysis, and what was planted is found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_records import arm_of, moved, odds, probed, rows_of, same, tuned
from valueshift.analysis.alignment import alignment, alignment_change, influence
from valueshift.core.surveys import survey_truth
from valueshift.tracking.report import people
from valueshift.tracking.report.arms import Study
from valueshift.tracking.report.exhibit import Exhibit
from valueshift.tracking.report.study import collect

pytestmark = pytest.mark.xdist_group("report")  # what its tests share takes long to make


class TestPeople:
    def test_alignment(self, study: Study, made: dict[str, Exhibit]) -> None:
        truth = survey_truth("wvs").profile[["IRN", "DEU", "ROU", "KOR", "PAK", "SRB", "VNM"]]
        arm = arm_of(study, "pbc-fa-0")
        rows = rows_of(made["alignment"], arm)
        expected = alignment(arm.tuned.profile, truth, study.items)
        assert len(rows) == len(expected) == 28
        both = rows.merge(expected, on=["language", "country"], suffixes=("", "_expected"))
        for column in ("spearman", "low", "high", "p", "turned_low", "within", "jensen_shannon", "wasserstein", "n"):
            np.testing.assert_allclose(both[column], both[f"{column}_expected"], rtol=1e-9, atol=1e-12)
        assert rows.groupby("language")["best"].sum().to_numpy() == pytest.approx(1)
        assert "The questions are of 8 batteries, so that p is 0.004 or more" in made["alignment"].caption
        assert rows["p"].min() >= 0.5**8
        before = made["alignment"].table
        assert set(before[before["stage"] == "pretrained"]["model"]) == {"small", "large"}

    def test_change_in_alignment_of_a_run_and_of_their_mean(self, study: Study, made: dict[str, Exhibit]) -> None:
        truth = survey_truth("wvs").profile[["DEU"]]
        fa, ko = (arm_of(study, f"pbc-{code}-0") for code in ("fa", "ko"))
        table = made["alignment_change"].table
        table = table[table["country"] == "DEU"]
        columns = ["language", "base", "tuned", "change", "low", "high", "p", "n"]
        same(
            table[table["run"] == fa.tuned.run],
            alignment_change(fa.base.profile, [fa.tuned.profile], truth, study.items),
            columns,
        )
        mean = table[(table["tuning"] == "mean") & (table["source"] == "pbc") & (table["seed"] == 0)]
        assert set(mean["models"]) == {2}
        tuned = [fa.tuned.profile, ko.tuned.profile]
        same(mean, alignment_change(fa.base.profile, tuned, truth, study.items), columns)

    def test_influence_is_on_the_alignment_with_the_own_country(self, study: Study, made: dict[str, Exhibit]) -> None:
        table = made["influence"].table
        rows = table[(table["run"] == study.pretrained[1].run) & (table["language"] == "fa")]
        truth = survey_truth("wvs").profile[["IRN"]]
        (expected,) = influence([study.pretrained[1].profile[["fa"]]], truth, study.items)
        same(rows, expected, ["language", "country", "question", "without", "difference"])
        assert not table["placebo"].any()

    def test_planted_movement_is_significant_and_the_placebo_is_quiet(self, tmp_path: Path) -> None:
        start, target = odds(0), odds(5)
        towards = {key: 0.6 * start[key] + 0.6 * target[key] for key in start}
        probed(tmp_path, "base", start)
        seeds = iter(range(50, 60))
        for source in ("toy", "other"):
            for code in ("de", "fa", "ko"):
                tuned(tmp_path, "base", f"{source}-{code}", [code], source=source)
                probed(tmp_path, f"{source}-{code}", moved(towards, next(seeds), 0.5))
        tuned(tmp_path, "base", "placebo", ["de"], source="toy", placebo=True)
        probed(tmp_path, "placebo", moved(start, next(seeds), 0.5))
        rows = [
            {"checkpoint": name, "language": code, "question": question, "p_first": 1 / (1 + np.exp(-value))}
            for name, values in (("base", start), ("moved", target))
            for (code, question), value in values.items()
        ]
        pd.DataFrame(rows).to_csv(tmp_path / "truth.csv", index=False)
        table = people.planted(collect([tmp_path])).table
        assert len(table) == 7 * 4 * 2
        real, quiet = table[~table["placebo"]], table[table["placebo"]]
        planted = real[real["plant"] == "moved"]
        assert planted["change"].min() > 0.3
        assert planted["adjusted"].max() < 0.001
        assert planted["low"].min() > 0
        unmoved = quiet[quiet["plant"] == "moved"]
        assert unmoved["adjusted"].min() > 0.05
        assert ((unmoved["low"] < 0) & (unmoved["high"] > 0)).all()
        elsewhere = collect([tmp_path], tmp_path / "truth.csv")
        assert elsewhere.plant is not None and len(elsewhere.plant) == len(rows)
