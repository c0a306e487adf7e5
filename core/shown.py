"""Text of others as people are shown it: what a terminal would obey is written out."""

import re

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and paragraph separators, overrides of the writing direction, halves of surrogate pairs."""
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
LENGTH = 1000
"""Of a line, in characters."""
PIECE = 200
"""Of what a file or its parser says, within a message of ours: a damaged file may hold a book in one cell."""


NO_INTERVAL = "fewer than 3 batteries"
"""Why a figure carries no interval (`analysis.intervals.FEWEST`)."""


def shown(text: object, most: int = LENGTH) -> str:
    """`text` in one line of bounded length, see `written_out`; the middle of a long one is left out."""
    line = written_out(str(text))
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def piece(text: object) -> str:
    """`text` of a file or its parser as a part of a message, at most `PIECE` characters of it."""
    return shown(text, PIECE)


def written_out(text: str) -> str:
    """`text` in one line that says what it is: `\\x1b[2J` instead of a cleared screen."""
    return _OBEYED.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
