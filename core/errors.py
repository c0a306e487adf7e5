"""The one exception that users see."""


class ValueshiftError(Exception):
    """Bad input or an impossible request.

    The message is one or two sentences that name the thing (file, row, field) and the remedy. Commands print it
    without a traceback and exit with status 2.
    """
