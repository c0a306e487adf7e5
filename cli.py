"""The `valueshift` command: one short function a command; the work is done in the rooms, imported when a command runs."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .core.errors import ValueshiftError

app = typer.Typer(
    name="valueshift",
    help="Ask language models the World Values Survey in their own languages, and see what shifts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
toy_app = typer.Typer(help="The toy community: small checkpoints whose values are planted.", no_args_is_help=True)
tasks_app = typer.Typer(help="The lm-eval tasks.", no_args_is_help=True)
probes_app = typer.Typer(help="Probe sets: import a release, check a wording.", no_args_is_help=True)
corpus_app = typer.Typer(help="Parallel corpora for fine-tuning.", no_args_is_help=True)
survey_app = typer.Typer(help="What people answered.", no_args_is_help=True)
app.add_typer(toy_app, name="toy")
app.add_typer(tasks_app, name="tasks")
app.add_typer(probes_app, name="probes")
app.add_typer(survey_app, name="survey")
app.add_typer(corpus_app, name="corpus")

Output = Annotated[Path | None, typer.Option(help="Folder of run records; else VALUESHIFT_RUNS, else ./runs.")]
Languages = Annotated[str | None, typer.Option(help="Comma-separated codes, such as de,fa; else all there are.")]


def main() -> None:
    """Run the command; bad input ends with one sentence and status 2."""
    try:
        app()
    except ValueshiftError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def _table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)


def _counts(found: dict[str, int]) -> str:
    return "; ".join(f"{count} {what}" for what, count in found.items() if count)


def _publish(root: Path, *records: Path) -> None:
    """Send records to MLflow; where it does not answer, say how to send them later."""
    from .tracking.client import ServerAwayError
    from .tracking.publish import publish

    for record in records:
        try:
            print(f"MLflow: {publish(record, root).where}")
        except ServerAwayError as error:
            sys.stderr.write(f"warning: {error}\n")


@toy_app.command("build")
def toy_build(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("toy"),
    languages: Annotated[str, typer.Option(help="Comma-separated codes.")] = "de,fa",
    seed: Annotated[int, typer.Option(help="Of the planted values and the training.")] = 0,
) -> None:
    """Train two toy checkpoints with planted values, to check the whole chain against a known truth."""
    from .core.languages import parse_languages
    from .core.probes import probe_set
    from .finetune.toy import build_toy

    build_toy(output, languages=parse_languages(languages, probe_set("wvs").languages), seed=seed)
    print(f"Toy community: {output} (base, moved, corpus, truth.csv)")
    print(f"Next: valueshift probe {output}/base --languages {languages}")


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
    paraphrase: Annotated[bool, typer.Option("--paraphrase", help="Ask the second wording (wvs_arora) too.")] = False,
) -> None:
    """Ask a model the survey, write the run record, and publish it to MLflow."""
    from .analysis.readings import reading_named
    from .core.languages import parse_languages
    from .core.paths import runs_root
    from .core.probes import probe_set as find_probe_set
    from .harness_ext.alignment import parse_countries
    from .harness_ext.probe_record import write_probe_record
    from .harness_ext.probing import Asking, ask, parse_batch_size

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
    records = []
    for name in (probe_set, "wvs_arora") if paraphrase else (probe_set,):
        asked = find_probe_set(name)
        run = ask(model, asked, parse_languages(languages, asked.languages), root, how)
        records.append(write_probe_record(root, run, reading=reading, countries=countries))
        _print_probe(f"{model}: {name}", records[-1])
    _publish(root, *records)
    if paraphrase:
        print(f"Next: valueshift compare {records[0]} {records[1]}")
    else:
        print(f"Next: probe a second checkpoint, then: valueshift compare {records[0]} SECOND_RECORD")


def _print_probe(title: str, folder: Path) -> None:
    from .core.records import read_record, read_table

    record = read_record(folder)
    members = {name: value for name, value in record.metrics.items() if not name.startswith("rho/")}
    languages = [name.removeprefix("questions/") for name in members if name.startswith("questions/")]
    aligned = {}
    if "alignment" in record.tables:
        for row in read_table(folder, "alignment").itertuples():
            shown = str(row.reason) or f"{row.spearman:+.2f} [{row.low:+.2f}, {row.high:+.2f}], n = {row.n}"
            aligned[str(row.language)] = f"{row.country} {shown}"
    _table(
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
    """Which answers shifted between two models, per language and category, with intervals."""
    from .core.paths import runs_root
    from .harness_ext.comparison import compare as compare_runs
    from .harness_ext.probing import run_of

    root = runs_root(output)
    base_run = run_of(base, probe_set, languages, root)
    for name in tuned:
        record, tables = compare_runs(base_run, run_of(name, probe_set, languages, root), root)
        _print_comparison(base, name, tables)
        print(f"Record: {record} (tables kept, kept_cat, flipped)")
        _publish(root, record)
    print(f"Next: valueshift ui --output {root}")


def _print_comparison(base: str, tuned: str, tables: dict[str, Any]) -> None:
    kept, flips = tables["kept"], tables["flipped"]
    _table(
        f"Unchanged answers: {base} -> {tuned}",
        ["language", "unchanged", "95% interval", "n", "ties", "dropped"],
        [
            [
                str(row.language),
                str(row.reason) or f"{100 * row.unchanged:.1f} %",
                "" if row.reason else f"{100 * row.low:.1f} - {100 * row.high:.1f}",
                *map(str, (row.n, row.ties, row.dropped)),
            ]
            for row in kept.itertuples()
        ],
    )
    if "ceiling" in tables:
        _table(
            "Two wordings of the same questions: correlation of the profiles, and the alignment one can reach at most",
            ["language", "correlation", "95% interval", "ceiling", "n"],
            [
                [
                    str(row.language),
                    str(row.reason) or f"{row.reliability:+.2f}",
                    "" if row.reason else f"{row.low:+.2f} - {row.high:+.2f}",
                    "" if row.reason else f"{row.ceiling:.2f}",
                    str(row.n),
                ]
                for row in tables["ceiling"].itertuples()
            ],
        )
    largest = flips.assign(by=(flips["p_first_tuned"] - flips["p_first_base"]).abs()).nlargest(10, "by")
    _table(
        f"Answers that flipped: {len(flips)}, the largest ten",
        ["question", "language", "answer", "p_first"],
        [
            [
                str(row.question),
                str(row.language),
                f"{row.answer_base} -> {row.answer_tuned}",
                f"{row.p_first_base:.2f} -> {row.p_first_tuned:.2f}",
            ]
            for row in largest.itertuples()
        ],
    )


@app.command()
def publish(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Records or lm-eval results folders; else all records of the runs root.")
    ] = None,
    output: Output = None,
) -> None:
    """Send to MLflow what it does not have yet; again changes nothing."""
    from .core.paths import runs_root
    from .harness_ext.probe_record import write_probe_record
    from .harness_ext.results import read_probe_runs
    from .tracking.publish import publish_missing

    root = runs_root(output)
    for path in paths or []:
        if not (path / "record.json").is_file():
            for run in read_probe_runs(path):
                print(f"Record: {write_probe_record(root, run)}")
    if paths:
        given = [path for path in paths if (path / "record.json").is_file()]
        _publish(root, *given)
    sent = publish_missing(root)
    print(f"Sent {len(sent)} records that MLflow did not have." if sent else "MLflow has all records.")
    for found in sent:
        print(f"  {found.record}: {found.where}")
    print(f"Next: valueshift ui --output {root}")


@app.command()
def ui(
    output: Output = None,
    port: Annotated[int, typer.Option(help="On this machine only.")] = 5000,
) -> None:
    """Open the MLflow store of the runs root in a browser."""
    from .core.paths import runs_root
    from .tracking.ui import serve

    serve(runs_root(output), port)


@tasks_app.command("path")
def tasks_path() -> None:
    """Print the folder of task files, for `lm_eval --include_path` where the hook is off."""
    from .core.paths import TASKS

    print(TASKS)


@probes_app.command("import")
def probes_import(
    path: Annotated[Path | None, typer.Argument(help="The release's probes.zip, or the folder it unpacks to.")] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download the release once, checked against its SHA-256.")
    ] = False,
) -> None:
    """Import the probe release of Arora et al. (2023) as the probe sets wvs_arora and hofstede_arora."""
    from .core.probe_import import fetch_release, import_release
    from .core.probes import imported_folder

    if (path is None) == (not fetch):
        raise ValueshiftError("give either the PATH of your copy of the release, or --fetch")
    report = import_release(fetch_release() if path is None else path)
    _table(
        "Imported probes",
        ["probe set", "language", "kept", "left out", "mended"],
        [
            [
                done.probe_set,
                done.language,
                str(done.kept),
                "; ".join(f"{len(rows)}: {reason}" for reason, rows in done.left_out.items()),
                _counts(done.mended),
            ]
            for done in report
        ],
    )
    print(f"Probe sets: {imported_folder('wvs_arora').parent.parent}")
    print("Next: lm_eval --tasks wvs_arora_de --model hf --model_args pretrained=MODEL")


@probes_app.command("check")
def probes_check(
    path: Annotated[Path | None, typer.Argument(help="Folder of <language>.csv; else everything packaged.")] = None,
    tokenizer: Annotated[
        list[str] | None, typer.Option(help="Also show how evenly this tokenizer splits options.")
    ] = None,
) -> None:
    """Check the wording of probe files: mask, options, script, markup, coverage, length."""
    from .core.paths import TASKS
    from .core.probe_check import check_file
    from .core.probes import ProbeSet, read_items

    folder = path or TASKS / "wvs" / "probes"
    beside = folder.parent / "items.csv"
    items = read_items(beside if beside.is_file() else TASKS / "wvs" / "items.csv")
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise ValueshiftError(f"{folder} holds no <language>.csv")
    findings = [finding for file in files for finding in check_file(file, items, file.stem)]
    if findings:
        _table("Faults", ["language", "question", "fault"], [[f.language, f.question, f.fault] for f in findings])
        raise ValueshiftError(f"{len(findings)} faults in {folder}; mend them and check again")
    print(f"{len(files)} languages x {len(items)} questions in {folder}: no fault found")
    for name in tokenizer or []:
        _print_balance(name, ProbeSet("wvs", folder))


def _print_balance(name: str, probes: Any) -> None:
    from .harness_ext.balance import token_balance
    from .harness_ext.models import load_tokenizer

    tokenizer = load_tokenizer(name)
    found = {language: token_balance(probes.probes(language), tokenizer) for language in probes.languages}
    _table(
        f"Tokens of the options: {name}",
        ["language", "first", "second", "equally many"],
        [[code, f"{b['first']:.2f}", f"{b['second']:.2f}", f"{100 * b['equal']:.0f} %"] for code, b in found.items()],
    )


@probes_app.command("new")
def probes_new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and _; the tasks are <name>_<language>.")],
    items: Annotated[Path, typer.Option(help="Registry CSV: which code of which variable stands at which pole.")],
    probes: Annotated[Path, typer.Option(help="Folder of <language>.csv.")],
    shares: Annotated[Path | None, typer.Option(help="CSV of what people answered: question,<ISO3>,...")] = None,
) -> None:
    """Make a probe set of your own survey."""
    from .core.own_set import new_probe_set

    made = new_probe_set(name, items, probes, shares)
    print(f"Probe set {name}: {len(made.items)} questions, {', '.join(made.languages)}, in {made.folder.parent}")
    print(f"Next: valueshift probe MODEL --probe-set {name}, or lm_eval --tasks {name} --model hf ...")


@survey_app.command("import")
def survey_import(
    files: Annotated[
        list[Path], typer.Argument(help="Official WVS-7 files: .csv, .xlsx, .sav, .dta, or a .zip of one.")
    ],
    unweighted: Annotated[bool, typer.Option("--unweighted", help="Without the weights of the file.")] = False,
    unknown_codes: Annotated[
        str, typer.Option(help="refuse or drop answers with a code that the registry lacks.")
    ] = "refuse",
) -> None:
    """Import what people answered, for all countries in the files; it replaces the packaged table."""
    from .core.surveys import import_survey, write_survey

    if unknown_codes not in ("refuse", "drop"):
        raise ValueshiftError(f"--unknown-codes is refuse or drop, not '{unknown_codes}'")
    imported = import_survey(files, weighted=not unweighted, unknown_codes=unknown_codes)  # type: ignore[arg-type]
    summary = imported.summary()
    _table(
        f"Imported: {imported.survey}",
        list(map(str, summary.columns)),
        [[str(v) for v in row] for row in summary.values],
    )
    for note in imported.notes:
        print(f"- {note}")
    print(f"Survey: {write_survey(imported)}")
    print("Next: valueshift probe MODEL --languages de,fa")


@corpus_app.command("import")
def corpus_import(
    kind: Annotated[str, typer.Argument(help="pbc, tanzil, flores, news or text.")],
    path: Annotated[Path | None, typer.Argument(help="Folder, file or archive of the release.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download it once, checked (pbc and flores).")] = False,
    name: Annotated[str | None, typer.Option(help="Of the corpus; else its kind.")] = None,
    publications: Annotated[str | None, typer.Option(help="Of news, comma-separated.")] = None,
) -> None:
    """Import a parallel corpus: one Parquet file with id, language and text."""
    from .finetune.corpora.importing import fetch_release, import_corpus
    from .finetune.corpora.news import PUBLICATIONS

    if (path is None) == (not fetch):
        raise ValueshiftError("give either the PATH of your copy of the release, or --fetch")
    wanted = [part.strip() for part in publications.split(",")] if publications else PUBLICATIONS
    source = fetch_release(kind) if path is None else path
    for corpus in import_corpus(kind, source, name=name, publications=wanted):
        _table(
            f"{corpus.name}: {corpus.parallel} sentences in all languages",
            ["language", "file", "kept", "left out", "mended", "noted"],
            [
                [
                    done.language,
                    str(done.source),
                    str(done.kept),
                    *(_counts(found) for found in (done.left_out, done.mended, done.noted)),
                ]
                for done in corpus.languages
            ],
        )
        for note in corpus.notes:
            print(f"- {note}")
        print(f"Corpus: {corpus.path}")


@app.command()
def finetune(
    model: Annotated[str, typer.Option(help="Checkpoint folder or hub name of an encoder-decoder model.")],
    corpus: Annotated[str, typer.Option(help="An imported corpus, or a Parquet file with id, language and text.")],
    languages: Annotated[str, typer.Option(help="Comma-separated codes; several share the sentences equally.")],
    size: Annotated[int, typer.Option(min=1, help="Sentences before the split into train (80%) and dev.")],
    epochs: Annotated[int, typer.Option(help="Passes over the training sentences.")] = 5,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW, falling to 0.")] = 5e-5,
    batch_size: Annotated[int, typer.Option(help="Sentences in a step, over all devices.")] = 8,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is computed in.")] = 1,
    seed: Annotated[int, typer.Option(help="Of masks and order.")] = 0,
    placebo: Annotated[bool, typer.Option("--placebo", help="Permute the tokens across all sentences.")] = False,
    lora: Annotated[bool, typer.Option("--lora", help="Train an adapter.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Also write the model with its adapter merged.")] = False,
    keep_every: Annotated[int | None, typer.Option(help="Keep the model every so many steps.")] = None,
    output: Output = None,
) -> None:
    """Fine-tune a model by span corruption, as the paper does; a run that was stopped goes on."""
    from .core.paths import runs_root
    from .core.records import read_record
    from .finetune.finetuning import finetune as run_finetune
    from .finetune.training import Training, processes

    root = runs_root(output)
    codes = [code.strip() for code in languages.split(",") if code.strip()]
    how = Training(epochs, learning_rate, batch_size, accumulate, seed, lora, keep_every=keep_every)
    folder = run_finetune(model, corpus, codes, size, how, placebo=placebo, merge=merge, root=root)
    if not processes().is_main_process:
        return
    record = read_record(folder)
    _table("Loss", ["", "value"], [[name, f"{value:.4f}"] for name, value in record.metrics.items()])
    for note in record.notes:
        print(f"- {note}")
    print(f"Record: {folder}")
    _publish(root, folder)
    print(f"Next: valueshift compare {model} {root / str(record.settings['checkpoint'])}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
) -> None:
    """The main job in a few minutes: toy community, lm_eval on two checkpoints, comparison, MLflow."""
    from .experiments.demo import run_demo

    run_demo(output)
