"""Thoughts that a client sends back, in the places that the protocols have for them.

A place of one provider's holds less than `reasoning_details`, which come from many. What does not fit is sealed: all of
it stands as one word where the provider has its signature or its encrypted text, which no client reads. What a model
signs beside a call (Gemini) has no place in these protocols; it goes along as if it were a thought.

Source: OpenAI's API reference, "Responses", `reasoning` items; Anthropic's API reference, "Extended thinking".
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fusiontools.llm.reasoning_details import block_of, detail_of
from fusiontools.llm.rewrite import SIGNATURES
from fusiontools.record import jsonl
from fusiontools.record.types import ToolCall

Details = list[dict[str, Any]]

_SEAL = "fusion1."
#: The ids of our own items; clients that send items back without their ids mean ours, too.
_OWN_ID = re.compile(r"rs_[0-9a-f]{32}_\d+")
#: What OpenAI's own encrypted thoughts are.
_OPENAI = "openai-responses-v1"
#: What of a call is no thought.
_BESIDE_CALL = "fusion.beside_call"


def visible_text(details: Sequence[Mapping[str, Any]]) -> str:
    """Return what of the thoughts can be read."""
    said = [detail.get("text") or detail.get("summary") for detail in details]
    return "\n\n".join(text for text in said if isinstance(text, str))


def unsaid_details(
    said: Sequence[Mapping[str, Any]], details: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """Return the thoughts that came behind those that were said; nothing where those are not the beginning of them."""
    return details[len(said) :] if list(details[: len(said)]) == list(said) else ()


def beside_calls(calls: Iterable[Mapping[str, Any]]) -> Details:
    """Return what was signed beside calls, as thoughts that name the call."""
    signed = [(call["id"], {name: call[name] for name in SIGNATURES if call.get(name)}) for call in calls]
    return [{"type": _BESIDE_CALL, "id": name, **beside} for name, beside in signed if beside]


def put_beside(calls: Sequence[ToolCall], details: Details) -> tuple[list[ToolCall], Details]:
    """Return the calls with what was signed beside them, and the thoughts without it."""
    signed = {detail.get("id"): detail for detail in details if detail.get("type") == _BESIDE_CALL}
    thoughts = [detail for detail in details if detail.get("type") != _BESIDE_CALL]
    made: list[Any] = []
    for call in calls:
        found = signed.get(call["id"], {})
        made.append(
            {**call, **{name: found[name] for name, kind in SIGNATURES.items() if isinstance(found.get(name), kind)}}
        )
    return made, thoughts


def encrypted_content(details: Sequence[Mapping[str, Any]]) -> str:
    """Return what an item of the Responses API holds for the next turn."""
    [first, *more] = details
    if not more and first.keys() <= {"type", "data", "index"} and _is_encrypted(first):
        return str(first["data"])
    return _seal(details)


def details_of_item(item: Mapping[str, Any]) -> Details:
    """Return the thoughts that an item of the Responses API brings back."""
    said = item.get("encrypted_content")
    if not isinstance(said, str) or not said:
        return []
    if said.startswith(_SEAL):
        return _open(said)
    detail = {"type": "reasoning.encrypted", "data": said, "index": 0}
    name = item.get("id")
    if isinstance(name, str) and not _OWN_ID.fullmatch(name):
        detail |= {"id": name, "format": _OPENAI}
    return [detail]


def thinking_blocks(details: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the thoughts as blocks of the Messages API: as their model wrote them, or sealed."""
    blocks = [block_of(detail) for detail in details]
    if all(blocks):  # none of none
        return [block for block in blocks if block]
    if text := visible_text(details):
        return [{"type": "thinking", "thinking": text, "signature": _seal(details)}]
    return [{"type": "redacted_thinking", "data": _seal(details)}]


def details_of_blocks(blocks: Sequence[Mapping[str, Any]]) -> Details:
    """Return the thoughts that blocks of the Messages API bring back."""
    details: Details = []
    for block in blocks:
        detail = detail_of(block, len(details))
        said = None if detail is None else detail.get("signature") or detail["data"]
        if isinstance(said, str) and said.startswith(_SEAL):
            details += _open(said)
        elif detail is not None and isinstance(said, str):
            details.append(detail)
    return details


def _is_encrypted(detail: Mapping[str, Any]) -> bool:
    data = detail.get("data")
    return detail.get("type") == "reasoning.encrypted" and isinstance(data, str) and data != ""


def _seal(details: Sequence[Mapping[str, Any]]) -> str:
    return _SEAL + base64.urlsafe_b64encode(jsonl.dumps(list(details))).decode()


def _open(sealed: str) -> Details:
    """Return what was sealed; nothing where a client has changed it."""
    try:
        details = jsonl.loads(base64.urlsafe_b64decode(sealed.removeprefix(_SEAL)))
        jsonl.dumps([[[[details]]]])  # nested too deeply, it could be read but not be passed on
    except (TypeError, ValueError):
        return []
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []
