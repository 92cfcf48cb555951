"""Compare two texts word by word, in bounded time: lines first, then sentences within them, then words.

Reads   two texts of any script; where words have no spaces between them, a character is a word
Bounds  each level does at most `_DEPTH` linear passes, and exact comparisons only of blocks of `_EXACT_CELLS` cells;
        a block that would take more is shown as replaced
Source  patience diff (Bram Cohen), anchors that occur once on either side; clean-up after Neil Fraser, Diff Strategies
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

#: Scripts without spaces between words: Thai to Khmer, then Chinese and Japanese.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_LETTER = rf"[^\W{_UNSPACED}]"
_SENTENCE_END = re.compile(r"(?<=[.!?…؟।])(?=\s)|(?<=[。！？])")
#: Zero-width joiners and skin tones: no words of their own, although they are no combining marks either.
_JOINING = frozenset("\u200c\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_DEPTH = 12
_EXACT_CELLS = 64 * 64
#: How many characters a line break counts for where it is asked whether an unchanged stretch is worth showing.
_BREAK_CHARS = 24


class Segment(NamedTuple):
    """A stretch of text: in both (`=`), in the first only (`-`), in the second only (`+`)."""

    kind: Literal["=", "-", "+"]
    text: str


class Block(NamedTuple):
    """What stands at `a:a_end` on one side and at `b:b_end` on the other."""

    a: int
    a_end: int
    b: int
    b_end: int


def word_diff(a: str, b: str) -> list[Segment]:
    """Return the segments that turn `a` into `b`: the `=` and `-` ones make up `a`, the `=` and `+` ones `b`."""
    blocks = [Block(0, len(a), 0, len(b))]
    for split in (_lines, _sentences, tokens):
        blocks = [finer for block in blocks for finer in _refined(a, b, block, split)]
    segments: list[Segment] = []
    end = 0
    for block in _readable(a, blocks):
        pieces = (
            Segment("=", a[end : block.a]),
            Segment("-", a[block.a : block.a_end]),
            Segment("+", b[block.b : block.b_end]),
        )
        segments += [piece for piece in pieces if piece.text]
        end = block.a_end
    return [*segments, Segment("=", a[end:])] if end < len(a) else segments


def tokens(text: str) -> list[str]:
    """Return words, numbers, line breaks, runs of other spaces, and single signs; together they are the text."""
    found: list[str] = _token_pattern(text).findall(text)
    return found


def changed_blocks(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Block]:
    """Return where two sequences differ, in order; all that lies between is equal."""
    found: list[Block] = []
    waiting = [(Block(0, len(a), 0, len(b)), 0)]
    while waiting:
        whole, depth = waiting.pop()
        block = _trimmed(a, b, whole)
        height, width = block.a_end - block.a, block.b_end - block.b
        if height * width == 0:
            found += [block] if height + width else []
        elif height * width <= _EXACT_CELLS:
            found += _exactly(a, b, block)
        elif depth < _DEPTH and (anchors := _anchors(a, b, block)):
            waiting += [(gap, depth + 1) for gap in _gaps(block, anchors)]
        else:
            found.append(block)
    return sorted(found)


def _token_pattern(text: str) -> re.Pattern[str]:
    """Return what finds the tokens of a text; its combining marks belong to the letter before them."""
    joining = "" if text.isascii() else "".join(sorted(filter(_joins, set(text))))
    marks = f"[{re.escape(joining)}]" if joining else "(?!)"
    letter = f"(?:{_LETTER}|{marks})" if joining else _LETTER
    word = rf"{_LETTER}{letter}*(?:['’]{letter}+)*"
    return re.compile(rf"\n|[^\S\n]+|\d+(?:[.,]\d+)+|[{_UNSPACED}]{marks}*|{word}|.(?:\u200d\S|{marks})*", re.DOTALL)


def _joins(char: str) -> bool:
    return unicodedata.category(char).startswith("M") or char in _JOINING


def _lines(text: str) -> list[str]:
    return re.split(r"(?<=\n)", text)


def _sentences(text: str) -> list[str]:
    return _SENTENCE_END.split(text)


def _refined(a: str, b: str, block: Block, split: Callable[[str], list[str]]) -> list[Block]:
    """Return the parts of a block of text that differ when it is cut more finely."""
    ours, theirs = split(a[block.a : block.a_end]), split(b[block.b : block.b_end])
    a_at = list(accumulate(map(len, ours), initial=block.a))
    b_at = list(accumulate(map(len, theirs), initial=block.b))
    return [Block(a_at[i], a_at[i_end], b_at[j], b_at[j_end]) for i, i_end, j, j_end in changed_blocks(ours, theirs)]


def _trimmed(a: Sequence[Hashable], b: Sequence[Hashable], block: Block) -> Block:
    i, i_end, j, j_end = block
    while i < i_end and j < j_end and a[i] == b[j]:
        i, j = i + 1, j + 1
    while i < i_end and j < j_end and a[i_end - 1] == b[j_end - 1]:
        i_end, j_end = i_end - 1, j_end - 1
    return Block(i, i_end, j, j_end)


def _anchors(a: Sequence[Hashable], b: Sequence[Hashable], block: Block) -> list[tuple[int, int]]:
    """Return the longest run of pairs, in order on both sides, of items that occur once on either side."""
    once_a = _once(a, block.a, block.a_end)
    once_b = _once(b, block.b, block.b_end)
    pairs = [(i, once_b[item]) for item, i in once_a.items() if item in once_b]
    # The longest increasing subsequence: `ends[n]` is the smallest place at which a run of n + 1 can end.
    ends: list[int] = []
    last: list[int] = []
    before: list[int] = []
    for number, (_, j) in enumerate(pairs):
        at = bisect_left(ends, j)
        before.append(last[at - 1] if at else -1)
        ends[at : at + 1] = [j]
        last[at : at + 1] = [number]
    run: list[tuple[int, int]] = []
    number = last[-1] if last else -1
    while number >= 0:
        run.append(pairs[number])
        number = before[number]
    return run[::-1]


def _once(items: Sequence[Hashable], start: int, end: int) -> dict[Hashable, int]:
    """Return the places of the items that occur once between two places, in their order."""
    stretch = items[start:end]
    counts = Counter(stretch)
    return {item: place for place, item in enumerate(stretch, start) if counts[item] == 1}


def _gaps(block: Block, anchors: Iterable[tuple[int, int]]) -> list[Block]:
    gaps = []
    i, j = block.a, block.b
    for i_next, j_next in anchors:
        gaps.append(Block(i, i_next, j, j_next))
        i, j = i_next + 1, j_next + 1
    return [*gaps, Block(i, block.a_end, j, block.b_end)]


def _exactly(a: Sequence[Hashable], b: Sequence[Hashable], block: Block) -> list[Block]:
    """Return the parts of a small block that differ, by its longest common subsequence."""
    ours, theirs = a[block.a : block.a_end], b[block.b : block.b_end]
    common = [[0] * (len(theirs) + 1)]
    for item in reversed(ours):
        below, row = common[-1], [0]
        for j, other in enumerate(reversed(theirs)):
            row.append(below[j] + 1 if item == other else max(below[j + 1], row[j]))
        common.append(row)
    found = []
    i = j = i_from = j_from = 0
    while i < len(ours) and j < len(theirs):
        left = len(theirs) - j
        if ours[i] == theirs[j]:
            found.append((i_from, i, j_from, j))
            i, j = i + 1, j + 1
            i_from, j_from = i, j
        elif common[len(ours) - i - 1][left] >= common[len(ours) - i][left - 1]:
            i += 1
        else:
            j += 1
    found.append((i_from, len(ours), j_from, len(theirs)))
    return [
        Block(block.a + i, block.a + i_end, block.b + j, block.b + j_end)
        for i, i_end, j, j_end in found
        if i < i_end or j < j_end
    ]


def _readable(a: str, blocks: Iterable[Block]) -> list[Block]:
    """Join changes between which hardly anything is unchanged: two rewritten words are one change, not two and a space.

    An unchanged stretch stays where it is longer than the change on either side of it.
    """
    kept: list[Block] = []
    for block in blocks:
        last = block
        while kept and _is_noise(a, kept[-1], last):
            first = kept.pop()
            last = Block(first.a, last.a_end, first.b, last.b_end)
        kept.append(last)
    return kept


def _is_noise(a: str, first: Block, last: Block) -> bool:
    breaks = a.count("\n", first.a_end, last.a)
    if not breaks and a[first.a_end : last.a].isspace():
        return True
    length = last.a - first.a_end + _BREAK_CHARS * breaks
    return length <= min(_size(first), _size(last))


def _size(block: Block) -> int:
    return max(block.a_end - block.a, block.b_end - block.b)
