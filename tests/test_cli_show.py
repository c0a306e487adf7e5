"""What commands print."""

import pytest
from valueshift.cli.show import print_table


def test_brackets_and_colons_in_a_table_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("runs[/x]", ["[b]cell", "why"], [["pip install 'valueshift[ray]'", ":x: [red]"]])
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("runs[/x]", "[b]cell", "'valueshift[ray]'", ":x: [red]"))
