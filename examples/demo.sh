#!/bin/sh
# Fuse one question on your own machine, and show every stage's work, not only the answer.
#   sh examples/demo.sh          Q='your question' sh examples/demo.sh          RECIPE=budget sh examples/demo.sh
set -eu

question=${Q:-What is the capital of Australia?}
recipe=${RECIPE:-local}

cat <<END

The question:  $question
The pipeline:  echo "…" | fuse-panel -c $recipe | fuse-judge | fuse-synth --verbose

Below: first the panel's responses, then what the judge found in them, last the answer.

END

# printf, because echo would read backslashes; --text, because a question may begin with a brace.
printf '%s\n' "$question" |
    fuse-panel -c "$recipe" --text |
    fuse-judge -c "$recipe" |
    fuse-synth -c "$recipe" --verbose --output text

[ "$recipe" = local ] || exit 0
cat <<'END'

What happened
  fuse-panel   asked a small language model on this machine the same question several times, each time at another
               temperature, so that the responses can differ (#0, #1, … are the samples).
  fuse-judge   compared the responses: what most say, where they contradict each other, which is best. Here code
               compares, because a model this small cannot judge; with larger models a model does.
  fuse-synth   gave the answer: the best response word for word where the responses are short, else a new text
               written from the best one. Larger models write it from all responses and the judge's analysis.

Next
  make demo Q='your own question'
END
command -v fuse-ask > /dev/null && [ -z "${DEMO_BIN:-}" ] || cat <<END
  The tools:     export PATH="${DEMO_BIN:-the folder bin of your environment}:\$PATH"
END
cat <<'END'
  In one go:     fuse-ask "your own question", or a vote: fuse-ask --chain "panel | vote" "What is 7 times 8?"
  Real models:   export OPENROUTER_API_KEY=… (or OPENAI_, ANTHROPIC_, GEMINI_API_KEY), then the same without -c local;
                 fuse-ask --list shows recipes, models, and what each still needs.
  Their words:   the tools talk in JSON Lines; end the pipeline with  | fuse-synth > answer.jsonl  and look inside.
END
