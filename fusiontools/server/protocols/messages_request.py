"""Read an Anthropic Messages request: its parameters and tools under OpenAI's chat names.

Tools that run at Anthropic (`web_search_…`, `code_execution_…`), and those whose schema only Anthropic's models know
(`bash_…`, `text_editor_…`, `computer_…`), are left out, and the answer says so: nobody here can run them, and a client
runs every call that it gets. Unknown fields are left out, and the answer says so, for clients send
new ones before anybody has heard of them.

Source: Anthropic's API reference, "Messages", "Effort", "Extended thinking", "Structured outputs", "Tool reference".

Read the conversation of an Anthropic Messages request as OpenAI chat messages.

- `system` is the first message. One in the middle stays where it is; one at the beginning joins `system`. The line that
  Claude Code puts before it for billing differs from request to request and says nothing to a model: it is left out.
- Results of tools are `tool` messages and come before the rest of their turn. Those hold text only, so the images and
  files of a result follow in the user's message.
- Thoughts that are signed, or encrypted, stand beside the answer, for the models that take them back; others are left
  out, as are the calls and results of tools that ran at Anthropic; unknown blocks keep their text.
- Empty text is left out, and so is a message with nothing in it.

Source: Anthropic's API reference, "Messages", "Tool use", "Vision", "PDF support", "Search results", "Compaction",
"Mid-conversation system messages".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from fusiontools.record import jsonl
from fusiontools.record.types import Message, ToolCall
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, Ignored, ignore_tool
from fusiontools.server.protocols.reasoning_seal import details_of_blocks, put_beside
from fusiontools.server.protocols.unread import list_unread

Part = dict[str, Any]

#: Clients send a thought back only where it is signed: what our own progress is signed with.
SIGNATURE = "ZnVzaW9udG9vbHM="
_BILLING = "x-anthropic-billing-header:"
_BELOW = "(It stands in the next message.)"
_SHOWN = "The tools returned:"
_FAILED = "The tool failed."
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


def refuse(where: str, why: str) -> NoReturn:
    """Refuse a request for what stands at this place in it."""
    raise ApiError(400, "invalid_request", f"{where}: {why}", param=where)


# Checked by hand, not by the schema: of a union such as `content` that says only that no branch fits, this the place.
def expect(value: Any, kind: type, where: str) -> Any:
    """Return a value that must be of this kind, or refuse the request."""
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return value
    refuse(where, f"should be {_KINDS[kind]}, it is {_kind(value)}")


def write_json(value: Any, where: str) -> str:
    """Return a value of the request as JSON text."""
    try:
        return jsonl.dumps(value).decode()
    except (TypeError, ValueError):
        refuse(where, "is nested too deeply to be passed on")


def conversation(body: dict[str, Any]) -> list[Message]:
    """Return `system` and `messages`.

    Raises:
        ApiError: with the place of what cannot be read.
    """
    turns = _MessageTurns()
    turns.add_system(body.get("system"), "system")
    for i, turn in enumerate(expect(body.get("messages"), list, "messages")):
        turns.add(expect(turn, dict, f"messages[{i}]"), f"messages[{i}]")
    if all(message["role"] == "system" for message in turns.messages):
        refuse("messages", "nothing in it is to be answered: give a user message with some content")
    return turns.messages


class _MessageTurns:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._called: set[str] = set()

    def add(self, turn: dict[str, Any], where: str) -> None:
        role = turn.get("role")
        if role == "system":
            self.add_system(turn.get("content"), f"{where}.content")
        elif role == "user":
            self._add_user(_blocks(turn.get("content"), f"{where}.content"))
        elif role == "assistant":
            self._add_assistant(_blocks(turn.get("content"), f"{where}.content"))
        else:
            refuse(f"{where}.role", f"should be user, assistant or system, it is {_describe(role)}")

    def add_system(self, system: Any, where: str) -> None:
        if system is None:
            return
        texts = [_text_of(part) for block, at in _blocks(system, where) for part in _parts(block, at)]
        text = "\n\n".join(kept for text in texts if (kept := _without_billing(text)))
        if not text:
            return
        if len(self.messages) == 1 and self.messages[0]["role"] == "system":
            # Many servers take one system message at the beginning.
            text = f"{self.messages.pop()['content']}\n\n{text}"
        self.messages.append({"role": "system", "content": text})

    def _add_user(self, blocks: Sequence[tuple[Part, str]]) -> None:
        shown: list[Part] = []
        parts: list[Part] = []
        for block, where in blocks:
            if block.get("type") == "tool_result":
                shown += self._add_result(block, where)
            elif block.get("type") == "tool_use":
                refuse(where, "a tool_use block is the assistant's, not the user's")
            else:
                parts += _parts(block, where)
        if shown:
            parts = [_text(_SHOWN), *shown, *parts]
        if parts:
            self.messages.append({"role": "user", "content": _content(parts)})

    def _add_result(self, block: Part, where: str) -> list[Part]:
        """Add what a tool returned; returns the parts of it that are no text."""
        call = expect(block.get("tool_use_id"), str, f"{where}.tool_use_id")
        if call not in self._called:
            refuse(f"{where}.tool_use_id", f"no tool_use block before it has the id {call[:80]!r}")
        content = block.get("content")
        inner = [] if content is None else _blocks(content, f"{where}.content")
        parts = [part for item, at in inner for part in _parts(item, at)]
        texts = [part["text"] if part["type"] == "text" else _BELOW for part in parts]
        if block.get("is_error") is True:
            texts.insert(0, _FAILED)
        self.messages.append({"role": "tool", "tool_call_id": call, "content": "\n\n".join(texts)})
        return [part for part in parts if part["type"] != "text"]

    def _add_assistant(self, blocks: Sequence[tuple[Part, str]]) -> None:
        answer = ""
        calls: list[ToolCall] = []
        adjoins = True
        for block, where in blocks:
            if block.get("type") == "tool_use":
                calls.append(self._call(block, where))
            elif block.get("type") == "tool_result":
                refuse(where, "a tool_result block is the user's, not the assistant's")
            text = "".join(_text_of(part) for part in _parts(block, where))
            if text:
                # Cited text comes in pieces that follow each other; what stands between two pieces parts them.
                answer += text if adjoins or not answer else f"\n\n{text}"
            adjoins = bool(text)
        if not (calls or answer):
            return
        message: Message = {"role": "assistant", "content": answer or None}
        # Our own progress is signed, too, and means nothing to a model.
        signed = [block for block, _ in blocks if block.get("signature") != SIGNATURE]
        calls, details = put_beside(calls, details_of_blocks(signed))
        if calls:
            message["tool_calls"] = calls
        if details:
            message["reasoning_details"] = details
        self.messages.append(message)

    def _call(self, block: Part, where: str) -> ToolCall:
        call = expect(block.get("id"), str, f"{where}.id")
        name = expect(block.get("name"), str, f"{where}.name")
        given = block.get("input")
        arguments = write_json({} if given is None else expect(given, dict, f"{where}.input"), f"{where}.input")
        self._called.add(call)
        return {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}


def _blocks(content: Any, where: str) -> list[tuple[Part, str]]:
    """Return the blocks of a content, each with its place; text stands for one block of it."""
    if isinstance(content, str):
        return [(_text(content), where)]
    if not isinstance(content, list):
        refuse(where, f"should be text or a list of blocks, it is {_kind(content)}")
    return [(expect(block, dict, f"{where}[{i}]"), f"{where}[{i}]") for i, block in enumerate(content)]


def _parts(block: Part, where: str) -> list[Part]:
    """Return a block as content parts of a chat message; what says nothing to a model is none."""
    kind = block.get("type")
    if kind == "image":
        return [_image(expect(block.get("source"), dict, f"{where}.source"), f"{where}.source")]
    if kind == "document":
        return _document(block, where)
    if kind == "search_result":
        inner = _blocks(block.get("content"), f"{where}.content")
        lines = [block.get("title"), block.get("source"), *(_text_of(item) for item, _ in inner)]
        return [_text("\n".join(line for line in lines if isinstance(line, str) and line))]
    if kind == "tool_reference":
        return [_text(f"Found the tool {expect(block.get('tool_name'), str, f'{where}.tool_name')}.")]
    if kind == "compaction":
        return [_text(block["content"])] if isinstance(block.get("content"), str) else []
    text = expect(block.get("text"), str, f"{where}.text") if kind == "text" else _text_of(block)
    return [_text(text)] if text.strip() else []


def _image(source: Part, where: str) -> Part:
    kind = source.get("type")
    if kind == "url":
        url = expect(source.get("url"), str, f"{where}.url")
    elif kind == "base64":
        url = _data_url(source, where)
    else:
        _refuse_source(kind, where)
    return {"type": "image_url", "image_url": {"url": url}}


def _document(block: Part, where: str) -> list[Part]:
    """Return a document: text as text after its title, a PDF as a file of that name."""
    source, at = expect(block.get("source"), dict, f"{where}.source"), f"{where}.source"
    title, context = (value if isinstance(value := block.get(name), str) else "" for name in ("title", "context"))
    kind = source.get("type")
    if kind == "text":
        texts = (title, context, expect(source.get("data"), str, f"{at}.data"))
        return [_text(text) for text in texts if text.strip()]
    if kind == "content":
        inner = [
            part for item, place in _blocks(source.get("content"), f"{at}.content") for part in _inner(item, place)
        ]
        return [*(_text(text) for text in (title, context) if text.strip()), *inner]
    if kind == "url":
        data = expect(source.get("url"), str, f"{at}.url")
    elif kind == "base64":
        data = _data_url(source, at)
    else:
        _refuse_source(kind, at)
    file = {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}
    return [_text(context), file] if context.strip() else [file]


def _inner(block: Part, where: str) -> list[Part]:
    """Return a block inside a document, which is text or an image; a document in a document would have no end."""
    if block.get("type") not in ("text", "image"):
        refuse(f"{where}.type", f"should be text or image, it is {_describe(block.get('type'))}")
    return _parts(block, where)


def _data_url(source: Part, where: str) -> str:
    media_type = expect(source.get("media_type"), str, f"{where}.media_type")
    return f"data:{media_type};base64,{expect(source.get('data'), str, f'{where}.data')}"


def _refuse_source(kind: Any, where: str) -> NoReturn:
    if kind == "file":
        refuse(where, "a file's id is known at Anthropic only: send the data itself, as base64 or by url")
    refuse(f"{where}.type", f"should be base64 or url, it is {_describe(kind)}")


def _content(parts: list[Part]) -> str | list[Part]:
    """Return text as text: not every server takes parts."""
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def _without_billing(text: str) -> str:
    return text.partition("\n")[2] if text.startswith(_BILLING) else text


def _kind(value: Any) -> str:
    return "missing" if value is None else _KINDS.get(type(value), "something else")


def _describe(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else _kind(value)


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _text_of(part: Part) -> str:
    text = part.get("text")
    return text if isinstance(text, str) else ""


_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
#: From how many tokens to think with on a budget is which effort, largest first.
_BUDGETS = ((16_384, "high"), (8192, "medium"))
#: What is read of a request.
_READ = frozenset(
    {"model", "messages", "system", "max_tokens", "stop_sequences", "temperature", "top_p", "top_k", "thinking"}
    | {"output_config", "output_format", "tools", "tool_choice", "mcp_servers", "stream", "fusion", "plugins"}
)
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def check_bounds(body: dict[str, Any]) -> None:
    """Refuse a request that says nothing of how long its answer may be.

    Raises:
        ApiError: `max_tokens` is missing, as Anthropic does.
    """
    if body.get("max_tokens") is None:
        refuse("max_tokens", "is missing: say how many tokens the answer may have, 4096 for example")


def request(body: dict[str, Any]) -> ChatRequest:
    """Return a request; `max_tokens` may be missing, as it is where tokens are only counted.

    Raises:
        ApiError: with the place of what cannot be read.
    """
    fields = {name: value for name, value in body.items() if value is not None}
    _refuse_thread(fields)
    model = expect(fields.get("model"), str, "model")
    if not model:
        refuse("model", "is empty: name one of those that /v1/models lists")
    fusion = expect(fields.get("fusion", {}), dict, "fusion")
    if "plugins" in fields:
        fusion = {**fusion, "plugins": expect(fields["plugins"], list, "plugins")}
    return ChatRequest(
        model=model,
        messages=conversation(fields),
        params={**_sampling(fields), **_thinking(fields), **_tools(fields)},
        stream=expect(fields.get("stream", False), bool, "stream"),
        fusion=fusion,
        says_usage=True,
        echo={"thinks": _wants_thoughts(fields)},
        ignored=_ignored(fields),
    )


def _wants_thoughts(fields: dict[str, Any]) -> bool:
    """Return whether the client expects thoughts before the answer: where it asks for them, and where it has tools.

    Others take the first block for the answer.
    """
    return fields.get("thinking", {}).get("type") in ("enabled", "adaptive") or bool(fields.get("tools"))


def _refuse_thread(fields: dict[str, Any]) -> None:
    """Refuse a conversation that is to be kept here: without what was said before, its next turn would be another one.

    These are the words on which Anthropic's SDKs go on without a thread.
    """
    if "thread" in fields:
        details = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
        why = "thread: no conversations are kept here: send all messages, without `thread`"
        raise ApiError(400, "invalid_request", why, "thread", details=details)


def _sampling(fields: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if "max_tokens" in fields:
        params["max_tokens"] = expect(fields["max_tokens"], int, "max_tokens")
        if params["max_tokens"] < 1:
            refuse("max_tokens", "should be at least 1")
    for name in ("temperature", "top_p"):
        if name in fields:
            params[name] = _share(fields[name], name)
    if "top_k" in fields:
        params["top_k"] = expect(fields["top_k"], int, "top_k")
    stops = expect(fields.get("stop_sequences", []), list, "stop_sequences")
    if stops:
        params["stop"] = [expect(stop, str, f"stop_sequences[{i}]") for i, stop in enumerate(stops)]
    return params


def _share(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        refuse(name, "should be a number from 0 to 1")
    return value


def _thinking(fields: dict[str, Any]) -> dict[str, Any]:
    """Return how hard to think, and the format of the answer.

    That it should not think at all is not passed on: it is what an absent effort means, and some models refuse it.
    """
    params: dict[str, Any] = {}
    thinking = expect(fields.get("thinking", {}), dict, "thinking")
    if thinking.get("type") == "enabled":
        budget = expect(thinking.get("budget_tokens"), int, "thinking.budget_tokens")
        params["reasoning_effort"] = next((effort for least, effort in _BUDGETS if budget >= least), "low")
    config = expect(fields.get("output_config", {}), dict, "output_config")
    if config.get("effort") is not None:
        effort = _EFFORTS.get(expect(config["effort"], str, "output_config.effort"))
        params |= {"reasoning_effort": effort} if effort else {}
    for where, given in (
        ("output_format", fields.get("output_format")),
        ("output_config.format", config.get("format")),
    ):
        if given is not None and expect(given, dict, where).get("type") == "json_schema":
            schema = expect(given.get("schema"), dict, f"{where}.schema")
            write_json(schema, f"{where}.schema")
            params["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": _is_closed(schema)},
            }
    return params


def _is_closed(schema: Any) -> bool:
    """Return whether every object in a schema is spelled out in full, which is all that OpenAI takes as strict."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            named, required = part.get("properties"), part.get("required")
            if isinstance(named, dict) and (
                part.get("additionalProperties") is not False
                or not isinstance(required, list)
                or any(name not in required for name in named)
            ):
                return False
            waiting += part.values()
    return True


