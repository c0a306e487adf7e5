"""Parallel text: import of published corpora, one Parquet each (`id, language, text`), and selection for training."""
