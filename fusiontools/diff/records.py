"""Compare two records that answer the same question: what changed, of which kind the change is, and what each cost.

Reads   everything; `calls` only for cost and time, which vary from run to run and are no difference
Gives   plain data: `a` and `b` are the two sides of a value, and a side on which it is missing has no key;
        of a list, what was `removed` and what was `added`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from fusiontools import jsonl
from fusiontools.diff.spent import Spent, cost_data, spent_on, time_data
from fusiontools.record import Response, display_names
from fusiontools.words import question_text

Kind = Literal["failed", "answered", "answer", "analysis", "other"]
Data = dict[str, Any]
#: Sections that are told field by field, and item by item; `panel` and `layers` are told response by response. What may
#: hold any key is told as a whole, so that nobody takes its own `a` for a side.
_OBJECTS = ("answer", "analysis", "route")
_LISTS = ("degraded", "grades", "spared")
#: The keys of an analysis whose items are told one by one.
LISTED = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
_SLOT = ("layer", "member", "sample")


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared of a record: all but its calls, and what they come to."""

    record: Data
    spent: Spent


@dataclass(frozen=True, slots=True)
class Change:
    """What changed in a record, section by section; `question` is what it asks."""

    id: str
    question: str
    kind: Kind
    sections: Data
    a: Spent
    b: Spent


def side_of(record: Mapping[str, Any]) -> Side:
    """Return what is compared of a record."""
    return Side({key: value for key, value in record.items() if key != "calls"}, spent_on(record.get("calls", [])))


def compare(a: Side, b: Side, *, answers_only: bool = False) -> Change | None:
    """Return what changed from one record to another, or None where nothing did.

    Args:
        answers_only: nothing but the text, the tool calls, and whether there is an answer at all.
    """
    sections = _changed_answer(a.record, b.record) if answers_only else _changed_sections(a.record, b.record)
    if not sections:
        return None
    kind = _kind(a.record, b.record, sections)
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


def _changed_sections(a: Data, b: Data) -> Data:
    return {key: _told(key, a, b) or _sides(key, a, b) for key in _differing(a, b)}


def _told(key: str, a: Data, b: Data) -> Data:
    """Return a section's change in detail; empty where no detail says it, such as an empty list for a missing one."""
    if key in _OBJECTS:
        on_both = key in a and key in b
        return _changed_fields(a.get(key, {}), b.get(key, {}), LISTED if key == "analysis" and on_both else ())
    if key in _LISTS:
        return _changed_items(a.get(key, []), b.get(key, []))
    if key == "panel":
        return _changed_responses(a.get(key, []), b.get(key, []))
    if key == "layers":
        ours, theirs = (list(chain.from_iterable(side.get(key, []))) for side in (a, b))
        return _changed_responses(ours, theirs)
    return {}


def _changed_answer(a: Data, b: Data) -> Data:
    if ("error" in a) != ("error" in b):
        return {"error": _sides("error", a, b), **_changed_words(a, b)}
    return _changed_words(a, b)


def _changed_words(a: Data, b: Data) -> Data:
    if _said(a) == _said(b):
        return {}
    fields = _changed_fields(a.get("answer", {}), b.get("answer", {}))
    return {"answer": {key: fields[key] for key in ("content", "tool_calls") if key in fields}}


def _changed_fields(a: Data, b: Data, listed: Iterable[str] = ()) -> Data:
    return {
        key: (_changed_items(a.get(key, []), b.get(key, [])) if key in listed else {}) or _sides(key, a, b)
        for key in _differing(a, b)
    }


def _changed_items(a: list[Any], b: list[Any]) -> Data:
    """Return what stands in one list and not in the other; empty where they differ in order only."""
    removed, added = _missing(a, b), _missing(b, a)
    return {"removed": removed, "added": added} if removed or added else {}


def _missing(items: list[Any], others: list[Any]) -> list[Any]:
    left = Counter(map(jsonl.canonical, others))
    missing = []
    for item in items:
        key = jsonl.canonical(item)
        if left[key]:
            left[key] -= 1
        else:
            missing.append(item)
    return missing


def _changed_responses(a: list[Data], b: list[Data]) -> Data:
    """Return how each member's responses changed, and the order of those that stand on both sides, if that did."""
    ours, theirs = _by_slot(a), _by_slot(b)
    names = _names([*dict.fromkeys([*ours, *theirs])])
    responses = []
    for slot, name in names.items():
        one, other = ours.get(slot, {}), theirs.get(slot, {})
        fields = {key: sides for key, sides in _changed_fields(one, other).items() if key not in _SLOT}
        if fields:
            head = {**dict(zip(_SLOT, slot, strict=False)), "name": name}
            responses.append({**head, "change": _fate(one, other), "changed": fields})
    found: Data = {"responses": responses} if responses else {}
    orders = [[names[slot] for slot in side if slot in ours and slot in theirs] for side in (ours, theirs)]
    if orders[0] != orders[1]:
        found["order"] = {"a": orders[0], "b": orders[1]}
    return found


def _by_slot(responses: list[Data]) -> dict[tuple[Any, ...], Data]:
    """Return responses by layer, member and sample; those that share all three by their number too."""
    seen: Counter[tuple[Any, ...]] = Counter()
    by_slot = {}
    for response in responses:
        slot = tuple(response[key] for key in _SLOT)
        by_slot[(*slot, seen[slot])] = response
        seen[slot] += 1
    return by_slot


def _names(slots: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], str]:
    """Return the name of each slot: with the sample's number where its layer has several of the member, on any side."""
    names = dict.fromkeys(slots, "")
    for layer in dict.fromkeys(slot[0] for slot in slots):
        mates = [slot for slot in slots if slot[0] == layer]
        panel: list[Response] = [{"layer": layer, "member": slot[1], "sample": slot[2]} for slot in mates]
        names.update(zip(mates, display_names(panel), strict=True))
    return names


def _fate(a: Data, b: Data) -> str:
    if not a or not b:
        return "gone" if a else "new"
    if ("error" in a) != ("error" in b):
        return "failed" if "error" in b else "answered"
    return "other" if _words(a) == _words(b) else "answer"


def _kind(a: Data, b: Data, sections: Data) -> Kind:
    if ("error" in a) != ("error" in b):
        return "failed" if "error" in b else "answered"
    if _said(a) != _said(b):
        return "answer"
    return "analysis" if "analysis" in sections else "other"


def _said(record: Data) -> Any:
    return _words(record["answer"]) if "answer" in record else None


def _words(answer: Data) -> Any:
    """Return the text and the tool calls; a call's id is drawn anew in every run."""
    functions = [call["function"] for call in answer.get("tool_calls") or []]
    return answer.get("content"), [(function.get("name"), function.get("arguments")) for function in functions]


def _differing(a: Data, b: Data) -> list[str]:
    return [key for key in dict.fromkeys([*a, *b]) if key not in a or key not in b or not same(a[key], b[key])]


def _sides(key: str, a: Data, b: Data) -> Data:
    return {name: side[key] for name, side in (("a", a), ("b", b)) if key in side}
