"""Describe by code, without a model, how answers relate: who agrees with whom, on what, and what nobody mentions.

Who agrees is what `keys.read_votes` says, so a vote tells the same. Short answers are compared whole, long ones by
sentences, with precision over recall: a paraphrase that shares no words is another point, two sentences make the same
point only where most of their content words are shared, and are opposed only where, beside nearly the same words, their
numbers differ or one of them denies. Nothing here knows what is true.

Source  self-consistency, Wang et al. 2022, arXiv:2203.11171 (agreement as confidence); the rest is our own
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from fusiontools.answers import extract, normalize
from fusiontools.answers.agreement import NEGATIONS, QUESTION_CHARS, STOP, formulas
from fusiontools.answers.extract import SHORT_WORDS
from fusiontools.answers.keys import Votes, read_votes
from fusiontools.answers.patterns import compile_later

#: Where a long answer's stated result is looked for: its end.
TAIL_CHARS = 1_000
#: Words of sentences are compared by their beginnings, which stands in for stemming in any language.
STEM_CHARS = 7
#: What is compared of long answers: characters and sentences of each, sentences of all together.
ANSWER_CHARS, ANSWER_SENTENCES, ALL_SENTENCES = 6_000, 40, 200
#: The longest sentence quoted; the fewest content words with which a sentence makes a point, or two share one.
SENTENCE_CHARS, MIN_WORDS = 300, 3
#: Shares of the shorter and of the longer sentence's words that must be shared.
ALIKE_OF_FEWER, ALIKE_OF_MORE, OPPOSED_OF_MORE = 0.5, 0.24, 0.75
#: Share of the shorter answer's words with which two long answers are ranked as neighbours.
RESEMBLANCE = 0.33

#: With the mark before it.
SENTENCE_END = compile_later(r"([.!?。！？])(?:(?<=[。！？])|\s+(?=[^\sa-z]))")
FENCE = compile_later(r"\s*(?:```|~~~)")
BULLETS = compile_later(r"\s*(?:(?:[#>*+•-]{1,6}|\d{1,2}[.)])\s+)*")
WORD = compile_later(r"[^\W\d_]\w*")
#: In ASCII, a word whose first letter is a capital, with the digits before it; written so that a search goes from one
#: capital or digit to the next.
ASCII_CAPITALISED = compile_later(r"[0-9_A-Z](?<!\w[0-9_A-Z])[0-9_]*(?:(?<=[A-Z])|[A-Z])\w*", re.ASCII)
#: The bit of a text that denies; the next ones stand for the stems of what it denies with.
DENIED = 1
NEGATION_STEMS = {word: 2 << at for at, word in enumerate(sorted(NEGATIONS))}
NEGATION_MASK = (2 << len(NEGATION_STEMS)) - 1
KNOWN_WORDS = dict.fromkeys(STOP, 0) | {word: bit | DENIED for word, bit in NEGATION_STEMS.items()}

_Set = TypeVar("_Set", int, frozenset[str])


class Stems:
    """What stands for the words in the texts of one record: a bit for each stem and number, none for stop words."""

    def __init__(self) -> None:
        #: The bits that stand for numbers.
        self.numbers = 0
        self._bits = KNOWN_WORDS.copy()
        self._stems = NEGATION_STEMS.copy()
        self._read: dict[str, int] = {}

    def read(self, text: str) -> int:
        """Return the bits of the words and numbers of a text; each text is read once."""
        known = self._read.get(text)
        if known is None:
            words = set(normalize.tokens(normalize.fold(text)))
            for word in words.difference(self._bits):
                # What comes before the colon is a number.
                stem = word[:STEM_CHARS] if word >= ":" else word
                bit = self._bits[word] = self._stems.setdefault(stem, 2 << len(self._stems))
                if word < ":":
                    self.numbers |= bit
            known = self._read[text] = functools.reduce(operator.or_, map(self._bits.__getitem__, words), 0)
        return known


class Point:
    """One sentence of one answer."""

    def __init__(self, owner: int, text: str, stems: Stems) -> None:
        self.owner, self.text = owner, text
        bits = stems.read(text)
        #: The bits of its stems, without numbers and negations.
        self.words = bits & ~(stems.numbers | NEGATION_MASK)
        self.numbers = bits & stems.numbers
        self.negated = bool(bits & DENIED)

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """Its capitalised words, and formulas."""
        found = [word for word in capitalised(self.text) if word.casefold() not in STOP]
        return frozenset(found + formulas(self.text))


def points_of(answers: Sequence[str], order: Sequence[int], stems: Stems) -> list[Point]:
    """Return the sentences of the answers, in the given order of answers.

    Headings, code and tables make no point; an answer without any sentence of three content words is one point.
    """
    points: list[Point] = []
    limit = min(ANSWER_SENTENCES, ALL_SENTENCES // max(1, len(order)))
    for owner in order:
        mine: dict[str, Point] = {}
        for sentence in _sentences(answers[owner][:ANSWER_CHARS]):
            text = shorten(sentence)
            if text not in mine:
                point = Point(owner, text, stems)
                if point.words.bit_count() >= MIN_WORDS:
                    mine[text] = point
            if len(mine) == limit:
                break
        points += mine.values() or [Point(owner, shorten(answers[owner]), stems)]
    return points


def alike(one: Point, other: Point) -> bool:
    """Say whether two sentences make the same point: most content shared, no number, name or negation apart."""
    if one.negated != other.negated:
        return False
    shared = _shared(one, other)
    fewer, more = sorted((one.words.bit_count(), other.words.bit_count()))
    if shared < min(MIN_WORDS, more) or shared < ALIKE_OF_FEWER * fewer or shared < ALIKE_OF_MORE * more:
        return False
    return _nested(one.numbers, other.numbers) and _nested(one.names, other.names)


def _shared(one: Point, other: Point) -> int:
    return (one.words & other.words).bit_count()


def _nested(one: _Set, other: _Set) -> bool:
    return one & other in (one, other)


def opposed(one: Point, other: Point) -> bool:
    """Say whether two answers' sentences say nearly the same with other numbers, or one denies the other."""
    if one.owner == other.owner or (one.negated == other.negated) == (one.numbers == other.numbers):
        return False
    if one.numbers.bit_count() != other.numbers.bit_count():
        return False
    shared = _shared(one, other)
    return shared >= MIN_WORDS and shared >= OPPOSED_OF_MORE * max(one.words.bit_count(), other.words.bit_count())


