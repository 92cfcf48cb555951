"""Ask a model through Anthropic's native Messages API: what is sent, and what is learned from refusals.

OpenAI's parameters become the API's own; what only OpenAI knows (`seed`, `logprobs`, `user`, an engine's
`repeat_penalty`) is left out, because unknown fields are refused. The API's own (`top_k`, `thinking`, `metadata`,
`output_config`, …) pass through from a recipe's `extra`. Nothing is known of single models: each is asked in the newest
way, and a refusal teaches the older one for as long as the process lives.

Source: Anthropic's API reference, "Messages", "Effort", "Extended thinking", "Structured outputs", "Prompt caching".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fusiontools.errors import CallFailed
from fusiontools.llm import answer_form, anthropic_reply
from fusiontools.llm.anthropic_request import Conversation, bad_request, close_schema
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.http import ApiFormat
from fusiontools.llm.prices import ANTHROPIC_MAX_TOKENS
from fusiontools.llm.quirks import Quirks, prompt_bytes
from fusiontools.llm.rewrite import CACHE_MARK, rename_tools, short_names

_LEAST_BUDGET = 1024
#: What a reasoning effort is worth in tokens, for models that know no effort; at most half of `max_tokens`.
_BUDGETS = {"low": 2048, "medium": 8192, "high": 16_384, "xhigh": 32_768, "max": 32_768}
#: The API's own parameters that pass through.
_NATIVE = ("top_k", "thinking", "container", "context_management", "inference_geo", "mcp_servers", "output_config")
_DROPPABLE = ("temperature", "top_p", "top_k", "stop_sequences", "service_tier", "metadata")
_TIERS = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}
_SAMPLING = ("temperature", "top_p", "top_k")
#: How it refuses the name of a tool.
_NAME_REFUSED = re.compile(r"tools\.\d+\.\S*name: string should (match|have)")
#: How it refuses the thoughts of an earlier turn: those of another's model, or changed ones.
_OF_THOUGHTS = re.compile(r"signature|redacted_thinking|thinking`? blocks?")
#: How a refusal speaks of a structured output.
_OF_FORMAT = ("output_config", "output_format", "structured output", "grammar", "schema is too")


class MessagesQuirks(Quirks):
    """What one model needs differently, behind the Messages API.

    `thinking_rung` is how a reasoning effort is asked for: 0 as an effort with adaptive thinking, 1 as a budget of
    tokens, 2 not at all. A schema is asked for as a structured output, or in words.
    """

    system_turns: bool = True
    thinking_rung: int = 0
    highest_effort: bool = True

    def body(self, request: CompletionRequest, *, stream: bool) -> dict[str, Any]:
        """Return the JSON body of the request as this model wants it.

        Raises:
            CallFailed: `bad_request`, where the API has no place for something in it.
        """
        try:
            return self._body(request, stream)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise bad_request(f"a parameter of the request cannot be read: {error}") from error

    def _body(self, request: CompletionRequest, stream: bool) -> dict[str, Any]:
        params, messages = request.params, request.messages
        most = self._max_tokens(request)
        if not self.own_names and (names := short_names(params.get("tools"))):
            params = rename_tools({**params, "messages": messages}, names)
            messages = params["messages"]
        takes = {"system_turns": self.system_turns, "thoughts": self.takes_details}
        conversation = Conversation(messages, request.cached_messages, **takes)
        body: dict[str, Any] = {"model": request.model, "max_tokens": most}
        tools = [_tool(tool) for tool in params.get("tools") or []]
        if tools:
            body["tools"] = tools
            if (choice := _tool_choice(params)) is not None:
                body["tool_choice"] = choice
        body |= {name: params[name] for name in _NATIVE if params.get(name) is not None}
        body |= self._sampling(params)
        self._think(body, params, after_tools=conversation.after_tools)
        if self.marks_cache and request.cached_messages:
            for block in (*tools[-1:], *conversation.shared_ends):
                block["cache_control"] = CACHE_MARK
        if (instruction := self._ask_for_format(body, params)) is not None:
            conversation.system.append({"type": "text", "text": instruction})
        if self.continues and not _thinks(body) and "format" not in body.get("output_config", {}):
            conversation.end_cleanly()
        else:
            conversation.end_with_user()
        if conversation.system:
            body["system"] = conversation.system
        body["messages"] = conversation.turns
        if stream:
            body["stream"] = True
        return body

    def form_in_words(self, request: CompletionRequest) -> Mapping[str, Any] | None:
        """Return the `response_format` that is asked for in words, where one is: its answer must be checked."""
        asked = request.params.get("response_format")
        if not isinstance(asked, dict) or asked.get("type") not in ("json_object", "json_schema"):
            return None
        return asked if self._strict_schema(asked) is None else None

    def _max_tokens(self, request: CompletionRequest) -> int:
        params = request.params
        given = params.get("max_tokens") or params.get("max_completion_tokens") or ANTHROPIC_MAX_TOKENS
        return self.limit.bound(given, prompt_bytes(request.messages, params) if self.limit.window else 0)

    def _sampling(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return what shapes the sampling: the temperature within 0 to 1, and `top_p` only where it stands alone."""
        said: dict[str, Any] = {}
        if (temperature := params.get("temperature")) is not None:
            said["temperature"] = min(max(temperature, 0), 1)
        elif (top_p := params.get("top_p")) is not None:
            said["top_p"] = min(max(top_p, 0), 1)
        stops = params.get("stop") or params.get("stop_sequences") or []
        stops = [stop for stop in ([stops] if isinstance(stops, str) else stops) if stop.strip()]
        if stops:
            said["stop_sequences"] = stops
        if (tier := _TIERS.get(params.get("service_tier") or "")) is not None:
            said["service_tier"] = tier
        metadata = params.get("metadata")
        if isinstance(metadata, dict) and metadata.keys() == {"user_id"}:
            said["metadata"] = metadata
        return {name: value for name, value in said.items() if name not in self.dropped}

    def _think(self, body: dict[str, Any], params: Mapping[str, Any], *, after_tools: bool) -> None:
        """Ask for the wanted reasoning effort.

        A call that must be of a tool leaves no room for thoughts; after tools a budget wants the thoughts that led to
        them, which OpenAI's messages do not carry.
        """
        effort = params.get("reasoning_effort")
        forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
        if "thinking" in self.dropped:
            body.pop("thinking", None)
        elif effort == "none":
            body.setdefault("thinking", {"type": "disabled"})
        elif effort and self.thinking_rung == 0:
            body["output_config"] = {"effort": self._effort(effort), **body.get("output_config", {})}
            if not forced:
                body.setdefault("thinking", {"type": "adaptive"})
        elif effort and self.thinking_rung == 1 and not forced and not after_tools:
            budget = min(_BUDGETS.get(effort, _LEAST_BUDGET), body["max_tokens"] // 2)
            if budget >= _LEAST_BUDGET:
                body.setdefault("thinking", {"type": "enabled", "budget_tokens": budget})
        for name in _SAMPLING:
            # A model that thinks samples in its own way.
            if name in self.dropped or _thinks(body):
                body.pop(name, None)

    def _effort(self, effort: str) -> str:
        if effort == "minimal":
            return "low"
        return "high" if effort in ("xhigh", "max") and not self.highest_effort else effort

    def _ask_for_format(self, body: dict[str, Any], params: Mapping[str, Any]) -> str | None:
        """Ask for the wanted format in the body; returns an instruction where it must be asked for in words."""
        asked = params.get("response_format") or {}
        if asked.get("type") not in ("json_object", "json_schema"):
            return None
        if asked["type"] == "json_schema" and not isinstance(asked.get("json_schema"), dict):
            raise TypeError("a response_format of type json_schema has its schema in `json_schema`")
        if (strict := self._strict_schema(asked)) is None:
            return answer_form.words_for(asked)
        body["output_config"] = {**body.get("output_config", {}), "format": {"type": "json_schema", "schema": strict}}
        return None

    def _strict_schema(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the schema as structured outputs take it; None where there is none, or they do not take it."""
        if asked["type"] == "json_object" or self._refuses_schema(asked):
            return None
        return close_schema(answer_form.schema_of(asked))

    def _take_lesson(self, failure: CallFailed, body: dict[str, Any], form: Any, size: int) -> None:
        said = failure.message.lower()
        config = body.get("output_config", {})
        if self.limit.learn(said, body["max_tokens"], size) or failure.code == "context_length":
            return
        if self.takes_details and _OF_THOUGHTS.search(said) and _has_thoughts(body):
            self.takes_details = False
        elif "prefill" in said or "must end with a user message" in said:
            self.continues = False
        elif (
            "system" in said
            and ("role" in said or "message" in said)
            and any(turn["role"] == "system" for turn in body["messages"])
        ):
            self.system_turns = False
        elif "cache_control" in said and self.marks_cache:
            self.marks_cache = False
        elif _NAME_REFUSED.search(said) and short_names(_functions(body)):
            self.own_names = False
        elif config.get("effort") in ("xhigh", "max") and config["effort"] in said:
            self.highest_effort = False
        elif "format" in config and "effort" not in said and any(words in said for words in _OF_FORMAT):
            self._refuse_format(said, "json_schema", form or {})
        elif ("thinking" in body or "effort" in config) and ("thinking" in said or "effort" in said):
            self._think_less(body)
        elif refused := next((name for name in _DROPPABLE if name in body and name in said), None):
            self.dropped.add(refused)

    def _think_less(self, body: dict[str, Any]) -> None:
        kind = body.get("thinking", {}).get("type")
        if kind is None or kind == ("adaptive", "enabled", "")[self.thinking_rung]:
            self.thinking_rung = min(2, self.thinking_rung + 1)
        else:
            # None of our rungs: what was refused is the recipe's own wish, or that there be no thoughts.
            self.dropped.add("thinking")


def _functions(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the body's tools in OpenAI's form, of which the names are read."""
    return [{"function": tool} for tool in body.get("tools") or [] if "input_schema" in tool]


def _has_thoughts(body: Mapping[str, Any]) -> bool:
    said = [block for turn in body["messages"] for block in turn["content"]]
    return any(block["type"] in ("thinking", "redacted_thinking") for block in said)


def _thinks(body: Mapping[str, Any]) -> bool:
    return body.get("thinking", {}).get("type") in ("enabled", "adaptive")


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool as the API takes it; its own kinds (`web_search_…`) pass through."""
    if tool.get("type") != "function" or "function" not in tool:
        return dict(tool)
    function = tool["function"]
    said = {"name": function["name"], "description": function.get("description")}
    schema = {"type": "object", "properties": {}, **(function.get("parameters") or {})}
    return {name: value for name, value in said.items() if value} | {"input_schema": schema}


def _tool_choice(params: Mapping[str, Any]) -> dict[str, Any] | None:
    asked = params.get("tool_choice")
    kinds = {None: "auto", "auto": "auto", "none": "none", "required": "any"}
    if isinstance(asked, dict) and asked.get("type") == "function":
        choice = {"type": "tool", "name": asked["function"]["name"]}
    elif asked is None or (isinstance(asked, str) and asked in kinds):
        choice = {"type": kinds[asked]}
    else:
        raise bad_request(f"Anthropic's API knows no tool_choice {asked!r}")
    if params.get("parallel_tool_calls") is False and choice["type"] != "none":
        return {**choice, "disable_parallel_tool_use": True}
    return choice if asked is not None else None


MESSAGES = ApiFormat(
    path="/messages",
    key_header=("x-api-key", ""),
    headers={"anthropic-version": "2023-06-01"},
    quirks=MessagesQuirks,
    events=anthropic_reply.EventTranslator,
)
