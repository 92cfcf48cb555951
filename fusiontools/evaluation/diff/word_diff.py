"""Compare two texts word by word, in bounded time: lines first, then sentences within them, then words.

Reads   two texts of any script; where words have no spaces between them, a character is a word
Bounds  difflib, whose time grows with the product of two lengths, compares no more than `_MOST_CELLS` at once; a block
        that would take more is shown as replaced
Source  clean-up after Neil Fraser, Diff Strategies
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Sequence
from difflib import SequenceMatcher
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
#: So many take difflib a fifth of a second at worst; a paragraph of a thousand tokens without a full stop is rare.
_MOST_CELLS = 1000 * 1000
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
    for split in (_split_lines, _split_sentences, tokens):
        blocks = [finer for block in blocks for finer in _refine(a, b, block, split)]
    segments: list[Segment] = []
    end = 0
    for block in _join_near(a, blocks):
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
    whole = _trim(a, b)
    height, width = whole.a_end - whole.a, whole.b_end - whole.b
    if height * width == 0 or height * width > _MOST_CELLS:
        return [whole] if height + width else []
    found = SequenceMatcher(None, a[whole.a : whole.a_end], b[whole.b : whole.b_end]).get_opcodes()
    return [
        Block(whole.a + i, whole.a + i_end, whole.b + j, whole.b + j_end)
        for kind, i, i_end, j, j_end in found
        if kind != "equal"
    ]


def _token_pattern(text: str) -> re.Pattern[str]:
    """Return what finds the tokens of a text; its combining marks belong to the letter before them."""
    joining = "" if text.isascii() else "".join(sorted(filter(_joins, set(text))))
    marks = f"[{re.escape(joining)}]" if joining else "(?!)"
    letter = f"(?:{_LETTER}|{marks})" if joining else _LETTER
    word = rf"{_LETTER}{letter}*(?:['’]{letter}+)*"
    return re.compile(rf"\n|[^\S\n]+|\d+(?:[.,]\d+)+|[{_UNSPACED}]{marks}*|{word}|.(?:\u200d\S|{marks})*", re.DOTALL)


def _joins(char: str) -> bool:
    return unicodedata.category(char).startswith("M") or char in _JOINING


def _split_lines(text: str) -> list[str]:
    return re.split(r"(?<=\n)", text)


def _split_sentences(text: str) -> list[str]:
    return _SENTENCE_END.split(text)


def _refine(a: str, b: str, block: Block, split: Callable[[str], list[str]]) -> list[Block]:
    """Return the parts of a block of text that differ when it is cut more finely."""
    ours, theirs = split(a[block.a : block.a_end]), split(b[block.b : block.b_end])
    a_at = list(accumulate(map(len, ours), initial=block.a))
    b_at = list(accumulate(map(len, theirs), initial=block.b))
    return [Block(a_at[i], a_at[i_end], b_at[j], b_at[j_end]) for i, i_end, j, j_end in changed_blocks(ours, theirs)]


def _trim(a: Sequence[Hashable], b: Sequence[Hashable]) -> Block:
    """Return what is left without the common beginning and the common end."""
    i, a_end, b_end = 0, len(a), len(b)
    while i < min(a_end, b_end) and a[i] == b[i]:
        i += 1
    while min(a_end, b_end) > i and a[a_end - 1] == b[b_end - 1]:
        a_end, b_end = a_end - 1, b_end - 1
    return Block(i, a_end, i, b_end)


def _join_near(a: str, blocks: Iterable[Block]) -> list[Block]:
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
