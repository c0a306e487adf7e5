"""`valueshift probe` and `compare`: ask models, and see what shifted between two."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import Languages, Output, app, one_process, tasks_app
from .comparison import print_comparison
from .show import interval, print_table, publish_records, say, say_next

if TYPE_CHECKING:
    from ..core.outcomes import Outcomes


@app.command()
def probe(
    model: Annotated[str, typer.Argument(help="Checkpoint folder or hub name; any family.")],
    languages: Languages = None,
    probe_set: Annotated[str, typer.Option(help="wvs, wvs_arora, hofstede_arora or your own.")] = "wvs",
    output: Output = None,
    batch_size: Annotated[str, typer.Option(help="Probes in a batch, or auto.")] = "auto",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; else a GPU where there is one.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16; else float32 on CPU, bfloat16 on GPU.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run model code from the hub.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first questions of each language.")] = None,
    reading: Annotated[
        str, typer.Option(help="sum, token_mean, byte_mean, closed, dcpmi or calibrated; the record keeps all.")
    ] = "sum",
    country: Annotated[list[str] | None, typer.Option(help="Compare a language with other people: de=AUT.")] = None,
    paraphrase: Annotated[
        bool, typer.Option("--paraphrase", help="Ask the other wording (wvs_arora, wvs) too.")
    ] = False,
) -> None:
    """Ask a model the survey, write the run record, and publish it to MLflow."""
    from ..core.files import writable
    from ..core.languages import parse_languages
    from ..core.outcomes import Outcomes
    from ..core.paths import runs_root
    from ..core.probes import other_wording
    from ..core.probes import probe_set as find_probe_set
    from ..harness_ext.hub import refuse_absent

    one_process()
    root = runs_root(output)
    names = (probe_set, other_wording(probe_set)) if paraphrase else (probe_set,)
    chosen = [(asked, parse_languages(languages, asked.languages)) for asked in map(find_probe_set, names)]
    refuse_absent(model, revision=revision)
    from ..analysis.readings import reading_named
    from ..harness_ext.alignment import parse_countries, refuse_unsurveyed
    from ..harness_ext.probe_record import write_probe_record
    from ..harness_ext.probing import Asking, ask, parse_batch_size

    countries = parse_countries(country or [])
    needed = reading_named(reading).needs
    how = Asking(
        parse_batch_size(batch_size),
        device,
        dtype,
        revision,
        trust_remote_code,
        limit,
        neutral="neutral_first" in needed,
        needs=needed,
    )
    for asked, _ in chosen:
        refuse_unsurveyed(asked.name, countries)
    writable(root)
    records: list[Path] = []
    outcomes = Outcomes()
    for asked, codes in chosen:
        with outcomes.attempt(f"there is no record of {asked.name}"):
            run = ask(model, asked, codes, root, how)
            records.append(
                outcomes.insist(partial(write_probe_record, root, run, reading=reading, countries=countries))
            )
            _print_probe(f"{model}: {asked.name}", records[-1])
        if outcomes.stopped:
            break
    _publish(root, records, outcomes)
    if paraphrase:
        say_next("valueshift", "compare", *records)
    else:
        say_next("valueshift", "compare", records[0], "SECOND_RECORD", before="probe a second checkpoint, then: ")


def _publish(root: Path, records: list[Path], outcomes: "Outcomes") -> None:
    """Send what there is to MLflow, unless the user ends the command, and say what failed."""
    if records and not outcomes.stopped:
        with outcomes.attempt("MLflow"):
            publish_records(root, *records)
    outcomes.finish()


def _print_probe(title: str, folder: Path) -> None:
    from ..core.records import read_record, read_table

    record = read_record(folder)
    members = record.metrics
    languages = [name.removeprefix("questions/") for name in members if name.startswith("questions/")]
    aligned = {}
    if "alignment" in record.tables:
        rows: Any = read_table(folder, "alignment")
        for row in rows.itertuples():
            found = str(row.reason) or f"{row.spearman:+.2f} {interval(row.low, row.high)}, n = {row.n}"
            aligned[str(row.language)] = f"{row.country} {found}"
    print_table(
        title,
        ["language", "questions", "mean p_first", "answered first", "readings agree", "Spearman with the survey"],
        [
            [
                code,
                f"{members[f'questions/{code}']:.0f}",
                f"{members[f'p_first/{code}']:.3f}",
                f"{100 * members[f'first_share/{code}']:.1f} %",
                f"{100 * members[f'readings_agree/{code}']:.0f} %" if f"readings_agree/{code}" in members else "",
                aligned.get(code, "no survey"),
            ]
            for code in languages
        ],
    )
    for note in record.notes:
        say(f"- {note}")
    say(f"Record: {folder}")


@app.command()
def compare(
    base: Annotated[str, typer.Argument(help="Probe record, lm-eval results folder, or checkpoint.")],
    tuned: Annotated[list[str], typer.Argument(help="One or more of the same.")],
    languages: Languages = None,
    probe_set: Annotated[
        str, typer.Option(help="Probe set, where checkpoints are given, or results of several sets.")
    ] = "wvs",
    output: Output = None,
) -> None:
    """What shifted between two models: answers, alignment, similarity and direction, with intervals."""
    from ..core.outcomes import Outcomes
    from ..core.paths import runs_root
    from ..core.records import read_record
    from ..harness_ext.hub import refuse_absent

    one_process()
    refuse_absent(base)
    from ..harness_ext.comparison import compare as compare_runs
    from ..harness_ext.probing import model_of, run_of
    from ..harness_ext.results import in_languages

    root = runs_root(output)
    model_of(base)
    outcomes = Outcomes()
    usable = []
    for name in tuned:  # what cannot be compared is left out before anything is asked
        with outcomes.attempt(f"{base} is not compared with {name}"):
            refuse_absent(name)
            model_of(name)
            usable.append(name)
    if not usable:
        outcomes.finish()
    base_run = in_languages(run_of(base, probe_set, languages, root), languages)
    records: list[Path] = []
    for name in usable:
        with outcomes.attempt(f"{base} is not compared with {name}"):
            run = in_languages(run_of(name, probe_set, languages, root), languages)
            record, tables = outcomes.insist(partial(compare_runs, base_run, run, root))
            records.append(record)
            print_comparison(base, name, tables, read_record(record).notes)
            say(f"Record: {record} (tables {', '.join(tables)})")
        if outcomes.stopped:
            break
    _publish(root, records, outcomes)
    say_next("valueshift", "ui", "--output", root)


@tasks_app.command("path")
def tasks_path() -> None:
    """Print the folder of task files, for `lm_eval --include_path` where the hook is off."""
    from ..core.paths import TASKS

    say(TASKS)