def topic_of(one: Point, other: Point, stems: Stems) -> str:
    """Name what two sentences are about: the words they share, in order."""
    shared = one.words & other.words
    return " ".join([word for word in WORD.findall(one.text) if shared & stems.read(word)])


def shorten(text: str, limit: int = SENTENCE_CHARS) -> str:
    """Return the text on one line, with an ellipsis where it is longer than the limit."""
    line = text[: 2 * limit].strip()
    # All white space but a single space shows.
    if "  " in line or not line.isprintable():
        line = " ".join(line.split())
    return line if len(line) <= limit else f"{line[: limit - 1].rstrip()}…"


def capitalised(text: str) -> list[str]:
    """Return the words that begin with a capital."""
    if text.isascii():
        return [word.lstrip("0123456789_") for word in ASCII_CAPITALISED.findall(text)]
    return [word for word in WORD.findall(text) if word[0].isupper()]


def _sentences(text: str) -> Iterator[str]:
    in_code = False
    for line in text.splitlines():
        if FENCE.match(line):
            in_code = not in_code
        elif not in_code and not line.startswith("|"):
            plain = line.replace("**", "").replace("__", "")
            yield from sentences_of(plain[_bullet_end(plain) :])


def sentences_of(line: str) -> list[str]:
    """Return a text cut where sentences end."""
    pieces = SENTENCE_END.split(line)
    return [sentence + mark for sentence, mark in zip(pieces[::2], [*pieces[1::2], ""], strict=True)]


def _bullet_end(line: str) -> int:
    match = BULLETS.match(line)
    return match.end() if match else 0


MAX_ENTRIES, MAX_TOPIC_CHARS, MAX_BLIND_WORDS, MIN_BLIND_CHARS = 8, 120, 5, 4
BLIND_WORD = compile_later(r"[^\W\d_]{4,40}")
#: Words with which a question is asked and which no answer need repeat.
ASKING_TEXT = """
please explain describe compare discuss write list give tell show find name state define suggest recommend many much
best better good between like want need help make using used does question sentence sentences brief briefly short
detail reason reasons example examples difference differences words steps step think know mean means
"""
#: What is no blind spot.
COMMON = STOP | frozenset(ASKING_TEXT.split())


def clusters_of(votes: Votes) -> list[list[int]]:
    """Group the positions of answers that say the same, largest group first, ties by the earliest position.

    Those that vote for nothing come last; those that refuse, or do not know, say the same.
    """
    groups: dict[str | int, list[int]] = {}
    for at, said in enumerate(votes.said):
        groups.setdefault(said or ("" if at in votes.refusing else at), []).append(at)
    return sorted(groups.values(), key=lambda group: (not votes.said[group[0]], -len(group), group[0]))


