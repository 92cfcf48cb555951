"""How much effort a question deserves, by its shape: `fast`, `balanced`, `strong` (one model of that tier), or `fuse`.

Only the last user turn is read, never the history: a short follow-up to a long talk is a short question. The rules look
at length, lists, question marks, code, formulas and numbers, and know no words of any language, so they cannot tell a
question of taste from one of facts: what none of them settles is fused, for a wrong answer costs more than a panel. A
router that knows more is a model or a command (`--method`).

Measured on tests/stages/routes.jsonl, with the two lengths chosen on half of its questions, on the other half: 41 of 46
questions that are worth a panel get one, and 54 of 118 that are not are spared it.

Source  Ong et al. 2024, RouteLLM, arXiv:2406.18665, and Chen et al. 2023, FrugalGPT, arXiv:2305.05176 (spend where it
        helps); the rules are our own
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from fusiontools.record.sections import text_of
from fusiontools.record.types import Message, Record

FUSE = "fuse"
#: The tiers of one model alone, cheapest first.
TIERS = ("fast", "balanced", "strong")

#: In Latin characters, as `weigh` counts.
_VERY_SHORT, _SHORT = 24, 36
_MANY_QUESTIONS, _MANY_ITEMS, _MANY_NUMBERS, _CODE_LINES = 2, 3, 3, 2
#: A line of code has so many signs, and so large a share of them.
_CODE_SIGNS, _CODE_SHARE = 3, 0.06
#: So much is read of the beginning and the end; a longer text is long whatever stands between.
_HEAD_CHARS, _TAIL_CHARS = 15_000, 5_000

_IDEOGRAPH = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_SYLLABLE = re.compile("[\u3040-\u30ff\uac00-\ud7a3]")
_FENCE = re.compile(r"\s*(?:```|~~~)")
_CODE_SIGN = re.compile(r"[{}\[\]();=<>_|&#$\\]")
_TRACE = re.compile(r"Traceback \(most recent|\s+at [\w.$<>]+\(|\s*File \"[^\"]{1,200}\", line \d")
_FORMULA = re.compile(
    r"\\(?:int|sum|frac|sqrt|lim|prod)\b|[a-z\d)] ?\^ ?[\d({]|[∫∑√∂∈∀∃]|\d ?[a-z] ?[-+*/=] ?\d|\b[a-z] ?= ?-?\d",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_ITEM = re.compile(r"^[ \t]*(?:[-*•]|\(?\d{1,2}[.)、]|\(?[a-z]\))[ \t]*\S", re.MULTILINE)
_QUESTION = re.compile("[?？؟\u037e]+")
_URL = re.compile(r"https?://\S+")


class Decision(Struct, frozen=True):
    """What a question deserves, and why."""

    effort: str
    reason: str


def decide(record: Record, min_chars: int) -> Decision:
    """Return what the record's question deserves.

    Args:
        min_chars: a longer question is fused.
    """
    messages: list[Message] = record["messages"]
    if messages[-1].get("role") in ("tool", "function"):
        return Decision("strong", "the last turn is a tool's result: an agent at work stays with one model")
    turn = next((message for message in reversed(messages) if message.get("role") == "user"), messages[-1])
    decision = _judge_shape(text_of(turn), min_chars)
    needs = _find_needs(record, turn)
    if decision.effort == "fast" and needs:
        return Decision("balanced", f"{needs}; otherwise {decision.reason}")
    return decision


def _judge_shape(text: str, min_chars: int) -> Decision:
    """Return what the shape of a text says; the first rule that holds decides."""
    unread = max(0, len(text) - _HEAD_CHARS - _TAIL_CHARS)
    if unread:
        text = f"{text[:_HEAD_CHARS]}\n{text[-_TAIL_CHARS:]}"
    prose, code_lines = _part_code(text)
    chars, weight = len(prose) + unread, _weigh(prose) + unread
    items, questions, numbers = (len(pattern.findall(prose)) for pattern in (_ITEM, _QUESTION, _NUMBER))
    as_latin = f", as much as {weight} Latin ones" if weight != chars else ""
    rules = (
        ("fast", not prose and not code_lines, "nothing is asked in words"),
        (FUSE, items >= _MANY_ITEMS, f"it has {items} items"),
        (FUSE, questions >= _MANY_QUESTIONS, f"it asks {questions} questions"),
        (FUSE, weight > min_chars, f"the question is {chars} characters long{as_latin}"),
        ("strong", code_lines >= _CODE_LINES, "it contains code"),
        ("strong", _FORMULA.search(prose), "it contains a formula"),
        ("strong", numbers >= _MANY_NUMBERS and questions, f"it reckons with {numbers} numbers"),
        ("fast", weight <= _VERY_SHORT, "it is very short"),
        ("balanced", weight <= _SHORT, "it is short"),
    )
    found = (Decision(effort, reason) for effort, holds, reason in rules if holds)
    return next(found, Decision(FUSE, "nothing in its shape says that one model is enough"))


def _part_code(text: str) -> tuple[str, int]:
    """Return the prose of a text without addresses, and how many lines are code; all lines between fences are."""
    prose: list[str] = []
    lines = text.split("\n")
    fenced = False
    for line in lines:
        if _FENCE.match(line):
            fenced = not fenced
        elif not (fenced or _is_code(line)):
            prose.append(line)
    return _URL.sub(" ", "\n".join(prose)).strip(), len(lines) - len(prose)


def _is_code(line: str) -> bool:
    signs = len(_CODE_SIGN.findall(line))
    return bool(_TRACE.match(line)) or (signs >= _CODE_SIGNS and signs > _CODE_SHARE * len(line))


def _weigh(text: str) -> int:
    """Return the length in Latin characters: an ideograph says as much as three of them, a syllable as two."""
    return len(text) + 2 * len(_IDEOGRAPH.findall(text)) + len(_SYLLABLE.findall(text))


def _find_needs(record: Record, turn: Message) -> str | None:
    """Return what the smallest tier may not be able to do: see, call, or keep to a schema."""
    content: Any = turn.get("content")
    params = record.get("params", {})
    if isinstance(content, list) and any(part.get("type") != "text" for part in content):
        return "something is attached"
    if params.get("tools"):
        return "tools are offered"
    form = params.get("response_format") or {}
    return "an answer to a JSON schema is wanted" if form.get("type") == "json_schema" else None
