"""`fuse-pick`: the best response, word for word."""

from __future__ import annotations

from fusiontools.cli.stage_command import stage_command

HELP = """\
\b
  echo "Write a haiku about rain." | fuse-panel | fuse-judge | fuse-pick
  fuse-pick --check 'python3 -' --check-retry 1 < panel.jsonl > passed.jsonl

Pick the best response, word for word.

Reads records with a `panel`. Adds `answer`. Where a judge has ranked the responses, the first of its ranking is the
answer and no model is asked, also where -m names one; --pairwise and --consistent always ask. Without a ranking, the
model is asked once. It sees anonymous responses in an order drawn by lot. Of more than 8 responses, --pairwise
compares the 8 best ranked, else the 8 longest finished ones.

With --check a command of your own decides, and no judge: of the responses that it passes, the best ranked is the
answer. It runs in a sandbox without network, once for each response, in a folder with the files `response`, `program`
(the longest block between fences, where there is one), `record.json` (id, messages, params, meta) and those of
--check-with.
"""

main = stage_command("pick", HELP)
