"""Find what an answer gives as its result, and see who gives none: empty, refusing, not knowing."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from fusiontools.answers import normalize
from fusiontools.answers.agreement import STOP, Question
from fusiontools.answers.patterns import compile_later
from fusiontools.answers.thought_marks import CLOSES, OPENS, may_have_marks

#: How much of a long answer is read: its beginning and its end, where results stand.
HEAD_CHARS, TAIL_CHARS, KEY_CHARS, MARK_CHARS = 4_000, 12_000, 120, 12
#: The mark of a key is written in consonants: it is no number and no word of an answer.
CONSONANTS = str.maketrans("0123456789abcdef", "bcdfghjklmnpqrst")
MARK = compile_later(rf"(?:^| )[bcdfghj-npqrst]{{{MARK_CHARS}}}")
#: A first line that is an answer, and a last one that is an explanation.
FIRST_WORDS, LONG_WORDS = 6, 12
#: What can be compared whole.
SHORT_WORDS, SHORT_CHARS = 30, 300

#: LaTeX and signs that `normalize.fold` would lose or misread, in words that it understands.
LATEX = {
    "\\%": "%",
    "\\$": "$",
    "\\fbox{": "\\boxed{",
    "\\boxed{}": "",
    "^\\circ": "°",
    "^{\\circ}": "°",
    "\\neq": "<>",
}
LATEX |= {
    "\\ne ": "<>",
    "\\approx": "=",
    "\\sim": " ",
    "\\pm": "±",
    "\\leq": "≤",
    "\\geq": "≥",
    "\\le ": "≤",
    "\\ge ": "≥",
}
LATEX |= {"\\{": "(", "\\}": ")"}
PLAIN = {"≠": "<>", "≈": "=", "¤": "", "∉": "¬∈"}
FIGURE = compile_later(r"\d")
LOOSE_BOX = compile_later(r"\\(?:boxed|fbox)\s+\{")
SPACED_BOX = compile_later(r"\\(?:boxed|fbox)\s+(-?[\w.,/]{1,30})")
#: GSM8K's calculator marks, `<<9*2=18>>18`; what they come to stands behind them, or only in them.
CALCULATED = compile_later(r"<<[^<>\n]{0,200}?=(?:(?=[^<>\n=]{0,60}>>\s?[$€£]?-?\d)[^<>\n=]*|([^<>\n=]{0,60}))>>\s?")
MATH = compile_later(r"\$\$?(?=\S)([^$\n]{1,300}?)(?<=\S)\$\$?(?!\d)")
FUNCTION = compile_later(r"\\(?=(?:log|ln|sin|cos|tan|exp|min|max|gcd)\b)")
SHORT_FRACTION = compile_later(r"\\[dt]?frac\s?(\d)\s?(\d)(?!\d)")
STARRED_POWER = compile_later(r"\*\*(?<=\d\*\*)(?=-?\d)")
SMALL_POWER = compile_later(r"(?<![\d.,])10\^\{?-(\d{1,2})\}?(?!\d)")
BIG = compile_later(r"(\d)(?:(M)|B)\b")
LONE_MINUS = compile_later(
    r"(?:(?<=[=:])|(?<= is\b)|(?<=equals\b)|\A\s{0,9}(?=[-−–] [^\s\w]?[\d.,]{1,20}[^\w\n]{0,3}\Z))"
    r" {0,2}[-−–] (?=\d|\\[dt]?frac)"
)
#: Without this there is none: lists have dashes, too.
LONE_MARK = compile_later(r"[-−–] [\d\\]")
#: Units that only their capital tells from others: kelvin is no thousand, MW no mW.
CAPITAL_UNIT = compile_later(r"(\d)(?: ?([ANJ])| (K)| ?M(W|N|V|J)| ?(kb|Kb|Mb|Gb|Tb))(?=[\s.,;)*/]|$)")
MEGA_NAMES = {"W": " megawatt", "N": " meganewton", "V": " megavolt", "J": " megajoule"}
#: What the units, `BIG` and this need: a digit, and one of their letters behind it.
_UNIT_LETTER = r"\s?(?:[ANJKMGTB]|kb|[AaPp]\.)"
UNIT_MARK = compile_later(rf"\d{_UNIT_LETTER}")
#: The same in ASCII, in half the time.
ASCII_UNIT_MARK = compile_later(rf"[0-9]{_UNIT_LETTER}")
HALF_DAY = compile_later(r"(\d)\s?([AaPp])\.\s?[Mm]\b\.?")
RATIO = compile_later(r"(?<=\d) : (?=\d)")
#: Its point ends no sentence.
RUPEES = compile_later(r"\b(R[sS])\.\s{0,2}(?=\d)")
CAPITAL_NAMES = {"A": " ampere", "N": " newton", "J": " joule", "K": " kelvin"}

_REPEATING = r" ?\(?(?:repeating|recurring)\b\)?"
PERIODIC = compile_later(
    r"(?<![\d.,])(\d{1,12})\.(\d{0,12}?)(?:\((\d{1,6})\)|\\overline\{?(\d{1,6})\}?"
    rf"|(\d{{1,6}}?)\5{{1,12}}(?:\.{{3,}}{_REPEATING}|\.{{3,}}|{_REPEATING})|(\d){_REPEATING})(?:\.{{3}})?"
)
PERIOD_MARKS = ("(", "...", "overline", "repeating", "recurring")
PERIOD_MARK = compile_later(r"[\d.]\(\d|\d\.\.\.|overline|repeating|recurring")

LEADING_MARK = compile_later(r"(?:\s{0,8}(?:#{1,6}|>|[-*+])\s)+")
#: Two stars and more, ticks, and a star at one end of a word; so that a search goes from one star or tick to the next.
EMPHASIS = compile_later(r"[*`~](?:(?<=[`~])[`~]*|(?<=\*)(?:\*+|(?<!\w\*)(?=\S)|(?<=\S\*)(?!\w)))")
#: What makes a piece more than words on a line, beside two spaces and a dash before it: signs, and white space that is
#: no space. One class of characters is found several times as fast as a choice of patterns.
MARKDOWN = compile_later("[#>*+`~{}\t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
#: The same in ASCII, as bytes.
ASCII_MARKDOWN = b"#>*+`~{}\t\n\v\f\r\x1c\x1d\x1e\x1f"
BOLD = compile_later(r"\*\*([^*\n]{1,120})\*\*(?!\s?:)")
ANSWER_HEADING = compile_later(
    r"(?:^|\n)[#* ]{0,8}(?:the )?(?:final |correct |short )?answer[#* :]{0,8}\n\s{0,8}(?=([^\n]{1,300}))"
)
CHATTER = compile_later(
    r"\W{0,9}(?:let me know|(?:i )?hope (?:this|that)|feel free|would you like|is there anything"
    r"|(?:sources?|references?|notes?|confidence)\b\W{0,4}:"
    r"|(?:as )?(?:per|via|from|see|cf|according to) (?:model|response|member|answer|source|draft)s? )"
)
THEREFORE = compile_later(
    r"\W{0,9}(?:(?:so|thus|hence|therefore|finally|overall|in (?:short|conclusion|summary))\b[,: ]{1,3})+"
)
#: An item of a list.
ITEM = compile_later(r"[^\w\n]{0,6}(?:\d{1,3}[.)]|[-*+•])\s+(?=\S)")
#: A line that begins with a letter and a bracket: an option that is spoken of, or a part of the question.
LABEL = compile_later(r"[^\w\n]{0,6}([a-z])[).:]\s")
#: The same of every line of a text, each after its line feed.
LABELS = compile_later(r"\n[^\w\n]{0,6}([a-z])[).:](?=\s)")

DOING = "answer|provide|determin|help|assist|say|tell|find|give|know|comply|do\\b|solve|verify|fulfill|decide|comput"
REFUSAL = compile_later(
    r"\W{0,9}(?:n/a\W*$|no answer|no idea|idk\b|unable to|not (?:sure|certain)\W*$|i abstain|(?:i am |i'm )?sorry\b"
    r"|as an ai\b|(?:i|we) (?:"
    rf"(?:can|could|ca|will|wo) not (?:\w+ ){{0,2}}(?:{DOING})|(?:really |honestly )?do not (?:really )?know\b"
    r"|(?:do not have|have no) (?:\w+ )?(?:idea|way|information|data|access|knowledge|answer|context)|must decline)"
    r"|(?:i|we)(?: am| are|'m|'re) (?:not (?:\w+ )?(?:able|sure|certain|aware|familiar)|unable)"
    rf"|(?:it |this |that |the \w+ )?(?:(?:can|could) not be|can not|is (?:not possible|impossible) to) (?:{DOING})"
    r"|(?:there is )?(?:not enough|insufficient) (?:information|data|context))"
)
HEDGE = compile_later(
    r"\W{0,9}(?:i|we)(?: am| do|'m) not (?:\w+ )?(?:sure|certain|know)\b[^.\n]{0,40}"
    r"\bbut (?:i (?:think|believe|guess) )?(?=(.+))"
)


class Result(NamedTuple):
    """What an answer gives as its result: folded pieces, best first."""

    pieces: tuple[str, ...]
    #: Whether the answer says itself that this is its result.
    stated: bool
    #: The answer's first line, where a letter, a verdict or a number may stand; nothing beside a stated result.
    first: str
    #: All of the answer, where it is long and does not say what its result is.
    long: str = ""
    #: Whether no line of a long answer is its result: code cannot tell what it comes to.
    vague: bool = False
    #: The first of several lines, as it stands, the last one, and the letters that lines begin with.
    opening: str = ""
    closing: str = ""
    labels: tuple[str, ...] = ()

    @property
    def all_pieces(self) -> tuple[str, ...]:
        return (*self.pieces, self.first) if self.first else self.pieces


# A grade reads an answer as a vote, and again beside the target.
@functools.lru_cache(maxsize=8)
def result_of(text: str, asked: Question) -> Result | None:
    """Return what an answer gives as its result; None where it abstains."""
    if is_marked(text):
        return Result((text.strip(),), False, "")
    folded = folded_of(text)
    lines = [line for line in folded.split("\n") if _says(line)]
    if not lines:
        return None
    stated = _stated(folded)
    if stated:
        return None if refuses(stated[0], asked.text) else Result(stated, True, "")
    if "not" in lines[0] and (hedged := HEDGE.match(strip_markdown(lines[0]))):
        return Result((hedged[1],), False, hedged[1])
    pieces = _concluding([line for line in lines if not CHATTER.match(line)] or lines)
    first = strip_markdown(lines[0])
    if _refuses(first, asked.text) or (pieces[-1] != lines[0] and refuses(pieces[-1], asked.text)):
        return None
    long = " ".join([first, *map(strip_markdown, lines[1:])]) if is_long(folded) else ""
    vague = bool(long) and (len(lines) == 1 or not asked.closed or has_more_words(pieces[-1], LONG_WORDS))
    if len(lines) == 1:
        return Result(pieces, False, lines[0], long, vague)
    labels = tuple(LABELS.findall(f"\n{folded}"))
    ends = (lines[0], lines[-1], labels)
    if len(set(labels)) > 1:
        # Every option is spoken of, or every part of the question answered: the letter before a line chooses nothing.
        parts = list(map(_unlabelled, lines))
        in_parts = all(map(LABEL.match, lines))
        pieces = (", ".join(parts),) if in_parts else tuple(map(_unlabelled, pieces))
        return Result(pieces, False, "", long, vague, *ends)
    return Result(pieces, False, _unnumbered(lines), long, vague, *ends)


def is_long(folded: str) -> bool:
    """Say whether a folded text is too long to be compared whole."""
    return len(folded) > SHORT_CHARS or has_more_words(folded, SHORT_WORDS)


def has_more_words(folded: str, limit: int) -> bool:
    """Say whether a folded text has more words and numbers than so many."""
    if len(folded) <= limit:
        return False
    plain = folded.encode() if folded.isascii() else b""
    # Each word that begins with a letter is a token, but those of scale; as many as there are digits begin with one.
    # Finding all tokens takes three times as long.
    letters = plain.translate(None, b"0123456789")
    surely = len(plain.translate(normalize.WORDS_ONLY).split()) - (len(plain) - len(letters))
    if surely > limit and not any(map(folded.__contains__, normalize.SCALE)):
        return True
    return len(normalize.tokens(folded)) > limit


def refuses(piece: str, question: str) -> bool:
    """Say whether a folded piece gives no answer; what the question offers in these words is one."""
    return _refuses(strip_markdown(piece), question)


def _refuses(plain: str, question: str) -> bool:
    refused = REFUSAL.match(plain)
    return refused is not None and refused[0].strip() not in question


def folded_of(text: str) -> str:
    """Return what a text visibly says at its beginning and end, folded; its LaTeX and signs in a form that survives."""
    text = drop_thoughts(text).strip()
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    if "<<" in text:
        text = CALCULATED.sub(r"\1", text)
    if "=" in text:
        text = text.replace("<=", "≤").replace(">=", "≥")
    if not text.isascii():
        for old, new in PLAIN.items():
            text = text.replace(old, new)
    if "\\" in text:
        text = SPACED_BOX.sub(r"\\boxed{\1}", LOOSE_BOX.sub(r"\\boxed{", text))
        for old, new in LATEX.items():
            text = text.replace(old, new)
        text = FUNCTION.sub("", text)
    if "$" in text:
        text = MATH.sub(r"\1", text)
    if "\\" in text:
        text = SHORT_FRACTION.sub(r"\\frac{\1}{\2}", text)
    has_figure = normalize.has_digit(text) if text.isascii() else FIGURE.search(text)
    if not has_figure and "\\" not in text:
        return normalize.fold(text).strip()
    return _with_plain_figures(text)


def _with_plain_figures(text: str) -> str:
    """Return a text folded, with its figures in a form that survives.

    Each pattern has a sign that it cannot do without: looking for that takes a hundredth of the time.
    """
    if "**" in text:
        text = STARRED_POWER.sub("^", text)
    if (ASCII_UNIT_MARK if text.isascii() else UNIT_MARK).search(text):
        text = BIG.sub(_scale, HALF_DAY.sub(r"\1 \2m", CAPITAL_UNIT.sub(_capital, text)))
    if "Rs." in text or "RS." in text:
        text = RUPEES.sub(r"\1 ", text)
    if " : " in text:
        text = RATIO.sub(":", text)
    if ("- " in text or "− " in text or "– " in text) and LONE_MARK.search(text):
        text = LONE_MINUS.sub(" -", text)
    folded = normalize.fold(text)
    if "10^" in folded:
        folded = SMALL_POWER.sub(r"1e-\1", folded)
    folded = folded.strip()
    if not any(map(folded.__contains__, PERIOD_MARKS)):
        return folded
    return PERIODIC.sub(_periodic, folded) if PERIOD_MARK.search(folded) else folded


def _periodic(match: re.Match[str]) -> str:
    """Return the fraction that a decimal which repeats for ever is."""
    whole, fixed, *periods = match.groups()
    period = next(filter(None, periods))
    scale = 10 ** len(fixed)
    return str(Fraction(int(whole + fixed), scale) + Fraction(int(period), scale * (10 ** len(period) - 1)))


def _scale(match: re.Match[str]) -> str:
    return f"{match[1]} million" if match[2] else f"{match[1]} billion"


def _capital(match: re.Match[str]) -> str:
    digit, single, kelvin, mega, bits = match.groups()
    if mega:
        return f"{digit}{MEGA_NAMES[mega]}"
    return f"{digit} {bits[:-1]}bit" if bits else f"{digit}{CAPITAL_NAMES[single or kelvin]}"


def drop_thoughts(text: str) -> str:
    """Return a text without what was only thought, also where only the closing mark is there."""
    if not may_have_marks(text):
        return text
    *_, closing = (None, *CLOSES.finditer(text))
    rest = text[closing.end() :] if closing else text
    opening = OPENS.search(rest)
    return rest[: opening.start()] if opening else rest


def strip_markdown(piece: str) -> str:
    """Return a folded piece on one line, without Markdown and braces."""
    if "  " not in piece and not piece.startswith(("-", " -")) and not _has_markdown(piece):
        return piece.strip()
    marks = LEADING_MARK.match(piece)
    plain = EMPHASIS.sub("", piece[marks.end() :] if marks else piece)
    return " ".join(plain.replace("{", " ").replace("}", " ").split())


def _has_markdown(piece: str) -> bool:
    if not piece.isascii():
        return MARKDOWN.search(piece) is not None
    # Bytes are counted in a quarter of the time that a pattern takes.
    return len(piece.encode().translate(None, ASCII_MARKDOWN)) != len(piece)


def cut_key(key: str) -> str:
    """Return a key that can be written and is of bearable length; long ones that differ stay apart."""
    key = key.encode("utf-8", "replace").decode()
    return key if len(key) <= KEY_CHARS else mark(key[: KEY_CHARS - MARK_CHARS - 1], key)


def mark(beginning: str, whole: str) -> str:
    """Return the beginning of a text with a word that stands for all of it."""
    digest = hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:MARK_CHARS]
    return f"{beginning.rpartition(' ')[0] or beginning} {digest.translate(CONSONANTS)}".lstrip()


def is_marked(text: str) -> bool:
    """Say whether a text is a key with a mark: what it was made from is not in it, so it is read as it stands."""
    key = text.strip()
    return (
        MARK.fullmatch(key[-MARK_CHARS - 1 :]) is not None and len(key) < 2 * KEY_CHARS and key == normalize.fold(key)
    )


def _stated(folded: str) -> tuple[str, ...]:
    r"""Return what a folded answer calls its answer, the last first; `\boxed{…}` and `#### 42` go before all else."""
    if "\\boxed{" not in folded and "####" not in folded and not any(map(folded.__contains__, normalize.HINTS)):
        return ()
    given = normalize.stated(folded)
    if given and "\\boxed{" in folded:
        # Several boxes are several answers.
        boxes = dict.fromkeys(box for box in normalize.boxes(folded) if _says(box))
        return (", ".join(boxes) or given,)
    found = [*normalize.MARKED.finditer(folded), *ANSWER_HEADING.finditer(folded)]
    told = [match[1] for match in sorted(found, key=lambda match: -match.end())]
    values = [normalize.STATED_END.split(value, maxsplit=1)[0].strip(" *.`\"'") for value in told]
    if given and given not in values:
        values = [given, *values]
    return tuple(filter(_says, values))


def _concluding(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the line that gives the result, and before it what stands in bold there, where that is one thing."""
    line = lines[-1]
    if len(lines) > 1:
        items = len(lines) - next((at for at in range(len(lines), 0, -1) if not ITEM.match(lines[at - 1])), 0)
        if items > 1:
            return (", ".join(ITEM.sub("", item, count=1) for item in lines[-items:]),)
        if _is_short_answer(lines[0]) and has_more_words(line, LONG_WORDS):
            line = lines[0]
    opening = THEREFORE.match(line)
    if opening and _says(line[opening.end() :]):
        line = line[opening.end() :]
    bold = BOLD.findall(line) if "**" in line else []
    if len(bold) == 1 and not bold[0].rstrip().endswith(":") and not STOP.issuperset(normalize.tokens(bold[0])):
        return (bold[0], line)
    return (line,)


def _unnumbered(lines: Sequence[str]) -> str:
    """Return the first line, without its number where it begins a list."""
    listed = all(map(ITEM.match, lines[:2]))
    return ITEM.sub("", lines[0], count=1) if listed else lines[0]


def _unlabelled(line: str) -> str:
    """Return a line without the letter that it begins with."""
    label = LABEL.match(line)
    return line[label.end() :] if label else line


def _is_short_answer(line: str) -> bool:
    ends_open = line.rstrip(" *").endswith(":") or line.lstrip().startswith("#")
    return not ends_open and not has_more_words(line, FIRST_WORDS)


def _says(text: str) -> bool:
    return any(map(str.isalnum, text))
