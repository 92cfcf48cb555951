#!/bin/sh
# What did a change change? Two runs of the same questions, compared by fuse-diff: it pairs records by id and leaves out
# what differs from run to run by nature (times, costs, attempts).
set -eu

recipe=${RECIPE:-local}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() { # run NAME OPTIONS…: the batch with these options of fuse-panel
    name=$1
    shift
    fuse-panel -c "$recipe" --lines --replay "$@" "$here/batch/questions.txt" |
        fuse-judge -c "$recipe" --replay | fuse-synth -c "$recipe" --replay > "$work/$name.jsonl"
}

run first
run again
run hotter --temperature 1.2

# --replay answers from the journal what was asked before, so the second run is the first one.
fuse-diff "$work/first.jsonl" "$work/again.jsonl" && echo "two runs of the same: no difference"

echo "== what changes at temperature 1.2"
fuse-diff "$work/first.jsonl" "$work/hotter.jsonl" || [ $? -eq 1 ] # 1 is "they differ", 2 is trouble
