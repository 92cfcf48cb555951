#!/bin/sh
# A file made for OpenAI's Batch API goes in as it is, and answers in the form of its output file come out.
# `custom_id` becomes the record's id. `model` is kept but decides nothing: the recipe names the models.
set -eu

recipe=${RECIPE:-local}
input=${1:-$(dirname "$0")/openai_batch.jsonl}

fuse-panel -c "$recipe" "$input" |
    fuse-judge -c "$recipe" |
    fuse-synth -c "$recipe" |
    jq -c '{
        custom_id: .id,
        response: (if .error then null else {
            status_code: 200,
            body: {
                object: "chat.completion",
                model: .answer.model,
                choices: [{
                    index: 0,
                    message: {role: "assistant", content: .answer.content},
                    finish_reason: .answer.finish_reason
                }]
            }
        } end),
        error: (if .error then {code: .error.code, message: .error.message} else null end)
    }'
