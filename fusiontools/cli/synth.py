"""`fuse-synth`: write one answer from the panel's responses and their analysis."""

from __future__ import annotations

from fusiontools.cli.stage_command import stage_command

HELP = """\
\b
  echo "CRDTs or OT for a shared editor?" | fuse-panel | fuse-judge | fuse-synth
  fuse-synth -m anthropic/claude-opus-4.8 -o text < judged.jsonl

Write one answer, grounded in the panel's responses and their analysis.

Reads records with a `panel`, and `analysis` where a judge has been. Adds `answer`. On a terminal it writes the answer
as it comes, else JSON Lines. Where the model fails, the best response stands in, and the record says so.
"""

main = stage_command("synth", HELP, streams=True)
