#!/bin/sh
# What did a change change? Everything that differs from run to run by nature (times, costs, attempts) stands in
# `calls`; without it two records can be compared with diff.
set -eu

recipe=${RECIPE:-local}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() { # run NAME OPTIONS…: the batch with these options of fuse-panel, one key a line
    name=$1
    shift
    fuse-panel -c "$recipe" --lines --replay "$@" "$here/batch/questions.txt" | fuse-judge --replay | fuse-synth --replay |
        jq -S 'del(.calls)' > "$work/$name.json"
}

run first
run again
run hotter --temperature 1.2

# --replay answers from the journal what was asked before, so the second run is the first one, byte for byte.
cmp "$work/first.json" "$work/again.json" && echo "two runs of the same: no difference"

echo "== the responses that differ at temperature 1.2 (<: before, >: after)"
for name in first hotter; do
    jq -r '.panel[] | .content // .error.code' "$work/$name.json" > "$work/$name.txt"
done
diff "$work/first.txt" "$work/hotter.txt" || [ $? -eq 1 ] # 1 is "they differ", 2 is trouble
echo "$(diff "$work/first.json" "$work/hotter.json" | grep -c '^[<>]') lines of the records differ"
