"""Bring an answer into a form in which equal answers are equal: its stated end, numbers, letters, yes or no, words.

Pure functions over text. What is script-specific is small and stands in the patterns below: scripts written without
spaces become overlapping pairs of characters, everything else becomes words. All patterns are bounded or unambiguous,
so none of them backtracks for long; callers cap the text all the same.
"""

from __future__ import annotations

import math
import re
import unicodedata

from fusiontools.answers.patterns import compile_later

#: Typographic characters whose compatibility form would lose their meaning (10² is not 102) or that have none.
SIGNS = {"−": "-", "–": "-", "—": " - ", "’": "'", "‘": "'", "×": "*", "·": "*", "÷": "/", "⁄": "/", "√": " sqrt "}
SIGNS |= {"π": " pi ", "\u00a0": "'", "\u202f": "'", "\u2009": "'", "：": ": ", "ß": "ss"}
SIGNS |= {vulgar: f" {part}" for vulgar, part in zip("½⅓⅔¼¾", ("1/2", "1/3", "2/3", "1/4", "3/4"), strict=True)}
SIGN = compile_later(f"[{''.join(SIGNS)}]")
SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹"
SUPERSCRIPT = str.maketrans(f"⁻{SUPERSCRIPTS}", "-0123456789")
#: A run of superscripts with its sign is one exponent.
EXPONENT = compile_later(f"⁺?(⁻?[{SUPERSCRIPTS}]{{1,20}})")
ACCENTS = compile_later("[\u0300-\u036f]+")
FOREIGN_DIGIT = compile_later(r"[^\D0-9]")

LATEX_WRAPPER = compile_later(r"\\(?:text|math)[a-z]{0,6}(?=\{)|\\(?:left|right|displaystyle|quad)|\\[,!;:$%() \[\]]")
LATEX_FRACTION = compile_later(r"((?<![\w)}\]])-)?\\[dt]?frac\{([^{}]{1,40})\}\{([^{}]{1,40})\}")
POWER = compile_later(r"(?<![\d.,])(\d{1,4})\^\{?(\d{1,2})\}?(?!\d)")
UNIT_POWER = compile_later(r"(?<=[^\W\d])\^\{?(-?\d)\}?")
TEN_TO_THE = compile_later(r"(?<=\d) ?[*x] ?10\^\{?(-?\d{1,3})\}?(?!\d)")

#: Scripts without spaces between words (and Hangul, whose particles stick to the word); Hiragana apart.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u30a0-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
UNSPACED_RUN = compile_later(f"[{UNSPACED}\u3041-\u309f]+")
IDEOGRAPH = compile_later(f"[{UNSPACED}]")
KANA_RUN = compile_later("[\u3041-\u309f]+")
UNSPACED_NOT = compile_later("不是|没有|沒有|不|ません|ではない|じゃない|ない|없|않|아니")
UNSPACED_FILLER = compile_later("[的了是在和]|입니다|이에요|예요|습니다|합니다|です|でした|ます")
#: Vowel signs and the like, which `\w` leaves out and which would cut a word in two.
MARKS = "\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"

