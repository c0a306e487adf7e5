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
RECORD_BYTES = 8 << 20
"""Of one `record.json`."""
RECORD_TEXT = 4096
"""Characters of one text among a record's inputs and settings: the longest path of common systems."""
TABLE_BYTES = 1 << 30
"""Of one Parquet table, as a file and unpacked."""
TABLE_ROWS = 20_000_000
"""Of one Parquet table."""

LOCK_NOTICE_SECONDS = 5
"""After which a command that waits for another says so."""
LOCK_SECONDS = 600
"""How long a command waits for another that works for seconds, such as sending a record to MLflow."""
WORK_SECONDS = 7 * 86_400
"""How long it waits for another that does the same long work, such as training, whose result it will then use."""

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
REASON_CHARACTERS = 300
"""Of what a server, a database or a library says, in a message of ours."""
SQLITE_PATH_BYTES = 460
"""Of the path of a SQLite file: SQLite refuses one of 512 with the names of the files that it makes beside it."""

CSV_BYTES = 16 << 20
"""Of a CSV file of items, probes or shares."""
PARQUET_BYTES = 8 << 30
"""Of a Parquet file."""
PARQUET_ROWS = 50_000_000
"""Of a Parquet file: repeated values take next to no room in it."""
FILES = 50_000
"""Of one folder or archive that is imported."""
ZIP_LIST_BYTES = 16 << 20
"""Of the list of members at the end of a zip."""
UNPACKED_RATIO = 200
"""Bytes out of an archive for one in it; text gives 3 to 30, a bomb 1,000."""
UNPACKED_FREE = 64 << 20
"""Bytes out of an archive at which the ratio is not looked at."""
UNPACKED_BYTES = 16 << 30
"""Bytes out of an archive at all: All-the-News has 9 GB."""
TEXT_BYTES = 2 << 30
"""Of all text that is imported at once and held in memory, with 100 bytes for each line."""
LINE_CHARACTERS = 16 << 20
"""Of one line of text or of a table."""
XML_BYTES = 64 << 20
"""Of one XML file; a Bible has 13 MB at most."""
XML_ELEMENTS = 500_000
XML_DEPTH = 100
"""Elements of one XML file, of which a Bible has 40,000, and how many lie within each other."""
ARTICLE_CHARACTERS = 2 << 20
"""Of one field of a table of news."""
SPLIT_CHARACTERS = 5_000
"""Of text that is split into sentences at once: the splitter's time grows with its square."""
EXCEL_ROWS = 1 << 20
"""Of a sheet, as in Excel itself; and of the texts that its cells share."""
EXCEL_ROW_BYTES = 16 << 20
"""Of one row of a sheet; WVS-7 has 40 kB."""
EXCEL_PART_BYTES = 8 << 20
"""Of what else is in an Excel file, such as its styles."""
SURVEY_COLUMNS = 16_384
"""Of a survey file, as in Excel; WVS-7 has 600."""
WEIGHT = 1e9
"""Of one respondent: sums of more lose the others."""
SAMPLES_BYTES = 4 << 30
"""Of one file of samples of lm-eval, which is read line by line."""
NAME_BYTES = 255
"""Of one part of a path, on every file system that we know."""
PATH_BYTES = 4095
"""Of a whole path."""
WORKERS = 1000
"""Processes of one driver."""
PLAN_BYTES = 256 << 10
"""Of a plan's YAML."""
PLAN_DEPTH = 50
"""Mappings and lists within each other in a plan; an alias counts where it is used."""
PLAN_VALUES = 100_000
"""Values in a plan, with what aliases stand for."""
CELLS = 20_000
"""Of a plan, counted before equal ones fall together."""
COUNT = 10**9
"""Of sentences, epochs and other things that a plan counts."""
HEAD_SECONDS = 10.0
"""That the head of a Ray cluster may take to answer at the start."""
TENSOR_FILE_BYTES = 1 << 42
"""Of one file of a model's weights."""
CONFIG_INTEGER = 10**40
"""Largest magnitude of an integer in a model's or tokenizer's configuration: `model_max_length` is 10**30 where none is meant."""
CONFIG_COUNT = 10_000
"""Heads, experts, labels or added sentinels that a configuration may ask for, each of which is built one by one."""
CONFIG_LAYERS = 1_000
"""Layers that a configuration may ask for."""
PARAMETERS_PER_BYTE = 16
"""Parameters that a model is built with for each byte of its weight files; quantised weights hold up to five."""
ADAPTERS_DEEP = 8
"""Adapters over each other."""
HUB_SECONDS = 3.0
"""Until the hub answers whether a model is there."""
EPOCHS = 10_000
"""Passes over the training sentences."""
SEEDS = 2**32
"""Seeds are below this: numpy takes no other."""
PROJECTIONS = 100
"""Whose scores an attribution averages."""
DIMENSIONS = 1 << 16
"""Of a projection."""
RETRAININGS = 10_000
"""Models that a check of an attribution trains."""
