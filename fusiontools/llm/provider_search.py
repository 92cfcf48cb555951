"""The search that an endpoint has of its own: how it is asked for.

Source: OpenRouter, "Server tools"; Anthropic, "Web search tool"; OpenAI, chat completions of its search models.
"""

from __future__ import annotations

from typing import Any

from fusiontools.config.models import Endpoint

_RESULTS = 5


def provider_search(endpoint: Endpoint, model: str, most_uses: int) -> dict[str, Any] | None:
    """Return the request's parameters that give a model its endpoint's own search; None where it has none.

    Args:
        most_uses: how often it may search for one response, where the endpoint takes such a limit.
    """
    if endpoint.api == "anthropic":
        return {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": most_uses}]}
    if "//openrouter.ai/" in endpoint.base_url:
        return {"tools": [{"type": "openrouter:web_search", "parameters": {"max_results": _RESULTS}}]}
    if "//api.openai.com/" in endpoint.base_url and "search" in model:
        return {"web_search_options": {}}
    return None
