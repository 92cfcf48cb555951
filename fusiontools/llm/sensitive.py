"""Find in a text what must not leave: addresses, telephone numbers, keys, and what a recipe's own patterns say.

Only places are found here; what becomes of them is said in `redact`. The known forms are looked for in linear time,
one's own by RE2. Too much rather than too little: what is found in vain is put back all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

from fusiontools.config.recipe import Redact
from fusiontools.errors import UsageError

#: Scripts that are written without spaces: a word of them before an address is not a part of it.
_UNSPACED = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_LETTER = rf"[^\W{_UNSPACED}]"
_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_LAST_LABEL = r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,63}|[^\W\d_]{2,63})"
_EMAIL = (
    rf"(?:(?<!{_LETTER}){_LETTER}(?:{_LETTER}|[.+%'!#$&*=?^`{{|}}~-]){{0,63}}|(?<!\w)[{_UNSPACED}]{{1,64}})"
    rf"(?:@|\uff20|%40)(?:{_LABEL}\.)+{_LAST_LABEL}"
)
_NO_DATE = r"(?!\d{1,2}([/.-])\d{1,2}\1\d{2,4}(?!\d))"
_PHONE = (
    rf"(?<![\w.+/-]){_NO_DATE}(?:"
    r"\+\d(?:[\s().\-/]{0,2}\d){6,14}"
    r"|00[1-9](?:[ ().\-/]{0,2}\d){7,13}"
    r"|\(\d{2,5}\)[ .\-/]{0,2}\d(?:[ .\-/]?\d){4,10}"
    r"|\d{3}[-. ]\d{3}[-. ]\d{4}"
    r"|0\d{1,4}[ /\-.]\d(?:[ .\-/]?\d){4,9}"
    r")(?!\w)"
)
#: What begins a key, and what follows.
_KEY_FORMS = (
    r"sk-[\w-]{16,}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}",
    r"(?:xai|tvly|pplx|fw|nvapi|csk|glpat)-[\w-]{16,}",
    r"(?:gsk|hf|npm|r8|lin_api|dop_v1)_[A-Za-z0-9]{20,}",
    r"gh[opusr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}",
    r"AIza[\w-]{30,}|ya29\.[\w-]{20,}",
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    r"pypi-[\w-]{30,}|SG\.[\w-]{16,}\.[\w-]{16,}",
    r"eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",
)
_KEY = (
    rf"(?<![\w+-])(?:{'|'.join(_KEY_FORMS)})"
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)"
    r"|(?<=[Bb]earer )[\w.~+/-]{20,}=*"
    r"|(?<=://)[^/\s:@\"'<>]+:[^/\s@\"'<>]+(?=@)"
)
_KNOWN = {"keys": ("KEY", _KEY), "email": ("EMAIL", _EMAIL), "phone": ("PHONE", _PHONE)}
#: What is said in the place of a text that looks like a mark of ours, and is none.
_LOOKALIKE = "MARK"


class Span(NamedTuple):
    """A place in a text, and what kind of thing stands there."""

    start: int
    end: int
    label: str


Find = Callable[[str], Iterator[tuple[int, int]]]


class Finder:
    """Finds all that a recipe wants hidden."""

    def __init__(self, redact: Redact) -> None:
        found: list[tuple[str, Find]] = []
        for kind, pattern in redact:
            label, known = _KNOWN.get(kind, (kind.upper(), ""))
            found.append((label, _finding(re.compile(known)) if known else _own(kind, pattern)))
        labels = "|".join(sorted({label for label, _ in found}))
        self._find = [(_LOOKALIKE, _finding(re.compile(rf"\[(?:{labels}|{_LOOKALIKE})_\d{{1,9}}\]"))), *found]

    def spans(self, text: str) -> list[Span]:
        """Return the places in their order; where two overlap they are one, of the kind of the first."""
        found = sorted(
            (start, -end, order)
            for order, (_, find) in enumerate(self._find)
            for start, end in find(text)
            if start < end
        )
        merged: list[Span] = []
        for start, minus_end, order in found:
            if merged and start < merged[-1].end:
                merged[-1] = merged[-1]._replace(end=max(merged[-1].end, -minus_end))
            else:
                merged.append(Span(start, -minus_end, self._find[order][0]))
        return merged


@lru_cache(maxsize=64)
def finder_for(redact: Redact) -> Finder:
    """Return what finds these kinds.

    Raises:
        UsageError: a pattern of one's own is none.
    """
    return Finder(redact)


def _finding(pattern: re.Pattern[str]) -> Find:
    return lambda text: (match.span() for match in pattern.finditer(text))


def _own(kind: str, pattern: str) -> Find:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0]
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
        raise UsageError(f"redact: {kind}: no regular expression of RE2: {reason}") from None

    def find(text: str) -> Iterator[tuple[int, int]]:
        # RE2 knows no lone surrogates; each becomes one other character, so the places stay.
        searched = text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return (match.span() for match in compiled.finditer(searched))

    return find
