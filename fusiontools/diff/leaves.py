"""Find the values that changed within a value, each with the path that leads to it.

Reads   the two sides of any JSON value; a side on which it is missing has no key
Gives   leaves in the order of their keys and places; a short list of plain values is one leaf, not several
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from fusiontools.diff.records import Data, same

_SIMPLE_KEY = re.compile(r"[\w-]+")
_KEY_CHARS = 60
#: A longer list is told item by item.
LIST_CHARS = 100


class Leaf(NamedTuple):
    """A value that changed: where it stands, such as `panel.members[0].model`, and what it is on either side."""

    path: str
    sides: Data


def changed_leaves(path: str, sides: Mapping[str, Any]) -> list[Leaf]:
    """Return what changed in the value at a path; not empty where the sides differ or one is missing."""
    return list(_walk(path, dict(sides)))


def _walk(path: str, sides: Data) -> Iterator[Leaf]:
    values = list(sides.values())
    if all(isinstance(value, dict) for value in values) and any(values):
        for key in dict.fromkeys(chain.from_iterable(values)):
            yield from _walk(path + _step(key), {side: v[key] for side, v in sides.items() if key in v})
    elif all(isinstance(value, list) for value in values) and any(values) and not all(map(_is_short, values)):
        for place in range(max(map(len, values))):
            yield from _walk(f"{path}[{place}]", {side: v[place] for side, v in sides.items() if place < len(v)})
    elif len(values) == 1 or not same(*values):
        yield Leaf(path, sides)


def _step(key: str) -> str:
    if _SIMPLE_KEY.fullmatch(key):
        return f".{key}"
    shown = key if len(key) <= _KEY_CHARS else f"{key[:_KEY_CHARS]}…"
    return f"[{json.dumps(shown, ensure_ascii=False)}]"


def _is_short(items: list[Any]) -> bool:
    plain = all(item is None or isinstance(item, (bool, int, float, str)) for item in items)
    return plain and sum(len(str(item)) + 2 for item in items) <= LIST_CHARS
