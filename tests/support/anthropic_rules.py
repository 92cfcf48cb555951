"""What Anthropic's Messages API refuses, in its own words: unknown fields, roles out of order, and the rest.

`check` raises `Refused` with the message of a 400. Where the real API is lenient (it merges turns of one role), this is
stricter: what passes here passes there. A model's traits stand in its name (`claude+noprefill+noeffort`), and make it
refuse what older or newer models refuse.

Source: Anthropic's API reference and the messages that users of the API have reported.
"""

from __future__ import annotations

import base64
import itertools
import re
from typing import Any

#: What a model may be made to refuse.
TRAITS = {
    "nosampling": "temperature, top_p and top_k, as the newest models",
    "noprefill": "an assistant's turn at the end, as the newest models",
    "nosystemturns": "a system turn in the middle, as older models",
    "noadaptive": "an effort and adaptive thinking, as older models",
    "noxhigh": "the effort xhigh",
    "nothinking": "to think at all, as the oldest models",
    "noschema": "structured outputs",
    "nocache": "cache marks",
    "most": "=N: more than N tokens",
}
_TOP = """
model messages max_tokens system stop_sequences stream temperature top_p top_k tools tool_choice thinking metadata
service_tier output_config container inference_geo cache_control
"""
_BETA = {"context_management", "mcp_servers"}
_BLOCKS = {
    "text": {"text", "citations"},
    "image": {"source"},
    "document": {"source", "title", "context", "citations"},
    "search_result": {"source", "title", "content", "citations"},
    "tool_use": {"id", "name", "input"},
    "tool_result": {"tool_use_id", "content", "is_error"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
}
_ROLES = {
    "user": {"text", "image", "document", "search_result", "tool_result"},
    "assistant": {"text", "tool_use", "thinking", "redacted_thinking"},
    "system": {"text"},
}
_SOURCES = {"base64": {"media_type", "data"}, "url": {"url"}, "text": {"media_type", "data"}}
_MEDIA = {"image": {"image/jpeg", "image/png", "image/gif", "image/webp"}, "document": {"application/pdf"}}
_EFFORTS = {"low", "medium", "high", "xhigh", "max"}
_SCHEMA_REFUSES = {
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems",
    "uniqueItems", "oneOf", "not", "if", "patternProperties", "prefixItems",
}  # fmt: skip


class Refused(Exception):
    """A 400 with this message."""


def check(body: Any, traits: dict[str, str], beta: bool = False) -> None:
    """Raise `Refused` where the API would answer 400."""
    if not isinstance(body, dict):
        raise Refused("Input should be a valid dictionary")
    _only(body, {*_TOP.split(), *(_BETA if beta else ())}, "")
    for name, kind in (("model", str), ("max_tokens", int), ("messages", list)):
        if name not in body:
            raise Refused(f"{name}: Field required")
        if not isinstance(body[name], kind) or isinstance(body[name], bool):
            raise Refused(f"{name}: Input should be a valid {kind.__name__}")
    if body["max_tokens"] < 1:
        raise Refused("max_tokens: Input should be greater than or equal to 1")
    if "most" in traits and body["max_tokens"] > int(traits["most"]):
        limit = f"{body['max_tokens']} > {traits['most']}"
        raise Refused(f"max_tokens: {limit}, which is the maximum allowed number of output tokens for {body['model']}")
    if not isinstance(body.get("stream", False), bool):
        raise Refused("stream: Input should be a valid boolean")
    _system(body.get("system"))
    _tools(body)
    _messages(body["messages"], traits)
    _sampling(body, traits)
    _thinking(body, traits)
    _output(body, traits)
    _marks(body, traits)


def blocks_of(turn: dict[str, Any]) -> list[dict[str, Any]]:
    content = turn["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


# --- The conversation ---


def _messages(turns: list[Any], traits: dict[str, str]) -> None:
    if not turns:
        raise Refused("messages: at least one message is required")
    for i, turn in enumerate(turns):
        _only(turn, {"role", "content"}, f"messages.{i}.")
        if turn.get("role") not in _ROLES:
            raise Refused(f"messages.{i}.role: Input should be 'user', 'assistant' or 'system'")
        if not turn.get("content") or not isinstance(turn["content"], str | list):
            raise Refused(f"messages.{i}: all messages must have non-empty content")
        for j, block in enumerate(blocks_of(turn)):
            _block(block, turn["role"], f"messages.{i}.content.{j}")
    if turns[0]["role"] != "user":
        raise Refused('messages: first message must use the "user" role')
    _order(turns, traits)
    _tool_order([turn for turn in turns if turn["role"] != "system"])
    last = turns[-1]
    if last["role"] == "assistant":
        if "noprefill" in traits:
            words = "This model does not support assistant message prefill."
            raise Refused(f"{words} The conversation must end with a user message.")
        text = blocks_of(last)[-1].get("text", "")
        if text != text.rstrip():
            raise Refused("messages: final assistant content cannot end with trailing whitespace")


def _order(turns: list[Any], traits: dict[str, str]) -> None:
    roles = [turn["role"] for turn in turns]
    for i, role in enumerate(roles):
        if role == "system":
            if "nosystemturns" in traits:
                raise Refused("role 'system' is not supported on this model")
            if roles[i - 1] != "user" or roles[i + 1 : i + 2] not in ([], ["assistant"]):
                raise Refused(f"messages.{i}: a system message must follow a user message and precede an assistant's")
    spoken = [role for role in roles if role != "system"]
    if any(a == b for a, b in itertools.pairwise(spoken)):
        raise Refused('messages: roles must alternate between "user" and "assistant", but found multiple in a row')


def _tool_order(turns: list[Any]) -> None:
    seen: set[str] = set()
    wanted: list[str] = []
    for i, turn in enumerate(turns):
        blocks = blocks_of(turn)
        kinds = [block["type"] for block in blocks]
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        for j, result in enumerate(results):
            if result not in wanted or result in results[:j]:
                raise Refused(
                    f"messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks: {result}"
                )
        missing = [use for use in wanted if use not in results]
        if missing or (results and set(kinds[: len(results)]) != {"tool_result"}):
            found = f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(missing)}"
            raise Refused(f"messages.{i - 1}: {found}")
        wanted = [block["id"] for block in blocks if block["type"] == "tool_use"]
        for j, use in enumerate(wanted):
            if use in seen or use in wanted[:j]:
                raise Refused(f"messages.{i}.content.{j}: `tool_use` ids must be unique")
        seen.update(wanted)
    if wanted:
        raise Refused(f"messages: `tool_use` ids were found without `tool_result` blocks: {', '.join(wanted)}")


def _block(block: Any, role: str, place: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if kind not in _BLOCKS or kind not in _ROLES.get(role, _BLOCKS):
        raise Refused(f"{place}: Input tag {kind!r} found using 'type' does not match any of the expected tags")
    place = f"{place}.{kind}"
    _only(block, {"type", "cache_control", *_BLOCKS[kind]}, f"{place}.")
    if kind == "text":
        _text(block, place)
    elif kind in ("image", "document"):
        _source(block.get("source"), kind, f"{place}.source")
    elif kind == "tool_use":
        _matches(block.get("id"), r"[a-zA-Z0-9_-]+", f"{place}.id")
        _matches(block.get("name"), r"[a-zA-Z0-9_-]{1,200}", f"{place}.name")
        if not isinstance(block.get("input"), dict):
            raise Refused(f"{place}.input: Input should be a valid dictionary")
    elif kind == "tool_result":
        _matches(block.get("tool_use_id"), r"[a-zA-Z0-9_-]+", f"{place}.tool_use_id")
        content = block.get("content", [])
        if not isinstance(content, str | list):
            raise Refused(f"{place}.content: Input should be a valid list")
        for j, inner in enumerate(content if isinstance(content, list) else []):
            if inner.get("type") not in ("text", "image", "document", "search_result"):
                raise Refused(f"{place}.content.{j}: Input tag does not match any of the expected tags")
            _block(inner, "any", f"{place}.content.{j}")


def _text(block: dict[str, Any], place: str) -> None:
    text = block.get("text")
    if not isinstance(text, str):
        raise Refused(f"{place}.text: Input should be a valid string")
    if not text:
        raise Refused("messages: text content blocks must be non-empty")
    if not text.strip():
        raise Refused("messages: text content blocks must contain non-whitespace text")


def _source(source: Any, kind: str, place: str) -> None:
    form = source.get("type") if isinstance(source, dict) else None
    if form not in _SOURCES or (form == "text" and kind == "image"):
        raise Refused(f"{place}: Input tag {form!r} does not match any of the expected tags")
    _only(source, {"type", *_SOURCES[form]}, f"{place}.{form}.")
    for name in _SOURCES[form]:
        if not isinstance(source.get(name), str) or not source[name]:
            raise Refused(f"{place}.{form}.{name}: Field required")
    if form == "url" and not source["url"].startswith(("http://", "https://")):
        raise Refused(f"{place}.url.url: Only HTTPS URLs are supported")
    if form == "text" and source["media_type"] != "text/plain":
        raise Refused(f"{place}.text.media_type: Input should be 'text/plain'")
    if form == "base64":
        if source["media_type"] not in _MEDIA[kind]:
            raise Refused(f"{place}.base64.media_type: Input should be one of {sorted(_MEDIA[kind])}")
        try:
            base64.b64decode(source["data"], validate=True)
        except ValueError:
            raise Refused(f"{place}.base64: invalid base64 data") from None


def _system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise Refused("system: Input should be a valid list")
    for i, block in enumerate(system):
        _block(block, "system", f"system.{i}")


# --- Tools ---


def _tools(body: dict[str, Any]) -> None:
    tools = body.get("tools", [])
    names = [tool.get("name") for tool in tools]
    for i, tool in enumerate(tools):
        if re.fullmatch(r"[a-z_]+_20\d{6}", tool.get("type") or ""):
            continue
        place = f"tools.{i}.custom"
        _only(tool, {"type", "name", "description", "input_schema", "cache_control", "strict"}, f"{place}.")
        _matches(tool.get("name"), r"[a-zA-Z0-9_-]{1,128}", f"{place}.name")
        if not isinstance(tool.get("description", ""), str):
            raise Refused(f"{place}.description: Input should be a valid string")
        if not isinstance(tool.get("input_schema"), dict):
            raise Refused(f"{place}.input_schema: Field required")
        if tool["input_schema"].get("type") != "object":
            raise Refused(f"{place}.input_schema.type: Input should be 'object'")
    if len(set(names)) < len(names):
        raise Refused("tools: Tool names must be unique.")
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not tools:
        raise Refused("tool_choice may only be specified while providing tools.")
    kind = choice.get("type") if isinstance(choice, dict) else None
    allowed = {"auto": {"disable_parallel_tool_use"}, "any": {"disable_parallel_tool_use"}, "none": set()}
    allowed["tool"] = {"disable_parallel_tool_use", "name"}
    if kind not in allowed:
        raise Refused("tool_choice: Input tag does not match any of: 'auto', 'any', 'tool', 'none'")
    _only(choice, {"type", *allowed[kind]}, f"tool_choice.{kind}.")
    if kind == "tool" and choice.get("name") not in names:
        raise Refused(f"tool_choice.tool.name: Tool '{choice.get('name')}' not found in provided tools")


# --- Parameters ---


def _sampling(body: dict[str, Any], traits: dict[str, str]) -> None:
    for name in ("temperature", "top_p", "top_k"):
        if name in body and "nosampling" in traits:
            raise Refused(f"`{name}` is deprecated for this model.")
    for name in ("temperature", "top_p"):
        if name in body and not isinstance(body[name], int | float):
            raise Refused(f"{name}: Input should be a valid number")
        if not 0 <= body.get(name, 0) <= 1:
            raise Refused(f"{name}: range: 0..1")
    if "temperature" in body and "top_p" in body:
        raise Refused("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    if not isinstance(body.get("top_k", 0), int):
        raise Refused("top_k: Input should be a valid integer")
    stops = body.get("stop_sequences", [])
    if not isinstance(stops, list) or any(not isinstance(stop, str) for stop in stops):
        raise Refused("stop_sequences: Input should be a valid list")
    if any(not stop.strip() for stop in stops):
        raise Refused("stop_sequences: each stop sequence must contain non-whitespace")
    if body.get("service_tier", "auto") not in ("auto", "standard_only"):
        raise Refused("service_tier: Input should be 'auto' or 'standard_only'")
    _only(body.get("metadata", {}), {"user_id"}, "metadata.")


def _thinking(body: dict[str, Any], traits: dict[str, str]) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type")
    allowed = {"enabled": {"budget_tokens", "display"}, "adaptive": {"display"}, "disabled": set()}
    if kind not in allowed:
        raise Refused("thinking: Input tag does not match any of: 'adaptive', 'disabled', 'enabled'")
    _only(thinking, {"type", *allowed[kind]}, f"thinking.{kind}.")
    if kind == "disabled":
        return
    if "nothinking" in traits:
        raise Refused(f'"thinking.type.{kind}" is not supported for this model')
    if kind == "adaptive" and "noadaptive" in traits:
        raise Refused("adaptive thinking is not supported on this model")
    if kind == "enabled":
        if not isinstance(thinking.get("budget_tokens"), int) or thinking["budget_tokens"] < 1024:
            raise Refused("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if thinking["budget_tokens"] >= body["max_tokens"]:
            raise Refused("`max_tokens` must be greater than `thinking.budget_tokens`.")
        *before, last = [turn for turn in body["messages"] if turn["role"] != "system"]
        thought = before and blocks_of(before[-1])[0]["type"] in ("thinking", "redacted_thinking")
        if not thought and any(block["type"] == "tool_result" for block in blocks_of(last)):
            raise Refused("messages: Expected `thinking` or `redacted_thinking`, but found `tool_use`.")
    if body.get("temperature", 1) != 1:
        raise Refused("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if "top_k" in body:
        raise Refused("`top_k` must be unset when thinking is enabled or in adaptive mode.")
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        raise Refused("Thinking may not be enabled when tool_choice forces tool use.")
    if body["messages"][-1]["role"] == "assistant":
        raise Refused("messages: a final `assistant` message must start with a thinking block when thinking is enabled")


def _output(body: dict[str, Any], traits: dict[str, str]) -> None:
    config = body.get("output_config", {})
    _only(config, {"effort", "format"}, "output_config.")
    if "effort" in config:
        if config["effort"] not in _EFFORTS:
            raise Refused("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
        if "noadaptive" in traits:
            raise Refused("This model does not support the effort parameter.")
        if config["effort"] == "xhigh" and "noxhigh" in traits:
            levels = "high, low, max, medium"
            raise Refused(f"This model does not support effort level 'xhigh'. Supported levels: {levels}.")
    if "format" in config:
        if "noschema" in traits:
            raise Refused("output_config.format: structured outputs are not supported for this model")
        _only(config["format"], {"type", "schema"}, "output_config.format.")
        if config["format"].get("type") != "json_schema":
            raise Refused("output_config.format.type: Input should be 'json_schema'")
        if body["messages"][-1]["role"] == "assistant":
            raise Refused("output_config.format: cannot be used with a prefilled assistant message")
        _schema(config["format"].get("schema"))


def _schema(schema: Any) -> None:
    place = "output_config.format.schema"
    if not isinstance(schema, dict) or not schema:
        raise Refused(f"{place}: Input should be a schema")
    for name in _SCHEMA_REFUSES & schema.keys():
        raise Refused(f"{place}: property '{name}' is not supported")
    kind = schema.get("type")
    if "object" in (kind if isinstance(kind, list) else [kind]) and schema.get("additionalProperties") is not False:
        raise Refused(f"{place}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    for table in ("properties", "$defs", "definitions"):
        for inner in schema.get(table, {}).values():
            _schema(inner)
    for inner in (
        *schema.get("anyOf", ()),
        *schema.get("allOf", ()),
        *([schema["items"]] if "items" in schema else ()),
    ):
        _schema(inner)


def marked(value: Any) -> int:
    """Count the cache marks anywhere in a value."""
    if isinstance(value, list):
        return sum(map(marked, value))
    if not isinstance(value, dict):
        return 0
    return ("cache_control" in value) + sum(marked(inner) for name, inner in value.items() if name != "input")


def _marks(body: dict[str, Any], traits: dict[str, str]) -> None:
    found = marked(body)
    if found > 4:
        raise Refused(f"A maximum of 4 blocks with cache_control may be provided. Found {found}.")
    if found and "nocache" in traits:
        raise Refused("cache_control: Extra inputs are not permitted")
    holders = [*body.get("tools", []), *(body["system"] if isinstance(body.get("system"), list) else [])]
    holders += [block for turn in body["messages"] for block in blocks_of(turn)]
    for holder in holders:
        if "cache_control" in holder:
            _only(holder["cache_control"], {"type", "ttl"}, "cache_control.")
            if holder["cache_control"].get("type") != "ephemeral":
                raise Refused("cache_control.type: Input should be 'ephemeral'")


def _only(value: Any, allowed: set[str], place: str) -> None:
    if not isinstance(value, dict):
        raise Refused(f"{place.rstrip('.')}: Input should be a valid dictionary")
    for name in value:
        if name not in allowed:
            raise Refused(f"{place}{name}: Extra inputs are not permitted")


def _matches(value: Any, pattern: str, place: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise Refused(f"{place}: String should match pattern '^{pattern}$'")
