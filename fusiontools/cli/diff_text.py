"""What changed between two records, as a person reads it: by marks, on a terminal in colour too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from fusiontools.cli.text import Paint, money
from fusiontools.evaluation.diff.records import (
    LIST_CHARS,
    LISTED,
    Change,
    Leaf,
    RecordCounts,
    changed_leaves,
    cost_delta,
    has_cost,
)
from fusiontools.evaluation.diff.word_diff import word_diff
from fusiontools.llm.ledger import Spending
from fusiontools.record import jsonl
from fusiontools.record.clean import clean

_SHORT_CHARS = 48


def show_short(value: Any) -> str:
    """Return a value as `plain` does, but of a long one the beginning and the length."""
    text, limit = show_plain(value), LIST_CHARS if isinstance(value, list) else _SHORT_CHARS
    return text if len(text) <= limit else f"{cut_off(text, limit)} ({len(text):,} characters)"


def cut_off(text: str, limit: int) -> str:
    """Return how a text begins, cut after a word where there is one."""
    if len(text) <= limit:
        return text
    head = text[: limit + 1].rpartition(" ")[0].rstrip()
    return f"{head or text[:limit]}…"


def show_plain(value: Any) -> str:
    """Return a text as it is, a list of words or numbers with commas, anything else as JSON."""
    if isinstance(value, str):
        return value
    if value and isinstance(value, list) and all(type(item) in (int, str) for item in value):
        return ", ".join(map(str, value))
    return show_json(value)


def show_json(value: Any) -> str:
    """Return a value as JSON."""
    return jsonl.dumps(value).decode()


def describe_error(error: Mapping[str, Any]) -> str:
    """Return why a record or a response failed."""
    return ": ".join(str(error[key]) for key in ("stage", "code", "message") if key in error)


def describe_point(point: Any) -> str:
    """Return one point of an analysis, or one note of a degradation, on a line."""
    match point:
        case str():
            return point
        case {"topic": topic, "stances": stances}:
            return f"{topic} – " + "; ".join(f"{stance['model']}: {stance['stance']}" for stance in stances)
        case {"point": text, "models": models}:
            return f"{text} ({', '.join(models)})"
        case {"insight": insight, "model": model}:
            return f"{insight} ({model})"
        case {"stage": stage, "code": code}:
            return ": ".join(filter(None, (stage, code, point.get("detail"))))
    return show_json(point)


KIND_WORDS = {
    "answer": "answer changed",
    "analysis": "analysis changed, answer the same",
    "failed": "newly failed",
    "answered": "newly answered",
    "other": "changed, answer the same",
}
_COUNTED = {
    "answer": ("changed answer", "changed answers"),
    "analysis": ("changed analysis only", "changed analyses only"),
    "failed": ("newly failed", "newly failed"),
    "answered": ("newly answered", "newly answered"),
    "other": ("changed otherwise", "changed otherwise"),
}
#: The order in which a record's sections are told; what is not named comes last.
_ORDER = ("error", "answer", "route", "layers", "panel", "analysis", "degraded", "grades")
#: What every section of its kind has: where that is on one side only, so is the section.
_REQUIRED = {"answer": "content", "analysis": "consensus", "route": "to"}
_FATES = {"gone": "gone", "new": "new", "answer": "answer changed", "other": "changed, answer the same"}
#: How much unchanged text is shown on either side of a change, and how much must be left out for it to be worth it.
_CONTEXT_CHARS = 60
_WORTH_CHARS = 40
_QUESTION_CHARS = 60
#: How many values of an object that stands on one side only are shown.
_MANY = 12
_ABSENT = "(absent)"


class DiffPrinter(Struct, frozen=True):
    """Tells changes in lines; `whole` leaves nothing out."""

    paint: Paint
    whole: bool = False
    #: How recipes changed so far: the first record in which each did so, and in how many.
    _recipes: dict[bytes, tuple[str, int]] = {}

    def change(self, change: Change) -> str:
        """Return a record's changes."""
        # What lies far behind the beginning is not worth the cleaning.
        asked = cut_off(one_line(change.question[: 100 * _QUESTION_CHARS]), _QUESTION_CHARS)
        parts = [one_line(change.id), KIND_WORDS[change.kind], *([asked] if asked else [])]
        lines = [self.paint.heading("--- " + " --- ".join(parts))]
        for key in sorted(change.sections, key=lambda key: _ORDER.index(key) if key in _ORDER else len(_ORDER)):
            told = change.sections[key]
            lines += self._recipe(change.id, told) if key == "recipe" else self._section(key, told)
        if spent := spending_lines(change.a, change.b):
            lines.append(", ".join(" ".join(line) for line in spent))
        return "\n".join(lines) + "\n\n"

    def summary(self, tally: RecordCounts, names: tuple[str, str]) -> str:
        """Return what all records come to."""
        counts = [f"{tally.same:,} same"]
        counts += [f"{n:,} {_COUNTED[kind][n > 1]}" for kind in _COUNTED if (n := tally.kinds[kind])]
        records = "1 record" if tally.compared == 1 else f"{tally.compared:,} records"
        nothing = "no record could be compared" if any(tally.unread) else "0 records compared"
        lines = [f"{records} compared: {', '.join(counts)}" if tally.compared else nothing]
        only = zip(tally.only_in, names, strict=True)
        lines += [f"only in {one_line(name)}: {count:,}" for count, name in only if count]
        lines += unread_lines(tally, names)
        repeated = [(first, count) for first, count in self._recipes.values() if count > 1]
        lines += [f"recipe     changed in {count:,} records as in {one_line(first)}" for first, count in repeated]
        lines += [f"{name:<9}  {amounts}" for name, amounts in spending_lines(tally.a, tally.b)]
        return "\n".join([self.paint.heading(lines[0]), *lines[1:]]) + "\n"

    def _recipe(self, record_id: str, told: Mapping[str, Any]) -> list[str]:
        """Return how a recipe changed; most often it did so in all records, and that is told once."""
        leaves = changed_leaves("recipe", told)
        change = hashlib.sha256(repr(leaves).encode("utf-8", "replace")).digest()
        first, count = self._recipes.get(change, (record_id, 0))
        self._recipes[change] = first, count + 1
        if count:
            return []
        return self._leaves("recipe", told, leaves)

    def _section(self, key: str, told: Mapping[str, Any]) -> list[str]:
        if key in _REQUIRED:
            return self._object(key, told)
        if "responses" in told or "order" in told:
            responses = [line for response in told.get("responses", []) for line in self._response(response)]
            order = self._arrow("order", *map(", ".join, told["order"].values())) if "order" in told else []
            return [f"{key}:", *_indent([*responses, *order])]
        if key == "error":
            return self._arrow(key, *(describe_error(told[side]) if side in told else "none" for side in ("a", "b")))
        # Only a list of ours has what was removed; a user's key may be called as a field of ours is.
        return self._field(key, told) if "removed" in told else self._value(key, told)

    def _object(self, key: str, told: Mapping[str, Any]) -> list[str]:
        """Return a section's fields; of one that stands on one side only, what it says and no more."""
        sides = told.get(_REQUIRED[key], {})
        on_one_side = len(sides) == 1 and "removed" not in sides
        shown = [name for name in told if self.whole or not on_one_side or name == "content"]
        fate = f" {'gone' if 'a' in sides else 'new'}" if on_one_side else ""
        return [f"{key}:{fate}", *_indent([line for name in shown for line in self._field(name, told[name])])]

    def _field(self, name: str, told: Mapping[str, Any]) -> list[str]:
        if name == "content":
            return self._words(told.get("a", ""), told.get("b", ""))
        if name == "tool_calls" and any(told.values()):
            return self._tool_calls(told.get("a") or [], told.get("b") or [])
        if "removed" in told:
            return [f"{name}:", *_indent(self._items(told["removed"], told["added"]))]
        if name in LISTED and all(isinstance(side, list) for side in told.values()):
            return [f"{name}:", *_indent(self._items(told.get("a", []), told.get("b", [])))]
        if name == "agreement" and all(isinstance(share, (int, float)) for share in told.values()):
            shares = [f"{share:.0%}" for share in told.values()]
            if len({*shares}) > 1:
                return self._arrow(name, *shares)
        return self._value(name, told)

    def _items(self, removed: Iterable[Any], added: Iterable[Any]) -> list[str]:
        gone = [self.paint.removed(f"- {one_line(describe_point(item))}") for item in removed]
        return gone + [self.paint.added(f"+ {one_line(describe_point(item))}") for item in added]

    def _tool_calls(self, a: list[Any], b: list[Any]) -> list[str]:
        before, after = ([f"{call['function']['name']}({call['function']['arguments']})" for call in s] for s in (a, b))
        if before == after:
            return ["tool_calls: the same but for their ids"]
        return ["tool_calls:", *_indent(self._items(before, after))]

    def _response(self, response: Mapping[str, Any]) -> list[str]:
        changed = response["changed"]
        layer = f" (layer {response['layer']})" if response["layer"] > 1 else ""
        name = one_line(response["name"]) + layer
        if "error" in changed:
            sides = {side: describe_error(error) for side, error in changed["error"].items()}
            if len(sides) == 2 or response["change"] in ("failed", "answered"):
                told = self._arrow(name, sides.get("a", "answered"), sides.get("b", "answered"))
            else:
                told = [f"{name}: {response['change']}, {one_line(*sides.values())}"]
        else:
            told = [f"{name}: {_FATES[response['change']]}"]
        if self.whole:
            shown = [field for field in changed if field != "error"]
            told += _indent([line for field in shown for line in self._field(field, changed[field])])
        return told

    def _value(self, name: str, sides: Mapping[str, Any]) -> list[str]:
        """Return a line for each value that changed."""
        return self._leaves(name, sides, changed_leaves(name, sides))

    def _leaves(self, name: str, sides: Mapping[str, Any], leaves: list[Leaf]) -> list[str]:
        if len(sides) == 1 and len(leaves) > _MANY and not self.whole:
            fate = "gone" if "a" in sides else "new"
            return [f"{one_line(name)}: {fate} ({len(leaves):,} values; --verbose shows them)"]
        return [line for leaf in leaves for line in self._leaf(leaf)]

    def _leaf(self, leaf: Leaf) -> list[str]:
        """Return `path: before → after`; of long texts their difference in words, and of one alone its beginning."""
        name, sides = one_line(leaf.path), leaf.sides
        short = [show_short(sides[side]) if side in sides else _ABSENT for side in ("a", "b")]
        full = [show_plain(sides[side]) if side in sides else _ABSENT for side in ("a", "b")]
        if full[0] == full[1]:
            short = full = [show_json(sides[side]) if side in sides else _ABSENT for side in ("a", "b")]
        are_texts = len(sides) == 2 and all(isinstance(value, str) for value in sides.values())
        if short == full or not (are_texts or self.whole or one_line(short[0]) == one_line(short[1])):
            return self._arrow(name, *short)
        before, after = (text if side in sides else "" for side, text in zip(("a", "b"), full, strict=True))
        return [f"{name}:", *_indent(self._words(before, after))]

    def _arrow(self, name: str, before: str, after: str) -> list[str]:
        shown = [one_line(before), one_line(after)]
        if shown[0] == shown[1]:
            return [f"{name}:", *_indent(self._words(before, after))]
        return [f"{name}: {self.paint.removed(shown[0])} → {self.paint.added(shown[1])}"]

    def _words(self, a: str, b: str) -> list[str]:
        """Return the lines of a word diff: `[-old-]{+new+}`."""
        segments = word_diff(a, b)
        shown = []
        for number, (kind, text) in enumerate(segments):
            if kind == "-":
                shown.append(_mark(text, self.paint.removed, "[-", "-]"))
            elif kind == "+":
                shown.append(_mark(text, self.paint.added, "{+", "+}"))
            elif self.whole:
                shown.append(clean(text))
            else:
                shown.append(self._abridge(text, number == 0, number == len(segments) - 1))
        return "".join(shown).removesuffix("\n").split("\n")

    def _abridge(self, text: str, is_first: bool, is_last: bool) -> str:
        """Return unchanged text without its middle; at the ends without what is far from any change."""
        head = 0 if is_first else _word_end(text, _CONTEXT_CHARS)
        tail = len(text) if is_last else len(text) - _word_end(text[::-1], _CONTEXT_CHARS)
        if tail - head < _WORTH_CHARS:
            return clean(text)
        remark = self.paint.aside(f"[… {tail - head:,} characters …]")
        return " ".join(filter(None, (clean(text[:head]), remark, clean(text[tail:]))))


