"""How much is read of what others made, and how long anything is waited for: every bound in one place.

A bound is far above what honest input needs, and far below what a machine of 8 GB cannot hold or a person will not sit through.
The message of whoever meets one names it, so that a user who needs more knows which line to change.
"""

JSON_BYTES = 64 << 20
"""Of one JSON document: a record, a configuration, a results file."""
JSON_LINE_BYTES = 16 << 20
"""Of one line of JSONL."""
JSON_DEPTH = 100
"""Lists and objects within each other."""
INTEGER = 2**63 - 1
"""Largest magnitude of an integer in JSON: what a table's column holds."""

GREETING_SECONDS = 5
"""How long a tracking server or database may take to answer the first call."""
CALL_SECONDS = 60
"""How long it may take to answer any other; `MLFLOW_HTTP_REQUEST_TIMEOUT` where that is set."""
UPLOAD_BYTES_PER_SECOND = 100_000
"""The slowest line over which files are sent: what a call may last beyond its seconds, by the size of what it carries."""
ANSWER_BYTES = 64 << 20
"""Of one answer of a tracking server: a page of runs has a few MB."""
BUSY_SECONDS = 60
"""How long a SQLite file that another program holds locked is waited for."""
PATIENCE_SECONDS = 5
"""How long another process is waited for without a word."""
PUBLISHING_SECONDS = 600
"""How long another process of ours that publishes to the same store is waited for: it sends one record in a second."""
REASON_CHARACTERS = 300
"""Of what a server, a database or a library says, in a message of ours."""
SQLITE_PATH_BYTES = 460
"""Of the path of a SQLite file: SQLite refuses one of 512 with the names of the files that it makes beside it."""
