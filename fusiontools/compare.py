"""Compare answers by code, without a model: who agrees with whom, on what, and what nobody mentions.

Short answers are compared whole: by the letter chosen, yes or no, the last number, else by the words that are not the
question's own. Long ones are grouped by overlap and analysed sentence by sentence. Everything is lexical: a paraphrase
that shares no words counts as another point, and nothing here knows what is true.

Source  self-consistency, Wang et al. 2022, arXiv:2203.11171 (agreement as confidence); the rest is our own
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from fusiontools import gist, normal

ANALYSED_CHARS, SENTENCES_EACH, SENTENCES_ALL = 6_000, 40, 200
MAX_ENTRIES, MAX_CHARS, MAX_TOPIC_CHARS, MAX_BLIND_WORDS = 8, 300, 120, 5

#: Words with which a question is asked and which no answer need repeat.
ASKING_TEXT = """
please explain describe compare discuss write list give tell show find name state define suggest recommend many much
best better good between like want need help make using used does question sentence sentences brief briefly short
detail reason reasons example examples difference differences words steps step think know mean means
"""
ASKING = frozenset(ASKING_TEXT.split())
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])|(?<=[。！？])")
FENCED = re.compile(r"^\s*(?:```|~~~)")
LEAD = re.compile(r"\s*(?:(?:[#>*+•-]{1,6}|\d{1,2}[.)])\s+)*")


class Point(NamedTuple):
    """One sentence of one answer."""

    owner: int
    text: str
    words: frozenset[str]
    numbers: frozenset[str]
    negated: bool


def cluster(question: str, answers: Sequence[str]) -> list[list[int]]:
    """Group the positions of answers that agree, largest group first, ties by the earliest position.

    Agreement is carried over: what agrees with a member of a cluster belongs to it. Empty answers stand alone. Of each
    answer the first 2,000 and the last 1,000 characters are read, so the time does not grow with longer ones.
    """
    asked = gist.ask(question)
    said = {text: gist.read(asked, text) for text in dict.fromkeys(answers)}
    clusters: list[list[int]] = []
    for position, answer in enumerate(answers):
        joined, apart = [position], []
        for group in clusters:
            if any(gist.agree(asked, said[answer], said[answers[other]]) for other in group):
                joined += group
            else:
                apart.append(group)
        clusters = [*apart, sorted(joined)]
    return sorted(clusters, key=lambda group: (-len(group), group[0]))


def agreement(question: str, answers: Sequence[str]) -> float:
    """Return the share of answers in the largest agreeing cluster: 0.0 for no answers, 1.0 for one."""
    if not answers:
        return 0.0
    return round(len(cluster(question, answers)[0]) / len(answers), 2)


def same(question: str, one: str, other: str) -> bool:
    """Say whether two answers to the question agree; symmetric, and never true of an empty answer."""
    asked = gist.ask(question)
    return gist.agree(asked, gist.read(asked, one), gist.read(asked, other))


def is_short(answers: Sequence[str]) -> bool:
    """Say whether every answer is short enough (30 words, 300 characters) to be compared whole."""
    return all(
        len(text) <= gist.SHORT_CHARS and len(normal.tokens(normal.fold(text))) <= gist.SHORT_WORDS
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
    question: str, names: Sequence[str], answers: Sequence[str], confidence: Sequence[float | None]
) -> dict[str, Any]:
    """Describe by code how the answers relate.

    Args:
        names: the display name of each answer's member.
        confidence: the mean log probability of each answer, None where unknown.

    Returns:
        OpenRouter Fusion's five keys, in the shapes of `record.Analysis`, and `ranking`: positions in `answers`, best
        first, empty answers last. At most 8 entries of 300 characters each. Of long answers, 6,000 characters and 40
        sentences each, 200 in all, are compared.
    """
    clusters = cluster(question, answers)
    ranking = sorted(rank(clusters, confidence), key=lambda position: not answers[position].strip())
    told = [position for position in ranking if answers[position].strip()]
    if is_short(answers):
        analysis = _whole(question, names, answers, clusters, told)
    else:
        analysis = _by_sentence(question, names, answers, told)
    return {**{key: entries[:MAX_ENTRIES] for key, entries in analysis.items()}, "ranking": ranking}


def _whole(
    question: str, names: Sequence[str], answers: Sequence[str], clusters: list[list[int]], told: list[int]
) -> dict[str, list[Any]]:
    """Analyse short answers: what most say, and, where they differ, what each says."""
    analysis = _empty()
    groups = [group for group in clusters if group[0] in told]
    if len(told) == 1:
        analysis["unique_insights"] = [{"model": names[told[0]], "insight": _cut(answers[told[0]])}]
    elif told and 2 * len(groups[0]) > len(told):
        best = next(position for position in told if position in groups[0])
        analysis["consensus"] = [_cut(answers[best])]
    if len(groups) > 1:
        stances = [{"model": names[position], "stance": _cut(answers[position])} for position in sorted(told)]
        analysis["contradictions"] = [{"topic": _cut(question, MAX_TOPIC_CHARS), "stances": stances}]
    return analysis


def _by_sentence(
    question: str, names: Sequence[str], answers: Sequence[str], told: list[int]
) -> dict[str, list[Any]]:
    """Analyse long answers: who makes which point, in the words of the best ranked who makes it."""
    analysis = _empty()
    points = _points(answers, told)
    analysis["contradictions"] = _verdicts(question, names, answers, told)
    contested: set[Point] = set()
    for lead in points:
        against = [] if lead in contested else [point for point in points if _opposed(lead, point)]
        if against:
            stances = _stances(names, [lead, *against])
            analysis["contradictions"].append({"topic": _topic(lead, against[0]), "stances": stances})
            contested.update([lead, *against])
    placed: set[Point] = set()
    for lead in points:
        if lead in placed:
            continue
        group = [point for point in points if point is lead or (point not in placed and _alike(lead, point))]
        placed.update(group)
        owners = sorted({point.owner for point in group})
        if len(owners) > 1 and 2 * len(owners) > len(told):
            analysis["consensus"].append(lead.text)
        elif contested.isdisjoint(group) and len(owners) > 1:
            analysis["partial_coverage"].append({"models": [names[owner] for owner in owners], "point": lead.text})
        elif contested.isdisjoint(group):
            analysis["unique_insights"].append({"model": names[lead.owner], "insight": lead.text})
    analysis["blind_spots"] = _blind_spots(question, [answers[position] for position in told])
    return analysis


def _points(answers: Sequence[str], told: list[int]) -> list[Point]:
    """Return the sentences of the answers, best ranked answer first; headings, code and tables make no point."""
    points: dict[tuple[int, str], Point] = {}
    each = min(SENTENCES_EACH, SENTENCES_ALL // max(1, len(told)))
    for owner in told:
        made = 0
        for sentence in _sentences(answers[owner][:ANALYSED_CHARS]):
            found = normal.tokens(normal.fold(sentence[: 2 * MAX_CHARS]))
            words = frozenset([word[: gist.STEM_CHARS] for word in found if word not in gist.STOP and word[0] > "9"])
            if len(words) < MIN_WORDS or (owner, sentence) in points:
                continue
            numbers = frozenset(filter(normal.is_number, found))
            negated = not gist.NEGATIONS.isdisjoint(found)
            points[owner, sentence] = Point(owner, _cut(sentence), words - gist.NEGATIONS, numbers, negated)
            made += 1
            if made == each:
                break
    return list(points.values())


def _sentences(text: str) -> Iterator[str]:
    code = False
    for line in text.splitlines():
        if FENCED.match(line):
            code = not code
        elif not code and not line.startswith("|"):
            plain = LEAD.sub("", line.replace("**", "").replace("__", ""), count=1)
            yield from filter(None, map(str.strip, SENTENCE_END.split(plain)))


def _alike(one: Point, other: Point) -> bool:
    """Say whether two sentences make the same point: most content shared, no number and no negation apart."""
    shared = len(one.words & other.words)
    if shared < ALIKE_OF_FEWER * len(one.words) or shared < 2:
        return shared >= 2 and shared >= ALIKE_OF_FEWER * len(other.words) and _compatible(one, other, shared)
    return _compatible(one, other, shared)


def _compatible(one: Point, other: Point, shared: int) -> bool:
    if one.negated != other.negated or shared < ALIKE_OF_MORE * max(len(one.words), len(other.words)):
        return False
    return one.numbers <= other.numbers or one.numbers >= other.numbers


def _opposed(one: Point, other: Point) -> bool:
    """Say whether two members' sentences say nearly the same with other numbers, or one denies the other."""
    if one.owner == other.owner or (one.negated == other.negated) == (one.numbers == other.numbers):
        return False
    if len(one.numbers) != len(other.numbers):
        return False
    shared = len(one.words & other.words)
    return shared >= MIN_WORDS and shared >= OPPOSED_OF_MORE * max(len(one.words), len(other.words))


