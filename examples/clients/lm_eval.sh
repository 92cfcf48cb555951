#!/bin/sh
# The evaluation harness: `pip install 'lm_eval[api]'`. `sh lm_eval.sh` runs the task in lm_eval_task by prompts.
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/lm_eval_task" || exit
export OPENAI_API_KEY="${FUSION_SERVER_KEY:-none}"
exec lm_eval --model local-completions --include_path . --tasks capitals "$@" --model_args \
    "model=fusion,base_url=${FUSION_SERVER:-http://127.0.0.1:8383}/v1/completions,tokenizer_backend=None,num_concurrent=1"
