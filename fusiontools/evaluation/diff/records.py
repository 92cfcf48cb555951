"""Compare two records that answer the same question: what changed, of which kind the change is, and what each cost.

Reads   everything; `calls` only for cost and time, which vary from run to run and are no difference
Gives   plain data: `a` and `b` are the two sides of a value, and a side on which it is missing has no key;
        of a list, what was `removed` and what was `added`; of any value the leaves that changed, each with its path
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, Literal, NamedTuple

from msgspec import Struct, field

from fusiontools.llm.ledger import Spending
from fusiontools.record import jsonl
from fusiontools.record.sections import display_names, question_text
from fusiontools.record.types import Response


def has_cost(spent: Spending) -> bool:
    """Return whether a cost can be named, if only a part of it: a call is on record, and of some the cost is known."""
    return spent.calls > 0 and not spent.nothing_known


def cost_data(a: Spending, b: Spending) -> dict[str, Any]:
    """Return both costs and their difference; null is unknown."""
    costs = [round(side.known_usd, 8) if has_cost(side) else None for side in (a, b)]
    return {"a": costs[0], "b": costs[1], "delta": cost_delta(a, b), "unknown": {"a": a.unknown, "b": b.unknown}}


def time_data(a: Spending, b: Spending) -> dict[str, Any]:
    """Return the seconds that the calls of either side took, added up, and their difference."""
    return {"a": round(a.time_s, 4), "b": round(b.time_s, 4), "delta": round(b.time_s - a.time_s, 4)}


def cost_delta(a: Spending, b: Spending) -> float | None:
    """Return how much more the second side cost; None where a part of either cost is unknown."""
    if a.unknown or b.unknown or not a.calls or not b.calls:
        return None
    return round(b.known_usd - a.known_usd, 8)


Kind = Literal["failed", "answered", "answer", "analysis", "other"]
Data = dict[str, Any]
#: Sections that are told field by field, and item by item; `panel` and `layers` are told response by response. What may
#: hold any key is told as a whole, so that nobody takes its own `a` for a side.
_OBJECTS = ("answer", "analysis", "route")
_LISTS = ("degraded", "grades", "spared")
#: The keys of an analysis whose items are told one by one.
LISTED = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
_SLOT = ("layer", "member", "sample")


class Side(Struct, frozen=True):
    """What is compared of a record: all but its calls, and what they come to."""

    record: Data
    spent: Spending


class Change(Struct, frozen=True):
    """What changed in a record, section by section; `question` is what it asks."""

    id: str
    question: str
    kind: Kind
    sections: Data
    a: Spending
    b: Spending


def side_of(record: Mapping[str, Any]) -> Side:
    """Return what is compared of a record."""
    return Side({key: value for key, value in record.items() if key != "calls"}, Spending.of(record.get("calls", [])))


def compare(a: Side, b: Side, *, answers_only: bool = False) -> Change | None:
    """Return what changed from one record to another, or None where nothing did.

    Args:
        answers_only: nothing but the text, the tool calls, and whether there is an answer at all.
    """
    sections = _compare_answers(a.record, b.record) if answers_only else _compare_sections(a.record, b.record)
    if not sections:
        return None
    kind = _name_kind(a.record, b.record, sections)
    return Change(a.record["id"], question_text(a.record), kind, sections, a.spent, b.spent)  # type: ignore[arg-type]


def change_data(change: Change) -> Data:
    """Return a change as one JSON object."""
    return {
        "id": change.id,
        "change": change.kind,
        "changed": change.sections,
        "cost_usd": cost_data(change.a, change.b),
        "call_time_s": time_data(change.a, change.b),
    }


def same(a: Any, b: Any) -> bool:
    """Return whether two JSON values are equal: 1 is 1.0, but not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _compare_sections(a: Data, b: Data) -> Data:
    return {key: _compare_section(key, a, b) or _pick_sides(key, a, b) for key in _find_differing(a, b)}


def _compare_section(key: str, a: Data, b: Data) -> Data:
    """Return a section's change in detail; empty where no detail says it, such as an empty list for a missing one."""
    if key in _OBJECTS:
        on_both = key in a and key in b
        return _compare_fields(a.get(key, {}), b.get(key, {}), LISTED if key == "analysis" and on_both else ())
    if key in _LISTS:
        return _compare_items(a.get(key, []), b.get(key, []))
    if key == "panel":
        return _compare_responses(a.get(key, []), b.get(key, []))
    if key == "layers":
        ours, theirs = (list(chain.from_iterable(side.get(key, []))) for side in (a, b))
        return _compare_responses(ours, theirs)
    return {}


def _compare_answers(a: Data, b: Data) -> Data:
    if ("error" in a) != ("error" in b):
        return {"error": _pick_sides("error", a, b), **_compare_words(a, b)}
    return _compare_words(a, b)


def _compare_words(a: Data, b: Data) -> Data:
    if _read_answer(a) == _read_answer(b):
        return {}
    fields = _compare_fields(a.get("answer", {}), b.get("answer", {}))
    return {"answer": {key: fields[key] for key in ("content", "tool_calls") if key in fields}}


def _compare_fields(a: Data, b: Data, listed: Iterable[str] = ()) -> Data:
    return {
        key: (_compare_items(a.get(key, []), b.get(key, [])) if key in listed else {}) or _pick_sides(key, a, b)
        for key in _find_differing(a, b)
    }


def _compare_items(a: list[Any], b: list[Any]) -> Data:
    """Return what stands in one list and not in the other; empty where they differ in order only."""
    removed, added = _find_missing(a, b), _find_missing(b, a)
    return {"removed": removed, "added": added} if removed or added else {}


