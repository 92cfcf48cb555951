"""Compare answers by code, without a model: who agrees with whom, on what, and what nobody mentions.

Short answers are compared whole: by the letter chosen, yes or no, the last number, else by the words that are not the
question's own. Long ones are grouped by overlap and analysed sentence by sentence. Everything is lexical: a paraphrase
that shares no words counts as another point, and nothing here knows what is true.

Source  self-consistency, Wang et al. 2022, arXiv:2203.11171 (agreement as confidence); the rest is our own
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fusiontools import gist, normal
from fusiontools.points import SENTENCE_END, Point, alike, cut, opposed, points_of, topic_of

MAX_ENTRIES, MAX_TOPIC_CHARS, MAX_BLIND_WORDS, MIN_BLIND_CHARS = 8, 120, 5, 4
BLIND_WORD = re.compile(r"[^\W\d_]{4,40}")
#: Words with which a question is asked and which no answer need repeat.
ASKING_TEXT = """
please explain describe compare discuss write list give tell show find name state define suggest recommend many much
best better good between like want need help make using used does question sentence sentences brief briefly short
detail reason reasons example examples difference differences words steps step think know mean means
"""
ASKING = frozenset(ASKING_TEXT.split())


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
    """Say whether every answer is short enough (two sentences, 30 words, 300 characters) to be compared whole."""
    return all(
        len(text) <= gist.SHORT_CHARS
        and len(SENTENCE_END.findall(text)) < 2
        and len(normal.tokens(normal.fold(text))) <= gist.SHORT_WORDS
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
        analysis["unique_insights"] = [{"model": names[told[0]], "insight": cut(answers[told[0]])}]
    elif told and 2 * len(groups[0]) > len(told):
        best = next(position for position in told if position in groups[0])
        analysis["consensus"] = [cut(answers[best])]
    if len(groups) > 1:
        stances = {position: answers[position] for position in told}
        analysis["contradictions"] = [_contradiction(question, names, stances)]
    return analysis


def _by_sentence(question: str, names: Sequence[str], answers: Sequence[str], told: list[int]) -> dict[str, list[Any]]:
    """Analyse long answers: who makes which point, in the words of the best ranked who makes it."""
    analysis = _empty()
    points = points_of(answers, told)
    disputes, contested = _disputes(names, points)
    analysis["contradictions"] = _results(question, names, answers, told) + disputes
    placed: set[Point] = set()
    for lead in points:
        if lead in placed:
            continue
        group = [lead, *(point for point in points if point is not lead and point not in placed and alike(lead, point))]
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


def _in_turn(insights: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return everyone's first insight, then everyone's second: the longest answer must not fill the list."""
    turns: dict[str, int] = {}
    numbered = []
    for insight in insights:
        turns[insight["model"]] = turns.get(insight["model"], 0) + 1
        numbered.append((turns[insight["model"]], insight))
    return [insight for _, insight in sorted(numbered, key=lambda entry: entry[0])]


def _disputes(names: Sequence[str], points: list[Point]) -> tuple[list[dict[str, Any]], set[Point]]:
    """Return the contradictions between sentences, and the sentences that take part in one."""
    disputes: list[dict[str, Any]] = []
    contested: set[Point] = set()
    for lead in points:
        against = [] if lead in contested else [point for point in points if opposed(lead, point)]
        if not against:
            continue
        stances: dict[int, str] = {}
        for point in [lead, *against]:
            stances.setdefault(point.owner, point.text)
        disputes.append(_contradiction(topic_of(lead, against[0]), names, stances))
        contested.update([lead, *against])
    return disputes, contested


def _results(question: str, names: Sequence[str], answers: Sequence[str], told: list[int]) -> list[dict[str, Any]]:
    """Contrast what the answers give as their result, where several give one: `Answer: …`, `Yes, …`, a final number."""
    asked = gist.ask(question)
    said = {position: gist.read(asked, answers[position]) for position in told}
    given = {position: _result(one, answers[position]) for position, one in said.items() if one}
    results = {position: result for position, result in given.items() if result}
    for position in results:
        if any(gist.contradict(asked, said[position], said[other]) for other in results):
            return [_contradiction(question, names, results)]
    return []


def _result(said: gist.Gist, answer: str) -> str:
    """Return in a word what an answer gives as its result; nothing where it only talks."""
    if is_short([answer]):
        return answer
    stated = normal.stated(normal.fold(answer[-gist.TAIL_CHARS :]))
    return stated or said.choice or said.verdict or ("" if said.short else said.number)


def _contradiction(topic: str, names: Sequence[str], stances: dict[int, str]) -> dict[str, Any]:
    """Write a contradiction, its stances in panel order."""
    told = [{"model": names[position], "stance": cut(stances[position])} for position in sorted(stances)]
    return {"topic": cut(topic, MAX_TOPIC_CHARS), "stances": told}


def _blind_spots(question: str, answers: Sequence[str]) -> list[str]:
    """Name the content words of the question that no answer uses; all of every answer is searched."""
    folded = [normal.fold(answer) for answer in answers]
    missing = []
    for word in dict.fromkeys(BLIND_WORD.findall(question[-gist.HEAD_CHARS :])):
        [term, *more] = normal.tokens(normal.fold(word)) or [""]
        # Of a script without spaces, one cannot tell which pairs of characters are words.
        if more or len(term) < MIN_BLIND_CHARS or term in ASKING or term in gist.STOP:
            continue
        beginning = term[: min(gist.STEM_CHARS, max(MIN_BLIND_CHARS, len(term) - 3))]
        if not any(beginning in text for text in folded):
            missing.append(word)
    return [f"No answer mentions: {', '.join(missing[:MAX_BLIND_WORDS])}"] if missing and answers else []


def _empty() -> dict[str, list[Any]]:
    keys = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
    return {key: [] for key in keys}
