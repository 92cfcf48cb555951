#!/bin/sh
# The panel is what costs. Once it is saved, every way to an answer can be tried on it, and only what is new is paid.
set -eu

recipe=${RECIPE:-local}
question="What is the capital of Australia?"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "$question" | fuse-panel -c "$recipe" --replay > "$work/panel.jsonl"
fuse-judge -c "$recipe" --replay "$work/panel.jsonl" > "$work/judged.jsonl"

echo "== the majority"
fuse-vote "$work/panel.jsonl" | jq -r '.answer | "\(.content)  (\(.vote.votes) of \(.vote.of) votes)"'
echo "== the best response, by the judge's ranking"
fuse-pick -c "$recipe" "$work/judged.jsonl" | jq -r .answer.content
echo "== the fused answer"
fuse-synth -c "$recipe" --replay "$work/judged.jsonl" | jq -r .answer.content
