#!/bin/sh
# Claude Code with the panel as tools, whatever its own model is: `npm install -g @anthropic-ai/claude-code`.
#   sh claude_code_mcp.sh -p "Get a second opinion on our plan in PLAN.md."
exec claude --plugin-dir "$(dirname "$0")/plugin" --allowedTools "mcp__plugin_fusiontools_fusion" "$@"
