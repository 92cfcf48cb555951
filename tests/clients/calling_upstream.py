"""The stand-in upstream with two behaviours more: models that call tools and fill in forms as their names say.

`+call=weather:ARGUMENTS;weather:ARGUMENTS` calls `weather` twice at once, and says its text once any tool has answered;
a tool that is not offered is not called. `+form=TEXT` says this text to who asks for JSON. Arguments and text are
percent-encoded: `calling` writes the first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import fake_models
import upstream


def calling(*calls: tuple[str, dict[str, Any]]) -> str:
    """Return what a model's name says when it makes these calls, as far as they are offered."""
    wanted = [f"{name}:{quote(json.dumps(arguments), safe='')}" for name, arguments in calls]
    return f"+call={';'.join(wanted)}" if wanted else ""


def call(a: fake_models.Answer, wanted: str) -> dict[str, Any]:
    offered = {tool["function"]["name"] for tool in a.request.get("tools") or ()}
    if any(message["role"] == "tool" for message in a.request["messages"]):
        return {}
    pairs = [item.split(":") for item in wanted.split(";")]
    calls = [
        {"id": f"call_{a.base[-1]}{i}", "type": "function", "function": {"name": name, "arguments": unquote(arguments)}}
        for i, (name, arguments) in enumerate(pairs)
        if name in offered
    ]
    if not calls:
        return {}
    return {"text": None, "finish_reason": "tool_calls", "extra": {**a.extra, "tool_calls": calls}}


def form(a: fake_models.Answer, text: str) -> dict[str, Any]:
    return {"text": unquote(text)} if fake_models.has_json_format(a.request) else {}


if __name__ == "__main__":
    fake_models.BEHAVIOURS |= {"call": call, "form": form}
    upstream.main()
