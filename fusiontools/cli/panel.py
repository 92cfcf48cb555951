"""`fuse-panel`: ask every member of a panel the same question."""

from __future__ import annotations

from fusiontools.cli.stage_command import stage_command

HELP = """\
\b
  echo "CRDTs or OT for a shared editor?" | fuse-panel | fuse-judge | fuse-synth
  fuse-panel -m openai/gpt-5.5 -m 'moonshotai/kimi-k2.6*3' --quorum 3 < questions.jsonl > panel.jsonl

Ask every member of a panel the same question.

Reads a question: plain text, or JSON Lines of records, prompts, chat requests or OpenAI Batch lines. Adds `panel`:
one response for each member and sample, failures included. With --revise, --debate or --sequential it reads records
that have a panel, and adds the next layer.
"""

main = stage_command("panel", HELP)
