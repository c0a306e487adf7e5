"""The report's attributions: every number is that of analysis, and those of other runs are left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_records import arm_of, moved, odds, probed, rows_of, same, tuned
from valueshift.analysis.influences import Attributed, cross_test_overlap, language_shares, parallel_overlap
from valueshift.core.records import write_record
from valueshift.tracking.report.exhibits import exhibits
from valueshift.tracking.report.study import collect

pytestmark = pytest.mark.xdist_group("report")  # what its tests share takes long to make


class TestCauses:
    def test_attribution(self, tmp_path: Path) -> None:
        answers = odds(0)
        probed(tmp_path, "base", answers)
        generator = np.random.default_rng(0)
        training, tables = {}, {}
        for name, languages in (("fa", ["fa"]), ("ko", ["ko"]), ("multi", ["fa", "ko"])):
            finetune = tuned(tmp_path, "base", name, languages)
            probed(tmp_path, name, moved(answers, 3, 1.0))
            examples = pd.read_parquet(finetune / "examples.parquet").query("split == 'train'")
            queries = pd.DataFrame(
                [(code, question, "second") for code in ("de", "ro") for question in ("Q1", "Q2", "Q3")],
                columns=["language", "question", "answer_tuned"],
            )
            influence = pd.concat(
                examples.sample(10, random_state=generator).assign(
                    **query,
                    side=side,
                    rank=range(10),
                    train_language=lambda table: table["example"].str.split(":").str[1],
                )[["language", "question", "side", "rank", "example", "train_language"]]
                for query in queries[["language", "question"]].to_dict("records")
                for side in ("top", "bottom")
            )
            write_record(
                tmp_path,
                "attribution",
                {"tuned": [name], "probe_set": "wvs"},
                {"queries": queries, "influence": influence},
                notes=("UNSTABLE: projections disagree.",) if name == "multi" else (),
            )
            training[name], tables[name] = examples, Attributed(queries, influence, examples)
        study = collect([tmp_path])
        (unstable,) = [note for note in study.notes if "UNSTABLE" in note]
        assert unstable.startswith("attribution-") and unstable.endswith(": UNSTABLE: projections disagree.")
        made = {exhibit.name: exhibit for exhibit in exhibits(study)}
        expected = language_shares(tables["multi"].influence, training["multi"])
        same(made["language_share"].table, expected, ["language", "side", "train_language", "share", "low", "p", "n"])
        assert set(made["language_share"].table["tuning"]) == {"fa+ko"}
        alone = parallel_overlap({"fa": tables["fa"], "ko": tables["ko"]})
        same(made["parallel_overlap"].table, alone, ["first", "second", "overlap", "low", "chance", "n"])
        cross = rows_of(made["cross_test_overlap"], arm_of(study, "multi"))
        same(cross, cross_test_overlap(tables["multi"]), ["first", "second", "overlap", "maximum", "chance", "n"])
        assert sum(run.startswith("attribution-") for run in made["cross_test_overlap"].runs) == 3

    def test_attribution_of_another_run_is_left_out(self, tmp_path: Path) -> None:
        probed(tmp_path, "base", odds(0))
        write_record(tmp_path, "attribution", {"tuned": ["x"], "probe_set": "wvs"}, {})
        write_record(tmp_path, "attribution", {"tuned": ["x"], "probe_set": "wvs_arora"}, {})
        study = collect([tmp_path])
        assert not study.attributions
        assert "the model that it explains is not among the runs" in " ".join(study.notes)
        assert "it explains answers to wvs_arora" in " ".join(study.notes)