def one_line(text: str) -> str:
    """Return text for a line of ours: a model's or a user's words must not look like another line."""
    return " ".join(clean(text).split())


def unread_lines(tally: RecordCounts, names: tuple[str, str]) -> list[str]:
    """Return for each file with lines that could not be read how many there were, and what they leave unknown."""
    lines = []
    for number, (name, unread) in enumerate(zip(names, tally.unread, strict=True)):
        other, unpaired = names[1 - number], tally.unpaired[1 - number]
        line = f"{one_line(name)}: {unread:,} line{'s' * (unread > 1)} could not be read"
        if unpaired:
            place = "them" if unread > 1 else "it"
            line += f"; {unpaired:,} record{'s' * (unpaired > 1)} of {one_line(other)} may stand in {place}"
        lines += [line] if unread else []
    return lines


def _word_end(text: str, start: int) -> int:
    """Return where the word ends in which a place lies, but look no farther than a long word is."""
    end = min(start, len(text))
    while end < min(start + 20, len(text)) and not text[end].isspace():
        end += 1
    return end


def _mark(text: str, paint: Any, opening: str, closing: str) -> str:
    """Return changed text with its marks, line by line; what cannot be seen is spelled out, a line break as `↵`."""
    *broken, last = text.split("\n")
    lines = [f"{line}↵" for line in map(_make_visible, broken)] + ([_make_visible(last)] if last else [])
    end = "" if last else "\n"
    return "\n".join(paint(f"{opening}{line}{closing}") for line in lines) + end