def _tools(fields: dict[str, Any]) -> dict[str, Any]:
    given = [expect(tool, dict, f"tools[{i}]") for i, tool in enumerate(expect(fields.get("tools", []), list, "tools"))]
    functions = [_function(tool, f"tools[{i}]") for i, tool in enumerate(given) if _runs_at_client(tool)]
    choice = expect(fields.get("tool_choice", {}), dict, "tool_choice")
    kind = choice.get("type")
    if not functions:
        if kind in ("any", "tool"):
            refuse("tool_choice", "leaves no tool: none of `tools` is one that the client runs")
        return {}
    params: dict[str, Any] = {"tools": functions}
    if kind == "tool":
        name = expect(choice.get("name"), str, "tool_choice.name")
        if all(tool.get("name") != name for tool in given):
            refuse("tool_choice.name", f"no tool is called {name[:80]!r}")
        if all(function["function"]["name"] != name for function in functions):
            refuse("tool_choice.name", f"nobody here runs {name[:80]!r}")
        params["tool_choice"] = {"type": "function", "function": {"name": name}}
    elif kind is not None:
        if expect(kind, str, "tool_choice.type") not in _CHOICES:
            refuse("tool_choice.type", "should be auto, any, tool or none")
        params["tool_choice"] = _CHOICES[kind]
    if choice.get("disable_parallel_tool_use") is True and kind != "none":
        params["parallel_tool_calls"] = False
    return params


def _runs_at_client(tool: dict[str, Any]) -> bool:
    return tool.get("type") in (None, "custom") or "input_schema" in tool


def _ignored(fields: dict[str, Any]) -> list[Ignored]:
    """Return what nobody here runs: tools of Anthropic's, and servers of tools that Anthropic would ask."""
    tools = enumerate(fields.get("tools", []))
    ignored = [ignore_tool(f"tools[{i}]", str(tool["type"])) for i, tool in tools if not _runs_at_client(tool)]
    servers = enumerate(expect(fields.get("mcp_servers", []), list, "mcp_servers"))
    ignored += [ignore_tool(f"mcp_servers[{i}]", "mcp") for i, _ in servers]
    return ignored + list_unread(fields, _READ)


def _function(tool: dict[str, Any], where: str) -> dict[str, Any]:
    name = expect(tool.get("name"), str, f"{where}.name")
    schema = expect(tool.get("input_schema"), dict, f"{where}.input_schema")
    write_json(schema, f"{where}.input_schema")
    function: dict[str, Any] = {"name": name, "parameters": schema}
    if tool.get("description") is not None:
        function["description"] = expect(tool["description"], str, f"{where}.description")
    return {"type": "function", "function": function}
