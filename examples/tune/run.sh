#!/bin/sh
# The whole loop of tuning on the embedded model: five members, told apart by temperature and prompt, answer N questions;
# their graded records choose a recipe, and say from which agreement on the vote of all five may be answered.
# `make tune` runs this, in WORK.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
N=${N:-70}
recipe=${RECIPE:-$here/members.yaml}
work=${WORK:-.tune}
mkdir -p "$work"

fuse-tasks short -n "$N" --seed 1 > "$work/tasks.jsonl"
fuse-panel -c "$recipe" --journal "$work/journal.db" --replay --deadline 3600 -q "$work/tasks.jsonl" > "$work/panel.jsonl"
fuse-vote -q "$work/panel.jsonl" | fuse-grade -q > "$work/graded.jsonl"

echo "## What is chosen"
echo
echo '```text'
fuse-tune -c "$recipe" --explain -o "$work/recipe.yaml" --plot "$work/front.svg" "$work/graded.jsonl"
echo '```'
echo
echo "## When its members' vote may be answered, at a risk of 0.3"
echo
echo '```text'
fuse-calibrate --risk 0.3 -o "$work/threshold.json" "$work/graded.jsonl" || test $? -eq 5
echo '```'
echo
echo "## The same records, as fuse-report sees them when the vote may abstain"
echo
fuse-vote -q --threshold "$work/threshold.json" "$work/panel.jsonl" | fuse-grade -q | fuse-report -o markdown