def _verdicts(
    question: str, names: Sequence[str], answers: Sequence[str], told: list[int]
) -> list[dict[str, Any]]:
    """Contrast what long answers state as their result, where they state one: `Answer: …`, `Yes, …`."""
    asked = gist.ask(question)
    results: dict[int, str] = {}
    for position in sorted(told):
        folded = normal.fold(answers[position][-gist.TAIL_CHARS :])
        result = normal.stated(folded) or normal.yes_no(normal.fold(answers[position][: gist.TAIL_CHARS]))
        if result:
            results[position] = result
    read = [gist.read(asked, result) for result in results.values()]
    if all(gist.agree(asked, one, other) for at, one in enumerate(read) for other in read[at + 1 :]):
        return []
    stances = [{"model": names[position], "stance": _cut(result)} for position, result in results.items()]
    return [{"topic": _cut(question, MAX_TOPIC_CHARS), "stances": stances}]


def _stances(names: Sequence[str], points: Sequence[Point]) -> list[dict[str, str]]:
    """Return one stance per member, in panel order: the first of its sentences."""
    first: dict[int, str] = {}
    for point in points:
        first.setdefault(point.owner, point.text)
    return [{"model": names[owner], "stance": first[owner]} for owner in sorted(first)]


def _topic(one: Point, other: Point) -> str:
    """Name what two sentences are about by the words they share, in order."""
    shared = one.words & other.words
    words = [word for word in WORD.findall(one.text) if not shared.isdisjoint(_stems(word))]
    return _cut(" ".join(words), MAX_TOPIC_CHARS)


