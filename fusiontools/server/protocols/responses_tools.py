"""The tools of a request to OpenAI's Responses API: as chat models see them, and as the client knows them.

A namespace is a group of tools that the client runs itself: Codex sends its MCP servers so. A chat has
no groups, so each tool of one is shown as the function `NAMESPACE__NAME`. A call of it goes back under both names,
because the client finds the tool by nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from fusiontools.server.protocols.exchange import Ignored, ignore_tool
from fusiontools.server.protocols.responses_request import (
    flag_at,
    list_at,
    object_at,
    optional,
    refuse,
    text_at,
)

_KINDS = ("function", "custom")
_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64
#: The namespace of tools that are in none, for clients that name it all the same.
_NO_NAMESPACE = "functions"
_INPUT = "Input of the tool: one text, exactly as the tool wants it."


class Tools(Struct):
    """The tools that models are shown.

    Args:
        shown: as a chat has them.
        declared: by the name that models call: the `kind`, `name` and `namespace` that the client has given each.
        names: the name that models call, by namespace ("" for none) and name.
        ignored: those that nobody here runs.
    """

    shown: list[dict[str, Any]] = []
    declared: dict[str, dict[str, str]] = {}
    names: dict[tuple[str, str], str] = {}
    ignored: list[Ignored] = []

    def name_of(self, namespace: str, name: str) -> str:
        """Return the name by which models know a tool, even one that is not declared any more."""
        known = self.names.get((namespace, name))
        if known is not None:
            return known
        return name if namespace in ("", _NO_NAMESPACE) else _join(namespace, name)

    def add(self, namespace: str, name: str, kind: str, function: Mapping[str, Any]) -> None:
        """Show a tool to models; one that its namespace has already is no other."""
        flat = name
        if namespace:
            if (namespace, name) in self.names:
                return
            flat = _join(namespace, name)
            if flat in self.declared:
                flat = _mark(flat, namespace, name)
        self.names[namespace, name] = flat
        self.declared[flat] = {"kind": kind, "name": name, "namespace": namespace}
        self.shown.append({"type": "function", "function": {"name": flat, **function}})

    def meant_by(self, choice: Mapping[str, Any]) -> list[str]:
        """Return the names, as models call them, of the tools that a choice names."""
        kind = choice.get("type")
        nested = choice.get("function") or choice.get("custom")
        choice = nested if isinstance(nested, dict) else choice
        name, namespace = choice.get("name"), choice.get("namespace")
        if not isinstance(name, str):
            return []
        if kind == "namespace":
            return [flat for flat, tool in self.declared.items() if tool["namespace"] == name]
        if isinstance(namespace, str) and namespace:
            known = self.names.get((namespace, name))
            return [] if known is None else [known]
        return [name] if name in self.declared else find_names(self.declared, name)


def find_names(declared: Mapping[str, Mapping[str, str]], name: str) -> list[str]:
    """Return the tools that have this name in some namespace."""
    return [flat for flat, tool in declared.items() if tool["name"] == name]


def read_tools(given: list[Any]) -> Tools:
    """Return the tools that the client runs.

    What a model would call and nobody here can run (`web_search`, `mcp`, …) is not shown to it; the answer says so.

    Raises:
        ApiError: a tool that cannot be understood.
    """
    tools = Tools()
    namespaces = []
    for index, item in enumerate(given):
        where = f"tools[{index}]"
        if _kind_of(item, where) == "namespace":
            namespaces.append((item, where))
        else:
            _read_tool(tools, item, where)
    # Tools in no namespace keep their names, whatever names the others come to have.
    for item, where in namespaces:
        _read_namespace(tools, item, where)
    return tools


def _read_namespace(tools: Tools, item: Mapping[str, Any], where: str) -> None:
    name = text_at(item.get("name"), f"{where}.name", empty=False)
    meta = optional(item, where, {"description": text_at}).get("description")
    first = len(tools.shown)
    for index, tool in enumerate(list_at(item.get("tools"), f"{where}.tools")):
        _read_tool(tools, tool, f"{where}.tools[{index}]", name)
    if meta and len(tools.shown) > first:
        # What is said of all of them is said once: it may be long.
        function = tools.shown[first]["function"]
        own = function.get("description")
        function["description"] = f"{own}\n\nOf all tools of {name}: {meta}" if own else meta


def _read_tool(tools: Tools, item: Any, where: str, namespace: str = "") -> None:
    kind = _kind_of(item, where)
    if kind not in _KINDS:
        tools.ignored.append(ignore_tool(where, kind))
        return
    if isinstance(item.get(kind), dict):  # chat's nested spelling
        item, where = item[kind], f"{where}.{kind}"
    name = text_at(item.get("name"), f"{where}.name", empty=False)
    tools.add(namespace, name, kind, describe_custom(item, where) if kind == "custom" else _function(item, where))


def _kind_of(item: Any, where: str) -> str:
    return text_at(object_at(item, where).get("type"), f"{where}.type", empty=False)


def _function(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    return optional(item, where, {"description": text_at, "parameters": object_at, "strict": flag_at})


def describe_custom(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a tool that takes free text as a function of one text; its grammar can only be described."""
    form: Any = object_at(item.get("format") or {}, f"{where}.format")
    form = form["grammar"] if isinstance(form.get("grammar"), dict) else form  # chat's nested spelling
    described = list(optional(item, where, {"description": text_at}).values())
    if isinstance(definition := form.get("definition"), str):
        described.append(f"`input` must follow this grammar ({form.get('syntax', 'lark')}):\n\n{definition}")
    extra = {"description": "\n\n".join(described)} if described else {}
    properties = {"input": {"type": "string", "description": _INPUT}}
    schema = {"type": "object", "properties": properties, "required": ["input"], "additionalProperties": False}
    return {**extra, "parameters": schema}


