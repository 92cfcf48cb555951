"""What of the asker's parameters goes to whom: one table.

A member drafts, the answer is what the person sees. So whatever shapes the visible answer goes to who writes it: the
synthesizer, or the one model that answers alone. A judge gets none: its reply has a form of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Parameters of a panel member.
MEMBER = ("tools", "tool_choice", "parallel_tool_calls")
#: Parameters of whoever writes the visible answer.
ANSWER = (
    "temperature",
    "top_p",
    "max_tokens",
    "stop",
    "seed",
    "response_format",
    *MEMBER,
    "reasoning_effort",
)


def asked(params: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return what the asker said of these parameters; null says nothing."""
    return {name: params[name] for name in names if params.get(name) is not None}
