"""Take long answers apart into sentences that can be compared: the same point, an opposed one, or another.

Precision over recall: two sentences make the same point only where they share most of their content words, and they are
opposed only where, beside nearly the same words, their numbers differ or one of them denies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fusiontools import gist, normal

#: What is compared of long answers: characters and sentences of each, sentences of all together.
ANSWER_CHARS, ANSWER_SENTENCES, ALL_SENTENCES = 6_000, 40, 200
#: The longest sentence quoted; the fewest content words with which a sentence makes a point, or two share one.
SENTENCE_CHARS, MIN_WORDS = 300, 3
#: Shares of the shorter and of the longer sentence's words that must be shared.
ALIKE_OF_FEWER, ALIKE_OF_MORE, OPPOSED_OF_MORE = 0.5, 0.24, 0.75

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])|(?<=[。！？])")
FENCE = re.compile(r"\s*(?:```|~~~)")
BULLETS = re.compile(r"\s*(?:(?:[#>*+•-]{1,6}|\d{1,2}[.)])\s+)*")
WORD = re.compile(r"[^\W\d_]\w*")


class Point(NamedTuple):
    """One sentence of one answer; `words` are stems, without numbers and negations."""

    owner: int
    text: str
    words: frozenset[str]
    numbers: frozenset[str]
    negated: bool


def points_of(answers: Sequence[str], order: Sequence[int]) -> list[Point]:
    """Return the sentences of the answers, in the given order of answers.

    Headings, code and tables make no point; an answer without any sentence of three content words is one point.
    """
    points: dict[Point, None] = {}
    limit = min(ANSWER_SENTENCES, ALL_SENTENCES // max(1, len(order)))
    for owner in order:
        mine: dict[Point, None] = {}
        for sentence in _sentences(answers[owner][:ANSWER_CHARS]):
            point = _point(owner, sentence)
            if len(point.words) >= MIN_WORDS:
                mine[point] = None
            if len(mine) == limit:
                break
        points |= mine or {_point(owner, answers[owner]): None}
    return list(points)


def alike(one: Point, other: Point) -> bool:
    """Say whether two sentences make the same point: most content shared, no number and no negation apart."""
    if one.negated != other.negated:
        return False
    shared = len(one.words & other.words)
    fewer, more = sorted((len(one.words), len(other.words)))
    if shared < min(MIN_WORDS, more) or shared < ALIKE_OF_FEWER * fewer or shared < ALIKE_OF_MORE * more:
        return False
    return one.numbers <= other.numbers or one.numbers >= other.numbers


def opposed(one: Point, other: Point) -> bool:
    """Say whether two answers' sentences say nearly the same with other numbers, or one denies the other."""
    if one.owner == other.owner or len(one.numbers) != len(other.numbers):
        return False
    if (one.negated == other.negated) == (one.numbers == other.numbers):
        return False
    shared = len(one.words & other.words)
    return shared >= MIN_WORDS and shared >= OPPOSED_OF_MORE * max(len(one.words), len(other.words))


def topic_of(one: Point, other: Point) -> str:
    """Name what two sentences are about: the words they share, in order."""
    shared = one.words & other.words
    words = [word for word in WORD.findall(one.text) if not shared.isdisjoint(_stems(normal.tokens(normal.fold(word))))]
    return " ".join(words)


def cut(text: str, limit: int = SENTENCE_CHARS) -> str:
    """Return the text on one line, with an ellipsis where it is longer than the limit."""
    line = " ".join(text[: 2 * limit].split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def _point(owner: int, sentence: str) -> Point:
    text = cut(sentence)
    found = normal.tokens(normal.fold(text))
    numbers = frozenset(filter(normal.is_number, found))
    words = frozenset(_stems(found)) - gist.NEGATIONS
    return Point(owner, text, words, numbers, not gist.NEGATIONS.isdisjoint(found))


def _stems(found: Sequence[str]) -> list[str]:
    return [word[: gist.STEM_CHARS] for word in found if word not in gist.STOP and not normal.is_number(word)]


def _sentences(text: str) -> Iterator[str]:
    in_code = False
    for line in text.splitlines():
        if FENCE.match(line):
            in_code = not in_code
        elif not in_code and not line.startswith("|"):
            plain = line.replace("**", "").replace("__", "")
            yield from SENTENCE_END.split(plain[_bullet_end(plain) :])


def _bullet_end(line: str) -> int:
    match = BULLETS.match(line)
    return match.end() if match else 0