def _join(namespace: str, name: str) -> str:
    """Return one name for a namespace and a name; `mcp__demo__` and `mcp__demo` are both spelled by clients."""
    flat = _STRANGE.sub("_", f"{namespace.rstrip('_')}__{name.lstrip('_')}")
    return flat if len(flat) <= _LONGEST_NAME else _mark(flat, namespace, name)


def _mark(flat: str, namespace: str, name: str) -> str:
    """Return a name that no other tool has, and the same one in every turn."""
    mark = hashlib.sha256(f"{namespace}\0{name}".encode()).hexdigest()[:12]
    return f"{flat[: _LONGEST_NAME - len(mark) - 1]}_{mark}"


def read_choice(body: Mapping[str, Any], tools: Tools) -> dict[str, Any]:
    """Return the tools that may be called, and how; endpoints refuse the rest where there are none.

    Raises:
        ApiError: a choice that cannot be understood, or of a tool that is not there.
    """
    choice, shown = body.get("tool_choice"), tools.shown
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        choice, shown = _read_allowed(choice, tools)
    chosen = _read_chosen(choice, tools)
    if not shown:
        if isinstance(chosen, dict) or chosen == "required":
            raise refuse("tool_choice", "leaves no tool: none of `tools` is one that the client runs")
        return {}
    settings = {"tools": shown, "tool_choice": chosen, "parallel_tool_calls": body.get("parallel_tool_calls")}
    return {name: value for name, value in settings.items() if value is not None}


def _read_allowed(choice: dict[str, Any], tools: Tools) -> tuple[Any, list[dict[str, Any]]]:
    """Return the mode and the tools that are allowed: what may not be called need not be shown."""
    where = "tool_choice.allowed_tools" if isinstance(choice.get("allowed_tools"), dict) else "tool_choice"
    choice = choice["allowed_tools"] if where != "tool_choice" else choice
    allowed: set[str] = set()
    for index, tool in enumerate(list_at(choice.get("tools"), f"{where}.tools")):
        allowed.update(tools.meant_by(object_at(tool, f"{where}.tools[{index}]")))
    if (mode := choice.get("mode", "auto")) not in ("auto", "required"):
        raise refuse(f"{where}.mode", "must be `auto` or `required`")
    return mode, [tool for tool in tools.shown if tool["function"]["name"] in allowed]


def _read_chosen(choice: Any, tools: Tools) -> Any:
    """Return chat's spelling of a choice; that of a namespace says nothing."""
    if choice is None or (isinstance(choice, str) and choice in ("auto", "none", "required")):
        return choice
    if not isinstance(choice, dict) or not isinstance(choice.get("type"), str):
        raise refuse("tool_choice", "must be `auto`, `none`, `required`, or an object with a `type`")
    if choice["type"] == "namespace":
        return None
    if choice["type"] not in _KINDS:
        raise refuse("tool_choice", f"nobody here runs {choice['type'][:80]!r}")
    matching = tools.meant_by(choice)
    if len(matching) > 1:
        names = ", ".join(matching)
        raise refuse("tool_choice.name", f"is in more than one namespace: say which in `namespace`: {names}")
    if not matching:
        raise refuse("tool_choice.name", "must be the name of a tool in `tools` that can be called")
    return {"type": "function", "function": {"name": matching[0]}}
