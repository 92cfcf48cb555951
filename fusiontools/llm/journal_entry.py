"""What an entry of the journal is: the key of a request, and the bytes in which its completion is kept."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder, Encoder
from msgspec.structs import astuple

from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.state.store import KeptCall, Lease
from fusiontools.record import jsonl


class _Entry(Struct, omit_defaults=True):
    """What is kept of a completion, as the completion has it and in its order, and what it cost."""

    content: str
    model: str
    finish_reason: str = "stop"
    tool_calls: Sequence[Any] = ()
    reasoning: str | None = None
    usage: dict[str, Any] | None = None
    cost_usd: int | float | None = None
    unmet: str | None = None
    mean_logprob: int | float | None = None
    lowest_window_logprob: int | float | None = None
    sources: Sequence[Any] = ()
    native: list[Any] | None = None
    reasoning_details: list[Any] | None = None
    paid_usd: int | float | None = None


_kept_of = attrgetter(*_Entry.__struct_fields__[:-1])
_encode = Encoder().encode


@functools.cache
def _decoder() -> Decoder[_Entry]:
    return Decoder(_Entry)


def request_key(request: CompletionRequest, identity: str, epoch: int = 0) -> bytes:
    """Return what a request is stored under: everything that decides its answer, and where it was asked.

    Args:
        epoch: which repetition of the question it belongs to; each is asked anew.
    """
    asked = [identity, request.model, request.messages, request.params, request.sample]
    if epoch:
        asked.append(epoch)
    told = jsonl.canonical(asked)
    for mark in request.marks:
        # Who replays a journal that another installation wrote makes other marks around the same texts.
        told = told.replace(mark.encode(), b"")
    return hashlib.sha256(told).digest()[:16]


def kept_call(
    key: bytes, request: CompletionRequest, completion: Completion, paid_usd: float | None, lease: Lease | None
) -> KeptCall:
    """Return a finished call as it is kept.

    Raises:
        ValueError: it cannot be written: it is nested too deeply, or a text in it is no Unicode.
    """
    entry = _Entry(*_kept_of(completion))
    entry.paid_usd = paid_usd
    fence = None if lease is None else lease.fence
    try:
        f"{request.endpoint}{request.model}".encode()
        return KeptCall(key, time.time(), request.endpoint, request.model, _encode(entry), fence)
    except (RecursionError, TypeError) as error:
        raise ValueError(str(error)) from error


def read_body(data: bytes) -> tuple[Completion, float | None]:
    """Return what an entry holds.

    Raises:
        ValueError: it is none of ours.
    """
    try:
        *kept, paid_usd = astuple(_decoder().decode(data))
    except (RecursionError, TypeError) as error:
        raise ValueError(str(error)) from error
    return Completion(*kept), paid_usd
