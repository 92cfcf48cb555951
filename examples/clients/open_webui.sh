#!/bin/sh
# Open WebUI: `pip install open-webui`. All models of the server; titles, tags and the like are not worth a panel.
#   sh open_webui.sh serve
export OPENAI_API_BASE_URL="${FUSION_SERVER:-http://127.0.0.1:8383}/v1"
export OPENAI_API_KEY="${FUSION_SERVER_KEY:-none}"
export ENABLE_OLLAMA_API=False
export ENABLE_TITLE_GENERATION=False ENABLE_TAGS_GENERATION=False ENABLE_FOLLOW_UP_GENERATION=False
exec open-webui "$@"
