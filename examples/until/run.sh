#!/bin/sh
# What asking until it is sure loses and spares, on the embedded model: a fixed vote of SAMPLES samples on N questions, and
# the same samples again, asked until it is sure. The second buys nothing: what it asks is in the journal of the first.
# `make until-real` runs this, in WORK.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
N=${N:-80}
SAMPLES=${SAMPLES:-12}
recipe=${RECIPE:-$here/members.yaml}
work=${WORK:-.until}
mkdir -p "$work"
ask="fuse-panel -c $recipe --no-diversity --journal $work/journal.db -q"

fuse-tasks short -n "$N" --seed 1 > "$work/tasks.jsonl"
$ask --replay --samples "$SAMPLES" "$work/tasks.jsonl" > "$work/panel.jsonl"
fuse-vote -q "$work/panel.jsonl" | fuse-grade -q > "$work/fixed.jsonl"

echo "## The vote of $SAMPLES"
echo
fuse-report -o markdown "$work/fixed.jsonl"

for until in 0.8 0.95 0.99; do
  $ask --offline --until "$until" --max-samples "$SAMPLES" "$work/tasks.jsonl" > "$work/$until.panel.jsonl"
  fuse-vote -q "$work/$until.panel.jsonl" | fuse-grade -q > "$work/$until.jsonl"
  echo
  echo "## --until $until"
  echo
  fuse-report --compare -o markdown "$work/fixed.jsonl" "$work/$until.jsonl"
  echo
  spared=$(jq -s 'map(.spared // [] | length) | add' "$work/$until.panel.jsonl")
  unsure=$(jq -s 'map(select(any(.degraded[]?; .code == "not_sure"))) | length' "$work/$until.panel.jsonl")
  echo "Of $((N * SAMPLES)) calls $spared are spared; on $unsure of $N questions it is not sure in the end."
done