def _blind_spots(question: str, answers: Sequence[str]) -> list[str]:
    """Name the content words of the question that no answer uses; whole answers are searched, by the word's beginning."""
    folded = [normal.fold(answer) for answer in answers]
    missing = [
        word
        for word in dict.fromkeys(WORD.findall(question[-gist.HEAD_CHARS :]))
        if len(word) >= MIN_BLIND_CHARS and not any(_mentions(text, word) for text in folded)
    ]
    return [f"No answer mentions: {', '.join(missing[:MAX_BLIND_WORDS])}"] if missing and answers else []


def _mentions(folded: str, word: str) -> bool:
    """Say whether the text uses the word, or whether the word is no content word of a script with spaces."""
    stems = _stems(word)
    return len(stems) != 1 or stems[0] in ASKING or stems[0] in folded


def _stems(word: str) -> list[str]:
    return [stem[: gist.STEM_CHARS] for stem in normal.tokens(normal.fold(word)) if stem not in gist.STOP]


def _empty() -> dict[str, list[Any]]:
    return {
        "consensus": [],
        "contradictions": [],
        "partial_coverage": [],
        "unique_insights": [],
        "blind_spots": [],
    }


def _cut(text: str, limit: int = MAX_CHARS) -> str:
    text = " ".join(text[: 2 * limit].split())
    return text if len(text) <= limit else f"{text[: limit - 1].rstrip()}…"
