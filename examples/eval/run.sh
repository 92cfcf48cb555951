#!/bin/sh
# Does it pay to fuse? One panel of the embedded model, five samples a question, and four ways to an answer from the very
# same responses: a vote, the best by a comparison in code, an answer that the model writes from its own analysis, and
# that answer guarded. One sample and the greedy answer stand beside them. `make eval` runs this; N questions, in WORK.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
N=${N:-36}
recipe=${RECIPE:-$here/small.yaml}
work=${WORK:-.eval}
mkdir -p "$work"
journal="--journal $work/journal.db --replay -q"

fuse-tasks short -n "$N" --seed 1 > "$work/tasks.jsonl"
fuse-panel -c "$recipe" $journal "$work/tasks.jsonl" > "$work/panel.jsonl"
fuse-judge -c "$recipe" $journal "$work/panel.jsonl" > "$work/judged.jsonl"

fuse-vote -q "$work/panel.jsonl" > "$work/vote.jsonl"
fuse-judge -c "$recipe" --method lexical $journal "$work/panel.jsonl" | fuse-pick -c "$recipe" $journal > "$work/pick.jsonl"
fuse-synth -c "$recipe" $journal "$work/judged.jsonl" > "$work/written.jsonl"
fuse-synth -c "$recipe" $journal --guard "$work/judged.jsonl" > "$work/guarded.jsonl"

for run in vote pick written guarded; do
  fuse-grade -q --no-journal "$work/$run.jsonl" > "$work/$run.graded.jsonl"
  case $run in
    vote) echo "## panel | vote" ;;
    pick) echo "## panel | judge --method lexical | pick" ;;
    written) echo "## panel | judge | synth" ;;
    guarded) echo "## panel | judge | synth --guard" ;;
  esac
  echo
  fuse-report -o markdown "$work/$run.graded.jsonl"
  echo
done
