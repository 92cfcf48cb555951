"""What an entry of the journal is: the key of a request, and the bytes in which its completion is kept."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Mapping
from operator import attrgetter

from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.state.store import KeptCall, Lease
from fusiontools.record import jsonl

#: What is kept of a completion, and the kinds of value that it may have.
_KEPT: Mapping[str, tuple[type, ...]] = {
    "content": (str,),
    "model": (str,),
    "finish_reason": (str,),
    "tool_calls": (list,),
    "reasoning": (str,),
    "reasoning_details": (list,),
    "usage": (dict,),
    "cost_usd": (int, float),
    "mean_logprob": (int, float),
    "lowest_window_logprob": (int, float),
    "unmet": (str,),
    "sources": (list,),
    "native": (list,),
}
_kept_of = attrgetter(*_KEPT)


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
    """Return a finished call as it is kept."""
    body = {
        name: value
        for name, value in zip(_KEPT, _kept_of(completion), strict=True)
        if value is not None and value != ()
    }
    if paid_usd is not None:
        body["paid_usd"] = paid_usd
    fence = None if lease is None else lease.fence
    return KeptCall(key, time.time(), request.endpoint, request.model, jsonl.dumps(body), fence)


def read_body(data: bytes) -> tuple[Completion, float | None]:
    """Return what an entry holds.

    Raises:
        KeyError, TypeError, ValueError: it is none of ours.
    """
    body = jsonl.loads(data)
    if type(body) is not dict:
        raise TypeError("no object")
    paid_usd = body.pop("paid_usd", None)
    for name in _unknown(tuple(body), tuple(map(type, body.values()))):
        del body[name]
    return Completion(**body), paid_usd


@functools.lru_cache(256)
def _unknown(names: tuple[str, ...], kinds: tuple[type, ...]) -> list[str]:
    """Return which names of an entry are not kept; most entries have the same names, and values of the same kinds.

    Raises:
        TypeError: a value is of no kind that is kept.
    """
    for name, kind in zip(names, kinds, strict=True):
        if kind not in _KEPT.get(name, (kind,)):
            raise TypeError(f"`{name}` is of no kind that is kept")
    return [name for name in names if name not in _KEPT]