def agreement_share(votes: Votes) -> float | None:
    """Return the share of answers that say what most say: 0.0 for no answers, 1.0 for one.

    None where it is unknown: of a long answer that gives no result, code cannot tell whether it agrees, unless all are
    the same word for word.
    """
    if not votes.said:
        return 0.0
    largest = clusters_of(votes)[0]
    if votes.vague and (votes.kind != "text" or len(largest) < len(votes.said)):
        return None
    return round(len(largest) / len(votes.said), 2)


def same(question: str, one: str, other: str) -> bool | None:
    """Say whether two answers to the question say the same; symmetric, None where code cannot tell.

    An empty answer says the same as none.
    """
    share = agreement_share(read_votes([one, other], question=question))
    return None if share is None else share == 1.0


def is_short(answers: Sequence[str]) -> bool:
    """Say whether every answer is short enough (two sentences, 30 words, 300 characters) to be compared whole."""
    return all(
        (len(text) <= SHORT_WORDS or not extract.is_long(normalize.fold(text))) and len(sentences_of(text)) <= 2
        for text in map(str.strip, answers)
    )


def rank(clusters: Sequence[Sequence[int]], confidence: Sequence[float | None]) -> list[int]:
    """Order positions best first: by size of cluster, then mean log probability (unknown last), then position."""

    def key(at: tuple[int, int]) -> tuple[int, bool, float, int]:
        size, position = at
        sure = confidence[position]
        if sure is None or sure != sure:  # NaN
            return -size, True, 0.0, position
        return -size, False, -sure, position

    return [position for _, position in sorted(((len(c), position) for c in clusters for position in c), key=key)]


def analyse(
    question: str, names: Sequence[str], answers: Sequence[str], confidence: Sequence[float | None], votes: Votes
) -> dict[str, Any]:
    """Describe by code how the answers relate.

    Args:
        names: the display name of each answer's member.
        confidence: the mean log probability of each answer, None where unknown.
        votes: what the answers vote for.

    Returns:
        OpenRouter Fusion's five keys, in the shapes of `record.Analysis`, and `ranking`: positions in `answers`, best
        first, empty answers last. At most 8 entries of 300 characters each. Of long answers, 6,000 characters and 40
        sentences each, 200 in all, are compared.
    """
    clusters = clusters_of(votes)
    stems = Stems()
    ranking = rank(_resembling(votes, answers, clusters, stems) if votes.vague else clusters, confidence)
    ranking.sort(key=lambda position: (not votes.said[position], not answers[position].strip()))
    told = [position for position in ranking if answers[position].strip()]
    if is_short(answers):
        analysis = _compare_whole(question, names, answers, clusters, told)
    else:
        analysis = _by_sentence(question, names, answers, votes, told, stems)
    return {**{key: entries[:MAX_ENTRIES] for key, entries in analysis.items()}, "ranking": ranking}


def _resembling(votes: Votes, answers: Sequence[str], clusters: list[list[int]], stems: Stems) -> list[list[int]]:
    """Return clusters for the ranking alone, in which long answers that share many words have company."""
    groups = [group for group in clusters if votes.vague.isdisjoint(group)]
    bits = {at: stems.read(answers[at][:ANSWER_CHARS]) for at in votes.vague}
    words = {at: its & ~(stems.numbers | DENIED) for at, its in bits.items()}
    for at in sorted(votes.vague):
        near = [
            group for group in groups if any(other in words and _resemble(words[at], words[other]) for other in group)
        ]
        groups = [group for group in groups if group not in near] + [[at, *(i for group in near for i in group)]]
    return groups


def _resemble(one: int, other: int) -> bool:
    return (one & other).bit_count() >= RESEMBLANCE * min(one.bit_count(), other.bit_count())


def _compare_whole(
    question: str, names: Sequence[str], answers: Sequence[str], clusters: list[list[int]], told: list[int]
) -> dict[str, list[Any]]:
    """Analyse short answers: what most say, and, where they differ, what each says."""
    analysis = _empty()
    groups = [group for group in clusters if group[0] in told]
    if len(told) == 1:
        analysis["unique_insights"] = [{"model": names[told[0]], "insight": shorten(answers[told[0]])}]
    elif told and 2 * len(groups[0]) > len(told):
        best = next(position for position in told if position in groups[0])
        analysis["consensus"] = [shorten(answers[best])]
    if len(groups) > 1:
        stances = {position: answers[position] for position in told}
        analysis["contradictions"] = [_contradiction(question, names, stances)]
    return analysis


