"""`fuse-judge`: extract the structure of the panel's answers."""

from __future__ import annotations

from fusiontools.cli.stage_command import stage_command

HELP = """\
\b
  echo "CRDTs or OT for a shared editor?" | fuse-panel | fuse-judge | fuse-synth
  fuse-judge --swap -m openai/gpt-5.5 -m anthropic/claude-opus-4.8 < panel.jsonl > judged.jsonl

Extract the structure of the panel's answers: consensus, contradictions, partial coverage, unique insights,
blind spots, and a ranking.

Reads records with a `panel`. Adds `analysis`. The judge sees anonymous responses in an order drawn by lot.
Several judges are merged: what any of them found, with who found it (`supporters`), ranked by Borda count; `said`
keeps what each judge said by itself. With --swap, a judge whose first place hangs on the order is named in `degraded`.
"""

main = stage_command("judge", HELP)
