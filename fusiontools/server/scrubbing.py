"""A record and its failures as a client may see them: nothing of the operator's own settings, keys or places."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fusiontools.config.recipe import public_model, without_private
from fusiontools.record.types import Record

#: What an endpoint says when it is the server's own key or account that it refuses.
_OWN_ACCOUNT = re.compile(r"HTTP (?:(?:40[1237]|429):|\d+ \((auth|payment|rate_limited)\):) .*", re.DOTALL)
#: Not the colon or the like behind it: that parts it from what went wrong there.
_ADDRESS = re.compile(r"https?://[^\s,;]*[^\s,;:.!?)'\"]")
#: A place on the operator's disk.
_PATH = re.compile(r"(?<![\w./:~-])~?/(?:[^\s/'\",;:]+/)+[^\s/'\",;:]*")
#: What the operator's own command printed, or why it could not be started.
_OF_ROUTER = re.compile(r"(the router command \w+(?: \w+){0,4}).*", re.DOTALL)
_OWN_CODES = {
    "auth": "the endpoint does not accept this server's key or account",
    "payment": "the endpoint does not accept this server's key or account",
    "rate_limited": "the endpoint limits how often this server may ask",
}


def scrub_record(record: Record, *, whole: bool = False) -> dict[str, Any]:
    """Return the record without what endpoints say of the operator's own key or account.

    Args:
        whole: whether what a recipe may say privately stays in it.
    """
    shown: dict[str, Any] = {**record}
    if not whole:
        shown |= _without_private(record)
    if "degraded" in record:
        shown["degraded"] = [{**note, "detail": scrub(note["detail"], record)} for note in record["degraded"]]
    for section in ("panel", "baselines"):
        if section in record:
            shown[section] = [scrub_response(response) for response in record[section]]
    if "layers" in record:
        shown["layers"] = [[scrub_response(response) for response in layer] for layer in record["layers"]]
    if "error" in record:
        shown["error"] = {**record["error"], "message": scrub(record["error"]["message"], record)}
    return shown


def _without_private(record: Record) -> dict[str, Any]:
    """Return the sections of a record that hold settings, without those that are the operator's own."""
    shown: dict[str, Any] = {}
    if "recipe" in record:
        shown["recipe"] = without_private(record["recipe"])
    if "model" in (route := record.get("route", {})):
        shown["route"] = {**route, "model": public_model(route["model"])}
    return shown


def scrub(message: str, record: Record | None = None) -> str:
    """Return a failure's words without where the endpoint is, and what it says of the operator's own key or account.

    Args:
        record: whose failures' words may be in it, so that no more than those is taken out.
    """
    for response in (record or {}).get("panel", []):
        if "error" in response and (words := _OWN_CODES.get(response["error"]["code"])):
            message = message.replace(response["error"]["message"], words)
    message = _ADDRESS.sub("the endpoint", _OWN_ACCOUNT.sub(_of_account, message))
    return _PATH.sub("a file", _OF_ROUTER.sub(r"\1", message))


def _of_account(words: re.Match[str]) -> str:
    return _OWN_CODES[words[1] or ("rate_limited" if words[0].startswith("HTTP 429") else "auth")]


def words_of(code: str, message: str) -> str:
    """Return what a client is told of a failed call."""
    return _OWN_CODES.get(code) or scrub(message)


def scrub_response(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a member's response with what a client is told of its failure."""
    if "error" not in response:
        return response
    error = response["error"]
    return {**response, "error": {**error, "message": words_of(error["code"], error["message"])}}
