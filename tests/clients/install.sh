#!/bin/sh
# Install the clients that the tests here run, each in a place of its own:
#   sh install.sh UV DIRECTORY
# What is there is not installed again, so that this can be ended and started anew.
set -eu
uv=$1
mkdir -p "$2"
cd "$2"

# uv keeps one copy of each package for all of these, and what it fetched for the next time.
pip_install() {
    at=$1 && shift
    if [ "$(cat "$at/.installed" 2>/dev/null)" = "$*" ]; then return; fi
    echo "installing $at …" >&2
    "$uv" venv --quiet --clear "$at"
    "$uv" pip install --quiet --python "$at/bin/python" "$@"
    echo "$*" >"$at/.installed"
}

npm_install() {
    if [ "$(cat "$1" 2>/dev/null)" = "$*" ]; then return; fi
    echo "installing $* …" >&2
    done=$1 wanted=$* && shift
    npm install --prefix npm --prefer-offline --no-audit --no-fund --loglevel=error "$@" >&2
    echo "$wanted" >"$done"
}

node_clients() {
    # Node first: what is newest among the others depends on the Node that asks.
    npm_install .node node@24
    PATH="$PWD/npm/node_modules/.bin:$PATH"
    npm_install .servers @modelcontextprotocol/server-everything @modelcontextprotocol/inspector
    npm_install .sdks openai @anthropic-ai/sdk ai @ai-sdk/openai
    # Pi is held here: later ones name packages that were not to be had.
    npm_install .agents @anthropic-ai/claude-code @openai/codex opencode-ai @continuedev/cli @earendil-works/pi-coding-agent@0.87.1
    npm_install .promptfoo promptfoo
}

node_clients &
node=$!
trap 'kill $node 2>/dev/null || :' EXIT

# The oldest SDK that is held to work, and what tests/slow/test_clients.py needs beside it.
pip_install openai-1.40 openai==1.40.0 'httpx<0.28' anthropic hypothesis orjson pytest
pip_install langchain langchain-openai
# With tools it asks for mcp, which it does not bring.
pip_install litellm litellm mcp
pip_install openai openai
pip_install openai-2 openai==2.54.0
pip_install anthropic anthropic langchain-anthropic
pip_install openai-agents openai-agents
pip_install pydantic-ai 'pydantic-ai-slim[openai]'
pip_install instructor instructor
pip_install smolagents 'smolagents[openai]'
pip_install llm llm
# The heavy ones, each on its own.
pip_install aider aider-chat
pip_install litellm-proxy 'litellm[proxy]'
pip_install llama-index llama-index-llms-openai-like
pip_install inspect inspect-ai openai
pip_install dspy dspy
pip_install lm-eval 'lm_eval[api]'
wait $node
touch .installed
