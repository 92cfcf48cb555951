"""What a request says that nobody here reads: it is told in `fusion.ignored`, or refused where it was meant for us."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fusiontools.server.protocols.exchange import ApiError, Ignored, ignore_tool

#: What asks for nothing.
_NOTHING: tuple[Any, ...] = (None, False, "", "auto", "default", "disabled", [], {})
#: Keys of OpenRouter's plugin that are known and not done.
_UNDONE = ("max_tool_calls", "tools")


def list_unread(fields: Mapping[str, Any], read: Collection[str]) -> list[Ignored]:
    """Return what a request says beside what is read of it.

    Args:
        read: the names that the protocol reads, or hands on.

    Raises:
        ApiError: a key that was meant for a fusion, and would change what is bought.
    """
    unread: list[Ignored] = []
    for name, value in fields.items():
        # An empty one of these asks for a search as well.
        if name in read or (value in _NOTHING and name != "web_search_options"):
            continue
        _refuse_meant_for_us(name, value)
        near = difflib.get_close_matches(name, read, n=1, cutoff=0.8)
        reason = f"nobody here knows it; did you mean {near[0]!r}?" if near else "no model here is told of it"
        unread.append({"param": name[:100], "reason": reason})
        if name == "web_search_options":
            unread[-1] = ignore_tool(name, "web_search")
    return unread + _list_plugins(fields.get("plugins"))


def _refuse_meant_for_us(name: str, value: Any) -> None:
    if name == "extra_body":
        why = "extra_body: is an argument of Python's client: put what is in it at the top of the body"
        raise ApiError(400, "invalid_request", why, name)
    if "fusion" in name.lower() or difflib.get_close_matches(name, ("fusion", "plugins"), cutoff=0.8):
        right = "plugins" if isinstance(value, list) else "fusion"
        raise ApiError(400, "invalid_request", f"{name[:100]}: unknown; did you mean {right!r}?", name[:100])


def _list_plugins(plugins: Any) -> list[Ignored]:
    """Return which plugins, and which parts of the fusion plugin, are not done.

    Raises:
        ApiError: one that is nearly called `fusion`.
    """
    undone: list[Ignored] = []
    listed = plugins if isinstance(plugins, Sequence) and not isinstance(plugins, str) else []
    for i, plugin in enumerate(listed):
        if not isinstance(plugin, Mapping) or plugin.get("enabled") is False:
            continue
        name = str(plugin.get("id"))[:100]
        if name == "fusion":
            said = [key for key in _UNDONE if plugin.get(key) not in _NOTHING]
            undone += [
                {"param": f"plugins[{i}].{key}", "reason": "the recipe says which tools members use"} for key in said
            ]
        elif difflib.get_close_matches(name.lower(), ("fusion",), cutoff=0.7):
            where = f"plugins[{i}].id"
            raise ApiError(400, "invalid_override", f"{where}: {name!r} is unknown; did you mean 'fusion'?", where)
        else:
            undone.append({"param": f"plugins[{i}]", "reason": f"nobody here runs {name!r}", "tool": name})
    return undone
