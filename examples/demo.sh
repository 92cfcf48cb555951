#!/bin/sh
# Fuse one question on your own machine: sh examples/demo.sh, or Q="your question" sh examples/demo.sh
# The pipeline is typed out before it runs, and every stage's work is shown, not only the answer.
set -eu

question=${Q:-What is the capital of Australia?}

printf '\n$ echo "%s" | fuse-panel -c local | fuse-judge | fuse-synth --verbose\n\n' "$question"
printf '%s\n' "$question" |
    fuse-panel -c local --text |
    fuse-judge |
    fuse-synth --verbose --output text

cat <<'END'

What happened: the panel asked the same small model several times, at different temperatures. The judge compared the
responses (here by code, because a model this small cannot judge) and ranked them. The synthesizer copied the best
response where they are short, and wrote an answer from them where they are long.
The tools talk in JSON Lines: leave --output out and redirect to a file to see the record.
With an OpenRouter key (export OPENROUTER_API_KEY=…) the same line without `-c local` asks real frontier models.
END
