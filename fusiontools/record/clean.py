"""Text without what a person cannot see: what strangers wrote must steer neither a terminal nor, unseen, a model."""

from __future__ import annotations

import functools
import re

#: A terminal's sequences: with parameters, up to their terminator (titles, links, the clipboard), and short ones.
_ESCAPES = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])(?:[^\x07\x1b\x90\x98\x9c-\x9f]*(?:\x07|\x1b\\|\x9c))?"
    r"|\x1b[ -/]*[0-~]?"
)
#: One that the end of a text cuts off; and half of a line end.
_UNFINISHED = (
    r"(?:(?:\x1b\[|\x9b)[0-?]*[ -/]*"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f]*\x1b?"
    r"|\x1b[ -/]*"
    r"|\r)\Z"
)
#: What nobody ends within so many characters is no sequence that a terminal would wait for.
_MOST_HELD = 4096
_LINE_ENDS = r"\r\n?|[\x85\u2028\u2029]"
#: Control characters but tab and line feed, directions, marks without a width, tags, and the selectors beyond sixteen,
#: in which whole sentences have been hidden.
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
#: Joiners and the two selectors of emoji mean something, but not many in a row.
_JOINERS = "\u200c\u200d\ufe0e\ufe0f"
#: What a person sees; white space and what alone says nothing (a joined mark, an empty Braille cell, shorthand's
#: controls, half a character) is none of it.
_VISIBLE = f"[^\\s{_HIDDEN}{_JOINERS}\u034f\u2028\u2029\u2800\U0001bca0-\U0001bca3\ud800-\udfff]"
#: What is replaced in a text, in this order, and by what.
_STEPS = (
    *((_ESCAPES, ""), (_LINE_ENDS, "\n"), (f"[{_HIDDEN}]", "")),
    *((f"[{_JOINERS}]{{3,}}", ""), ("[\ud800-\udfff]", "\ufffd")),
)


def clean(text: str) -> str:
    """Return text without escape sequences, control and invisible characters; line ends become line feeds.

    What is clean stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    for pattern, instead in _patterns():
        text = pattern.sub(instead, text)
    return text


class CleanStream:
    """Cleans a text that comes in pieces: a sequence that a piece only begins is held back until its end is there."""

    def __init__(self) -> None:
        self._held = ""

    def take(self, piece: str) -> str:
        """Return what is clean by now."""
        text = self._held + piece
        begun = _unfinished().search(text)
        at = begun.start() if begun is not None and len(text) - begun.start() <= _MOST_HELD else len(text)
        self._held = text[at:]
        return clean(text[:at])

    def finish(self) -> str:
        """Return what is left of what was held back."""
        held, self._held = self._held, ""
        return clean(held)


def is_visible(text: str) -> bool:
    """Return whether there is anything in a text that a person sees: a byte-order mark or a joiner is no answer."""
    return _visible().search(text) is not None


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    # Most starts never need them.
    return [(re.compile(pattern), instead) for pattern, instead in _STEPS]


@functools.cache
def _unfinished() -> re.Pattern[str]:
    return re.compile(_UNFINISHED)


@functools.cache
def _visible() -> re.Pattern[str]:
    return re.compile(_VISIBLE)
