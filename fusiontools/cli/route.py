"""`fuse-route`: decide whether a question is fused or answered by one model alone."""

from __future__ import annotations

from fusiontools.cli.stage_command import stage_command

HELP = """\
\b
  fuse-route -c budget --fast google/gemini-3-flash < questions.jsonl | fuse-panel -c budget | fuse-judge | fuse-synth
  fuse-route --command 'jq -r .meta.route' --strong openai/gpt-5.5@openrouter < questions.jsonl > routed.jsonl

Decide whether a question is fused or answered by one model alone, and say why.

Reads a question: plain text, or JSON Lines of records, prompts, chat requests or OpenAI Batch lines. Adds `route`.
fuse-panel asks the one model of a solo record; fuse-judge and fuse-synth pass its answer on without a call. A record
routed to `vote` gets the majority's answer, whoever else would judge and write; one routed to `keep` stays as it is.

--table goes by the kind of question, as fuse-tune found it in graded records. --method abstained keeps what fuse-vote
has answered and sends on what it has not: to the --strong model, or to the panel of the tools to the right.

The rules read the last user turn only. A --command gets the record on stdin and prints `fuse`, `solo`, `solo TIER` or
`TIER` (fast, balanced, strong) with its reason after it, or {"to": …, "tier": …, "reason": …}; it sees your whole
environment. Where it fails, the question is fused.
"""

main = stage_command("route", HELP)
