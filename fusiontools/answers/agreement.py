"""Read what an answer says into a form that can be compared, and compare two of them.

Short answers say a letter, yes or no, a number, or a few words that are not the question's own. Long ones say what they
conclude, where the question asks for a number, else only what they are about.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fusiontools.answers import normalize

#: What is looked at of one answer: its beginning and its end, where results stand.
HEAD_CHARS, TAIL_CHARS = 2_000, 1_000
SHORT_WORDS, SHORT_CHARS, TALK_WORDS = 30, 300, 8
#: Share of the smaller answer's words that must be shared, measured on the labelled pairs of tests/test_compare.py.
SHORT_OVERLAP, LONG_OVERLAP = 0.5, 0.33
#: Words of long texts are compared by their beginnings, which stands in for stemming in any language.
STEM_CHARS = 7

NEGATIONS = frozenset({"not", "never", "neither", "nor", "without", "nicht", "kein", "keine", "nie", "jamais", "pas"})
NEGATIONS |= {"nunca", "nao", "не", "нет"}
STOP_TEXT = """
a an the this that these those is are was were be been being am do does did has have had it its they them their he she
his her i we you your my our of in on at to by for with from as and if so then than there here which who what when where
how why will would can could should may might must ca wo ll re ve st nd rd th one also just very about into over such
some any all each more most other only both but however percent per approximately answer
der das und ist ein eine einer dem des zu von fur auf sich es sind le la les et est une un dans pour que qui el los las
de en y por para del lo se os da um uma il di che и в на что это из
"""
STOP = frozenset(STOP_TEXT.split())
ARTICLES = frozenset({"a", "an", "the", "ein", "eine", "der", "die", "das", "un", "une", "una", "le", "la", "el"})
EITHER = frozenset({"or", "oder", "ou", "o", "или"})
#: Words with which an English question asks for yes or no.
POLAR_TEXT = "is are was were am do does did can could will would should may might must has have had"
POLAR = frozenset(POLAR_TEXT.split())
ASKS_NUMBER = re.compile(
    r"\d\D{1,200}\d|how (?:many|much|old|long|far)|calculate|wie ?viel|combien|cuant|quant|сколько|多少|几|いくつ"
)
ASKS_NAME = re.compile(r"\b(?:who|whom|whose|where|wer|wo|qui|quien|donde|quem|chi|кто|где)\b|谁|哪里|誰|どこ")
ARITHMETIC = re.compile(r"[=+*/]|\d - ?\d")
SYMBOL = re.compile(r"sqrt|\d?pi\b|\b(?:log|ln|sin|cos|tan)\b|(?<=\d)\s?[xyz]\b(?!\s*\d)|\b[xyz]\d\b")
CONTRAST = re.compile(r", (?:and )?not [^,.;]{1,40}")
INITIALS = re.compile(r"\b([^\W\d])\.(?=[^\W\d]\b)")

SENTENCE_BREAK = re.compile(r"[.!?]\s|[。！？](?=.)|\n")


class Question(NamedTuple):
    """What the comparison needs to know of the question."""

    text: str
    words: frozenset[str]
    either: tuple[str, ...]
    polar: bool
    number: bool
    name: bool


class AnswerKey(NamedTuple):
    """What an answer says, in comparable form."""

    short: bool
    choice: str
    verdict: str
    side: str
    first: str
    number: str
    numbers: frozenset[str]
    words: frozenset[str]
    stems: frozenset[str]
    negated: bool
    arithmetic: bool
    symbols: tuple[str, ...]


def ask(question: str) -> Question:
    """Read the question once for all its answers; of a long one, the end."""
    text = normalize.fold(question[-HEAD_CHARS:])
    found = normalize.tokens(text)
    either: tuple[str, ...] = ()
    for at, word in enumerate(found):
        if word not in EITHER:
            continue
        after = [other for other in found[at + 1 : at + 3] if other not in ARTICLES]
        if at and after and STOP.isdisjoint([found[at - 1], after[0]]):
            either = (found[at - 1], after[0])
    polar = not either and (not POLAR.isdisjoint(found[:1]) or "吗" in text)
    return Question(text, frozenset(found), either, polar, bool(ASKS_NUMBER.search(text)), bool(ASKS_NAME.search(text)))


def read(asked: Question, answer: str) -> AnswerKey | None:
    """Read what an answer says; None where it says nothing."""
    if len(answer) > HEAD_CHARS + TAIL_CHARS:
        answer = f"{answer[:HEAD_CHARS]}\n{answer[-TAIL_CHARS:]}"
    folded = normalize.fold(answer).strip()
    if not folded:
        return None
    stated = normalize.stated(folded)
    letter, body = normalize.choice(folded if stated is None else stated, asked.text)
    if len(body) <= SHORT_CHARS:
        body = CONTRAST.sub("", INITIALS.sub(r"\1", body))
    found = normalize.tokens(body) or [body or letter]
    verdict = normalize.yes_no(body)
    if verdict:
        found = found[1:] or found
    elif asked.polar and asked.words.issuperset(set(found) - STOP - NEGATIONS):
        verdict = "yes" if NEGATIONS.isdisjoint(found) else "no"
    key = content(asked, found)
    stems = frozenset([word[:STEM_CHARS] for word in key])
    if stated is None and (len(found) > SHORT_WORDS or len(body) > SHORT_CHARS):
        number = _conclusion(body, found) if asked.number else ""
        numbers = frozenset([word for word in key if word[0] <= "9"])
        return AnswerKey(False, letter, verdict, "", "", number, numbers, frozenset(), stems, False, False, ())
    side = next((word for word in found if word in asked.either), "")
    numbers = frozenset(fresh := _fresh_numbers(asked, found))
    words = frozenset([word[:-1] if len(word) > 3 and word[-1] == "s" else word for word in key])
    negated = not NEGATIONS.isdisjoint(found)
    symbols = tuple(sorted(symbol.strip() for symbol in SYMBOL.findall(body.rpartition("=")[2]))) if fresh else ()
    first, number = (fresh[0], fresh[-1]) if fresh else ("", "")
    arithmetic = bool(fresh and ARITHMETIC.search(body))
    return AnswerKey(True, letter, verdict, side, first, number, numbers, words, stems, negated, arithmetic, symbols)


def agree(asked: Question, one: AnswerKey | None, other: AnswerKey | None) -> bool:
    """Say whether two answers to the question agree; symmetric, and never true of an empty answer."""
    if one is None or other is None:
        return False
    if one is other:
        return True
    if one.choice and other.choice:
        return one.choice == other.choice
    if one.verdict and other.verdict:
        return one.verdict == other.verdict
    if one.side and other.side:
        return one.side == other.side
    if one.short and other.short:
        return _agree_short(asked, one, other)
    if one.short or other.short:
        return _agree_mixed(one, other) if one.short else _agree_mixed(other, one)
    if one.number and other.number:
        return one.number == other.number
    fewer = min(len(one.numbers), len(other.numbers))
    if fewer > 1 and 2 * len(one.numbers & other.numbers) < fewer:
        return False  # the same story with other figures is another story
    return len(one.stems & other.stems) >= LONG_OVERLAP * min(len(one.stems), len(other.stems))


def contradict(asked: Question, one: AnswerKey | None, other: AnswerKey | None) -> bool:
    """Say whether two answers disagree on something both of them say: the letter, yes or no, the number, the name."""
    if one is None or other is None or agree(asked, one, other):
        return False
    decided = (one.choice and other.choice) or (one.verdict and other.verdict) or (one.number and other.number)
    return bool(decided) or (one.short and other.short)


def content(asked: Question, found: list[str]) -> set[str]:
    """Return the words that carry the answer: not stop words, not the question's own, as far as others are left.

    Where the question names the alternatives, its own words are the answer.
    """
    words = set(found)
    echo = frozenset() if asked.either else asked.words
    return (words - STOP - echo) or (words - echo) or words


def _agree_short(asked: Question, one: AnswerKey, other: AnswerKey) -> bool:
    if one.number and other.number and not _mere_mention(asked, one, other):
        return one.symbols == other.symbols and _same_number(one, other)
    ours, theirs = one.words, other.words
    if asked.name and _names(one) and _names(other):
        ours, theirs = ours - one.numbers, theirs - other.numbers
    shared = len(ours & theirs)
    fewer, more = sorted((len(ours), len(theirs)))
    if one.negated != other.negated and shared + 1 >= more:
        return False
    # With few words, half of them is a shared family name or "New"; with more it is a sentence.
    return shared > SHORT_OVERLAP * fewer or (fewer >= 4 and shared == SHORT_OVERLAP * fewer)


def _same_number(one: AnswerKey, other: AnswerKey) -> bool:
    """Compare results; where nothing is worked out (`=`, `+`), a number alone may also be the first of the other's."""
    if one.arithmetic or other.arithmetic:
        return one.number == other.number
    if len(one.numbers) == 1 or len(other.numbers) == 1:
        return one.number in (other.first, other.number) or other.number in (one.first, one.number)
    return one.number == other.number and (one.numbers <= other.numbers or one.numbers >= other.numbers)


