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
    """The protocol of `/v1/messages`."""

    def read(self, body: dict[str, Any]) -> ChatRequest:
        """Read a request.

        Raises:
            ApiError: with 400 and the place of what is wrong.
        """
        messages_request.check_bounds(body)
        return messages_request.request(body)

    def whole(self, request: ChatRequest, meta: ResponseMeta, result: ChatResult) -> dict[str, Any]:
        """Return a `message`."""
        return messages_reply.message(request, meta, result)

    def writer(self, request: ChatRequest, meta: ResponseMeta, style: StreamStyle) -> MessagesWriter:
        """Return what says a stream of events."""
        return MessagesWriter(request, meta, style)

    def error(self, refused: ApiError) -> dict[str, Any]:
        """Return Anthropic's envelope."""
        return messages_reply.error(refused)


def count(body: dict[str, Any]) -> int:
    """Return about how many input tokens a request has, for `/v1/messages/count_tokens`.

    Raises:
        ApiError: with 400 and the place of what is wrong.
    """
    request = messages_request.request(body)
    return prompt_tokens(request.messages, request.params)
