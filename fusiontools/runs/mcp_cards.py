"""What the tools of `fuse-mcp` are called, take and give: plain JSON schemas, for other programs' models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

#: Clients give up after 60 s; what they do before they count is theirs.
PATIENCE_S = 45.0


def _texts(what: str, most: int, least: int = 0) -> dict[str, Any]:
    """Return the schema of a list of named texts."""
    item = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 200}, "text": {"type": "string", "minLength": 1}},
        "required": ["name", "text"],
        "additionalProperties": False,
    }
    return {"type": "array", "items": item, "minItems": least, "maxItems": most, "description": what}


_QUESTION = {"type": "string", "minLength": 1, "description": "The question, with all that the panel has to know."}
_CONTEXT = _texts("Files and other texts that the question is about: the panel sees nothing else.", 100)
_HANDLE = {"type": "string", "description": "As the call that was not finished returned it."}
WAIT = {
    "type": "number",
    "minimum": 0,
    "maximum": PATIENCE_S,
    "default": PATIENCE_S,
    "description": "How long to wait for the answer, in seconds; then there is a handle. 0 begins and returns at once.",
}
FRESH = {
    "type": "boolean",
    "default": False,
    "description": "Ask anew, and pay anew, although the same was answered before.",
}
_ANSWER = {"type": "string", "minLength": 1, "description": "The answer that is to be judged."}
_ANSWERS = _texts("The answers, each under a name.", 12, 2)
_STRINGS = {"type": "array", "items": {"type": "string"}}
_OBJECTS = {"type": "array", "items": {"type": "object"}}
#: One schema for all tools, and a loose one: clients refuse what does not fit.
RESULT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": ["done", "running"]},
        "handle": {"type": "string", "description": "For fuse_result."},
        "answer": {"type": "string"},
        "recipe": {"type": "string"},
        "panel": {**_OBJECTS, "description": "Who was asked: `member`, `status` (ok, or why not)."},
        "consensus": _STRINGS,
        "contradictions": _OBJECTS,
        "partial_coverage": _OBJECTS,
        "unique_insights": _OBJECTS,
        "blind_spots": _STRINGS,
        "sources": {**_OBJECTS, "description": "What the answer rests on: `url`, `how`."},
        "notes": {**_STRINGS, "description": "What did not go as it should."},
        "cost_usd": {"type": "number", "description": "What this answer cost now; missing where nobody knows."},
        "seconds": {"type": "number"},
    },
    "required": ["status"],
}


class ToolCard(Struct, frozen=True):
    """How a tool introduces itself, and what it takes beside a recipe and a time to wait."""

    title: str
    description: str
    takes: Mapping[str, Any]
    needs: tuple[str, ...]


CARDS = {
    "fuse": ToolCard(
        "Ask the panel",
        "Put a question to a panel of language models of different makers and get one answer, written from all of "
        "theirs, with what they agree on and where they contradict each other. For design decisions, root causes, "
        "reviews, facts that must be right. It costs several model calls and takes up to some minutes.",
        {"question": _QUESTION, "context": _CONTEXT},
        ("question",),
    ),
    "second_opinion": ToolCard(
        "Have an answer judged",
        "Have the panel judge an answer that you have already: each member works the question out for itself first, "
        "then says what in the answer is right, wrong or missing.",
        {"question": _QUESTION, "answer": _ANSWER, "context": _CONTEXT},
        ("question", "answer"),
    ),
    "compare": ToolCard(
        "Compare answers",
        "Have the panel compare several answers to one question: which is best and why, where they contradict each "
        "other and who is right, what all of them miss. For choosing between designs, patches or drafts.",
        {"question": _QUESTION, "answers": _ANSWERS, "context": _CONTEXT},
        ("question", "answers"),
    ),
    "fuse_result": ToolCard(
        "Collect an answer",
        "Wait for the answer of a call that returned a handle. It costs nothing more.",
        {"handle": _HANDLE},
        ("handle",),
    ),
}
