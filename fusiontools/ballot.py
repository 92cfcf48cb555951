r"""Read each answer as a vote: one canonical key for all answers that say the same, None for one that abstains.

What counts in an answer is what it gives as its result: the last `\boxed{…}` or `#### …`, else `Answer: …` or "the
answer is …", else the one thing in bold on the line that concludes it, else that line: the last one, or the first where
only that is short. Then, by kind:

number  exact: 1.0 = 1, 1/2 = 0.5, 1e3 = 10^3 = 1,000. Units and currency are told apart and never converted; a bare
        number has the unit that most others name. 50% is 1/2, but where the question asks for a percentage, 50 is 50%.
        3-5 is a range. Expressions, inequalities and dates are no numbers.
choice  the letter; or the option's text, where the question lists options
yes_no  what the answer, or its conclusion, opens with
text    words, without Markdown, case, articles and punctuation, and without "The capital of France is" where the
        question has those words. Signs stay where they are mathematics: x+1 is not x-1, C++ is not C.
json    the value at a path: of JSON in a fence or amid prose, also with trailing commas
regex   the first group (or all) of the last match in the last 4,000 characters, read as a number or as text

Who says that he does not know, or refuses, abstains, unless the question offers that very answer. Of a long answer the
first 4,000 and the last 12,000 characters are read, for JSON the last 200,000.

Source  Wang et al. 2022, self-consistency, arXiv:2203.11171
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from fusiontools import gist, normal
from fusiontools.errors import UsageError, nearest

KINDS = ("auto", "number", "choice", "text", "json:PATH", "regex:RE")
HEAD_CHARS, TAIL_CHARS, REGEX_CHARS, JSON_CHARS, KEY_CHARS = 4_000, 12_000, 4_000, 200_000, 120

#: LaTeX and signs that `normal.fold` would lose or misread, before it reads them.
LATEX = {"\\%": "%", "\\$": "$", "\\fbox{": "\\boxed{", "\\boxed{}": "", "^\\circ": "°", "^{\\circ}": "°", "≠": "<>"}
LATEX |= {"\\approx": " ", "\\sim": " ", "≈": " ", "\\pm": "±", "\\neq": "<>", "\\ne ": "<>", "¤": "", "**:": ":**"}
MATH = re.compile(r"\$\$?(?=\S)([^$\n]{1,300}?)(?<=\S)\$\$?(?!\d)")
SHORT_FRACTION = re.compile(r"\\[dt]?frac\s?(\d)\s?(\d)(?!\d)")
STARRED_POWER = re.compile(r"(?<=\d)\*\*(?=-?\d)")
SMALL_POWER = re.compile(r"(?<![\d.,])10\^\{?-(\d{1,2})\}?(?!\d)")
LONE_MINUS = re.compile(r"(?<=[=:]) {0,2}[-−–] (?=\d)")
LEADING_MARK = re.compile(r"^\s{0,8}(?:(?:#{1,6}|>|[-*+])\s{1,8})+")
EMPHASIS = re.compile(r"\*{2,}|[`~]+|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)")
BOLD = re.compile(r"\*\*([^*\n]{1,120})\*\*(?!\s?:)")
ANSWER_HEADING = re.compile(
    r"(?:^|\n)[#* ]{0,8}(?:the )?(?:final |correct |short )?answer[#* :]{0,8}\n\s{0,8}(?=([^\n]{1,300}))"
)
CHATTER = re.compile(
    r"\W*(?:let me know|(?:i )?hope (?:this|that)|feel free|would you like|is there anything|(?:sources?|references?"
    r"|notes?|confidence)\b\W*:)"
)
THEREFORE = re.compile(r"\W*(?:(?:so|thus|hence|therefore|finally|overall|in (?:short|conclusion|summary))\b[,: ]+)+")

DO = "answer|provide|determine|help|assist|say|tell|find|give|know|comply|do|solve|verify|fulfill|decide|compute|see"
REFUSAL = re.compile(
    r"\W*(?:n/a\W*$|no answer|no idea|idk\b|unable to|not (?:sure|certain)\W*$|i abstain|(?:i am |i'm )?sorry\b|as an ai"
    rf"|(?:i|we) (?:(?:can|could|ca) not (?:\w+ )?(?:{DO})|do not (?:\w+ )?know|do not have (?:enough|access|the|any)"
    r"|am (?:not|unable)|will not|wo not|must decline|have no (?:idea|way))"
    rf"|(?:it |this |that |the \w+ )?(?:(?:can|could) not be|can not|is (?:not possible|impossible) to) (?:{DO})"
    r"|(?:there is )?(?:not enough|insufficient) (?:information|data|context))"
)
HEDGE = re.compile(r"\W*i (?:am not (?:entirely )?(?:sure|certain)|do not (?:really )?know)[^.\n]{0,40}\bbut (?=(.+))")

COUNTED = dict(normal.COUNT) | {
    word: 13 + n for n, word in enumerate("thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split())
}
COUNTED |= {word: 20 + 10 * n for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
_COUNTS = "|".join(COUNTED)
COUNT_RUN = re.compile(
    rf"\b(?:{_COUNTS})(?:(?:[ -]|(?<=hundred) and )(?:{_COUNTS}|hundred|thousand|million|billion))*\b"
)
MIXED = re.compile(r"(?<![\d.,/])(\d{1,6})[ -]{1,2}(\d{1,4})/(\d{1,4})(?![\d/])")
SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d.,]*\d)")
LONG_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d{1,12}),(\d{4,12})(?![\d.,]*\d)")
BRACKETED_COMMA = re.compile(r"(?<=\d),(?=-?\d)")
CODE = re.compile(r"\b(?:usd|us\$|(eur)|(gbp)) ?(?=\d)")
ASIDE = re.compile(r"[(\[][^()\[\]]{0,300}[)\]]")
ASKS_PERCENT = re.compile(r"\bpercentage|(?:what|which|how many|in|as a|as) (?:percent|%)|prozent|pourcentage|porcentaje")

UNIT_TEXT = """
km kilometer kilometre,m meter metre,cm centimeter centimetre,mm millimeter millimetre,mi mile,ft foot feet,in inch
inches,yd yard,kg kilogram kilo,g gram,mg milligram,ton tonne,pound lb £,oz ounce,l liter litre,ml milliliter
millilitre,s second sec,ms millisecond,min minute,h hour hr,day,week,month,year yr,% percent prozent,° degree deg,°c
celsius,°f fahrenheit,$ dollar,€ euro,¥ yen,₹ rupee,cent,w watt,kw kilowatt,v volt,hz hertz,am,pm
"""
UNITS = {name: group.split()[0] for group in UNIT_TEXT.split(",") for name in group.split()}
del UNITS["in"]  # "5 in all"
UNIT_WORD = re.compile(r"[ -]?([a-z%$€£¥₹°]+)([23]?)(?![\w°])")
UNIT_PER = re.compile(r" ?(?:/|per\b) ?([a-z]+)\b")
POWERED_UNIT = re.compile(r"\b(square|cubic) ([a-z]{1,20}?)s?\b")
DEGREES = re.compile(r"(?:°|\bdegrees?) ?(c|f|celsius|fahrenheit)\b")
SCALES = {**normal.SCALE, "k": 3, "mn": 6, "bn": 9}
#: The shapes of what gives one number, where `¤` stands for each number with its unit.
LEAD = (
    r"\W{0,4}(?:(?:about|approximately|approx|roughly|around|exactly|only|just|it|there|is|are|was|were|so|the|a|an|total"
    r"|result|value|of|to|equals)\b\W{1,3})*"
)
ONE = re.compile(rf"{LEAD}¤(?:[ -][^\W\d_]+){{0,4}}[\W_]{{0,4}}")
RANGE = re.compile(rf"{LEAD}(?:from )?¤(?: ?- ?| to )¤(?: [^\W\d_]+){{0,3}}\W{{0,4}}|{LEAD}between ¤ and ¤(?: \w+){{0,3}}\W{{0,4}}")
SEVERAL = re.compile(rf"{LEAD}[(\[{{]?¤(?:(?:[,;]? (?:and|or) |[,;] ?| ?& ?| )¤)+[)\]}}]?\W{{0,4}}")
NO_NUMBER = re.compile(r"[+*^<>±∞\\]|\b(?:sqrt|pi)\b|¤(?!(?:st|nd|rd|th)\b)[a-z]|[¤)] ?/|/ ?[¤(]")
ASSIGNED = re.compile(r"\b([a-z]) ?= ?")

MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_MONTH = rf"((?:{'|'.join(MONTHS)})[a-z]{{0,6}})\.?"
DATE = re.compile(
    rf"\b(\d{{4}})[-/](\d\d?)[-/](\d\d?)\b|\b{_MONTH} (\d\d?)(?:st|nd|rd|th)?,? (\d{{4}})\b"
    rf"|\b(\d\d?)(?:st|nd|rd|th)?(?: of)? {_MONTH},? (\d{{4}})\b"
)

MARKER = re.compile(r"(?<![\w.])[(\[*]{0,3}([a-z])[)\].:*]{1,3}\s")
LABELLED_LINE = re.compile(r"^\W{0,6}([a-z])[).:]", re.MULTILINE)
LETTERS = re.compile(r"\W{0,4}([a-j](?:\W{0,3}(?:,|\band\b|&|/)\W{0,3}[a-j])+)\W{0,4}")
NAMED_LETTER = re.compile(
    r"(?:\b(?:option|choice|choose|pick|select|go with)\W{1,3}|\()([a-z])(?=[)\].,;:\"'!]|\s*$| (?:because|since|is)\b)"
)
LEADING_LETTER = re.compile(r"\W{0,4}([a-j])\b(?: ?[-,:] | (?=is\b|because\b))")
SPOKEN_VERDICT = re.compile(r"\W*(yes|true|no|false)\b(?= (?:it|they|he|she|this|that|there|because|since|you|we|i)\b)")

COPULAS = frozenset({"is", "are", "was", "were", "be", "equals", "called", "named", "it", "ist", "est", "es", "sind"})
LEADING_WORDS = COPULAS | gist.ARTICLES | {"that", "this", "answer", "final", "correct", "result", "s"}
MATH_SIGN = re.compile(
    r"[\^<>=±|∞∪∩\\]|\b(?:sqrt|pi)\b|(?<=[\w)\]])\s?[+*]\s?(?=[\w(\[-])|(?<=\w)[+#]|(?<!\w)-\s?[a-z]\b"
    r"|(?<=[\d)\]])\s?/|/\s?(?=[\d(\[])|(?<=\b[a-z])\s?/|/\s?(?=[a-z]\b)|^[(\[][^\n]*,[^\n]*[)\]]$"
)
MATH_TOKEN = re.compile(rf"{normal.TOKEN.pattern}|[-+*/^<>=±|∞∪∩#()\[\]!]")
COPULA_END = re.compile(r"(?<=\w)(?:です|でした|입니다|이에요|예요)[。.!]?$")

PATH_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?\d{1,9})\]")
TRAILING_COMMA = re.compile(r'("(?:\\.|[^"\\])*+")|,(?=\s*[}\]])', re.DOTALL)
FENCE = re.compile(r"```[a-zA-Z]*\n?")
JSON_TRIES = 200
REGEX_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(|\)|(?:[*+]|\{\d*,\})[?+]?|.", re.DOTALL)


class Said(NamedTuple):
    """An answer's result in pieces, best first, all folded; `marked` where the answer says that it is its result."""

    pieces: tuple[str, ...]
    marked: bool
    first: str
    labels: int
