"""Does a text say anything? A byte-order mark, a joiner or a blank that is no space is no answer."""

from __future__ import annotations

import functools
import re

#: What a person sees: neither white space nor a control character, a direction, a filler, a selector, half a character.
_VISIBLE = (
    "[^\\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)


def is_visible(text: str) -> bool:
    """Return whether there is anything in a text that a person sees."""
    return _pattern().search(text) is not None


@functools.cache
def _pattern() -> re.Pattern[str]:
    # Most starts never need it.
    return re.compile(_VISIBLE)
