#!/bin/sh
# Between two stages flow plain JSON Lines, so any filter can stand there. Two uses of jq:
set -eu

recipe=${RECIPE:-local}
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# 1. Before the judge: drop responses that were cut off at max_tokens, and read equal ones only once. `panel` may be
#    cut down like this as long as something is left in it; a record that loses all of its responses leaves here.
fuse-panel -c "$recipe" --lines "$here/batch/questions.txt" |
    jq -c '.panel |= (map(select(.finish_reason != "length" and .error == null)) | unique_by(.content))
           | select(.panel != [])' |
    fuse-judge -c "$recipe" > "$work/judged.jsonl"

# 2. After the judge: `agreement` is the share of the responses that say the same. Look at the contested questions.
echo "== contested"
jq -r 'select(.analysis != null and .analysis.agreement < 1)
       | "\(.messages[-1].content)\n" + ([.panel[].content | "   - " + .] | join("\n"))' "$work/judged.jsonl"

echo "== answers"
fuse-synth -c "$recipe" < "$work/judged.jsonl" | jq -r '"\(.messages[-1].content) \(.answer.content)"'
