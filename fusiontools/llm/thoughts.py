"""Tell what a model thinks from what it answers, where an endpoint leaves both in the text.

A thought stands before the answer. It has marks at both ends, or the closing one only: chat templates write the opening
one into the prompt. A mark that is quoted, or that stands in a pair further down, belongs to the answer.

Source: OpenAI's "Harmony response format" for the channels of gpt-oss.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from fusiontools.answers.patterns import compile_later
from fusiontools.answers.thought_marks import CLOSES, CLOSING, OPENERS, OPENING, may_have_marks
from fusiontools.record import jsonl

#: With a space wherever one may be.
_LONGEST_OPENER = 2 * max(map(len, OPENERS))
_OPEN = compile_later(rf"\s*(?:{OPENING})", re.IGNORECASE)
_MARK = compile_later(rf"(?P<open>{OPENING})|{CLOSING}", re.IGNORECASE)
#: What a mark ends with: a thought that goes on without any of them has not ended.
_LAST_CHARS = ">]▷"
_SPACE = compile_later(r"\s+")
_QUOTES = "`'\"“”‘’«»"
#: Models that think before they answer, as far as their names say so.
_THINKS = compile_later(r"thinking|reason(?:er|ing)|\br1\b|\bqwq\b|\bqvq\b|magistral|marco-o1", re.IGNORECASE)
_SPEAKS_HARMONY = compile_later("gpt-?oss|harmony", re.IGNORECASE)
_HARMONY_MARK = compile_later(r"<\|(start|channel|message|constrain|end|return|call)\|>")
#: How a Harmony answer begins: with its marks, or without, where a server left them out.
HARMONY_HEADS = ("<|", "analysis", "commentary")
_HARMONY_BARE = compile_later(r"\s*(?:analysis|commentary)(?=[A-Z\s])(?P<thought>.*?)(?:assistantfinal(?P<final>.*)|$)", re.DOTALL)  # fmt: skip  # noqa: E501


def split_thoughts(text: str, model: str = "") -> tuple[str, str]:
    """Return the answer and what was thought before it; a thought without an end leaves no answer.

    Args:
        model: who wrote it; a model that is known to speak Harmony is read by its channels.
    """
    if _SPEAKS_HARMONY.search(model) and (channels := _split_channels(text)) is not None:
        return channels
    if not may_have_marks(text):
        return text, ""
    thoughts: list[str] = []
    rest = text
    while True:
        opened = _OPEN.match(rest)
        start = opened.end() if opened else 0
        closed = CLOSES.search(rest, start) if opened else _find_unopened(rest)
        if opened and closed is None:
            thoughts.append(rest[start:])
            rest = ""
        if closed is None:
            break
        thoughts.append(rest[start : closed.start()])
        rest = rest[closed.end() :].lstrip()
    if not thoughts:
        return text, ""
    return rest, "\n\n".join(thought.strip() for thought in thoughts if thought.strip())


def closes_unopened(text: str, thought: str) -> bool:
    """Return whether the thought that was found in a text ends with a mark and begins with none."""
    return bool(thought) and _OPEN.match(text) is None and CLOSES.search(text) is not None


class ThoughtFilter:
    """Passes on the text of a stream without its thoughts; what may still become one is held back.

    Args:
        model: who writes it.
        waits: whether the model was seen to close a thought that it had not opened: nothing is passed on before that.
    """

    def __init__(self, model: str, *, waits: bool = False) -> None:
        self._shown: list[str] = []
        self._model = model
        self._waits = waits or bool(_THINKS.search(model))
        self._harmony = bool(_SPEAKS_HARMONY.search(model))
        self._held = ""
        self._inside = False

    @property
    def shown(self) -> str:
        """What has been passed on."""
        return "".join(self._shown)

    @property
    def shows(self) -> bool:
        """Whether anything has been passed on."""
        return bool(self._shown)

    def release(self) -> None:
        """Wait no longer: the endpoint tells the thoughts apart itself."""
        self._waits = self._inside = False

    def take(self, text: str) -> str:
        """Return what of the text so far is the answer's, and has not been passed on."""
        if not self._shown:
            self._held += text
            if self._inside and not any(char in text for char in _LAST_CHARS):
                return ""
            text = self._visible_part()
            if not text:
                return ""
            self._held = ""
        self._shown.append(text)
        return text

    def _visible_part(self) -> str:
        head = self._held.lstrip()
        if self._harmony and any(mark.startswith(head[: len(mark)]) for mark in HARMONY_HEADS):
            return ""
        content, thought = split_thoughts(self._held)
        thinks = bool(_OPEN.match(self._held))
        self._inside = False
        if self._waits and not (thought or thinks):
            # A thought that the prompt has begun ends with a mark, like any other.
            self._inside = bool(head) and head[0] not in "<[◁"
            return ""
        if thinks:
            opens = [bool(mark["open"]) for mark in _MARK.finditer(self._held)]
            self._inside = opens[-1] and not content
            if sum(opens) * 2 > len(opens):
                # A thought within a thought: what follows the first end may be more of it.
                return ""
        beginning = _SPACE.sub("", content.lstrip()[:_LONGEST_OPENER]).lower()
        return "" if any(opener.startswith(beginning) for opener in OPENERS) else content


def _find_unopened(text: str) -> re.Match[str] | None:
    """Return the closing mark of a thought that nothing in the text has opened."""
    depth = 0
    for mark in _unquoted_marks(text):
        if mark["open"]:
            depth += 1
        elif depth:
            depth -= 1
        else:
            return None if _is_json(text) else mark
    return None


def _unquoted_marks(text: str) -> Iterator[re.Match[str]]:
    for mark in _MARK.finditer(text):
        start, end = mark.span()
        line_start = text.rfind("\n", 0, start) + 1
        line_end = text.find("\n", end)
        before, after = text[line_start:start], text[end : line_end if line_end >= 0 else None]
        quoted = before[-1:] in _QUOTES and after[:1] in _QUOTES and before and after
        in_code = before.count("`") % 2 == 1 and "`" in after
        in_block = text.count("```", 0, start) % 2 == 1 and "```" in text[end:]
        if not (quoted or in_code or in_block):
            yield mark


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        jsonl.loads(text)
    except ValueError:
        return False
    return True


def _split_channels(text: str) -> tuple[str, str] | None:
    """Return what a Harmony text says on its final channel, and on the others; None where it has no channels."""
    first, *pieces = _HARMONY_MARK.split(text)
    if not pieces:
        bare = _HARMONY_BARE.match(text)
        return ((bare["final"] or "").strip(), bare["thought"].strip()) if bare else None
    said: dict[bool, list[str]] = {True: [], False: []}
    # The prompt may have said the first header already.
    header = first
    if pieces[0] != "message":
        said[True].append(first)
    for mark, piece in zip(pieces[::2], pieces[1::2], strict=True):
        if mark == "channel":
            header = piece
        elif mark == "start":
            header = ""
        elif mark == "message":
            channel = header.split()[0] if header.split() else "final"
            said[channel == "final"].append(piece)
        elif mark != "constrain":
            said[True].append(piece)
    answer, thought = ("".join(said[final]).strip() for final in (True, False))
    return answer, thought
