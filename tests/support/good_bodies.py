"""Bodies that a server takes, with as much in them as there is to spoil; and what finds its way around in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving import CHAT

PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
IMAGE = "data:image/png;base64,iVBORw=="
SEEN = {"url": IMAGE}
SHOWN = [{"type": "input_text", "text": "Look:"}, {"type": "input_image", "image_url": IMAGE}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
FUSION = {
    "recipe": "recipe",
    "panel": ["fake/a", "fake/b*2"],
    "judge": ["fake/judge"],
    "synth": "fake/synth",
    "samples": 1,
    "layers": 2,
    "refine": True,
    "include": ["panel", "analysis", "record"],
    "tool_fusion": "fuse",
    "events": True,
    "cache": False,
}
PLUGINS = [{"id": "fusion", "preset": "recipe", "analysis_models": ["fake/a"], "model": "fake/b"}]
CHATTED: dict[str, Any] = {
    "model": "fusion",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": SEEN}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Nothing."},
        {"role": "user", "content": "Why?"},
    ],
    "tools": [{"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": PARAMETERS}},
    "max_tokens": 50,
    "temperature": 0.5,
    "stop": ["END"],
    "seed": 7,
    "reasoning": {"effort": "low"},
    "stream": True,
    "stream_options": {"include_usage": True},
    "fusion": FUSION,
    "plugins": PLUGINS,
}  # fmt: skip
ALONE = {"model": "fake/a", "messages": [{"role": "user", "content": "Why?"}], "stream": False, "max_tokens": 9}
RESPONDED: dict[str, Any] = {
    "model": "fusion",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": SHOWN},
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "call_1", "name": "look_up", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "Nothing."}]},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "patch", "input": "*"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done."},
        {"type": "shell_call", "call_id": "call_3", "action": {"commands": ["ls"]}},
    ],
    "tools": [
        {"type": "function", "name": "look_up", "parameters": PARAMETERS, "strict": True},
        {"type": "custom", "name": "patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: A"}},
        {"type": "web_search"},
    ],
    "tool_choice": {"type": "function", "name": "look_up"},
    "text": {"format": {"type": "json_schema", "name": "answer", "schema": PARAMETERS}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "max_output_tokens": 50,
    "temperature": 0.5,
    "metadata": {"a": "b"},
    "stream": True,
    "fusion": FUSION,
    "plugins": PLUGINS,
}  # fmt: skip
MESSAGED: dict[str, Any] = {
    "model": "fusion",
    "max_tokens": 50,
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Look: "},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw=="}},
            {"type": "document", "source": {"type": "text", "data": "A text."}, "title": "A title"},
        ]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"q": "x"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "Nothing."}]},
            {"type": "text", "text": "Why?"},
        ]},
    ],
    "tools": [
        {"name": "look_up", "description": "Looks up.", "input_schema": PARAMETERS},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "tool_choice": {"type": "tool", "name": "look_up", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": PARAMETERS}},
    "stop_sequences": ["END"],
    "temperature": 0.5,
    "stream": True,
    "fusion": FUSION,
    "plugins": PLUGINS,
}  # fmt: skip
ASKED = {
    "prompt": "Why?",
    "id": "mine",
    "meta": {"target": 3},
    "recipe": "recipe",
    "params": {"max_tokens": 50, "tools": CHATTED["tools"]},
    "fusion": {key: value for key, value in FUSION.items() if key != "recipe"},
}
GOOD = [
    (CHAT, CHATTED),
    (CHAT, ALONE),
    (CHAT, RESPONDED),
    ("/v1/responses", RESPONDED),
    ("/v1/messages", MESSAGED),
    ("/v1/messages", {**MESSAGED, "model": "fake/a"}),
    ("/v1/messages/count_tokens", MESSAGED),
    ("/fuse", ASKED),
    ("/fuse", {**CHATTED, "meta": {}}),
    ("/v1/estimate", CHATTED),
]
POSTS = sorted({path for path, _ in GOOD})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def words(value: Any) -> Iterator[str]:
    """Yield every key and every text in a value."""
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from words(item)
    if isinstance(value, str):
        yield value


def nested(depth: int, key: str) -> Any:
    """Return lists in each other, or objects under this key."""
    value: Any = "deep"
    for _ in range(depth):
        value = {key: value} if key else [value]
    return value