#: A minus is a sign only where nothing to its left could be what it is subtracted from, or the start of a range.
#: The lookahead only lets a space fail at once.
_NUMERAL = (
    r"|(?=[-.\d])(?:-(?<![\w.)\]}%'-]-)[$€£¥₹]?)?(?:\d+(?:[.,']\d+)*(?: 000\b)*|\.(?<!\w\.)\d+)"
    r"(?:e[+-]?\d+(?!\w)|/\d+(?!\d|[/.]\d)|(?::\d+)+)?"
)
TOKEN_TEXT = rf"[^\W\d][\w{MARKS}]*{_NUMERAL}"
TOKEN = compile_later(TOKEN_TEXT)
_DIGITS = r"(?:[.,']\d+)*(?: 000\b)*"
#: The same in ASCII, where all else are words. What a number begins with stands first: a search goes from one such
#: character to the next.
ASCII_NUMERAL = compile_later(
    rf"([-.0-9](?:(?<=\d)(?<!\w\d)\d*{_DIGITS}|(?<=\.)(?<!\w\.)\d+"
    rf"|(?<=-)(?<![\w.)\]}}%'-]-)\$?(?:\d+{_DIGITS}|\.\d+))"
    r"(?:e[+-]?\d+(?!\w)|/\d+(?!\d|[/.]\d)|(?::\d+)+)?)",
    re.ASCII,
)
#: Signs beside words and numbers, which are all that keeps much English from being ASCII.
APART = compile_later("[“”„«»•→]")
DIGIT = compile_later("[0-9]")
#: All that is no part of a word, in ASCII, as spaces.
WORDS_ONLY = bytes(code if chr(code).isalnum() or chr(code) == "_" else ord(" ") for code in range(128)).ljust(256)
NUMBER = compile_later(r"(-?)[$€£¥₹]?(\d*)(?:\.(\d+))?(?:e([+-]?\d{1,2})|/(\d+))?", re.ASCII)
#: The Indian way: 1,00,000.
LAKH = compile_later(r"-?\D?\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?")
GROUPED = compile_later(r"(\D{0,2}\d{1,3}(?:[,']\d{3})+)(?![\d,'])")
POINT_GROUPED = compile_later(r"-?\D?\d{1,3}(?:(?:\.\d{3})+(?=,)|(?:\.\d{3}){2,})(?:,\d+)?")
DECIMAL_COMMA = compile_later(r"-?\D?\d+,\d{1,2}")
SCALE = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
COUNT_TEXT = "zero one two three four five six seven eight nine ten eleven twelve"
COUNT = {word: count for count, word in enumerate(COUNT_TEXT.split())}

ANSWER_WORD = "answer|correct option|correct choice|antwort|reponse|respuesta|resposta|risposta|ответ|答案|答え|정답"
HINTS = tuple(ANSWER_WORD.split("|"))
MARKED = compile_later(
    rf"(?:{ANSWER_WORD})(?: to [^\n.:]{{1,60}})?(?:[*\s]{{0,3}}(?::|=|は|是|为|is\b|ist\b|est\b|es\b)){{1,2}}"
    r"[*\s:]{0,5}(?=([^\n]{1,300}))"
)
#: Where the stated answer ends and its explanation begins; initials and titles end no sentence.
STATED_END = compile_later(
    r"(?<=\S)(?<!\b\w)(?<!\b[sdm][tr])[.;!?。！？](?:\s|\**$)|[。！？]|\b(?:because|since)\b| \((?![a-z]\))|\n"
)
STATED_WORDS = 12
#: What stands between two boxes where the second one takes the place of the first.
CORRECTED = compile_later(
    r"\b(?:rather|instead|wait|actually|correct(?:ion|ed|ing)?|final(?:ly)?|thus|hence|therefore|so)\b"
)
CHOICE_CHARS = 80

YES_NO = {"yes": "yes", "true": "yes", "ja": "yes", "oui": "yes", "si": "yes", "sim": "yes", "да": "yes", "是": "yes"}
YES_NO |= {"no": "no", "false": "no", "nein": "no", "non": "no", "nao": "no", "нет": "no", "否": "no", "不是": "no"}
YES_NO |= {"はい": "yes", "いいえ": "no", "네": "yes", "아니요": "no", "是的": "yes", "不": "no"}
LEADING_YES_NO = compile_later(
    rf"[\W_]{{0,5}}({'|'.join(YES_NO)})(?:\s?[\"'*]{{0,3}}(?:[,.;:!，。；！]| - )(?! ?\d)|\W{{0,5}}$)"
)
#: A sign right before the letter makes it a formula: -x, !x.
LETTER = compile_later(
    r"(?![\W_]{0,3}[-+!¬/^√±|<>=≤≥~]\w)[\W_]{0,4}"
    r"((?:option|choice|answer|i (?:choose|pick)) )?[(\[]?\b([a-z])\b([)\].:*]{0,4})(?:\s|$)"
)


