"""Benchmarks, built-in sets and people's own files, read into records that can be asked and graded."""
