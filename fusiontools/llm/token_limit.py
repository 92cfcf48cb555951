"""Read out of a refusal how many tokens an answer may have: of a model at all, or beside a prompt of this length.

Source: what OpenAI, Anthropic, DeepSeek, Alibaba, Volcengine, Groq, Google, AWS, OpenRouter, vLLM, SGLang and TGI say.
"""

from __future__ import annotations

import re

from msgspec import Struct

from fusiontools.answers.patterns import compile_later

_ASKED = r"max(?:imum)?[_ ]?(?:completion[_ ]|output[_ ]|new[_ ])?tokens|maxoutputtokens|completion tokens"
_OF_ANSWER = compile_later(_ASKED)
#: How the most that a model writes is said; a group of numbers each.
_MOST = compile_later(
    r"at most (\d+) (?:completion |output )?tokens"
    r"|range of \W?max\w*tokens\W*\s+(?:is|should be|must be)\s+\[\d+,\s*(\d+)\]"
    r"|expected a value <= (\d+)"
    r"|max_tokens: \d+ > (\d+)"
    r"|tokens\W+(?:value )?(?:must|should|can)(?:not| not)? (?:be )?"
    r"(?:less than or equal to|<=|at most|no more than|exceed|greater than|larger than)\s+\W?(\d+)"
    r"|tokens\b\D{0,60}(?:limit|maximum)(?: value)? (?:of|is) \W?(\d+)|tokens\W+must be between \d+ and (\d+)"
    r"|exceeds the model limit of (\d+)|maximum allowed number of output tokens\D{0,40}(\d+)"
)
#: The same, of a range whose end does not belong to it.
_BELOW = compile_later(r"range\D{0,40}\d+ \(inclusive\) to (\d+) \(exclusive\)")
_WINDOW = compile_later(
    r"context (?:length|size|limit|window)\D{0,24}(\d+)\b(?! \+)|must be <= (\d+)|\d+ \+ \d+ > (\d+)"
)
_PROMPT = compile_later(
    r"(\d+) (?:tokens )?(?:in|from|of) (?:the |your )?(?:text |tool |image )?(?:input|messages|prompt)"
    r"|(\d+) (?:input|prompt|`inputs`) tokens"
    r"|(\d+) \+ \d+ > \d+"
)
#: An answer with less room than this is none: the prompt is too long, and is called so.
_LEAST_ROOM = 256
#: Beside how many prompts the room is known to the token.
_ROOMS = 256
#: How much of an estimated room is not relied upon.
_RESERVE = 0.1


class TokenLimit(Struct):
    """What is known of how much a model may write.

    Args:
        most: what it writes at all.
        window: what prompt and answer may have together, once a refusal has said it.
    """

    most: int | None = None
    window: int | None = None
    _tokens_per_byte: float = 0.0
    _rooms: dict[int, int] = {}

    def bound(self, asked: int, prompt_bytes: int) -> int:
        """Return how many tokens to ask for beside a prompt of this length; an estimate where it was not told."""
        most = min(asked, self.most or asked)
        if self.window is None:
            return most
        room = self._rooms.get(prompt_bytes)
        if room is None:
            room = self.window - int(prompt_bytes * self._tokens_per_byte * (1 + _RESERVE)) - 1
            # What an estimate leaves no room for is asked for as it is: the refusal says the room.
            room = room if room > _LEAST_ROOM else most
        return min(most, room)

    def learn(self, said: str, asked: int, prompt_bytes: int) -> bool:
        """Take from a refusal, in lower case, that less may be asked for; returns whether it says so."""
        said = re.sub(r"(?<=\d)[,_](?=\d{3}\b)", "", said)
        window, prompt = _number(_WINDOW, said), _sum(_PROMPT, said)
        if window and prompt and _OF_WHOLE.search(said):
            room = window - prompt
            if _LEAST_ROOM <= room < asked:
                self.window, self._tokens_per_byte = window, prompt / max(1, prompt_bytes)
                if len(self._rooms) >= _ROOMS:
                    del self._rooms[next(iter(self._rooms))]
                self._rooms[prompt_bytes] = room
                return True
            return False
        if not _OF_ANSWER.search(said):
            return False
        below = _number(_BELOW, said)
        most = below - 1 if below else _number(_MOST, said) or 0
        if 0 < most < asked:
            self.most = most
            return True
        return False


#: A refusal of prompt and answer together names both.
_OF_WHOLE = compile_later(rf"{_ASKED}|completion|output|\d+ \+ \d+ >")


def _number(pattern: re.Pattern[str], said: str) -> int | None:
    found = pattern.search(said)
    digits = next((group for group in found.groups() if group), None) if found else None
    return int(digits) if digits and len(digits) < 10 else None


def _sum(pattern: re.Pattern[str], said: str) -> int:
    digits = [next(group for group in found.groups() if group) for found in pattern.finditer(said)]
    return sum(int(number) for number in digits if len(number) < 10)
