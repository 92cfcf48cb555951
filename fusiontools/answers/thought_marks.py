"""The marks around what a model thinks before it answers, in all spellings that are known.

Source: the chat templates of the open models.
"""

from __future__ import annotations

import re

from fusiontools.answers.patterns import compile_later

_TAGS = ("think", "thinking", "thought", "thoughts", "seed:think", "mm:think", "longcat_think")
#: The opening ones, in small letters and without spaces.
OPENERS = (*(f"<{tag}>" for tag in _TAGS), "[think]", "◁think▷", "<|start_thinking|>", "<|begin_of_thought|>")
#: What every mark begins with, closing ones too.
_BEGINNINGS = {opener[0] for opener in OPENERS}
_TAG = "|".join(_TAGS)
OPENING = rf"<\s*(?:{_TAG})\s*>|\[\s*think\s*\]|◁\s*think\s*▷|<\|(?:start_thinking|begin_of_thought)\|>"
CLOSING = rf"<\s*/\s*(?:{_TAG})\s*>|\[\s*/\s*think\s*\]|◁\s*/\s*think\s*▷|<\|(?:end_thinking|end_of_thought)\|>"
OPENS = compile_later(OPENING, re.IGNORECASE)
CLOSES = compile_later(CLOSING, re.IGNORECASE)


def may_have_marks(text: str) -> bool:
    """Return whether a text may have such marks: a plain search is a hundred times faster than the patterns."""
    if not any(map(text.__contains__, _BEGINNINGS)):
        return False
    lower = text.lower()
    return "think" in lower or "thought" in lower
