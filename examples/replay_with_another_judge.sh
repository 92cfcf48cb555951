#!/bin/sh
# The panel is what costs. Save its responses once; then as many judges as you like can read them, today or next month.
#   sh replay_with_another_judge.sh
#   RECIPE=budget JUDGE='-m openai/gpt-5.5@openrouter' sh replay_with_another_judge.sh
set -eu

recipe=${RECIPE:-local}
# Options of the second judge. Without a key there is only the embedded model, which is held to the form of an analysis
# but is too small to fill it with sense.
judge=${JUDGE:--m smollm2-135m@local}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "What is the capital of Australia?" | fuse-panel -c "$recipe" > "$work/panel.jsonl"

fuse-judge -c "$recipe" < "$work/panel.jsonl" > "$work/first.jsonl"
# shellcheck disable=SC2086 # several words are meant
fuse-judge -c "$recipe" $judge < "$work/panel.jsonl" > "$work/second.jsonl"

# A judge that fails costs no answer: the record goes on without `analysis`, and `degraded` says why.
for run in first second; do
    echo "== the $run judge"
    jq -c '{judges: .analysis.judges, consensus: .analysis.consensus, ranking: .analysis.ranking, degraded}' "$work/$run.jsonl"
    fuse-synth -c "$recipe" --output text < "$work/$run.jsonl"
done
