"""The words that all rooms share: probes, scores, run records, digests, paths, languages, errors."""
