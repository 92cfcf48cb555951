"""Write a request down for a program that reads text: what it is told, what it is asked, and its arguments."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fusiontools.errors import CallFailed
from fusiontools.llm.answer_form import words_for
from fusiontools.record import jsonl
from fusiontools.record.sections import text_of

if TYPE_CHECKING:
    from fusiontools.llm.completion import CompletionRequest
    from fusiontools.record.types import Message

#: Linux takes 128 KiB in one argument, with its end.
MOST_ARGUMENT_BYTES = 131_071
_PLACEHOLDER = re.compile(r"\{(model|prompt|prompt_file|system|system_file|cwd)\}")
_TELLS = ("system", "developer")


@dataclass(frozen=True, slots=True)
class ProgramPrompt:
    """What a program is told about its part, and what it is asked."""

    system: str
    text: str

    def joined(self) -> ProgramPrompt:
        """Return the prompt for a program that is told everything at once."""
        return ProgramPrompt("", f"{self.system}\n\n{self.text}" if self.system else self.text)


def write_prompt(request: CompletionRequest) -> ProgramPrompt:
    """Return the request as text.

    Raises:
        CallFailed: `bad_request`, where the messages hold more than text.
    """
    messages = list(request.messages)
    told: list[str] = []
    while messages and messages[0].get("role") in _TELLS:
        told.append(_text(messages.pop(0)))
    form = request.params.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        told.append(words_for(form))
    system = "\n\n".join(text for text in told if text)
    if len(messages) == 1 and messages[0].get("role") == "user":
        return ProgramPrompt(system, _text(messages[0]))
    return ProgramPrompt(system, _transcript(messages))


def fill(arguments: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the arguments with `{model}` and the others filled in; every other brace stays."""
    return [_PLACEHOLDER.sub(lambda found: values[found[1]], argument) for argument in arguments]


def names_in(arguments: Sequence[str]) -> set[str]:
    """Return which values the arguments want."""
    return {found[1] for argument in arguments for found in _PLACEHOLDER.finditer(argument)}


def _transcript(messages: Sequence[Message]) -> str:
    """Return a conversation, in marks that no text in it can forge: they hold a digest of the whole."""
    turns = [(str(message.get("role")), _text(message)) for message in messages]
    nonce = hashlib.sha256(jsonl.dumps(turns)).hexdigest()[:12]
    written = [f"[{nonce} {role}]\n{text}\n[{nonce} end]" for role, text in turns]
    asked = "This is a conversation so far. Write what the assistant says next, and nothing else."
    return "\n\n".join([asked, *written])


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list) and any(part.get("type") != "text" for part in content):
        raise CallFailed("bad_request", "a program is sent text only, no images or files", param="messages")
    called = [call["function"] for call in message.get("tool_calls") or ()]
    lines = [text_of(message), *(f"(calls {call['name']} with {call['arguments']})" for call in called)]
    return "\n".join(line for line in lines if line)
