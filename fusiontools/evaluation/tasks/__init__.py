"""Tasks: benchmarks, the built-in sets and people's own files, read into records that can be asked and graded.

sets     which sets there are, and where their rows come from
hub      a pinned file from the Hugging Face Hub, checked, row by row
files    the rows of a JSON Lines, JSON, CSV or YAML file, each with its place
shapes   a benchmark's row → a draft
own      anybody else's row → a draft
draft    a draft → a record: the prompt filled in
choose   a category, a seeded sample
"""
