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

TABLE_BYTES = 16 << 20
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
