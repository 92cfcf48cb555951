"""Read the one number that a piece of an answer gives, exactly, with its unit under one name; nothing is converted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from fractions import Fraction
from typing import NamedTuple

from fusiontools.answers import normalize
from fusiontools.answers.extract import strip_markdown
from fusiontools.answers.patterns import compile_later

SYMBOLS = "$€£¥₹"
#: Each unit with its other names.
UNIT_TEXT = """
km kilometer kilometre,m meter metre,cm centimeter centimetre,mm millimeter millimetre,nm nanometer nanometre,mi mile,
μm micrometer micrometre micron,ft foot feet,inch inches,yd yard,ha hectare,acre,kg kilogram kilo,g gram,mg milligram,
ton tonne,pound lb £ gbp,oz ounce,l liter litre,ml milliliter millilitre,s second sec,ms millisecond,min minute,
h hour hr,day,night,week,month,year yr,decade,century centuries,era,am,pm,bc bce,ad ce,% percent prozent,° degree deg,
°c celsius,°f fahrenheit,kelvin,$ dollar usd us$,€ euro eur,¥ yen jpy,₹ rupee rs rs. inr,cent,chf,kr krona krone kroner,
aud a$ au$,cad c$ ca$,nzd nz$,hkd hk$,sgd s$,brl r$,cny rmb yuan,w watt,kw kilowatt,megawatt,v volt,megavolt,ω ohm,
kω kiloohm,ma milliampere milliamp,ampere amp,hz hertz,khz kilohertz,mhz megahertz,ghz gigahertz,newton,kn kilonewton,
mn millinewton,meganewton,joule,kj kilojoule,megajoule,cal calorie,kcal kilocalorie,kb kilobyte,mb megabyte,gb gigabyte,
tb terabyte,kbit,mbit,gbit,tbit,db decibel,bar,psi,knot,mi/h mph,km/h kph kmh,person people
"""
UNITS = {name: group.split()[0] for group in UNIT_TEXT.split(",") for name in group.split()}
#: A currency or an era that stands before its number.
BEFORE = compile_later(
    r"(?<![\w$])(usd|us\$|eur|gbp|jpy|inr|rs\.?|chf|kr|aud|au?\$|cad|ca?\$|nzd|nz\$|hkd|hk\$|sgd|s\$|brl|r\$|cny|rmb|ad)"
    r" ?(-?\d[\d.,']{0,30}(?: ?(?:k|m|bn|(?:m|b|tr)illion)\b)?)"
)
NATIONAL = compile_later(
    r"\b(?:(australian)|(canadian)|(new zealand)|(hong kong)|(singapore)|us|u\.s\.|american) dollars?\b"
    r"|\b(swiss francs?)\b"
)
NATIONAL_UNITS = ("aud", "cad", "nzd", "hkd", "sgd", "chf")
DECADE = compile_later(r"\b(1\d\d0|20\d0)s\b")
UNIT_WORD = compile_later(r"[ -]?([a-zμω]+|[%$€£¥₹]|°[cf]?)([23]?)(?!\w)")
UNIT_PER = compile_later(r" ?(?:/|per\b) ?([a-z]+)\b")
SCALES = {**normalize.SCALE, "k": 3, "bn": 9}
MONEY_SCALES = {"m": 6, "b": 9, "mn": 6}
#: Words behind a number that are no unit.
NO_UNIT_TEXT = """
to in of on by at for from with and or but as if so than then that which who when while because since is are was were be
been has have had do does did will would can could may a an the this these it its they he she we you i not no only
more less fewer left remain remaining total altogether overall together each per every other different distinct possible
new old whole full later ago earlier long tall high wide away out up down over under here there after before about
approximately times time also therefore thus hence however plus minus squared cubed degrees all both st nd rd th
ones pi sqrt times units unit points point items item things thing
"""
NO_UNITS = frozenset(NO_UNIT_TEXT.split())


PART_TEXT = (
    "half:2 halve:2 third:3 quarter:4 fourth:4 fifth:5 sixth:6 seventh:7 eighth:8 ninth:9 tenth:10 hundredth:100"
)
PARTS = {name: int(size) for name, _, size in (each.partition(":") for each in PART_TEXT.split())}
_FEW = "|".join(normalize.COUNT)
FRACTION = compile_later(
    rf"\b(?:({_FEW}|\d{{1,3}}) and )?(a|{_FEW})[ -]({'|'.join(PARTS)})s?\b"
    r"(?! (?:past|to|hour|century|year|time)\b)"
)
HALF = compile_later(r"\W{0,4}half\W{0,4}")
MINUS = compile_later(r"\b(?:minus|negative) (?=[$€£¥₹]?\.?\d)")
SUBTRACTED = compile_later(r"[\d)%\]][^\d.,:;=]{0,20}$")


#: How sure it is that a number is the answer: nothing else stands there; the question does not mention it; neither.
ALONE, NEW, KNOWN = 2, 1, 0

COUNT_TEXT = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
TENS_TEXT = "twenty thirty forty fifty sixty seventy eighty ninety"
COUNTED = normalize.COUNT | {word: 13 + at for at, word in enumerate(COUNT_TEXT.split())}
COUNTED |= {word: 20 + 10 * at for at, word in enumerate(TENS_TEXT.split())}
_COUNTS = "|".join(COUNTED)
COUNT_RUN = compile_later(
    rf"\b(?:{_COUNTS})\b(?:(?:[ -]|(?<=hundred) and )(?:{_COUNTS}|hundred|thousand|million|billion)\b){{0,12}}"
)
#: Without this, a piece has no number.
HINT = compile_later(rf"\d|\b(?:half|hundred|{_COUNTS}|{'|'.join(PARTS)})")
MIXED = compile_later(r"(?<![\d.,/])(\d{1,6})(?: and)? {1,2}(\d{1,4})/(\d{1,4})(?![\d/])")
SPACED_SLASH = compile_later(r"(?<=\d) / (?=\d)")
SPACED = compile_later(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d.,]*\d)")
LONG_DECIMAL_COMMA = compile_later(r"(?<![\d.,])(\d{1,12}),(\d{4,12})(?![\d.,]*\d)")
BRACKETED_COMMA = compile_later(r"(?<=\d),(?=-?\d)")
PLUS = compile_later(r"(?<![\w)] )(?<![\w)])\+(?=[\d.])")
ASIDE = compile_later(r"[(\[][^()\[\]]{0,300}[)\]]")
SENTENCE_BREAK = compile_later(r"(?<=[.!?。！？])(?<!i\.e\.)(?<!e\.g\.)(?<!\bca\.)\s|(?<=[。！？])")
JOINED_ASSIGNMENT = compile_later(r"(?:\bor|\band|,|;) [a-z] ?=")
ASSIGNED = compile_later(r"\b[a-z] ?= ?")
ASKS_PERCENT = compile_later(
    r"\bpercentage|(?:what|which|how many|in|as a|as) (?:percent|%)|prozent|pourcentage|porcentaje"
)

POWERED_UNIT = compile_later(r"\b(square|cubic) ([a-z]{1,20}?)s?\b")
DEGREES = compile_later(r"(?:°|\bdegrees?) ?([cf])(?:elsius|ahrenheit)?\b")
INCHES = compile_later(r"(?<=\d) in(?=[.,;)]|$)")

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"((?:{'|'.join(MONTHS)})[a-z]{{0,6}})\.?"
DATE = compile_later(
    rf"\b(\d{{4}})[-/](\d\d?)[-/](\d\d?)\b|\b{_MONTH} (\d\d?)(?:st|nd|rd|th)?,? (\d{{4}})\b"
    rf"|\b(\d\d?)(?:st|nd|rd|th)?(?: of)? {_MONTH},? (\d{{4}})\b"
)
WEEKDAY = compile_later(
    rf"\b(?:mon|tues|wednes|thurs|fri|satur|sun)day,? (?=\d|(?:{'|'.join(MONTHS)})[a-z]{{0,6}}\.? \d)"
)

#: The shapes of what gives one number, where `¤` stands for each number with its unit.
LEAD_TEXT = (
    "about approximately approx roughly around exactly only just it there is are was were so the a an"
    " total result value of to in on by at equals us"
)
_LEAD = rf"\W{{0,4}}(?:(?:{'|'.join(LEAD_TEXT.split())})\b\W{{1,3}})*"
ONE = compile_later(rf"{_LEAD}¤(?:[ -][^\W\d_]+){{0,4}}[^\w¤]{{0,4}}")
RANGE = compile_later(rf"{_LEAD}(?:from )?¤(?: ?- ?| to )¤(?: [^\W\d_]+){{0,3}}[^\w¤]{{0,4}}")
BETWEEN = compile_later(rf"{_LEAD}between ¤ and ¤(?: [^\W\d_]+){{0,3}}[^\w¤]{{0,4}}")
SEVERAL = compile_later(rf"{_LEAD}[(\[{{]?¤(?:(?:[,;]? (?:and|or) |[,;] ?| ?& ?| )¤)+[)\]}}]?[^\w¤]{{0,4}}")
#: Expressions, inequalities, symbols: their value is not a number that stands there.
NO_NUMBER = compile_later(
    r"[+*^<>±∞\\≤≥∧∨¬∀∃∈∉⊂⊆∪∩⌊⌋⌈⌉∛∜→⇒⇔]|\b(?:sqrt|pi)\b|¤(?!(?:st|nd|rd|th)\b)[a-z]|[¤)] ?/|/ ?[¤(]"
)

FACTORIAL = compile_later(r"[\W_]{0,3}(?:\d{1,4}|\(\d{1,4}\))![\W_]{0,3}")
#: Behind this stands what a sentence concludes.
CUE = compile_later(
    r"\b(?:leav(?:es?|ing)|so|thus|hence|therefore|giv(?:es?|ing)|mak(?:es?|ing)|but|rather|instead|equals|then"
    r"|total of|totall?ing|result(?:s|ing)? in)\b"
)
#: One of these words stands in every piece in ASCII in which the pattern finds something.
CUE_WORDS_TEXT = """
leave leaves leaving so thus hence therefore give gives giving make makes making but rather instead equals then total
totaling totalling result results resulting
"""
CUE_WORDS = frozenset(CUE_WORDS_TEXT.split())
#: Words without which a sentence concludes nothing, or that may stand for a number themselves.
TELLING_WORDS = CUE_WORDS.union(PARTS, (f"{part}s" for part in PARTS))
DENIED = compile_later(r"\bnot (?:just |only )?(?=¤)")
#: Words with which a question asks for a year, or a date: nothing is counted there.
WHEN = frozenset({"when", "year"})
#: So many words in a row are no number with its unit, and no list of some.
PROSE = compile_later(r"(?:[^\W\d_]{2,}+[ ,;:.]++){12}")
#: The same in ASCII, in half the time.
ASCII_PROSE = compile_later(r"(?:[A-Za-z]{2,}+[ ,;:.]++){12}")
#: Words that may stand with a number that is alone, beside its unit, what is counted, and `TAIL_WORDS` behind it.
BESIDE_TEXT = """
and or from between per square cubic degree degrees celsius fahrenheit minus negative dollar dollars franc francs swiss
australian canadian new zealand hong kong singapore american
"""
BESIDE = frozenset(
    [*LEAD_TEXT.split(), *BESIDE_TEXT.split(), *UNITS, *(f"{unit}s" for unit in UNITS), *SCALES, *COUNTED]
)
TAIL_WORDS, WORDS_OF_NUMBER = 4, 2
DIGIT_RUN = compile_later("[0-9]+")
#: What marks a unit that is no known one.
THING = "?"
NOON = 12
#: Units that no bare number takes from others.
NEVER_ASSUMED = frozenset({"", "%", "era"})


class Quantity(NamedTuple):
    """A number in its canonical spelling, its unit or nothing, and how sure it is that it is the answer."""

    value: str
    unit: str
    grade: int
    #: Whether words like `so` or a sign like `=` say that it is what the sentence comes to.
    concluded: bool = False
    #: The same in another unit, as it stands in brackets behind: `29,032 ft (8,849 m)`.
    aside: tuple[str, str] = ("", "")


def read_conclusion(piece: str, asked: Collection[str]) -> Quantity | None:
    """Read the number that a folded piece of a long answer gives alone, or says that it comes to.

    Reading takes a tenth of a millisecond: most lines of prose do neither, and their words tell.
    """
    prose = ASCII_PROSE if piece.isascii() else PROSE
    if (prose.search(piece) and not may_conclude(piece)) or is_in_passing(piece):
        return None
    found = read(piece, asked, stated=False)
    return found if found and (found.concluded or found.grade == ALONE) else None


def may_conclude(piece: str) -> bool:
    """Say whether a folded piece may say what it comes to: most of them do not, and their words tell."""
    if "=" in piece:
        return True
    hinted = not piece.isascii() or not CUE_WORDS.isdisjoint(normalize.ascii_words(piece))
    return hinted and CUE.search(piece) is not None


def is_in_passing(piece: str) -> bool:
    """Say whether the last sentence with a number concludes nothing, and has more words than stand beside a lone one.

    That it is false says nothing: words behind a bracket are not counted, a fraction in words makes it false.
    """
    text = strip_markdown(_counting(piece)[-1])
    if "=" in text or not text.isascii() or not TELLING_WORDS.isdisjoint(normalize.ascii_words(text)):
        return False
    found = normalize.ascii_words(text.partition("(")[0].partition("[")[0])
    most = TAIL_WORDS + WORDS_OF_NUMBER * len(DIGIT_RUN.findall(piece))
    return len([word for word in found if word not in BESIDE and len(word) > 1 and word.isalpha()]) > most


def _counting(piece: str) -> list[str]:
    """Return the sentences with a number, or all of a piece that has none."""
    return [each for each in SENTENCE_BREAK.split(piece) if normalize.DIGIT.search(each)] or [piece]


def read(piece: str, asked: Collection[str], *, stated: bool) -> Quantity | None:
    """Read the number that a folded piece gives: alone, right of the last `=`, as a range, in a list, or in a sentence.

    Args:
        asked: the words of the question; of several numbers in a sentence, its own are no answer.
        stated: whether the piece is said to be the answer. Then its first number counts, else the last one.
    """
    if FACTORIAL.fullmatch(piece):
        return None
    text = _countable(piece if stated else _counting(piece)[-1])
    if "year" in asked:
        text = DATE.sub(lambda match: match[1] or match[6] or match[9], text)
    if JOINED_ASSIGNMENT.search(text):
        text = ASSIGNED.sub("", text)
    alternatives = " or " in text
    _, equals, right = text.rpartition("=")
    equation = bool(equals and normalize.DIGIT.search(right))
    text = right if equation else text
    whole, outside = text, ASIDE.sub(" ", text)
    text = outside if normalize.DIGIT.search(outside) else BRACKETED_COMMA.sub(", ", text)
    aside = ("", "")
    if text is outside and len(bracketed := ASIDE.findall(whole)) == 1:
        aside = next((each for each in _shape(bracketed[0], asked)[1] if each[1] in UNITS), aside)
    shape, found = _shape(text, asked)
    by_zero = any("/" in value and normalize.rational(value) is None for value, _ in found)
    if not found or by_zero or DATE.search(text) or NO_NUMBER.search(shape):
        return None
    if len(found) == 2 and (RANGE.fullmatch(shape) or BETWEEN.fullmatch(shape)):
        return Quantity(" to ".join(spell(value) for value, _ in found), found[1][1] or found[0][1], ALONE)
    things = {unit for _, unit in found if unit.startswith(THING)}
    if len(found) > 1 and len(things) == 1:
        found = [(value, "" if unit in things else unit) for value, unit in found]
    several = len(set(found)) > 1
    # In square brackets, numbers are an interval or a list; which of its ends belongs to it, only the brackets say.
    if several and SEVERAL.fullmatch(shape) and "[" not in shape and "]" not in shape:
        told = [_with_unit(*each) for each in found]
        return Quantity(", ".join(sorted(told, key=_size) if alternatives else told), "", ALONE)
    new = [each for each in found if each[0] not in asked]
    value, unit = (new or found)[0] if stated else _concluded(shape, found, new)
    alone = not several and (equation or ONE.fullmatch(shape))
    concluded = equation or CUE.search(shape) is not None
    return Quantity(value, unit, ALONE if alone else NEW if new else KNOWN, concluded, aside)


def _concluded(shape: str, found: list[tuple[str, str]], new: list[tuple[str, str]]) -> tuple[str, str]:
    """Return the new number behind the last word that concludes, else the first new one of the sentence.

    What comes after the first number mostly qualifies it: `3 left, out of 5`, `3 days at 8 hours a day`.
    """
    # "not 391, it is 401"
    denied = {shape.count("¤", 0, match.end()) for match in DENIED.finditer(shape)}
    wanted = set(new)
    said = [at for at, each in enumerate(found) if (not new or each in wanted) and at not in denied]
    if not said:
        return (new or found)[0]
    for cue in reversed(list(CUE.finditer(shape))):
        before = shape.count("¤", 0, cue.end())
        if before <= said[-1]:
            return found[next(at for at in said if at >= before)]
    return found[said[0]]


def keys_of(numbers: Sequence[Quantity | None], question: str) -> list[str | None]:
    """Return one key for each number, now that it is known in which units the others count."""
    # Where all count the same thing, whether they name it makes no difference.
    if len({number.unit for number in numbers if number and number.unit}) == 1:
        numbers = [number._replace(unit=number.unit.partition(THING)[0]) if number else None for number in numbers]
    named = Counter(number.unit for number in numbers if number)
    named.update(number.aside[1] for number in numbers if number and number.aside[1])
    percent = named["%"] > 0 and ASKS_PERCENT.search(question) is not None
    others = {unit: count for unit, count in named.items() if unit not in NEVER_ASSUMED}
    leading = [unit for unit, count in others.items() if count == max(others.values())]
    assumed = "%" if percent else leading[0] if len(leading) == 1 else ""
    keys: list[str | None] = []
    for number in numbers:
        if number is None:
            keys.append(None)
        elif number.unit != assumed and number.aside[1] == assumed != "":
            keys.append(_with_unit(*number.aside))
        elif number.unit == "%" and named[""] and not percent and (pair := normalize.rational(number.value)):
            share = Fraction(*pair) / 100
            keys.append(spell(f"{share.numerator}/{share.denominator}"))
        else:
            hour, clock, _ = number.value.partition(":")
            alone = "," not in number.value and (not clock or (assumed in ("am", "pm") and int(hour) <= NOON))
            keys.append(_with_unit(number.value, number.unit or (assumed if alone else "")))
    return keys


def spell(number: str) -> str:
    """Return a canonical number as people write it: 0.5 for 1/2, but 1/3."""
    top, _, bottom = number.partition("/")
    if len(number) > 60 or not (top.lstrip("-").isdecimal() and bottom.isdecimal() and int(bottom)):
        return number
    for places in range(13):
        if 10**places % int(bottom) == 0:
            digits = str(abs(int(top)) * 10**places // int(bottom)).zfill(places + 1)
            whole, decimals = digits[: len(digits) - places], digits[len(digits) - places :]
            return ("-" if top[0] == "-" else "") + (f"{whole}.{decimals}" if decimals else whole)
    return number


def with_iso_dates(folded: str) -> str:
    """Return a folded text in which `July 20, 1969` and `20 July 1969` are `1969-07-20`."""
    return DATE.sub(_iso, WEEKDAY.sub("", folded)) if normalize.has_digit(folded) else folded


def _iso(match: re.Match[str]) -> str:
    if match[1]:
        year, month, day = match[1], match[2], match[3]
    elif match[6]:
        year, month, day = match[6], match[4], match[5]
    else:
        year, month, day = match[9], match[8], match[7]
    number = int(month) if month.isdecimal() else MONTHS.index(month[:3]) + 1
    return f"{year}-{number:02}-{int(day):02}"


def _countable(piece: str) -> str:
    """Return a piece with each number in one piece of its own, and each unit in one word."""
    text = POWERED_UNIT.sub(lambda match: f"{match[2]}{2 if match[1] == 'square' else 3}", strip_markdown(piece))
    text = DEGREES.sub(lambda match: f"°{match[1]}", INCHES.sub(" inch", text))
    text = _with_fractions(_with_currency_behind(text))
    if not normalize.DIGIT.search(text):
        # "One apple" counts; "no one" and "the one in Rome" do not.
        counts = len(text.split()) < 4
        text = COUNT_RUN.sub(
            lambda match: _count_words(match[0]) if match[0] != "one" or (counts and not match.start()) else "one", text
        )
    text = _with_minus(text)
    text = MIXED.sub(_improper, SPACED_SLASH.sub("/", PLUS.sub("", text)))
    text = SPACED.sub(lambda match: match[0].replace(" ", ""), text)
    return LONG_DECIMAL_COMMA.sub(r"\1.\2", text)


def _count_words(words: str) -> str:
    """Return `two hundred and five` in digits."""
    total = current = 0
    for word in re.findall("[a-z]+", words):
        if word in COUNTED:
            current += COUNTED[word]
        elif word == "hundred":
            current *= 100
        elif word in normalize.SCALE:
            total, current = total + current * 10 ** normalize.SCALE[word], 0
    return str(total + current)


def _improper(match: re.Match[str]) -> str:
    whole, top, bottom = map(int, match.groups())
    return f"{whole * bottom + top}/{bottom}" if top < bottom else match[0]


def _shape(text: str, asked: Collection[str]) -> tuple[str, list[tuple[str, str]]]:
    """Return a text with `¤` in the place of each number and its unit, and these in order."""
    shape: list[str] = []
    found: list[tuple[str, str]] = []
    at = 0
    for match in normalize.TOKEN.finditer(text):
        token = match[0]
        if match.start() < at or not normalize.is_number(token):
            continue
        before = text[at : match.start()]
        marks = token[1:2], before.rstrip()[-1:]
        symbol = next((UNITS[mark] for mark in marks if mark and mark in SYMBOLS), "")
        tens, unit, at = _unit_at(text, match.end(), symbol, asked)
        value = normalize.canonical(token, tens)
        values = [value] if value != token or "," not in token else list(map(normalize.canonical, token.split(",")))
        shape += [before.rstrip(f" {SYMBOLS}") + " " if symbol else before, ", ".join("¤" * len(values))]
        found += [(each, unit) for each in values]
    return "".join(shape) + text[at:], found


def _unit_at(text: str, at: int, symbol: str, asked: Collection[str]) -> tuple[int, str, int]:
    """Return the power of ten and the unit that stand behind a number, and where they end.

    An unknown word is a thing that is counted, unless the question has it: `3 apples` is `3` there.
    """
    tens, unit = 0, symbol
    things = WHEN.isdisjoint(asked)
    while match := UNIT_WORD.match(text, at):
        word = match[1]
        scale = SCALES.get(word) or (MONEY_SCALES.get(word) if symbol else None)
        if scale and not tens:
            tens, at = scale, match.end()
            continue
        if known := _unit_of(word):
            unit, at = unit or known + match[2], match.end()
        elif things and not unit and match[0] == f" {word}" and word not in asked and (thing := _counted_thing(word)):
            unit, at = f"{THING}{thing}", match.end()
        break
    if unit and (per := UNIT_PER.match(text, at)):
        unit, at = f"{unit}/{_unit_of(per[1])}".rstrip("/"), per.end()
    return tens, unit, at


def _size(key: str) -> Fraction:
    pair = normalize.rational(key.split(" ", maxsplit=1)[0].rstrip("%"))
    return Fraction(*pair) if pair else Fraction(0)


def _with_unit(value: str, unit: str) -> str:
    return f"{spell(value)}{'' if unit == '%' else ' '}{unit.removeprefix(THING)}".rstrip()


def _unit_of(word: str) -> str:
    """Return the one name of a known unit, else nothing."""
    return UNITS.get(word) or (UNITS.get(word[:-1], "") if word[-1] == "s" and len(word) > 2 else "")


def _counted_thing(word: str) -> str:
    """Return the singular of an unknown word behind a number, which is its unit as it stands; nothing of a filler."""
    if len(word) < 2 or word in NO_UNITS:
        return ""
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word


def _with_currency_behind(text: str) -> str:
    """Return a folded text in which `CHF 5` is `5 chf`, and a currency of several words one word."""
    text = NATIONAL.sub(_national, DECADE.sub(r"\1 era", text))
    return BEFORE.sub(lambda match: f"{match[2]} {UNITS[match[1]]}", text)


def _national(match: re.Match[str]) -> str:
    return next((unit for unit, said in zip(NATIONAL_UNITS, match.groups(), strict=True) if said), "$")


def _with_fractions(text: str) -> str:
    """Return a folded text with `two thirds` and `one and a half` in digits."""
    return "1/2" if HALF.fullmatch(text) else FRACTION.sub(_fraction, text)


def _fraction(match: re.Match[str]) -> str:
    whole, count, part = match.groups()
    value = f"{1 if count == 'a' else normalize.COUNT[count]}/{PARTS[part]}"
    if whole is None:
        return value
    return str(Fraction(value) + (int(whole) if whole.isdigit() else normalize.COUNT[whole]))


def _with_minus(text: str) -> str:
    """Return a folded text in which `minus 5` is `-5` where nothing stands before it to be subtracted from."""
    return MINUS.sub(
        lambda match: match[0] if SUBTRACTED.search(text[max(0, match.start() - 24) : match.start()]) else "-", text
    )
