"""Tables for LaTeX, with the rules of the package booktabs."""

from collections.abc import Iterable, Sequence

from ...core.shown import written_out

_SPECIAL: dict[str, str | int | None] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "−": "$-$",
    "±": r"$\pm$",
    "→": r"$\to$",
    "←": r"$\gets$",
    "ρ": r"$\rho$",
}
_LINES = str.maketrans("\n\r", "  ")


def escaped(text: str) -> str:
    """Text that LaTeX sets as it stands."""
    return written_out(text.translate(_LINES)).translate(str.maketrans(_SPECIAL))


def tabular(header: Sequence[str], right: Sequence[bool], rows: Iterable[Sequence[str]]) -> str:
    """A `tabular` with toprule, midrule and bottomrule; `right` says which columns are set to the right."""

    def line(cells: Sequence[str]) -> str:
        # A bracket or a star after \\ would be read as its argument, were it the first cell of the next line.
        texts = [escaped(cell) for cell in cells]
        return " & ".join("{" + text + "}" if text.lstrip().startswith(("[", "*")) else text for text in texts) + r" \\"

    body = [line(row) for row in rows]
    alignment = "".join("r" if flag else "l" for flag in right)
    return "\n".join(
        [
            "% Needs \\usepackage{booktabs}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\toprule",
            line(header),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