def _by_sentence(
    question: str, names: Sequence[str], answers: Sequence[str], votes: Votes, told: list[int], stems: Stems
) -> dict[str, list[Any]]:
    """Analyse long answers: who makes which point, in the words of the best ranked who makes it."""
    analysis = _empty()
    points = points_of(answers, told, stems)
    near = neighbours(points)
    disputes, contested = _disputes(names, points, near, stems)
    analysis["contradictions"] = _results(question, names, answers, votes, told) + disputes
    placed: set[Point] = set()
    for lead, others in zip(points, near, strict=True):
        if lead in placed:
            continue
        group = [lead, *(point for point in others if point not in placed and alike(lead, point))]
        placed.update(group)
        owners = sorted({point.owner for point in group})
        if len(owners) > 1 and 2 * len(owners) > len(told):
            analysis["consensus"].append(lead.text)
        elif not contested.isdisjoint(group):
            continue
        elif len(owners) > 1:
            analysis["partial_coverage"].append({"models": [names[owner] for owner in owners], "point": lead.text})
        else:
            analysis["unique_insights"].append({"model": names[lead.owner], "insight": lead.text})
    analysis["unique_insights"] = _in_turn(analysis["unique_insights"])
    analysis["blind_spots"] = _blind_spots(question, [answers[position] for position in told])
    return analysis


def neighbours(points: list[Point]) -> list[list[Point]]:
    """Return of each point the others, in order, that share enough words with it to be alike or opposed."""
    words = [point.words for point in points]
    short = [at for at, its in enumerate(words) if its.bit_count() < MIN_WORDS]
    near: list[list[Point]] = []
    for at, point in enumerate(points):
        met = [before for before, its in enumerate(words[:at]) if (point.words & its).bit_count() >= MIN_WORDS]
        if at in short:
            met = [before for before in short if before < at]
        for before in met:
            near[before].append(point)
        near.append([points[before] for before in met])
    return near


def _in_turn(insights: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return everyone's first insight, then everyone's second: the longest answer must not fill the list."""
    turns: dict[str, int] = {}
    numbered = []
    for insight in insights:
        turns[insight["model"]] = turns.get(insight["model"], 0) + 1
        numbered.append((turns[insight["model"]], insight))
    return [insight for _, insight in sorted(numbered, key=lambda entry: entry[0])]


def _disputes(
    names: Sequence[str], points: list[Point], near: list[list[Point]], stems: Stems
) -> tuple[list[dict[str, Any]], set[Point]]:
    """Return the contradictions between sentences, and the sentences that take part in one."""
    disputes: list[dict[str, Any]] = []
    contested: set[Point] = set()
    for lead, others in zip(points, near, strict=True):
        against = [] if lead in contested else [point for point in others if opposed(lead, point)]
        if not against:
            continue
        stances: dict[int, str] = {}
        for point in [lead, *against]:
            stances.setdefault(point.owner, point.text)
        disputes.append(_contradiction(topic_of(lead, against[0], stems), names, stances))
        contested.update([lead, *against])
    return disputes, contested


def _results(
    question: str, names: Sequence[str], answers: Sequence[str], votes: Votes, told: list[int]
) -> list[dict[str, Any]]:
    """Contrast what the answers give as their result, where several give one: `Answer: …`, `Yes, …`, a final number."""
    keys = votes.keys if votes.kind != "text" else []
    given: dict[int, str] = {}
    for at in told:
        if votes.said[at] and at not in votes.vague:
            value = keys[at] if keys else normalize.stated(normalize.fold(answers[at][-TAIL_CHARS:]))
            given[at] = answers[at] if is_short([answers[at]]) else value or ""
    given = {at: stance for at, stance in given.items() if stance}
    if len({votes.said[at] for at in given}) < 2:
        return []
    return [_contradiction(question, names, given)]


def _contradiction(topic: str, names: Sequence[str], stances: dict[int, str]) -> dict[str, Any]:
    """Write a contradiction, its stances in panel order."""
    told = [{"model": names[position], "stance": shorten(stances[position])} for position in sorted(stances)]
    return {"topic": shorten(topic, MAX_TOPIC_CHARS), "stances": told}


def _blind_spots(question: str, answers: Sequence[str]) -> list[str]:
    """Name the content words of the question that no answer uses; all of every answer is searched."""
    said = "\n".join(map(normalize.fold, answers))
    missing = []
    for word in dict.fromkeys(BLIND_WORD.findall(question[-QUESTION_CHARS:])):
        if word.casefold() in COMMON:
            continue
        [term, *more] = normalize.tokens(normalize.fold(word)) or [""]
        # Of a script without spaces, one cannot tell which pairs of characters are words.
        if more or len(term) < MIN_BLIND_CHARS or term in COMMON:
            continue
        if term[: min(STEM_CHARS, max(MIN_BLIND_CHARS, len(term) - 3))] not in said:
            missing.append(word)
    return [f"No answer mentions: {', '.join(missing[:MAX_BLIND_WORDS])}"] if missing and answers else []


def _empty() -> dict[str, list[Any]]:
    keys = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
    return {key: [] for key in keys}
