"""What lm-eval loads."""


def install() -> None:
    """Placeholder until the hook lands."""
