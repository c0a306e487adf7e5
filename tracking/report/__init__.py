"""The report: every table and figure of the paper, made of run records."""
