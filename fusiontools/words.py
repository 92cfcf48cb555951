"""The words of a message, and of the question that a record asks."""

from __future__ import annotations

from fusiontools.record import Message, Record


def text_of(message: Message) -> str:
    """Return a message's text; the text parts joined where the content is a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content or [] if part.get("type") == "text")


def question_text(record: Record) -> str:
    """Return the text of the last user message, or of the last message where no user spoke."""
    messages = record["messages"]
    for message in reversed(messages):
        if message.get("role") == "user":
            return text_of(message)
    return text_of(messages[-1])
