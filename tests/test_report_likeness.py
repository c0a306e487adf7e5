"""The report's likeness of languages, models and countries: every number is that of analysis, of numpy or of the paper."""

from pathlib import Path

import numpy as np
import pytest
from report_records import LANGUAGES, arm_of, rows_of, same
from valueshift.analysis.bootstrap import batteries, bootstrap_weights
from valueshift.analysis.direction import parallelism, plane
from valueshift.analysis.profiles import spoken
from valueshift.analysis.similarity import dissimilarities, dissimilarity, mean_dissimilarity, structure
from valueshift.core.surveys import survey_truth
from valueshift.tracking.report import theirs
from valueshift.tracking.report.arms import Study
from valueshift.tracking.report.exhibit import Exhibit

pytestmark = pytest.mark.xdist_group("report")  # what its tests share takes long to make


class TestLikeness:
    def test_dissimilarities_are_those_of_the_square_table(self, study: Study, made: dict[str, Exhibit]) -> None:
        square = dissimilarity(
            study.pretrained[0].profile.loc[[name for name, item in study.items.items() if item.paper]]
        )
        table = made["dissimilarity"].table
        rows = table[table["run"] == study.pretrained[0].run]
        assert len(rows) == 6
        for row in rows.itertuples():
            assert row.dissimilarity == pytest.approx(square.loc[row.first, row.second])
            assert 0 <= row.low < row.dissimilarity < row.high <= 2

    def test_the_interval_of_a_dissimilarity_is_that_of_resampled_batteries(self, study: Study) -> None:
        (row,) = dissimilarities(study.pretrained[0].profile[["de", "fa"]], study.items).to_dict("records")
        profile = study.pretrained[0].profile[["de", "fa"]]
        profile = profile.loc[[name for name in profile.index if study.items[name].paper]]
        groups = batteries(list(profile.index), study.items)
        x, y = profile.to_numpy().T
        weights = bootstrap_weights(groups, 2000)
        cosines = (weights @ (x * y)) / np.sqrt((weights @ x**2) * (weights @ y**2))
        low, high = 1 - np.quantile(cosines, [0.975, 0.025])
        assert row["high"] - row["low"] == pytest.approx(high - low, rel=0.3)

    def test_structure(self, study: Study, made: dict[str, Exhibit]) -> None:
        arm = arm_of(study, "multi")
        rows = rows_of(made["structure"], arm).set_index("other")
        expected = structure(arm.base.profile, arm.tuned.profile, study.items)
        assert rows.loc["pretrained", "spearman"] == expected["spearman"]
        assert rows.loc["pretrained", "p"] == expected["p"]
        people = spoken(survey_truth("wvs").profile, LANGUAGES)
        assert rows.loc["survey", "spearman"] == structure(people, arm.tuned.profile, study.items)["spearman"]

    def test_mean_dissimilarity_by_kind(self, study: Study, made: dict[str, Exhibit]) -> None:
        table = made["mean_dissimilarity"].table
        rows = table[(table["source"] == "pbc") & (table["seed"] == 0) & (table["model"] == "small")]
        assert rows[["kind", "models"]].to_numpy().tolist() == [
            ["pretrained", 1],
            ["monolingual", 2],
            ["monolingual", 1],
            ["multilingual", 1],
        ]
        assert rows["size"].fillna(0).tolist() == [0, 2000, 10000, 2000]
        alone = [arm_of(study, name).tuned.profile for name in ("pbc-fa-0", "pbc-ko-0")]
        expected = mean_dissimilarity({"base": [study.pretrained[0].profile], "mono": alone}, study.items)
        columns = ["dissimilarity", "low", "change", "change_low", "change_high", "n"]
        same(rows.head(2), expected, columns)

    def test_direction_is_of_one_plane_a_panel(self, study: Study, made: dict[str, Exhibit]) -> None:
        arms = [arm_of(study, f"tanzil-{code}-1") for code in ("fa", "ko")]
        found = plane({"base": arms[0].base.profile, **{arm.tuning: arm.tuned.profile for arm in arms}}, study.items)
        points = found.points.set_index(["model", "language"])
        table = made["direction"].table
        rows = table[(table["source"] == "tanzil") & (table["seed"] == 1)]
        assert len(rows) == 8
        for row in rows.itertuples():
            assert (row.x, row.y) == pytest.approx(tuple(points.loc[(row.tuning, row.language)]))
            assert (row.x_base, row.y_base) == pytest.approx(tuple(points.loc[("base", row.language)]))
            assert row.explained_x == found.explained[0]
        cosine = parallelism(arms[0].base.profile, arms[0].tuned.profile, study.items)
        assert rows_of(made["parallelism"], arms[0]).loc[0, "cosine"] == cosine["cosine"]

    def test_survey_similarity_against_numpy(self, study: Study, made: dict[str, Exhibit]) -> None:
        truth = survey_truth("wvs").profile
        paper = [name for name in truth.index if study.items[name].paper]
        pair = truth.loc[paper, ["DEU", "PAK"]].dropna().to_numpy()
        cosine = pair[:, 0] @ pair[:, 1] / np.linalg.norm(pair[:, 0]) / np.linalg.norm(pair[:, 1])
        table = made["survey_similarity"].table.set_index(["first", "second"])
        row = table.loc[("PAK", "DEU")] if ("PAK", "DEU") in table.index else table.loc[("DEU", "PAK")]
        assert row["cosine"] == pytest.approx(cosine)
        assert row["low"] < cosine < row["high"] <= 1
        assert row["n"] == len(pair)

    def test_the_papers_figures_stand_beside_ours(self, made: dict[str, Exhibit]) -> None:
        table = made["paper"].table
        assert table["theirs"].tolist() == [0.84, 0.88]
        ours = made["survey_similarity"].table
        pair = ours[ours["first"].isin(["VNM", "SRB"]) & ours["second"].isin(["VNM", "SRB"])]
        assert table["ours"].tolist()[1] == pair["cosine"].item()
        assert "the paper has 237" in table["differs"][0]
        assert "not computed from the full survey" in table["differs"][0]

    def test_a_figure_of_a_run_is_found_by_its_cells(
        self, study: Study, made: dict[str, Exhibit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = "source=pbc;tuning=fa;size=2000;seed=0;placebo=False;language=ko"
        lines = [
            f"Table 2,unchanged,{row},unchanged,0.9,share,",
            "Table 2,unchanged,source=flores,unchanged,0.8,share,",
        ]
        monkeypatch.setattr(theirs, "PACKAGE", tmp_path)
        monkeypatch.setattr(theirs, "VALUES", tmp_path / "values.csv")
        theirs.VALUES.write_text("\n".join(["table,exhibit,row,column,value,unit,note", *lines]))
        exhibit = theirs.beside_paper(list(made.values()), study)
        small, large, absent = exhibit.table.to_dict("records")
        rows = rows_of(made["unchanged"], arm_of(study, "pbc-fa-0")).set_index("language")
        assert (small["theirs"], small["ours"], small["low"]) == (0.9, rows["unchanged"]["ko"], rows["low"]["ko"])
        assert small["differs"].startswith("wording wvs, the paper has wvs_arora; ")
        assert small["differs"].endswith("; model small, the paper has mT5")
        assert large["differs"].endswith("; model large, the paper has mT5")
        assert np.isnan(absent["ours"]) and absent["differs"] == "not among our rows."
        assert exhibit.runs == (arm_of(study, "pbc-fa-0").tuned.run, arm_of(study, "large-fa").tuned.run)
