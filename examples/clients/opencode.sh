#!/bin/sh
# opencode, a coding agent: `npm install -g opencode-ai`. `sh opencode.sh run "What is in this directory?"`
model="${FUSION_MODEL:-fusion}"
server="${FUSION_SERVER:-http://127.0.0.1:8383}/v1"
export OPENCODE_CONFIG_CONTENT='{
  "model": "fusion/'"$model"'",
  "small_model": "fusion/'"$model"'",
  "share": "disabled",
  "agent": {"title": {"disable": true}},
  "autoupdate": false,
  "provider": {
    "fusion": {
      "npm": "@ai-sdk/openai-compatible",
      "name": "fuse-serve",
      "options": {"baseURL": "'"$server"'", "apiKey": "'"${FUSION_SERVER_KEY:-none}"'"},
      "models": {"'"$model"'": {"name": "'"$model"'", "limit": {"context": 128000, "output": 16000}}}
    }
  }
}'
exec opencode "$@"