def fold(text: str) -> str:
    """Return the text without case, accents, typography and LaTeX wrapping; still readable, still in sentences."""
    if not text.isascii():
        if any(map(text.__contains__, SUPERSCRIPTS)):
            text = EXPONENT.sub(lambda match: f"^{match[1].translate(SUPERSCRIPT)}", text)
        text = unicodedata.normalize("NFKD", SIGN.sub(lambda match: SIGNS[match[0]], text))
    if not text.isascii():
        text = unicodedata.normalize("NFC", ACCENTS.sub("", text))
        text = FOREIGN_DIGIT.sub(lambda match: str(int(match[0])), text)
    text = text.casefold()
    if "\\" in text:
        text = LATEX_FRACTION.sub(r" \1\2/\3 ", text.replace("{,}", ",").replace("\\times", "*").replace("\\cdot", "*"))
        text = LATEX_WRAPPER.sub("", text)
    if "^" in text:
        text = UNIT_POWER.sub(r"\1", TEN_TO_THE.sub(r"e\1", text))
        text = POWER.sub(lambda match: str(int(match[1]) ** int(match[2])), text)
    if "'" in text:
        text = text.replace("n't", " not").replace("'s", "")
    return text.replace("cannot", "can not").replace("_", " ")


def tokens(folded: str) -> list[str]:
    """Return the words and canonical numbers of a folded text, in order.

    A number is the token that starts with a digit or a minus: `1,000`, `1e3` and `1 thousand` are all `1000`,
    `0.75` and `6/8` are `3/4`; clock times and version numbers stay as they are.
    """
    if not folded.isascii():
        folded = APART.sub('"', folded)
    if not folded.isascii():
        found = TOKEN.findall(_spaced(folded) if UNSPACED_RUN.search(folded) else folded)
        places = [at for at, word in enumerate(found) if word < ":"]
    elif has_digit(folded):
        found, places = ascii_tokens(folded)
    else:
        return ascii_words(folded)
    out: list[str] = []
    done = 0
    for at in places:
        out += found[done:at]
        number, done = canonical(found[at]), at + 1
        if number == found[at] and "," in number:
            *listed, number = map(canonical, number.split(","))
            out += listed
        while done < len(found) and found[done] in SCALE:
            number, done = canonical(number, SCALE[found[done]]), done + 1
        out.append(number)
    return out + found[done:]


def ascii_words(text: str) -> list[str]:
    """Return the words of a text in ASCII, numbers in digits among them; over bytes, in half the time."""
    return text.encode().translate(WORDS_ONLY).decode().split()


def ascii_tokens(folded: str) -> tuple[list[str], list[int]]:
    """Return the words and numbers of a text in ASCII, and the places of the numbers among them."""
    cut = ASCII_NUMERAL.split(folded)
    # Between numbers, no word begins with a digit.
    found = ascii_words(" 0 ".join(cut[::2]))
    places: list[int] = []
    for number in cut[1::2]:
        places.append(found.index("0", places[-1] + 1 if places else 0))
        found[places[-1]] = number
    return found, places


def has_digit(text: str) -> bool:
    """Say whether a folded text has a digit; ten plain searches take a tenth of the time of a pattern's."""
    return any(map(text.__contains__, "0123456789"))


def is_number(token: str) -> bool:
    """Say whether a token stands for a number."""
    return "-" <= token[0] <= "9"


def rational(text: str) -> tuple[int, int] | None:
    """Read one number, exactly.

    Returns:
        Numerator and denominator in lowest terms, fit for `Fraction(*pair)`; None where the text is no number, or one
        with more than 60 characters or an exponent of more than two digits. Percent and currency are the caller's.
    """
    if len(text) > 60:
        return None
    text = text.replace(" ", "")
    match = NUMBER.fullmatch(text) or NUMBER.fullmatch(_ungrouped(text))
    if match is None or not (match[2] or match[3]):
        return None
    sign, whole, decimals, exponent, under = match.groups(default="")
    power = int(exponent or 0) - len(decimals)
    top = int(whole + decimals) * 10 ** max(power, 0) * (-1 if sign else 1)
    bottom = (int(under) if under else 1) * 10 ** max(-power, 0)
    if not bottom:
        return None
    common = math.gcd(top, bottom)
    return top // common, bottom // common


