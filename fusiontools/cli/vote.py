"""`fuse-vote`: the majority's answer."""

from __future__ import annotations

from fusiontools.cli.stage_command import stage_command

HELP = """\
\b
  echo "What is 17 * 23? End with 'Answer: N'." | fuse-panel -m 'openai/gpt-5.5*5' | fuse-vote
  fuse-vote --key json:result.label --weight openai/gpt-5.5=2 < panel.jsonl > answers.jsonl

Count which answer most responses give, and pass on one of them, word for word. No model is asked.

Reads records with a `panel`. Adds `answer`, with the count in `answer.vote`. Equal answers are counted as one however
they are worded: 1,000 and 1e3, "(B)" and "Option B", Shakespeare and "William Shakespeare". Whoever gives no answer
abstains.

A tie goes to the answer whose voters were the most confident (where the engine gave log probabilities for all that
are tied), else to the one the analysis ranks best, else to the one given first; `answer.vote.tie` says which it was.

--threshold FILE answers only where so many of the panel agree as fuse-calibrate found necessary for a stated risk; else
`answer.abstained` says how many do. --weights learned counts as fuse-tune has learned, by the recipe that it wrote.

--weights logprob and --drop-lowest go by how sure a member was of its own words, beside its other responses to the same
question: it must have been asked more than once, and with fuse-panel --logprobs. Where that is not known, `degraded`
says so (`not_weighed`), and all count the same.

regex:RE searches the last 2,000 characters of a response with RE2, which always ends soon and has no look-around and no
back-reference.
"""

main = stage_command("vote", HELP)
