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

from fusiontools import normal

#: What is looked at of one answer: its beginning and its end, where results stand.
HEAD_CHARS, TAIL_CHARS = 2_000, 1_000
SHORT_WORDS, SHORT_CHARS = 30, 300
#: Share of the smaller answer's words that must be shared; measured on the pairs in tests/test_compare.py.
SHORT_OVERLAP, LONG_OVERLAP = 0.5, 0.4
#: Words of long texts are compared by their beginnings, which stands in for stemming in any language.
STEM_CHARS = 7

ANALYSED_CHARS, SENTENCES_EACH, SENTENCES_ALL = 6_000, 40, 200
MAX_ENTRIES, MAX_CHARS, MAX_TOPIC_CHARS, MAX_BLIND_WORDS = 8, 300, 120, 5

NEGATIONS = frozenset(["not", "never", "neither", "nor", "without", "nicht", "kein", "keine", "nie", "jamais", "pas", "nunca", "nao", "не", "нет"])
STOP = frozenset(
    ["a", "an", "the", "this", "that", "these", "those", "is", "are", "was", "were", "be", "been", "being", "am", "do", "does", "did", "has", "have", "had", "it", "its", "they", "them", "their", "he", "she", "his", "her", "i", "we", "you", "your", "my", "our", "of", "in", "on", "at", "to", "by", "for", "with", "from", "as", "and", "or", "if", "so", "then", "than", "there", "here", "which", "who", "what", "when", "where", "how", "why", "will", "would", "can", "could", "should", "may", "might", "must", "ca", "wo", "ll", "re", "ve", "st", "nd", "rd", "th", "one", "also", "just", "very", "about", "into", "over", "such", "some", "any", "all", "each", "more", "most", "other", "only", "both", "but", "however", "percent", "per", "approximately", "answer", "der", "das", "und", "ist", "ein", "eine", "einer", "dem", "des", "zu", "von", "fur", "auf", "sich", "es", "sind", "le", "la", "les", "et", "est", "une", "un", "dans", "pour", "que", "qui", "el", "los", "las", "de", "en", "por", "para", "del", "se", "os", "da", "um", "uma", "il", "di", "che", "и", "в", "на", "что", "это", "из"]
) - {"or"}
#: Words with which a question is asked and which no answer need repeat.
ASKING = frozenset(
    ["please", "explain", "describe", "compare", "discuss", "write", "list", "give", "tell", "show", "find", "name", "state", "define", "suggest", "recommend", "many", "much", "best", "better", "good", "between", "like", "want", "need", "help", "make", "using", "used", "does", "question", "sentence", "sentences", "brief", "briefly", "short", "detail", "reason", "reasons", "example", "examples", "difference", "differences", "words", "steps", "step", "think", "know", "mean", "means"]
)
EITHER = frozenset(["or", "oder", "ou", "o", "или"])
ASKS_NUMBER = re.compile(
    r"\d|how (?:many|much|old|long|far)|calculate|wie ?viel|combien|cuant|quant|сколько|多少|几|いくつ"
)
ASKS_NAME = re.compile(r"\b(?:who|whom|whose|where|wer|wo|qui|quien|donde|quem|chi|кто|где)\b|谁|哪里|誰|どこ")
ARITHMETIC = re.compile(r"[=+*/]|\d - ?\d")
SYMBOL = re.compile(r"sqrt|\d?pi\b|\b(?:log|ln|sin|cos|tan)\b|(?<=\d)\s?[xyz]\b(?!\s*\d)")

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])|(?<=[。！？])")
FENCED = re.compile(r"^\s*(?:```|~~~)")
LEAD = re.compile(r"\s*(?:(?:[#>*+•-]{1,6}|\d{1,2}[.)])\s+)*")


class Asked(NamedTuple):
    """What the comparison needs to know of the question."""

    text: str
    words: frozenset[str]
    either: tuple[str, ...]
    number: bool
    name: bool


class Gist(NamedTuple):
    """What an answer says, in comparable form."""

    short: bool
    choice: str
    verdict: str
    number: str
    numbers: frozenset[str]
    words: frozenset[str]
    stems: frozenset[str]
    negated: bool
    arithmetic: bool
    symbols: list[str]


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
    asked = _asked(question)
    gists = {text: _gist(asked, text) for text in dict.fromkeys(answers)}
    clusters: list[list[int]] = []
    for position, answer in enumerate(answers):
        joined, apart = [position], []
        for group in clusters:
            if any(_agree(asked, gists[answer], gists[answers[other]]) for other in group):
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
    asked = _asked(question)
    return _agree(asked, _gist(asked, one), _gist(asked, other))


def is_short(answers: Sequence[str]) -> bool:
    """Say whether every answer is short enough (30 words, 300 characters) to be compared whole."""
    return all(
        len(text) <= SHORT_CHARS and len(normal.tokens(normal.fold(text))) <= SHORT_WORDS
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
    analysis: dict[str, Any] = {
        "consensus": [],
        "contradictions": [],
        "partial_coverage": [],
        "unique_insights": [],
        "blind_spots": [],
    }
    if is_short(answers):
        _analyse_short(analysis, question, names, answers, clusters, told)
    else:
        _analyse_long(analysis, question, names, answers, told)
        analysis["blind_spots"] = _blind_spots(question, [answers[position] for position in told])
    return {**{key: entries[:MAX_ENTRIES] for key, entries in analysis.items()}, "ranking": ranking}


def _asked(question: str) -> Asked:
    text = normal.fold(question[-HEAD_CHARS:])
    found = normal.tokens(text)
    either: tuple[str, ...] = ()
    for at, word in enumerate(found):
        if word in EITHER and 0 < at < len(found) - 1:
            after = [other for other in found[at + 1 :] if other not in STOP]
            either = (found[at - 1], after[0]) if after else ()
    return Asked(text, frozenset(found), either, bool(ASKS_NUMBER.search(text)), bool(ASKS_NAME.search(text)))


def _gist(asked: Asked, answer: str) -> Gist | None:
    """Read what an answer says; None where it says nothing."""
    if len(answer) > HEAD_CHARS + TAIL_CHARS:
        answer = f"{answer[:HEAD_CHARS]}\n{answer[-TAIL_CHARS:]}"
    folded = normal.fold(answer)
    stated = normal.stated(folded)
    letter, body = normal.choice(folded if stated is None else stated, asked.text)
    verdict = normal.yes_no(body)
    found = normal.tokens(body) or body.split() or [letter]
    if found == [""]:
        return None
    if stated is None and (len(found) > SHORT_WORDS or len(body) > SHORT_CHARS):
        return _long_gist(asked, body, found, letter, verdict)
    numbers = [word for word in found if normal.is_number(word)]
    if not numbers:
        numbers = [str(normal.COUNT[word]) for word in found if word in normal.COUNT and word not in STOP]
    key = _content(asked, found)
    if not numbers and len(key) == 1 and found[0] == "one":
        numbers = ["1"]
    fresh = [number for number in numbers if number not in asked.words] or numbers
    verdict = verdict or next((word for word in found if word in asked.either), "")
    return Gist(
        True,
        letter,
        verdict,
        fresh[-1] if fresh else "",
        frozenset(numbers),
        frozenset([word[:-1] if len(word) > 3 and word[-1] == "s" else word for word in key]),
        frozenset([word[:STEM_CHARS] for word in key]),
        not NEGATIONS.isdisjoint(found),
        bool(ARITHMETIC.search(body)),
        sorted(symbol.strip() for symbol in SYMBOL.findall(body)) if numbers else [],
    )
