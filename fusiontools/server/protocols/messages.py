"""Anthropic's Messages API: requests read, tokens counted, answers said, plain and streamed.

What is read and what is left out stands in `messages_turns` (the conversation) and `messages_in` (the rest).
"""

from __future__ import annotations

from typing import Any

from fusiontools.llm.prices import prompt_tokens
from fusiontools.server.protocols import messages_reply, messages_request
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ChatResult, ResponseMeta, StreamStyle
from fusiontools.server.protocols.messages_reply import MessagesWriter


class Messages:
    """The dialect of `/v1/messages`."""

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Read a request.

        Raises:
            Refused: with 400 and the place of what is wrong.
        """
        messages_request.bounded(body)
        return messages_request.asked(body)

    def whole(self, asked: ChatRequest, about: ResponseMeta, done: ChatResult) -> dict[str, Any]:
        """Return a `message`."""
        return messages_reply.message(asked, about, done)

    def writer(self, asked: ChatRequest, about: ResponseMeta, manner: StreamStyle) -> MessagesWriter:
        """Return what says a stream of events."""
        return MessagesWriter(asked, about, manner)

    def error(self, refused: ApiError) -> dict[str, Any]:
        """Return Anthropic's envelope."""
        return messages_reply.error(refused)


def count(body: dict[str, Any]) -> int:
    """Return about how many input tokens a request has, for `/v1/messages/count_tokens`.

    Raises:
        Refused: with 400 and the place of what is wrong.
    """
    asked = messages_request.asked(body)
    return prompt_tokens(asked.messages, asked.params)
