"""Refuse a regular expression whose search may not come to an end, before it searches anything.

The engine tries every way in which the repeats of a pattern can share a text between them. The patterns taken here have
few ways: no repeat has choices inside, at most two repeats in a row compete for the same characters (at most one, where
the search may begin anywhere), and there are few alternatives. When unsure, a pattern is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

#: How many repeats in a row, the search for the beginning among them, may compete for the same characters.
COMPETING = 2
#: In how many ways optional parts and alternatives may be passed through.
WAYS = 256
#: What a part of fixed length may have, so that it costs next to nothing.
FIXED = 40
REPEATS = {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}
CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}
#: Characters that stand for all others; those of the pattern come to them.
SAMPLE = frozenset(map(chr, range(128))) | frozenset("\u00a0\u2003\u0663é北ж😀—ªıſK")

Chars = frozenset[str]


class Hold(NamedTuple):
    """A repeat that may still give back what it took."""

    chars: Chars
    #: How many repeats compete up to here, this one among them.
    rank: int
    #: What must stand between it and the next part.
    between: frozenset[Chars]


class PatternRefused(Exception):
    """Why a pattern may search for ever."""


def why_endless(pattern: str) -> str | None:
    """Return why the search for a valid regular expression may not come to an end; None where it surely does."""
    tree = _parser.parse(pattern)
    walk = _Walk(tree, bool(tree.state.flags & re.IGNORECASE or re.search(r"\(\?[a-z]*i", pattern)))
    try:
        walk.through(_without_last(list(tree)), walk.begin(list(tree)))
    except PatternRefused as refused:
        return str(refused)
    except RecursionError:
        return "it is nested too deeply"
    return None


class _Walk:
    """A way through a parsed pattern, from its beginning to its end."""

    def __init__(self, tree: Any, any_case: bool) -> None:
        self.any_case = any_case
        own = set(_literals(tree))
        own |= {other for char in own for other in (char.lower(), char.upper()) if len(other) == 1}
        self.all = SAMPLE | own
        self.ways = 1

    def begin(self, nodes: list[Any]) -> dict[int, Hold]:
        """Return what may give way at the beginning: the search itself, where no literal characters hold it."""
        held = len(nodes) > 1 and all(node[0] is op.LITERAL for node in nodes[:2])
        return {0: Hold(self.all, 0 if held else 1, frozenset())}

    def through(self, nodes: Iterable[Any], holds: dict[int, Hold]) -> dict[int, Hold]:
        """Return what may give way behind these nodes."""
        for node in nodes:
            holds = self._behind(node, holds)
        return holds

    def _behind(self, node: Any, holds: dict[int, Hold]) -> dict[int, Hold]:
        kind, value = node
        if kind is op.AT:
            return holds
        if kind is op.SUBPATTERN:
            return self.through(value[3], holds)
        if kind is op.ATOMIC_GROUP:
            return self.through(value, holds)
        if kind in (op.ASSERT, op.ASSERT_NOT):
            if _varies(value[1]) or value[1].getwidth()[1] > FIXED:
                raise PatternRefused("a lookaround has a repeat or a choice inside")
            return holds
        if kind in (op.GROUPREF, op.GROUPREF_EXISTS):
            raise PatternRefused("it refers back to a group")
        if kind is op.BRANCH:
            self._more_ways(len(value[1]))
            return _either([self.through(branch, holds) for branch in value[1]])
        if kind in REPEATS:
            return self._repeated(node, holds)
        return _behind_chars(self._chars(node), holds)

    def _repeated(self, node: Any, holds: dict[int, Hold]) -> dict[int, Hold]:
        kind, (least, most, body) = node
        if most > 1 and _varies(body):
            raise PatternRefused("a repeated group has a repeat or a choice inside")
        if most <= 1 or (least == most and most * body.getwidth()[1] <= FIXED):
            if least != most:
                self._more_ways(2)
            behind = self.through(body, holds)
            return _either([holds, behind]) if not least else behind
        chars = frozenset[str]().union(*map(self._chars, _leaves(body)))
        rank = 1 + max((hold.rank for hold in holds.values() if _competes(hold, chars)), default=0)
        if rank > COMPETING:
            raise PatternRefused("several repeats in a row may take the same characters")
        behind = self.through(body, holds) if least else dict(holds)
        if kind is not op.POSSESSIVE_REPEAT:
            behind[id(node)] = Hold(chars, rank, frozenset())
        return behind

    def _more_ways(self, ways: int) -> None:
        self.ways *= ways
        if self.ways > WAYS:
            raise PatternRefused("it has too many optional parts and alternatives")

    def _chars(self, node: Any) -> Chars:
        """Return the characters that one node matches."""
        kind, value = node
        if kind is op.LITERAL:
            found = {chr(value)}
        elif kind is op.NOT_LITERAL:
            # All, also in any case: the larger a set, the more is refused.
            found = set(self.all) - (set() if self.any_case else {chr(value)})
        elif kind is op.IN:
            found = self._in_class(value)
        else:
            found = set(self.all)
        if self.any_case:
            found |= {char for char in self.all if char.lower() in found or char.upper() in found}
        return frozenset(found)

    def _in_class(self, items: list[Any]) -> set[str]:
        found: set[str] = set()
        for kind, value in items:
            if kind is op.LITERAL:
                found.add(chr(value))
            elif kind is op.RANGE:
                found |= {char for char in self.all if value[0] <= ord(char) <= value[1]}
            elif kind is op.CATEGORY:
                found |= {char for char in self.all if re.match(CATEGORIES[value], char)}
        if items and items[0][0] is op.NEGATE:
            return set(self.all) if self.any_case and not found else set(self.all) - found
        return found


def _competes(hold: Hold, chars: Chars) -> bool:
    """Say whether a repeat before and one here may share the same text in several ways."""
    apart = any(not (between & hold.chars) or not (between & chars) for between in hold.between)
    return not apart and bool(hold.chars & chars)


def _behind_chars(chars: Chars, holds: dict[int, Hold]) -> dict[int, Hold]:
    return {at: Hold(hold.chars, hold.rank, hold.between | {chars}) for at, hold in holds.items()}


def _either(ways: list[dict[int, Hold]]) -> dict[int, Hold]:
    """Return what may give way behind one of several ways: between are only the parts that all of them have."""
    merged: dict[int, Hold] = {}
    for way in ways:
        for at, hold in way.items():
            known = merged.get(at)
            merged[at] = hold._replace(between=hold.between & known.between) if known else hold
    return merged


def _varies(nodes: Iterable[Any]) -> bool:
    """Say whether nodes can match one text in more than one way, or texts of more than one length."""
    for kind, value in nodes:
        if kind in (op.BRANCH, op.GROUPREF, op.GROUPREF_EXISTS):
            return True
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT) and value[0] != value[1]:
            return True
        if any(_varies(inner) for inner in _inside(kind, value)):
            return True
    return False


def _inside(kind: Any, value: Any) -> list[Any]:
    """Return the sequences of nodes inside a node."""
    if kind in REPEATS:
        return [value[2]]
    if kind is op.SUBPATTERN:
        return [value[3]]
    if kind is op.ATOMIC_GROUP:
        return [value]
    if kind in (op.ASSERT, op.ASSERT_NOT):
        return [value[1]]
    if kind is op.GROUPREF_EXISTS:
        return [branch for branch in value[1:] if branch is not None]
    return list(value[1]) if kind is op.BRANCH else []


def _leaves(nodes: Iterable[Any]) -> list[Any]:
    """Return the nodes that match one character each."""
    found: list[Any] = []
    for node in nodes:
        inside = _inside(*node)
        for inner in inside:
            found += _leaves(inner)
        if not inside and node[0] is not op.AT:
            found.append(node)
    return found


def _literals(nodes: Iterable[Any]) -> list[str]:
    """Return all characters that a pattern names, the ends of its ranges among them."""
    found: list[str] = []
    for kind, value in _leaves(nodes):
        if kind in (op.LITERAL, op.NOT_LITERAL):
            found.append(chr(value))
        for item, named in value if kind is op.IN else ():
            if item is op.LITERAL:
                found.append(chr(named))
            elif item is op.RANGE:
                found += [chr(end) for end in (*named, min(named[1] + 1, 0x10FFFF), max(named[0] - 1, 0))]
    return found


def _without_last(nodes: list[Any]) -> list[Any]:
    """Return the nodes without a repeat that ends them: nothing behind it can fail, so it never gives back."""
    if not nodes:
        return nodes
    kind, value = nodes[-1]
    if kind is op.SUBPATTERN:
        return [*nodes[:-1], *_without_last(list(value[3]))]
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT) and value[0] <= 1 < value[1] and len(value[2]) == 1:
        return nodes[:-1] if value[2][0][0] in (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY) else nodes
    return nodes
