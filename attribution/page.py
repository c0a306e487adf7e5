"""One self-contained page on which the sentences behind each shift are read, and the same rankings by id as `top100.json`.

Sentences are read again from the corpus: the record holds ids only, and so does `top100.json`. The page does hold text, so it
goes to a folder of its own and not into the record.
"""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from ..analysis.influences import SIDES
from ..core.files import whole_file
from ..core.languages import LANGUAGES
from ..core.probes import probe_set
from ..core.records import RunRecord, read_record, read_table
from ..finetune.finetuning import examples_of

PAGE, RANKINGS = "index.html", "top100.json"
_COLUMNS = ("stability", "token_overlap", "random_overlap")


def write_page(record: Path, folder: Path) -> Path:
    """Write `index.html` and `top100.json` of an attribution record to a folder; return the path of the page.

    Args:
        record: folder of the record; its finetune record lies beside it.
        folder: made where it is not there.

    Raises:
        ValueshiftError: this is no attribution record, or its finetune record or corpus is gone or has changed.
    """
    run = read_record(record, "attribution")
    rows, _ = examples_of(record.parent / str(run.settings["finetune"]))
    sentences = dict(zip(rows["example"], rows["text"], strict=True))
    queries = _queries(record, run)
    _write(folder / RANKINGS, json.dumps(queries, ensure_ascii=False, indent=1) + "\n")
    _write(folder / PAGE, _html(run, queries, sentences, read_table(record, "shares")))
    return folder / PAGE


def _queries(record: Path, run: RunRecord) -> list[dict[str, Any]]:
    """One entry a shifted probe: what was asked, both answers filled in, and the sentences at either end."""
    table, influence = read_table(record, "queries"), read_table(record, "influence")
    asked = probe_set(run.inputs["probe_set"])
    probes = {(p.language, p.question): p for code in table["language"].unique() for p in asked.probes(code)}
    lists = dict(iter(influence.groupby(["language", "question", "side"], sort=False)))
    entries = []
    for row in table.to_dict("records"):
        language, question = row["language"], row["question"]
        probe = probes[language, question]
        entry: dict[str, Any] = {"language": language, "question": question, "measures": asked.items[question].measures}
        entry |= {"before": probe.filled(row["answer_base"]), "after": probe.filled(row["answer_tuned"])}
        entry |= {name: None if pd.isna(row[name]) else round(row[name], 4) for name in _COLUMNS}
        for side in SIDES:
            found = lists[language, question, side]
            columns = (found["rank"], found["example"], found["train_language"], found["score"])
            entry[side] = [
                {"rank": int(rank), "example": example, "language": code, "score": float(f"{score:.6g}")}
                for rank, example, code, score in zip(*columns, strict=True)
            ]
        entries.append(entry)
    return entries


def _html(run: RunRecord, queries: list[dict[str, Any]], sentences: Mapping[str, str], shares: pd.DataFrame) -> str:
    """The page. Each sentence is in it once; rankings refer to it by number."""
    used = list(dict.fromkeys(one["example"] for query in queries for side in SIDES for one in query[side]))
    number = {example: place for place, example in enumerate(used)}
    compact = [
        {**query, **{side: [[number[one["example"]], one["score"]] for one in query[side]] for side in SIDES}}
        for query in queries
    ]
    languages = {example.split(":")[1] for example in used} | {query["language"] for query in queries}
    data = {
        "queries": compact,
        "sentences": [[example, example.split(":")[1], sentences[example]] for example in used],
        "names": {code: LANGUAGES[code].english for code in sorted(languages) if code in LANGUAGES},
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    folder = files("valueshift.attribution") / "templates"
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        style=(folder / "page.css").read_text(encoding="utf-8"),
        script=(folder / "page.js").read_text(encoding="utf-8"),
        data=in_script(data),
        run=run,
        queries=len(queries),
        shares=shares.to_dict("records"),
        names={code: one.english for code, one in LANGUAGES.items()},
    )


def in_script(data: Any) -> str:
    """JSON that can stand in a script element whatever text it holds: no `<`, and no line separator of JavaScript."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _write(path: Path, text: str) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
