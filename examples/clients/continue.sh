#!/bin/sh
# Continue's command line agent: `npm install -g @continuedev/cli`. `sh continue.sh -p "What is in this directory?"`
config=$(mktemp -d)/config.yaml
cat >"$config" <<END
name: fusion
version: 1.0.0
schema: v1
models:
  - name: fusion
    provider: openai
    model: ${FUSION_MODEL:-fusion}
    apiBase: ${FUSION_SERVER:-http://127.0.0.1:8383}/v1
    apiKey: ${FUSION_SERVER_KEY:-none}
    useResponsesApi: false
    roles: [chat]
    capabilities: [tool_use]
END
cn --config "$config" "$@"
