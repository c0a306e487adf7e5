"""`valueshift probe` and `compare`: ask models, and see what shifted between two."""

from pathlib import Path
from typing import Annotated

import typer

from .app import Languages, Output, app, tasks_app
from .comparison import print_comparison
from .show import print_table, publish_records


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
    from ..core.probes import other_wording

    names = (
        (probe_set, other_wording(probe_set)) if paraphrase else (probe_set,)
    )  # refused before anything heavy is imported

    from ..analysis.readings import reading_named
    from ..core.files import writable
    from ..core.languages import parse_languages
    from ..core.paths import runs_root
    from ..core.probes import probe_set as find_probe_set
    from ..harness_ext.alignment import parse_countries
    from ..harness_ext.probe_record import write_probe_record
    from ..harness_ext.probing import Asking, ask, parse_batch_size

    root, countries = runs_root(output), parse_countries(country or [])
    needed = reading_named(reading).needs
    how = Asking(
        parse_batch_size(batch_size),
        device,
        dtype,
        revision,
        trust_remote_code,
        limit,
        neutral="neutral_first" in needed,
    )
    chosen = [(asked, parse_languages(languages, asked.languages)) for asked in map(find_probe_set, names)]
    writable(root)
    records = []
    for asked, codes in chosen:
        run = ask(model, asked, codes, root, how)
        records.append(write_probe_record(root, run, reading=reading, countries=countries))
        _print_probe(f"{model}: {asked.name}", records[-1])
    publish_records(root, *records)
    if paraphrase:
        print(f"Next: valueshift compare {records[0]} {records[1]}")
    else:
        print(f"Next: probe a second checkpoint, then: valueshift compare {records[0]} SECOND_RECORD")


def _print_probe(title: str, folder: Path) -> None:
    from ..core.records import read_record, read_table

    record = read_record(folder)
    members = {name: value for name, value in record.metrics.items() if not name.startswith("rho/")}
    languages = [name.removeprefix("questions/") for name in members if name.startswith("questions/")]
    aligned = {}
    if "alignment" in record.tables:
        for row in read_table(folder, "alignment").itertuples():
            shown = str(row.reason) or f"{row.spearman:+.2f} [{row.low:+.2f}, {row.high:+.2f}], n = {row.n}"
            aligned[str(row.language)] = f"{row.country} {shown}"
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
        print(f"- {note}")
    print(f"Record: {folder}")


@app.command()
def compare(
    base: Annotated[str, typer.Argument(help="Probe record, lm-eval results folder, or checkpoint.")],
    tuned: Annotated[list[str], typer.Argument(help="One or more of the same.")],
    languages: Languages = None,
    probe_set: Annotated[str, typer.Option(help="Probe set, where checkpoints are given.")] = "wvs",
    output: Output = None,
) -> None:
    """What shifted between two models: answers, alignment, similarity and direction, with intervals."""
    from ..core.paths import runs_root
    from ..core.records import read_record
    from ..harness_ext.comparison import compare as compare_runs
    from ..harness_ext.probing import run_of
    from ..harness_ext.results import in_languages

    root = runs_root(output)
    base_run, *tuned_runs = (
        in_languages(run_of(name, probe_set, languages, root), languages) for name in (base, *tuned)
    )
    for name, run in zip(tuned, tuned_runs, strict=True):
        record, tables = compare_runs(base_run, run, root)
        print_comparison(base, name, tables, read_record(record).notes)
        print(f"Record: {record} (tables {', '.join(tables)})")
        publish_records(root, record)
    print(f"Next: valueshift ui --output {root}")


@tasks_app.command("path")
def tasks_path() -> None:
    """Print the folder of task files, for `lm_eval --include_path` where the hook is off."""
    from ..core.paths import TASKS

    print(TASKS)
