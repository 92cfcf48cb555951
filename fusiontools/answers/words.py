"""Read a letter, a verdict, or the words themselves from a result."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fusiontools.answers import agreement, normalize
from fusiontools.answers.extract import Result, strip_markdown
from fusiontools.answers.numbers import ASSIGNED, BRACKETED_COMMA, spell, with_iso_dates
from fusiontools.answers.patterns import compile_later

LONE_LETTER = compile_later(r"\b[a-z]\b")
MARKER = compile_later(r"(?<![\w.])[(\[*]{0,3}([a-z])[)\].:*]{1,3}\s")
#: One of these stands where two options are listed.
SECOND_MARKS = ("b)", "b]", "b.", "b:", "b*")
LETTERS = compile_later(r"\W{0,4}([a-j](?:\W{0,3}(?:,|\band\b|&|/)\W{0,3}[a-j]\b){1,9})\W{0,4}")
NAMED_LETTER = compile_later(
    r"(?:\b(?:option|choice|choose|pick|select|say|go with)\W{1,3}|(?<![\w(])\()([a-z])"
    r"(?=[)\].,;:\"'!]|\s*$| (?:because|since|is)\b| -)"
)
#: "(B) and not (C)": the other one is named only to be set aside.
SET_ASIDE = compile_later(r" (?:(?:and|but) not|rather than|instead of|over) (?:option |choice )?[(\[]?[a-j]\b[)\]]?")
SAID_LETTER = compile_later(r"\b(?:it|is|be|so) ([a-j])(?=[)\].,;:\"'!]|\s*$| (?:because|since)\b)")
#: `a` and `i` that are words: "I choose a book".
ARTICLE = compile_later(r"\W{0,4}(?:i (?:choose|pick) |option |choice |answer )?[ai] (?!(?:because|since|is)\b)\w")
LEADING_LETTER = compile_later(r"\W{0,4}([a-j])\b(?: ?[-,:] | (?=is\b|because\b))")
#: The letter that an answer begins with.
OPENING = compile_later(
    r"\W{0,4}(?:(?:option|choice|answer|i (?:would )?(?:choose|pick|say)) )?[(\[*]{0,3}\b([a-z])\b"
    r"(?:([)\].:*]{1,4}|(?= is\b| because\b| ?[-,] ))|$)\s*"
)
#: Where a sentence turns from one option to another, and what says of an option that it is not the one.
TURN = compile_later(
    r"(?<=[.;!?])\s|[,;]?\s(?:but|however|yet|while|whereas|although|though)\b,?\s"
    r"|\s(?=(?:so|thus|hence),? )|,\s"
)
REJECTED = compile_later(
    r"\W{0,4}(?:it (?:is )?|the answer (?:is )?|(?:and|so|i think|while|although) ){0,2}"
    r"(?:not (?:option |choice |answer )?\(?[a-j]\)?\W{0,4}$"
    r"|(?:option |choice |answer )?\(?([a-j])\)?(?: is|( ?[-:])) (?:(?:also|clearly|definitely|just|simply) )?"
    r"(incorrect|wrong|false|no\b|not\b|out\b|tempting|close\b|eliminated|ruled out|too\b|implausible|invalid))"
)
SPOKEN_VERDICT = compile_later(
    r"\W{0,9}(yes|true|no|false)\b(?=, | (?:it|they|he|she|this|that|there|because|since|you|we|i)\b)"
)
#: The same, of a question for yes or no only.
PLAIN_VERDICT = compile_later(
    r"\W{0,4}(?:(nope|nah|not at all|absolutely not|definitely not|certainly not|of course not)"
    r"|(?:yep|yeah|yup|absolutely|definitely|certainly|of course|indeed|correct))(?:[.,!;]|$)"
)

COPULAS = frozenset({"is", "are", "was", "were", "be", "equals", "called", "named", "it", "ist", "est", "es", "sind"})
COPULAS |= {"by", "in", "at", "on", "think", "believe", "say"}
TO_BE = frozenset({"is", "are", "was", "were", "be"})
LEADING_WORDS = (
    COPULAS | agreement.ARTICLES | {"that", "this", "answer", "final", "correct", "result", "i", "would", "most"}
)
LEADING_WORDS |= {"likely", "probably"}
#: What stands before a colon and is no part of the answer: "Label: spam".
TITLE = compile_later(r"((?:[^\W\d_]+ )?[^\W\d_]+): (?=\w)")
TITLES = frozenset({"label", "class", "category", "classification", "result", "output", "verdict", "conclusion"})
#: "red, yellow, and blue" lists the same as "red, yellow, blue".
LAST_ITEM = compile_later(r", (?:and|or) ")
#: The letter of a version number.
VERSION = compile_later(r"^v(?=\d)")
FACTORIAL = compile_later(r"(?:[\d.,]{1,9}|[a-z]|\([^()]{1,40}\))\s?![\s.]{0,3}")
NEGATED = compile_later(r"!\s?(?=[\w(])")
COPULA_END = compile_later(r"(?<=\w)(?:です|でした|입니다|이에요|예요)$")
#: Signs that stand in formulas only.
FORMULA = "≤≥∧∨¬∀∃∈⊂⊃⊆⊇∪∩⌊⌋⌈⌉∛∜→←↔⇒⇐⇔∝∅∂∇∫∑∏"
_SIGNS = rf"\^<>=±|∞{FORMULA}"
_NAMED = r"(?<=\bp)i\b|(?<=\bsq)rt\b"
#: What stands before the sign that is found, over one space at most.
_LETTER, _DIGIT, _CLOSED, _WORD = (
    rf"(?:(?<={each}.)|(?<={each}\s.))" for each in (r"\b[a-z]", r"[\d)]", r"[)\]]", r"[\w)\]]")
)
#: Signs without which two different answers would read the same: x+1 and x-1, C++ and C#, (1, 2] and [1, 2). The sign
#: stands first: a search goes from one to the next.
MATH_SIGN = compile_later(
    rf"[-+*/!#pq\\{_SIGNS}](?:(?<=[\\{_SIGNS}])|{_NAMED}|(?<=(?<!\w)-)\s?(?:sin|cos|tan|log|ln|exp|sqrt|pi|[a-z])\b"
    rf"|(?<=-)(?:{_LETTER}\s?\d|(?:{_LETTER}|{_DIGIT})\s?(?:[a-z]\b|\())|(?<=(?<!\w)!)\s?\w|(?<=!)(?:{_LETTER}|{_DIGIT})"
    rf"|(?<=[+*]){_WORD}\s?[\w(\[-]|(?<=\w[+#])"
    rf"|(?<=/)(?:{_LETTER}|{_CLOSED}|{_DIGIT}\s?[a-z(\[]|(?<!\d/)\s?[\d(\[]|\s?[a-z]\b))"
)
FORMULA_KEY = compile_later(
    rf"[-+*/#()\[\]!pq{_SIGNS}](?:(?<=[+*#()\[\]!{_SIGNS}])|{_NAMED}|(?<=\S-)|(?<=-)(?!\d)|(?<!\d/)(?<=/)|(?<=/)(?!\d))"
)
MATH_TOKEN = compile_later(rf"{normalize.TOKEN_TEXT}|[-+*/^<>=±|∞#()\[\]!{FORMULA}]")


def letter_of(result: Result, options: Mapping[str, str], question: str) -> str | None:
    """Return the letter that an answer chooses, by name, or by the words of the option; several if it says so."""
    if not options and not any(map(LONE_LETTER.search, (*result.all_pieces, result.opening))):
        return None
    if opening := _opening(result, options):
        return opening
    pieces = [SET_ASIDE.sub("", agreement.CONTRAST.sub("", strip_markdown(piece))) for piece in result.all_pieces]
    for at, piece in enumerate(pieces):
        clauses = [clause for clause in TURN.split(piece) if clause]
        kept = [clause for clause in clauses if not _rejects(clause, options, several=len(clauses) > 1)]
        if len(kept) < len(clauses):
            # Some options are rejected: the one that is left counts, else none.
            chosen = {letters for clause in kept if (letters := _letters(clause, options, question))}
            if len(chosen) == 1:
                return chosen.pop()
            pieces[at] = "" if chosen else " ".join(kept)
    for piece in filter(None, pieces):
        if letters := _letters(piece, options, question):
            return letters
    for piece in pieces if options else ():
        found = _words(piece)
        named = [letter for letter, option in options.items() if option and f" {option} " in f" {' '.join(found)} "]
        # Of "New York" and "York", the longer one is meant.
        named = [one for one in named if not any(options[one] in options[other] for other in named if other != one)]
        if len(named) == 1 and agreement.NEGATIONS.isdisjoint(set(found) - set(options[named[0]].split())):
            return named[0].upper()
    return None


def _opening(result: Result, options: Mapping[str, str]) -> str | None:
    """Return the letter that the first of several lines gives, however others are discussed below it."""
    line = strip_markdown(result.opening)
    found = OPENING.match(line)
    if found is None or (options and found[1] not in options):
        return None
    letter, rest = found[1], line[found.end() :].strip(" *.")
    if not rest:
        return letter.upper() if options or len(set(result.labels)) > 1 else None
    last = OPENING.fullmatch(strip_markdown(result.closing).strip(" *."))
    if not options or (last and last[1] != letter) or _rejects(line, options, several=False):
        return None
    said = _words(rest)
    if said != options[letter].split() and not agreement.NEGATIONS.isdisjoint(said):
        return None
    # All options are gone through, from the first one on: nothing is chosen yet.
    through = [*dict.fromkeys(result.labels)][:2] == [*options][:2]
    if letter == next(iter(options)) and through:
        return None if said != options[letter].split() or set(result.labels) >= set(options) else letter.upper()
    return letter.upper()


def options_of(question: str) -> dict[str, str]:
    """Return the options that a folded question lists, from letter to words; fewer than two are none."""
    if not any(map(question.__contains__, SECOND_MARKS)):
        return {}
    found: list[tuple[str, int, int]] = []
    for marker in MARKER.finditer(question):
        if len(found) < 26 and marker[1] == chr(ord("a") + len(found)):
            found.append((marker[1], marker.start(), marker.end()))
    ends = [start for _, start, _ in found[1:]] + [len(question)]
    texts = [question[start:end].strip().partition("\n")[0] for (_, _, start), end in zip(found, ends, strict=False)]
    options = {letter: " ".join(_words(text)) for (letter, _, _), text in zip(found, texts, strict=True)}
    return options if len(options) > 1 else {}


def verdict_of(result: Result, asked: agreement.Question) -> str | None:
    """Return `yes` or `no` where an answer opens with it, concludes with it, or denies or repeats the question."""
    for piece in (*filter(None, [result.first]), *result.pieces):
        text = strip_markdown(piece)
        spoken = SPOKEN_VERDICT.match(text)
        verdict = normalize.YES_NO[spoken[1]] if spoken else normalize.yes_no(text)
        if not verdict and asked.polar and (plain := PLAIN_VERDICT.match(text)):
            verdict = "no" if plain[1] else "yes"
        if not verdict and asked.polar:
            found = set(normalize.tokens(text))
            if asked.words.issuperset(found - agreement.STOP - agreement.NEGATIONS):
                verdict = "yes" if agreement.NEGATIONS.isdisjoint(found) else "no"
        if verdict:
            return verdict
    return None


def key_of(piece: str, asked: agreement.Question) -> str:
    """Return the words of a piece, or, of mathematics, its words and signs."""
    text = strip_markdown(piece)
    if (assigned := ASSIGNED.match(text)) and text[assigned.end() :].strip():
        text = text[assigned.end() :]
    if (titled := TITLE.match(text)) and (asked.words | TITLES).issuperset(titled[1].split()):
        text = text[titled.end() :]
    text = _trim(text)
    text = with_iso_dates(text if text.isascii() else COPULA_END.sub("", text))
    bracketed = text[:1] in ("(", "[") and text[-1:] in (")", "]") and "," in text
    if not bracketed and not MATH_SIGN.search(text):
        return " ".join(_words(text, asked))
    spaced = BRACKETED_COMMA.sub(", ", text) if bracketed else text
    found = [match[0] for match in MATH_TOKEN.finditer(spaced)]
    # A star with nothing before it is Markdown that is left over.
    while found[:1] == ["*"]:
        found = found[1:]
    spelled_out = [spell(normalize.canonical(token)) if normalize.is_number(token) else token for token in found]
    return _join(spelled_out, ", " if bracketed else " ")


def _join(found: list[str], between: str) -> str:
    """Write tokens of mathematics in a line, with nothing beside a sign."""
    key = ""
    for token in found:
        apart = key[-1:].isalnum() and (token[0].isalnum() or token[0] == "-" != token)
        key += f"{between if apart else ''}{token}"
    return key


def is_formula(key: str) -> bool:
    """Say whether a key is that of mathematics, which is the same only where it is written the same."""
    return FORMULA_KEY.search(key) is not None


def literal_of(piece: str, asked: agreement.Question) -> str:
    """Return the words of a piece with each number as it is spelled, for versions and codes."""
    words = [word.strip(".,;:!?\"'()[]") for word in strip_markdown(piece).split()]
    words = [VERSION.sub("", word) for word in words if any(map(str.isalnum, word))]
    words = _without_echo(words, asked) if words else []
    while len(words) > 1 and words[0] in asked.words:
        words = words[1:]
    return " ".join(words)


def _trim(text: str) -> str:
    """Return a text without the marks around it; the sign of a factorial or of a negation is none."""
    if FACTORIAL.fullmatch(text) or NEGATED.match(text):
        return text.rstrip(" \t.;,?:")
    return text.strip(" \t.;,!?:\"'。！？")


def _letters(piece: str, options: Mapping[str, str], question: str) -> str:
    """Return the letter, or the sorted letters, that a piece names; nothing where it names none, or one not offered."""
    found: set[str] = set()
    if several := LETTERS.fullmatch(piece):
        found = set(re.findall(r"\b[a-j]\b", several[1]))
    elif (letter := normalize.choice(piece, question)[0]) and not ARTICLE.match(piece):
        found = {letter}
    elif agreement.NEGATIONS.isdisjoint(piece.split()):
        found = set(NAMED_LETTER.findall(piece))
        if options and not found and (said := LEADING_LETTER.match(piece) or SAID_LETTER.search(piece)):
            found = {said[1]}
        found = found if len(found) == 1 else set()
    return ", ".join(sorted(found)).upper() if not options or options.keys() >= found else ""


def _rejects(clause: str, options: Mapping[str, str], *, several: bool) -> bool:
    """Say whether a clause says of an option that it is not the one; `B - False` may also give the option's text."""
    found = REJECTED.match(clause)
    if found is None:
        return False
    letter, marked, word = found.groups()
    return not marked or (several and not options.get(letter, "").startswith(word))