def _make_visible(text: str) -> str:
    if text.isprintable():
        return text
    # The joiners hold letters and signs together; without them the words would look different.
    return "".join(c if c.isprintable() or c in "\t\u200c\u200d" else f"\\u{ord(c):04x}" for c in text)


def _indent(lines: Iterable[str]) -> list[str]:
    return [f"    {line}".rstrip() for line in lines]


def spending_lines(a: Spending, b: Spending) -> list[tuple[str, str]]:
    """Return names and values of cost and time, before and after; nothing where nobody was called."""
    if not a.calls and not b.calls:
        return []
    cost = f"{_cost(a)} → {_cost(b)}"
    if delta := cost_delta(a, b):
        sign = "-" if delta < 0 else "+"
        cost += f" ({sign}{money(abs(delta))}{_percent(a.known_usd, delta)})"
    delta_s = b.time_s - a.time_s
    time = f"{a.time_s:.1f} s → {b.time_s:.1f} s"
    if delta_s:
        time += f" ({delta_s:+.1f} s{_percent(a.time_s, delta_s)})"
    return [("cost", cost), ("call time", time)]


def _cost(spent: Spending) -> str:
    if not has_cost(spent):
        return "unknown" if spent.calls else "no calls"
    return ("≥ " if spent.unknown else "") + money(spent.known_usd)


def _percent(before: float, delta: float) -> str:
    return f", {delta / before:+.1%}" if before else ""
