#!/bin/sh
# The panel is what costs. Save its responses once; then as many judges as you like can read them, today or next month.
#   sh replay_with_another_judge.sh
#   RECIPE=budget JUDGE='--method model -m openai/gpt-5.5@openrouter' sh replay_with_another_judge.sh
set -eu

recipe=${RECIPE:-local}
# Options of the second judge. Without a key there is only the embedded model, which is too small to judge: expect an
# empty analysis of it. It gets few tokens, so that it ends soon.
judge=${JUDGE:---method model -m smollm2-135m@local --max-tokens 120}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "What is the capital of Australia?" | fuse-panel -c "$recipe" > "$work/panel.jsonl"

fuse-judge < "$work/panel.jsonl" > "$work/first.jsonl"
# shellcheck disable=SC2086 # several words are meant
fuse-judge $judge < "$work/panel.jsonl" > "$work/second.jsonl"

# A judge that fails costs no answer: the record goes on without `analysis`, and `degraded` says why.
for run in first second; do
    echo "== the $run judge"
    jq -c '{judges: .analysis.judges, consensus: .analysis.consensus, ranking: .analysis.ranking, degraded}' "$work/$run.jsonl"
    fuse-synth --output text < "$work/$run.jsonl"
done