def _words(folded: str, asked: agreement.Question | None = None) -> list[str]:
    """Return the words that carry a text's meaning; scripts without spaces stay whole."""
    if normalize.UNSPACED_RUN.search(folded):
        words = [normalize.canonical(match[0]) for match in normalize.TOKEN.finditer(folded)]
    else:
        words = normalize.tokens(LAST_ITEM.sub(", ", folded))
    if asked is not None:
        words = _without_echo(words, asked)
    kept = [word for word in words[:-1] if word not in ("a", "an", "the")] + words[-1:]
    return [spell(word) if normalize.is_number(word) else word for word in kept]


def _without_echo(words: list[str], asked: agreement.Question) -> list[str]:
    """Return the words without `the capital of france is` before them, or `is the capital of france` after them."""
    kept = agreement.NEGATIONS.union(asked.either)
    echo = [
        (word in asked.words or word in LEADING_WORDS) and word not in kept and not normalize.is_number(word)
        for word in words
    ]
    if all(echo):
        # "The sentiment is positive", where the question offers that very word.
        said = len(words) - next((at for at, word in enumerate(reversed(words)) if word in TO_BE), len(words))
        return words[said:] or words
    start, end = echo.index(False), len(words) - echo[::-1].index(False)
    while start and words[start - 1] not in COPULAS:
        start -= 1
    # "Ada wrote it": a question for a name gives all but the name.
    while end < len(words) and words[end] not in COPULAS and not (asked.name and end < len(words) - 1):
        end += 1
    return words[start:end]
