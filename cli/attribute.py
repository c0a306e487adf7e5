"""`valueshift attribute` and `valueshift attribute check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.errors import ValueshiftError
from ..core.limits import DIMENSIONS, PROJECTIONS, RETRAININGS, SEEDS
from .app import Languages, Output, app, finite, one_process
from .show import figure, interval, print_table, publish_records, say, say_next

if TYPE_CHECKING:
    from ..attribution.attributing import Attributing

attribute_app = typer.Typer(
    help="Which training sentences pushed the answers that shifted.", invoke_without_command=True
)
app.add_typer(attribute_app, name="attribute")

Base = Annotated[str | None, typer.Option(help="Probe record or checkpoint of the model that was fine-tuned.")]
Tuned = Annotated[
    str | None, typer.Option(help="The same of the fine-tuned one; its finetune record is in the output.")
]
Backend = Annotated[str | None, typer.Option(help="factorised (ours), traker (as published) or exact (toys).")]
Questions = Annotated[
    str | None, typer.Option(help="Comma-separated questions, such as Q1,Q106a; else the paper's that shifted.")
]
ProbeSet = Annotated[str, typer.Option(help="Probe set, where checkpoints are given.")]
Projection = Annotated[
    int | None,
    typer.Option(min=1, max=DIMENSIONS, help="Dimensions: per side of a weight matrix, or of a vector with traker."),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1, max=PROJECTIONS, help="Projections; their scores are averaged, their agreement is the stability."
    ),
]
Damping = Annotated[
    float | None, typer.Option(min=0, callback=finite, help="Of the inverse, relative to the mean eigenvalue.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; else a GPU where there is one.")]


def _how(base: str | None, tuned: str | None, **given: Any) -> "tuple[str, str, Attributing]":
    from ..harness_ext.hub import refuse_absent

    if base is None or tuned is None:
        raise ValueshiftError("give both models: valueshift attribute --base BASE --tuned TUNED")
    refuse_absent(base, tuned)
    from ..attribution.attributing import Attributing, method_of

    names = ("languages", "questions", "probe_set", "also", "device")
    settings = {name: given.pop(name) for name in names if name in given}
    return base, tuned, Attributing(method_of(**given), **settings)


@attribute_app.callback()
def attribute(
    context: typer.Context,
    base: Base = None,
    tuned: Tuned = None,
    backend: Backend = None,
    languages: Languages = None,
    questions: Questions = None,
    probe_set: ProbeSet = "wvs",
    projection: Projection = None,
    seeds: Seeds = 2,
    damping: Damping = None,
    paper: Annotated[bool, typer.Option("--paper", help="TRAK as published, where it can be right.")] = False,
    paper_strict: Annotated[
        bool, typer.Option("--paper-strict", help="TRAK as published, also where it cannot be right.")
    ] = False,
    also: Annotated[
        list[str] | None, typer.Option(help="A further checkpoint tuned on the same sentences; scores are averaged.")
    ] = None,
    device: Device = None,
    output: Output = None,
) -> None:
    """Rank the training sentences behind every answer that shifted, and say whether to believe the ranking."""
    if context.invoked_subcommand:
        return
    from ..core.paths import runs_root

    one_process()
    root = runs_root(output)
    base, tuned, how = _how(
        base,
        tuned,
        backend=backend,
        languages=languages,
        questions=questions,
        probe_set=probe_set,
        projection=projection,
        seeds=seeds,
        damping=damping,
        paper=paper,
        paper_strict=paper_strict,
        also=tuple(also or ()),
        device=device,
    )
    from ..attribution.attributing import attribute as run_attribute
    from ..attribution.attributing import page_folder
    from ..attribution.page import write_page

    record = run_attribute(base, tuned, root, how)
    if record is None:
        say(f"No answer shifted between {base} and {tuned}: there is nothing to attribute, and no record was written.")
        return
    page = write_page(record, page_folder(record))
    _print_record(record)
    say(f"Record: {record} (tables queries, influence, shares)")
    say(f"Read the sentences: {page}")
    publish_records(root, record)
    say_next("valueshift", "attribute", "check", "--base", base, "--tuned", tuned, "--output", root)


def _print_record(folder: Path) -> None:
    from ..core.records import read_record, read_table

    shares: Any
    record, shares = read_record(folder), read_table(folder, "shares")
    print_table(
        "Languages of the sentences at either end of the rankings",
        [
            "language",
            "side",
            "sentences in",
            "share",
            "95% interval",
            "base rate",
            "odds ratio",
            "adjusted p",
            "probes",
        ],
        [
            [
                *(str(row.language), str(row.side), str(row.train_language), f"{row.share:.3f}"),
                interval(row.low, row.high, ".3f", "", " - "),
                f"{row.base_rate:.3f}",
                figure(row.odds_ratio, ".2f"),
                figure(row.adjusted, ".3f"),
                str(row.n),
            ]
            for row in shares.itertuples()
        ],
    )
    believed = {name: value for name, value in record.metrics.items() if "/" not in name}
    names = {
        "stability": "stability of the top between projections",
        "token_overlap": "in common with token overlap (BM25)",
        "random_overlap": "in common with random sentences of the language",
    }
    rows = [[label, figure(believed[name], ".2f")] for name, label in names.items() if name in believed]
    print_table(f"Whether to believe it: means over {believed['shifted']:.0f} shifted probes", ["", "value"], rows)
    for note in record.notes:
        say(f"- {note}")


@attribute_app.command("check")
def attribute_check(
    base: Base = None,
    tuned: Tuned = None,
    planted: Annotated[
        bool, typer.Option("--planted", help="Check the method on a planted community instead of a run.")
    ] = False,
    models: Annotated[
        int, typer.Option(min=3, max=RETRAININGS, help="Models to train on random halves of the sentences.")
    ] = 20,
    removals: Annotated[
        int, typer.Option(min=1, max=RETRAININGS, help="Probes whose top sentences are left out; two models each.")
    ] = 5,
    backend: Backend = None,
    languages: Languages = None,
    questions: Questions = None,
    probe_set: ProbeSet = "wvs",
    projection: Projection = None,
    seeds: Seeds = 2,
    damping: Damping = None,
    paper: Annotated[bool, typer.Option("--paper", help="Compare with TRAK as published.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Of all draws, and of the planted community.")] = 0,
    device: Device = None,
    output: Output = None,
) -> None:
    """Train again without some sentences, and see whether the answers go where attribution says."""
    from ..core.paths import runs_root

    one_process()
    root = runs_root(output)
    how: dict[str, Any] = {"backend": backend, "projection": projection, "seeds": seeds, "damping": damping}
    numbers = {"models": models, "removals": removals, "seed": seed}
    if planted:
        from ..attribution.attributing import method_of
        from ..attribution.checking import check_planted

        folder, tables = check_planted(root, method_of(**how), **numbers)
    else:
        where: dict[str, Any] = {
            "languages": languages,
            "questions": questions,
            "probe_set": probe_set,
            "device": device,
        }
        base, tuned, asked = _how(base, tuned, **how, **where)
        from ..attribution.checking import check_run

        folder, tables = check_run(base, tuned, root, asked, paper=paper, **numbers)
    _print_checks(tables)
    say(f"Tables: {folder} (the same again reads the models that are trained)")
    say("Next: read docs/attribution.md, 'Can it be believed'")


def _print_checks(tables: dict[str, Any]) -> None:
    print_table(
        "Linear datamodeling score: does the ranking predict models trained on random halves?",
        ["method", "LDS", "95% interval", "the first is better by", "95% interval", "queries", "models"],
        [
            [
                *(str(row.method), figure(row.lds, "+.2f"), interval(row.low, row.high)),
                *(
                    ["", ""]
                    if row.Index == 0
                    else [figure(row.difference, "+.2f"), interval(row.difference_low, row.difference_high)]
                ),
                *(str(row.queries), str(row.models)),
            ]
            for row in tables["lds"].itertuples()
        ],
    )
    removed = tables["removal"].iloc[0]
    print_table(
        f"Contrast without {removed['removed']:.0f} sentences, against training on all ({removed['queries']:.0f} queries)",
        ["without the top", "without random ones", "difference", "95% interval"],
        [
            [
                *(figure(removed[name], "+.2f") for name in ("top", "random", "difference")),
                interval(removed["low"], removed["high"]),
            ]
        ],
    )
    control = tables["randomisation"].iloc[0]
    print_table(
        "The same ranking from shuffled weights: what is alike was not learned",
        ["Spearman", "top in common", "chance"],
        [[figure(control["spearman"], "+.2f"), f"{control['overlap']:.2f}", f"{control['chance']:.2f}"]],
    )
    if "recall" in tables:
        print_table(
            "Planted sentences found at their end of the ranking; recall without LDS proves nothing",
            ["method", "supporting", "contradicting"],
            [
                [str(row.method), figure(row.supporting, ".2f"), figure(row.contradicting, ".2f")]
                for row in tables["recall"].itertuples()
            ],
        )
