"""The `valueshift` command."""


def main() -> None:
    """Run the command."""