def _agree_mixed(short: AnswerKey, long: AnswerKey) -> bool:
    if short.number and long.number:
        return short.number == long.number
    if short.number and long.numbers:
        return short.number in long.numbers
    return len(short.stems & long.stems) > SHORT_OVERLAP * len(short.stems)


def _mere_mention(asked: Question, one: AnswerKey, other: AnswerKey) -> bool:
    """Say whether both answers only happen to contain numbers: a name is asked for, or both talk and none is."""
    if asked.name:
        return _names(one) and _names(other)
    return not asked.number and min(len(one.words), len(other.words)) > TALK_WORDS


def _names(gist: AnswerKey) -> bool:
    return len(gist.words) > len(gist.numbers)


def _fresh_numbers(asked: Question, found: list[str]) -> list[str]:
    """Return the numbers in order, without the question's own as far as others are left; words count to twelve."""
    numbers = [word for word in found if normalize.is_number(word)]
    if not numbers:
        numbers = [
            str(normalize.COUNT[word])
            for word in found
            if word in normalize.COUNT and (word != "one" or len(found) < 3)
        ]
    return [number for number in numbers if number not in asked.words] or numbers


def _conclusion(folded: str, found: list[str]) -> str:
    """Return the last number of the last sentence, if that sentence has one."""
    last = SENTENCE_BREAK.split(folded[-TAIL_CHARS:].rstrip())[-1]
    if not normalize.DIGIT.search(last):
        return ""
    if len(last) < len(folded):
        found = normalize.tokens(last)
    return next((word for word in reversed(found) if normalize.is_number(word)), "")
