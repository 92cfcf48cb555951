"""Units, currencies, and numbers in words: what stands around digits, in one spelling."""

from __future__ import annotations

import re
from fractions import Fraction

from fusiontools.answers import normalize

UNIT_TEXT = """
km kilometer kilometre,m meter metre,cm centimeter centimetre,mm millimeter millimetre,mi mile,ft foot feet,inch inches,
yd yard,kg kilogram kilo,g gram,mg milligram,ton tonne,pound lb £,oz ounce,l liter litre,ml milliliter millilitre,
s second sec,ms millisecond,min minute,h hour hr,day,week,month,year yr,% percent prozent,° degree deg,°c celsius,
°f fahrenheit,$ dollar usd,€ euro eur,¥ yen jpy,₹ rupee rs inr,cent,w watt,kw kilowatt,v volt,hz hertz,am,pm,chf,kr,aud,
cad,nzd,hkd,sgd,brl,cny rmb yuan,gb gigabyte,mb megabyte,tb terabyte,kb kilobyte,newton,kn kilonewton,mn millinewton,
joule,kj kilojoule,cal calorie,kcal kilocalorie,nm nanometer nanometre,μm micrometer micrometre micron,ha hectare,acre,
kbit,mbit,gbit,tbit,megawatt,meganewton,megavolt,megajoule,decade,century centuries,night,ma milliampere milliamp,
ampere amp,ω ohm,kω kiloohm,khz kilohertz,mhz megahertz,
ghz gigahertz,db decibel,bar,psi,knot,mi/h mph,km/h kph kmh,bc bce,ad ce,kelvin,era,person people
"""
UNITS = {name: group.split()[0] for group in UNIT_TEXT.split(",") for name in group.split()}
#: A currency or era before its number, as one character that stands nowhere else.
CODES = {"usd": "$", "us$": "$", "eur": "€", "gbp": "£", "jpy": "¥", "inr": "₹", "rs": "₹", "rs.": "₹", "chf": "\ue001"}
CODES |= {"aud": "\ue002", "a$": "\ue002", "au$": "\ue002", "cad": "\ue003", "c$": "\ue003", "ca$": "\ue003"}
CODES |= {"nzd": "\ue004", "nz$": "\ue004", "hkd": "\ue005", "hk$": "\ue005", "sgd": "\ue006", "s$": "\ue006"}
CODES |= {"brl": "\ue007", "r$": "\ue007", "cny": "\ue008", "rmb": "\ue008", "kr": "\ue009", "ad": "\ue00a"}
_CODE_UNITS = zip("\ue001\ue002\ue003\ue004\ue005\ue006\ue007\ue008\ue009\ue00a", (
    "chf", "aud", "cad", "nzd", "hkd", "sgd", "brl", "cny", "kr", "ad"), strict=True)  # fmt: skip
SYMBOLS = {symbol: UNITS[symbol] for symbol in "$€£¥₹"} | dict(_CODE_UNITS)
CURRENCY_CODE = re.compile(rf"(?<![\w$])({'|'.join(map(re.escape, sorted(CODES, key=len, reverse=True)))}) ?(?=\d)")
NATIONAL = re.compile(
    r"\b(?:(australian)|(canadian)|(new zealand)|(hong kong)|(singapore)|us|u\.s\.|american) dollars?\b"
    r"|\b(swiss francs?)\b|\b(kron(?:a|or|er?))\b"
)
NATIONAL_UNITS = ("aud", "cad", "nzd", "hkd", "sgd", "chf", "kr")
DECADE = re.compile(r"\b(1\d\d0|20\d0)s\b")

UNIT_WORD = re.compile(r"[ -]?([a-zμω]+|[%$€£¥₹]|°[cf]?)([23]?)(?!\w)")
UNIT_PER = re.compile(r" ?(?:/|per\b) ?([a-z]+)\b")
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
_COUNTS = "|".join(normalize.COUNT)
FRACTION = re.compile(
    rf"\b(?:({_COUNTS}|\d{{1,3}}) and )?(a|{_COUNTS})[ -]({'|'.join(PARTS)})s?\b"
    r"(?! (?:past|to|hour|century|year|time)\b)"
)
HALF = re.compile(r"\W{0,4}half\W{0,4}")
MINUS = re.compile(r"\b(?:minus|negative) (?=[$€£¥₹]?\.?\d)")
SUBTRACTED = re.compile(r"[\d)%\]][^\d.,:;=]{0,20}$")

BRACKETED_PERIOD = re.compile(
    r"(?<![\d.,])(\d{1,12})\.(\d{0,12})(?:\((\d{1,6})\)|\\overline\{?(\d{1,6})\}?)(?:\.\.\.)?"
)
DOTTED_PERIOD = re.compile(
    r"(?<![\d.,])(\d{1,12})\.(\d{0,12}?)(?:(\d{1,6}?)\3{1,12}(?:\.{3,}|(?= ?\(?(?:repeating|recurring))))"
)
NAMED_PERIOD = re.compile(r"(?<![\d.,])(\d{1,12})\.(\d{0,12}?)(\d)(?:\.{3,})? ?\(?(?:repeating|recurring)\b\)?")


def unit_of(word: str) -> str:
    """Return the one name of a known unit, else nothing."""
    return UNITS.get(word) or (UNITS.get(word[:-1], "") if word[-1] == "s" and len(word) > 2 else "")


def counted_thing(word: str) -> str:
    """Return the singular of an unknown word behind a number, which is its unit as it stands; nothing of a filler."""
    if len(word) < 2 or word in NO_UNITS:
        return ""
    return word[:-1] if len(word) > 3 and word[-1] == "s" and word[-2] != "s" else word


def with_symbols(text: str) -> str:
    """Return a folded text in which each currency that stands before a number is one character."""
    text = NATIONAL.sub(_national, DECADE.sub(r"\1 era", text))
    return CURRENCY_CODE.sub(lambda match: CODES[match[1]], text)


def with_fractions(text: str) -> str:
    """Return a folded text with `two thirds` and `one and a half` in digits."""
    if HALF.fullmatch(text):
        return "1/2"
    return FRACTION.sub(_fraction, text)


def with_minus(text: str) -> str:
    """Return a folded text in which `minus 5` is `-5` where nothing stands before it to be subtracted from."""
    return MINUS.sub(
        lambda match: match[0] if SUBTRACTED.search(text[max(0, match.start() - 24) : match.start()]) else "-", text
    )


def with_periods(folded: str) -> str:
    """Return a folded text in which a decimal that repeats for ever is the fraction that it is."""
    for pattern in (BRACKETED_PERIOD, NAMED_PERIOD, DOTTED_PERIOD):
        folded = pattern.sub(_periodic, folded)
    return folded


def _periodic(match: re.Match[str]) -> str:
    whole, fixed, *periods = match.groups()
    period = next(filter(None, periods))
    scale = 10 ** len(fixed)
    value = Fraction(int(whole + fixed), scale) + Fraction(int(period), scale * (10 ** len(period) - 1))
    return str(value)


def _national(match: re.Match[str]) -> str:
    return next((unit for unit, said in zip(NATIONAL_UNITS, match.groups(), strict=True) if said), "$")


def _fraction(match: re.Match[str]) -> str:
    whole, count, part = match.groups()
    top = 1 if count == "a" else normalize.COUNT[count]
    value = f"{top}/{PARTS[part]}"
    if whole is None:
        return value
    return str(Fraction(value) + (int(whole) if whole.isdigit() else normalize.COUNT[whole]))
