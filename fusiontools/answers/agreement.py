"""Read a question, and say whether two short answers to it, in words, say the same."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

from fusiontools.answers import normalize
from fusiontools.answers.patterns import compile_later

#: What is read of a question: its end.
QUESTION_CHARS = 2_000
#: Share of the smaller answer's words that must be shared, measured on the labelled pairs of the tests.
OVERLAP, SENTENCE_WORDS = 0.5, 4
#: Share of all words in which texts that are nearly the same differ at most.
NEARLY = 0.2

NEGATIONS = frozenset({"not", "never", "neither", "nor", "without", "nicht", "kein", "keine", "nie", "jamais", "pas"})
NEGATIONS |= {"nunca", "nao", "не", "нет"}
STOP_TEXT = """
a an the this that these those is are was were be been being am do does did has have had it its they them their he she
his her i we you your my our of in on at to by for with from as and if so then than there here which who what when where
how why will would can could should may might must ca wo ll re ve st nd rd th one also just very about into over such
some any all each more most other only both but however between percent per approximately answer
der das und ist ein eine einer dem des zu von fur auf sich es sind le la les et est une un dans pour que qui el los las
de en y por para del lo se os da um uma il di che и в на что это из
"""
STOP = frozenset(STOP_TEXT.split())
ARTICLES = frozenset({"a", "an", "the", "ein", "eine", "der", "die", "das", "un", "une", "una", "le", "la", "el"})
EITHER = frozenset({"or", "oder", "ou", "o", "или"})
#: Words with which an English question asks for yes or no.
POLAR_TEXT = "is are was were am do does did can could will would should may might must has have had"
POLAR = frozenset(POLAR_TEXT.split())
TWO_NUMBERS = compile_later(r"[0-9][^0-9]{1,200}[0-9]")
ASKS_NUMBER = compile_later(
    r"how (?:many|much|old|long|far)|calculate|wie ?viel|combien|cuant|quant|сколько|多少|几|いくつ"
)
#: One of these stands in every question in ASCII that the pattern finds; a search for a text takes a fiftieth of it.
NUMBER_HINTS = ("how ", "calculate", "wie", "combien", "quant", "cuant")
NAME_WORDS = frozenset(["who", "whom", "whose", "where", "wer", "wo", "qui", "quien", "donde", "quem", "chi"])
ASKS_NAME = compile_later(r"\b(?:who|whom|whose|where|wer|wo|qui|quien|donde|quem|chi|кто|где)\b|谁|哪里|誰|どこ")
FACT_WORDS_TEXT = "what which when was wann welche welcher welches quel quelle quand cual cuando qual quando"
FACT_WORDS = frozenset(FACT_WORDS_TEXT.split())
#: A question with one short answer, however much is written around it.
ASKS_FACT = compile_later(
    r"\b(?:what|which|when|was ist|wann|welche[rs]?|quel(?:le)?|quand|cual|cuando|qual|quando|какой|какая|когда)\b"
    r"|什么|何|いつ"
)
CONTRAST = compile_later(r", (?:and )?not [^,.;]{1,40}")
INITIALS = compile_later(r"\b([^\W\d])\.(?=[^\W\d]\b)")
#: What names several things, and so is no bridge between them.
SEVERAL = compile_later(r"[,;/&]|\b(?:and|or|und|oder|et|ou|y|o|и|или)\b")
FORMULA = compile_later(r"\b\w++ ?[-+*/^<>=] ?\w+")
FORMULA_SIGNS = "-+*/^<>="
FORMULA_SIGN = compile_later(f"[{FORMULA_SIGNS}]")


class Question(NamedTuple):
    """What the comparison needs to know of the question."""

    text: str
    words: frozenset[str]
    either: tuple[str, ...]
    polar: bool
    number: bool
    name: bool
    fact: bool

    @property
    def closed(self) -> bool:
        """Say whether one short result is wanted."""
        return bool(self.either) or self.polar or self.number or self.name or self.fact


class Saying(NamedTuple):
    """What a short answer says in words."""

    #: Which of the question's alternatives, or yes or no.
    side: str
    words: frozenset[str]
    numbers: frozenset[str]
    negated: bool
    several: bool


# A grade of each of its answers asks anew.
@functools.lru_cache(maxsize=16)
def ask(question: str) -> Question:
    """Read the question once for all its answers; of a long one, the end."""
    text = normalize.fold(question[-QUESTION_CHARS:])
    found = normalize.tokens(text)
    words = frozenset(found)
    either: tuple[str, ...] = ()
    for at, word in enumerate(found if not EITHER.isdisjoint(words) else ()):
        if word not in EITHER:
            continue
        after = [other for other in found[at + 1 : at + 3] if other not in ARTICLES]
        if at and after and STOP.isdisjoint([found[at - 1], after[0]]):
            either = (found[at - 1], after[0])
    polar = not either and (not POLAR.isdisjoint(found[:1]) or "吗" in text)
    number = _asks_number(text)
    name = may_hold(text, words, NAME_WORDS) and ASKS_NAME.search(text) is not None
    fact = may_hold(text, words, FACT_WORDS) and ASKS_FACT.search(text) is not None
    return Question(text, words, either, polar, number, name, fact)


def may_hold(text: str, found: frozenset[str], wanted: frozenset[str]) -> bool:
    """Say whether one of these words may stand in a folded text: no pattern that needs one is searched for in vain.

    Args:
        found: the words of the text; of one that is not in ASCII they do not tell.
    """
    return not (text.isascii() and found.isdisjoint(wanted))


def _asks_number(text: str) -> bool:
    if normalize.has_digit(text) and TWO_NUMBERS.search(text):
        return True
    hinted = not text.isascii() or any(map(text.__contains__, NUMBER_HINTS))
    return hinted and ASKS_NUMBER.search(text) is not None


def say(asked: Question, piece: str) -> Saying:
    """Read a folded piece of text without Markdown."""
    whole = INITIALS.sub(r"\1", piece)
    text = CONTRAST.sub("", whole) or whole
    found = normalize.tokens(text) or [text]
    verdict = normalize.yes_no(text)
    found = (found[1:] or found) if verdict else found
    side = next((word for word in found if word in asked.either), verdict)
    key = content(asked, found)
    words = frozenset([word[:-1] if len(word) > 3 and word[-1] == "s" else word for word in key])
    numbers = frozenset(_fresh_numbers(asked, found))
    return Saying(side, words, numbers, not NEGATIONS.isdisjoint(found), bool(SEVERAL.search(text)))


def alike(asked: Question, one: Saying, other: Saying) -> bool:
    """Say whether two answers say the same; symmetric.

    The words of one are among those of the other, or most words are shared: with few words, half of them is a shared
    family name or "New"; with more, a sentence. Where one word only stands for another, it is the one that matters.
    """
    if one.side and other.side:
        return one.side == other.side
    ours, theirs = one.words, other.words
    if asked.name and ours - one.numbers and theirs - other.numbers:
        ours, theirs = ours - one.numbers, theirs - other.numbers
    elif one.numbers and other.numbers and not (one.numbers <= other.numbers or other.numbers <= one.numbers):
        return False
    shared = len(ours & theirs)
    fewer, more = sorted((len(ours), len(theirs)))
    if (one.negated != other.negated and shared + 1 >= more) or shared + 1 == fewer == more:
        return False
    return shared > OVERLAP * fewer or (fewer >= SENTENCE_WORDS and shared == OVERLAP * fewer)


def cluster(asked: Question, sayings: Mapping[str, Saying]) -> list[list[str]]:
    """Group the keys of answers that say the same, whatever their order.

    Sameness is carried over, but not by an answer that names several things: it joins the one group that it agrees
    with, and stands alone where there are two.
    """
    plain = _linked(asked, {key: said for key, said in sayings.items() if not said.several})
    groups = [list(group) for group in plain]
    left: dict[str, Saying] = {}
    for key in (key for key, said in sayings.items() if said.several):
        met = [at for at, group in enumerate(plain) if any(alike(asked, sayings[key], sayings[o]) for o in group)]
        if len(met) == 1:
            groups[met[0]].append(key)
        elif met:
            groups.append([key])
        else:
            left[key] = sayings[key]
    return groups + _linked(asked, left)


def _linked(asked: Question, sayings: Mapping[str, Saying]) -> list[list[str]]:
    groups: list[list[str]] = []
    for key, said in sayings.items():
        met = [group for group in groups if any(alike(asked, said, sayings[other]) for other in group)]
        groups = [group for group in groups if group not in met] + [[key, *(k for group in met for k in group)]]
    return groups


def nearly_same(one: frozenset[str], other: frozenset[str]) -> bool:
    """Say whether two texts have nearly the same words."""
    return len(one ^ other) <= NEARLY * len(one | other)


def facts(long: str, found: frozenset[str]) -> frozenset[str]:
    """Return what texts that are written alike may differ in: the numbers, negations and formulas of a folded one.

    Args:
        found: its words.
    """
    numbers = [word for word in found if normalize.is_number(word)]
    return (found & NEGATIONS).union(numbers, [formula.replace(" ", "") for formula in formulas(long)])


def formulas(text: str) -> list[str]:
    """Return what is written with a sign of mathematics between words or numbers."""
    first = FORMULA_SIGN.search(text)
    if first is None:
        return []
    last = max(map(text.rfind, FORMULA_SIGNS))
    # From the word before the first sign to the end of the one behind the last, each over one space at most.
    start, end = text.rfind(" ", 0, max(0, first.start() - 1)) + 1, text.find(" ", last + 2)
    return FORMULA.findall(text, start, len(text) if end < 0 else end)


def content(asked: Question, found: list[str]) -> set[str]:
    """Return the words that carry the answer: not stop words, not the question's own, as far as others are left.

    Where the question names the alternatives, its own words are the answer.
    """
    words = set(found)
    echo = frozenset() if asked.either else asked.words
    return (words - STOP - echo) or (words - echo) or words


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