def _find_missing(items: list[Any], others: list[Any]) -> list[Any]:
    left = Counter(map(jsonl.canonical, others))
    missing = []
    for item in items:
        key = jsonl.canonical(item)
        if left[key]:
            left[key] -= 1
        else:
            missing.append(item)
    return missing


def _compare_responses(a: list[Data], b: list[Data]) -> Data:
    """Return how each member's responses changed, and the order of those that stand on both sides, if that did."""
    ours, theirs = _group_by_slot(a), _group_by_slot(b)
    names = _name_slots([*dict.fromkeys([*ours, *theirs])])
    responses = []
    for slot, name in names.items():
        one, other = ours.get(slot, {}), theirs.get(slot, {})
        fields = {key: sides for key, sides in _compare_fields(one, other).items() if key not in _SLOT}
        if fields:
            head = {**dict(zip(_SLOT, slot, strict=False)), "name": name}
            responses.append({**head, "change": _name_fate(one, other), "changed": fields})
    found: Data = {"responses": responses} if responses else {}
    orders = [[names[slot] for slot in side if slot in ours and slot in theirs] for side in (ours, theirs)]
    if orders[0] != orders[1]:
        found["order"] = {"a": orders[0], "b": orders[1]}
    return found


def _group_by_slot(responses: list[Data]) -> dict[tuple[Any, ...], Data]:
    """Return responses by layer, member and sample; those that share all three by their number too."""
    seen: Counter[tuple[Any, ...]] = Counter()
    by_slot = {}
    for response in responses:
        slot = tuple(response[key] for key in _SLOT)
        by_slot[(*slot, seen[slot])] = response
        seen[slot] += 1
    return by_slot


def _name_slots(slots: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """Return the name of each slot: with the sample's number where its layer has several of the member, on any side."""
    names = dict.fromkeys(slots, "")
    for layer in dict.fromkeys(slot[0] for slot in slots):
        mates = [slot for slot in slots if slot[0] == layer]
        panel: list[Response] = [{"layer": layer, "member": slot[1], "sample": slot[2]} for slot in mates]
        names.update(zip(mates, display_names(panel), strict=True))
    return names


def _name_fate(a: Data, b: Data) -> str:
    if not a or not b:
        return "gone" if a else "new"
    if ("error" in a) != ("error" in b):
        return "failed" if "error" in b else "answered"
    return "other" if _read_words(a) == _read_words(b) else "answer"


def _name_kind(a: Data, b: Data, sections: Data) -> Kind:
    if ("error" in a) != ("error" in b):
        return "failed" if "error" in b else "answered"
    if _read_answer(a) != _read_answer(b):
        return "answer"
    return "analysis" if "analysis" in sections else "other"


def _read_answer(record: Data) -> Any:
    return _read_words(record["answer"]) if "answer" in record else None


def _read_words(answer: Data) -> Any:
    """Return the text and the tool calls; a call's id is drawn anew in every run."""
    functions = [call["function"] for call in answer.get("tool_calls") or []]
    return answer.get("content"), [(function.get("name"), function.get("arguments")) for function in functions]


def _find_differing(a: Data, b: Data) -> list[str]:
    # What is written alike, as most is, need not be looked through.
    return [
        key
        for key in dict.fromkeys([*a, *b])
        if key not in a or key not in b or (jsonl.dumps(a[key]) != jsonl.dumps(b[key]) and not same(a[key], b[key]))
    ]


def _pick_sides(key: str, a: Data, b: Data) -> Data:
    return {name: side[key] for name, side in (("a", a), ("b", b)) if key in side}


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


KINDS = ("answer", "analysis", "failed", "answered", "other")


class RecordCounts(Struct):
    """How many records fared how; every compared record is counted once.

    `a` and `b` are what the compared records cost: what stands in one file only would compare unlike with like.
    For either file: `only_in` counts its records that the other one has not, `unread` its lines that could not be read,
    `unpaired` its records whose partner may stand in such a line of the other file.
    """

    compared: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    only_in: list[int] = field(default_factory=lambda: [0, 0])
    unread: list[int] = field(default_factory=lambda: [0, 0])
    unpaired: list[int] = field(default_factory=lambda: [0, 0])
    a: Spending = field(default_factory=Spending)
    b: Spending = field(default_factory=Spending)

    @property
    def same(self) -> int:
        """How many of the compared records differ in nothing."""
        return self.compared - self.kinds.total()

    @property
    def differ(self) -> bool:
        """Whether anything differs."""
        return self.same < self.compared or any(self.only_in)

    def add(self, a: Side, b: Side, change: Change | None) -> None:
        """Count a pair of records."""
        self.compared += 1
        self.a += a.spent
        self.b += b.spent
        if change is not None:
            self.kinds[change.kind] += 1

    def add_alone(self, file: int) -> bool:
        """Count a record without a partner; return whether it is sure that there is none.

        Args:
            file: 0 for a record of the first file, 1 for one of the second.
        """
        is_sure = not self.unread[1 - file]
        (self.only_in if is_sure else self.unpaired)[file] += 1
        return is_sure

    def data(self) -> Data:
        """Return the counts as one JSON object."""
        return {
            "compared": self.compared,
            "same": self.same,
            **{kind: self.kinds[kind] for kind in KINDS},
            "only_in_a": self.only_in[0],
            "only_in_b": self.only_in[1],
            "unread": dict(zip("ab", self.unread, strict=True)),
            "unpaired": dict(zip("ab", self.unpaired, strict=True)),
            "cost_usd": cost_data(self.a, self.b),
            "call_time_s": time_data(self.a, self.b),
        }