def _ungrouped(text: str) -> str:
    """Return a number without what parts its digits in groups, its decimals behind a point."""
    if GROUPED.match(text) or LAKH.fullmatch(text):
        return text.replace(",", "").replace("'", "")
    if POINT_GROUPED.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    return text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text


def canonical(number: str, tens: int = 0) -> str:
    """Return the one spelling of a number's value, times a power of ten; 12:30 and 1.2.3 stay as they are."""
    if not tens and number.isdigit() and (number[0] != "0" or number == "0"):
        return number
    value = rational(number)
    if value is None:
        return number
    top, bottom = value[0] * 10**tens, value[1]
    common = math.gcd(top, bottom)
    return str(top // common) if bottom == common else f"{top // common}/{bottom // common}"


def stated(folded: str) -> str | None:
    r"""Return what a folded answer gives as its result: the last `\boxed{…}`, `#### …` or `Answer: …`, if short."""
    box = folded.rfind("\\boxed{")
    if box >= 0:
        return _braced(folded, box + len("\\boxed{")).strip() or None
    _, mark, tail = folded.rpartition("####")
    if mark and is_number_like(tail):
        return tail.strip()
    if not any(map(folded.__contains__, HINTS)):
        return None
    value = None
    for match in MARKED.finditer(folded):
        value = match[1]
    if value is None:
        return None
    value = STATED_END.split(value, maxsplit=1)[0].strip(" *.`\"'")
    return value if 0 < len(tokens(value)) <= STATED_WORDS else None


def boxes(folded: str) -> list[str]:
    r"""Return what stands in each `\boxed{…}` of a folded text; one that corrects or concludes outdoes those before."""
    found: list[str] = []
    end = 0
    for match in re.finditer(r"\\boxed\{", folded):
        if found and CORRECTED.search(folded, end, match.start()):
            found = []
        found.append(_braced(folded, match.end()).strip())
        end = match.end()
    return found


def is_number_like(text: str) -> bool:
    """Say whether a short piece of text is one number and at most a unit."""
    found = tokens(text) if len(text) <= 40 else []
    return 0 < len(found) <= 2 and is_number(found[0])


def yes_no(folded: str) -> str:
    """Return `yes` or `no` where a folded answer opens with it (or with true, false, oui, nein, …), else nothing."""
    match = LEADING_YES_NO.match(folded)
    return YES_NO[match[1]] if match else ""


def choice(folded: str, question: str) -> tuple[str, str]:
    """Split a folded answer into the letter chosen and the rest.

    `b`, `(b)`, `b) paris`, `option b` choose by themselves; `b. paris`, `b: paris` and what begins a long text only
    where the folded question offers such an option, since an initial or a list looks the same.

    Returns:
        The letter, or nothing; and the rest, which is the whole text where no letter was chosen.
    """
    match = LETTER.match(folded)
    if match is None:
        return "", folded
    prefix, letter, mark = match.groups()
    rest = folded[match.end() :].strip(" *.")
    if not rest or (mark and re.search(rf"\b{letter}[).:]", question)):
        return letter, rest
    if len(rest) <= CHOICE_CHARS and (prefix or ")" in mark or "]" in mark):
        return letter, rest
    return "", folded


def _braced(text: str, start: int) -> str:
    """Return the text from `start` to the brace that closes it, or to the end."""
    depth = 1
    for at in range(start, min(len(text), start + 400)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return text[start:at]
    return text[start : start + 400]


def _spaced(folded: str) -> str:
    """Return the text with its unspaced runs as pairs of characters; beside ideographs, Hiragana is only grammar."""
    folded = UNSPACED_FILLER.sub(" ", UNSPACED_NOT.sub(" not ", folded))
    if IDEOGRAPH.search(folded):
        folded = KANA_RUN.sub(" ", folded)
    return UNSPACED_RUN.sub(lambda match: f" {_pairs(match[0])} ", folded)


def _pairs(run: str) -> str:
    return " ".join(run[at : at + 2] for at in range(max(1, len(run) - 1)))
