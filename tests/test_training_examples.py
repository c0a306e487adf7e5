"""What a finished run was trained on can be read again: the very sentences, tokens and masks."""

from pathlib import Path

import pandas as pd
import pytest
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.core.records import read_table
from valueshift.finetune.finetuning import examples_of, finetune
from valueshift.finetune.span_corruption import SpanCorruptionCollator
from valueshift.finetune.training import Training


@pytest.fixture
def corpus(tmp_path) -> Path:
    """20 parallel sentences in German and Farsi."""
    rows = [
        (str(number), language, probe.filled("first"))
        for language in ("de", "fa")
        for number, probe in enumerate(probe_set("wvs").probes(language)[:20])
    ]
    path = tmp_path / "small.parquet"
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(path)
    return path


@pytest.mark.parametrize(("placebo", "lora"), [(False, False), (True, False), (False, True)])
def test_the_very_masks_of_training_come_back(tiny_mt5, corpus, tmp_path, monkeypatch, placebo, lora):
    seen = {}
    collate = SpanCorruptionCollator.__call__

    def spied(self, features):
        batch = collate(self, features)
        for number, one in enumerate(features):
            if one["split"] == "train":
                source = batch["input_ids"][number][batch["attention_mask"][number].bool()]
                target = batch["labels"][number][batch["labels"][number] >= 0]
                seen[self.epoch, one["example"]] = (source.tolist(), target.tolist())
        return batch

    monkeypatch.setattr(SpanCorruptionCollator, "__call__", spied)
    monkeypatch.chdir(tmp_path)
    how = Training(epochs=2, seed=3, lora=lora)
    record = finetune(str(tiny_mt5()), corpus.name, ["de", "fa"], 40, how, placebo=placebo, root=tmp_path / "runs")
    monkeypatch.chdir("/")
    rows, corruption = examples_of(record)
    assert len(rows) == 32 and set(rows["split"]) == {"train"} and len(seen) == 2 * 32
    listed = read_table(record, "examples")
    assert rows["example"].tolist() == listed[listed["split"] == "train"]["example"].tolist()
    texts = pd.read_parquet(corpus).assign(example=lambda t: "small:" + t["language"] + ":" + t["id"])
    assert rows["text"].tolist() == texts.set_index("example")["text"][rows["example"]].tolist()
    for epoch in (0, 1):
        for row in rows.itertuples():
            source, target = corruption(row.example, row.tokens, epoch)
            assert (source.tolist(), target.tolist()) == seen[epoch, row.example]
    assert any(seen[0, example] != seen[1, example] for example in rows["example"])


def test_a_corpus_that_changed_or_is_gone_is_refused(tiny_mt5, corpus, tmp_path):
    record = finetune(str(tiny_mt5()), str(corpus), ["fa"], 20, Training(epochs=1), root=tmp_path / "runs")
    table = pd.read_parquet(corpus)
    table.assign(text=table["text"] + ".").to_parquet(corpus)
    with pytest.raises(ValueshiftError, match="no longer has the sentences"):
        examples_of(record)
    corpus.unlink()
    with pytest.raises(ValueshiftError, match="does not exist"):
        examples_of(record)
