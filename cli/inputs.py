"""`valueshift probes`, `survey` and `corpus`: what is asked, what people answered, and what is trained on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import ValueshiftError
from .app import corpus_app, probes_app, survey_app
from .show import counts, print_table, say, say_next


@probes_app.command("import")
def probes_import(
    path: Annotated[Path | None, typer.Argument(help="The release's probes.zip, or the folder it unpacks to.")] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download the release once, checked against its SHA-256.")
    ] = False,
) -> None:
    """Import the probe release of Arora et al. (2023) as the probe sets wvs_arora and hofstede_arora."""
    from ..core.probe_import import fetch_release, import_release
    from ..core.probes import imported_folder

    if (path is None) == (not fetch):
        raise ValueshiftError("give either the PATH of your copy of the release, or --fetch")
    report = import_release(fetch_release() if path is None else path)
    print_table(
        "Imported probes",
        ["probe set", "language", "kept", "left out", "mended"],
        [
            [
                done.probe_set,
                done.language,
                str(done.kept),
                "; ".join(f"{len(rows)}: {reason}" for reason, rows in done.left_out.items()),
                counts(done.mended),
            ]
            for done in report
        ],
    )
    say(f"Probe sets: {imported_folder('wvs_arora').parent.parent}")
    say("Next: lm_eval --tasks wvs_arora_de --model hf --model_args pretrained=MODEL")


@probes_app.command("check")
def probes_check(
    path: Annotated[Path | None, typer.Argument(help="Folder of <language>.csv; else everything packaged.")] = None,
    tokenizer: Annotated[
        list[str] | None, typer.Option(help="Also show how evenly this tokenizer splits options.")
    ] = None,
) -> None:
    """Check the wording of probe files: mask, options, script, markup, coverage, length."""
    from ..core.paths import TASKS
    from ..core.probe_check import check_file
    from ..core.probes import ProbeSet, read_items

    folder = path or TASKS / "wvs" / "probes"
    beside = folder.parent / "items.csv"
    items = read_items(beside if beside.is_file() else TASKS / "wvs" / "items.csv")
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise ValueshiftError(f"{folder} holds no <language>.csv")
    findings = [finding for file in files for finding in check_file(file, items, file.stem)]
    if findings:
        print_table("Faults", ["language", "question", "fault"], [[f.language, f.question, f.fault] for f in findings])
        raise ValueshiftError(f"{len(findings)} faults in {folder}; mend them and check again")
    say(f"{len(files)} languages x {len(items)} questions in {folder}: no fault found")
    for name in tokenizer or []:
        _print_balance(name, ProbeSet("wvs", folder))


def _print_balance(name: str, probes: Any) -> None:
    from ..harness_ext.balance import token_balance
    from ..harness_ext.models import load_tokenizer

    tokenizer = load_tokenizer(name)
    found = {language: token_balance(probes.probes(language), tokenizer) for language in probes.languages}
    print_table(
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
    from ..core.own_set import new_probe_set

    made = new_probe_set(name, items, probes, shares)
    say(f"Probe set {name}: {len(made.items)} questions, {', '.join(made.languages)}, in {made.folder.parent}")
    say(f"Next: valueshift probe MODEL --probe-set {name}, or lm_eval --tasks {name} --model hf ...")


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
    from ..core.surveys import import_survey, write_survey

    if unknown_codes not in ("refuse", "drop"):
        raise ValueshiftError(f"--unknown-codes is refuse or drop, not '{unknown_codes}'")
    imported = import_survey(files, weighted=not unweighted, unknown_codes=unknown_codes)  # type: ignore[arg-type]
    summary = imported.summary()
    print_table(
        f"Imported: {imported.survey}",
        list(map(str, summary.columns)),
        [[str(v) for v in row] for row in summary.values],
    )
    for note in imported.notes:
        say(f"- {note}")
    say(f"Survey: {write_survey(imported)}")
    say("Next: valueshift probe MODEL --languages de,fa")


@corpus_app.command("import")
def corpus_import(
    kind: Annotated[str, typer.Argument(help="pbc, tanzil, flores, news or text.")],
    path: Annotated[Path | None, typer.Argument(help="Folder, file or archive of the release.")] = None,
    fetch: Annotated[bool, typer.Option("--fetch", help="Download it once, checked (pbc and flores).")] = False,
    name: Annotated[str | None, typer.Option(help="Of the corpus; else its kind.")] = None,
    publications: Annotated[str | None, typer.Option(help="Of news, comma-separated.")] = None,
) -> None:
    """Import a parallel corpus: one Parquet file with id, language and text."""
    from ..finetune.corpora.importing import fetch_release, import_corpus
    from ..finetune.corpora.news import PUBLICATIONS

    if (path is None) == (not fetch):
        raise ValueshiftError("give either the PATH of your copy of the release, or --fetch")
    wanted = [part.strip() for part in publications.split(",")] if publications else PUBLICATIONS
    source = fetch_release(kind) if path is None else path
    for corpus in import_corpus(kind, source, name=name, publications=wanted):
        print_table(
            f"{corpus.name}: {corpus.parallel} sentences in all languages",
            ["language", "file", "kept", "left out", "mended", "noted"],
            [
                [
                    done.language,
                    str(done.source),
                    str(done.kept),
                    *(counts(found) for found in (done.left_out, done.mended, done.noted)),
                ]
                for done in corpus.languages
            ],
        )
        for note in corpus.notes:
            say(f"- {note}")
        say(f"Corpus: {corpus.path}")
        say_next(
            "valueshift",
            "finetune",
            "--model",
            "MODEL",
            "--corpus",
            corpus.name,
            "--languages",
            "LANGUAGES",
            "--size",
            2000,
        )
