#!/bin/sh
# Install the clients that the tests here run, each in a place of its own:
#   sh install.sh PYTHON DIRECTORY
set -eu
python=$1
mkdir -p "$2"
cd "$2"

pip_install() {
    echo "installing $1 …" >&2
    "$python" -m venv "$1"
    at=$1 && shift
    "$at/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

npm_install() {
    echo "installing $* …" >&2
    npm install --prefix npm --no-audit --no-fund --loglevel=error "$@" >&2
}

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

# Node first: what is newest among the others depends on the Node that asks.
npm_install node@24
PATH="$PWD/npm/node_modules/.bin:$PATH"
npm_install @modelcontextprotocol/server-everything @modelcontextprotocol/inspector
npm_install openai @anthropic-ai/sdk @anthropic-ai/claude-code @openai/codex
npm_install ai @ai-sdk/openai
npm_install opencode-ai
npm_install @continuedev/cli
npm_install promptfoo
# Held here: later ones name packages that were not to be had.
npm_install @earendil-works/pi-coding-agent@0.87.1
touch .installed
