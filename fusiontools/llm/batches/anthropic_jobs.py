"""Batch jobs as Anthropic has them: calls stand in the job itself, and nothing in it but their ids is ours.

Source: Anthropic "Message Batches" reference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusiontools.errors import CallFailed
from fusiontools.llm.batches.batch_api import CANCELLED, COMPLETED, LineAnswer, Standing, unmade
from fusiontools.llm.batches.batch_http import BatchHttp
from fusiontools.llm.batches.openai_jobs import PAGES, SKEW_S, id_of, listed, shown, with_list
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.config.models import BatchTerms, Endpoint
    from fusiontools.llm.batches.job_file import BatchJob

_BATCHES = "/messages/batches"
#: What the API's errors are called, and the HTTP status that each has outside of jobs.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_UNMADE = {
    "expired": "the job expired before this call was made",
    "canceled": "the job was cancelled before this call was made",
}


class AnthropicJobs:
    """Anthropic's Message Batches."""

    max_calls = 100_000
    max_bytes = 256_000_000
    cancels = True

    def __init__(self, endpoint: Endpoint, terms: BatchTerms) -> None:
        from fusiontools.llm.anthropic import MESSAGES

        self.http = BatchHttp(endpoint, terms.url or endpoint.base_url, MESSAGES.key_header, MESSAGES.headers)

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """Return a call as an item of the list."""
        return jsonl.dumps({"custom_id": custom_id, "params": body})

    async def upload(self, job: BatchJob, lines: Path) -> str:
        """Return nothing: the calls stand in the job."""
        return ""

    async def create(self, job: BatchJob, lines: Path, uploaded: str) -> str:
        """Create the job."""
        return id_of(await self.http.post(_BATCHES, with_list({}, "requests", lines)))

    async def find(self, job: BatchJob, is_strange: Any) -> tuple[str, bool] | None:
        """Return the newest job of as many calls that was created since and is not known: a guess."""
        after: dict[str, Any] = {}
        for _ in range(PAGES):
            page = await self.http.get(_BATCHES, limit=100, **after)
            jobs = listed(page)
            for each in jobs:
                if _time_of(each["created_at"]) < job.made_s - SKEW_S:
                    return None
                if sum((each.get("request_counts") or {}).values()) == job.calls and not is_strange(id_of(each)):
                    return id_of(each), True
            if not page.get("has_more") or not jobs:
                return None
            after = {"after_id": id_of(jobs[-1])}
        return None

    async def look(self, job: BatchJob) -> Standing:
        """Return how far the job is; nothing is counted before all of it has ended."""
        said = shown(await self.http.get(f"{_BATCHES}/{job.remote}"), "processing_status")
        ended = said.get("processing_status") == "ended"
        end = (CANCELLED if said.get("cancel_initiated_at") else COMPLETED) if ended else None
        expires = said.get("expires_at")
        return Standing(end, None, _time_of(expires) if expires else None)

    async def answers(self, job: BatchJob) -> AsyncIterator[LineAnswer]:
        """Yield the results, in any order."""
        async for line in self.http.lines(f"{_BATCHES}/{job.remote}/results"):
            if (answer := read_line(line)) is not None:
                yield answer

    async def cancel(self, job: BatchJob) -> None:
        """Have the job end; what is done by then is delivered."""
        await self.http.post(f"{_BATCHES}/{job.remote}/cancel")


def read_line(line: bytes) -> LineAnswer | None:
    """Return what a line says came of a call; None where it says nothing that can be read."""
    try:
        said = jsonl.loads(line)
        custom_id, result = said["custom_id"], said["result"]
        match result["type"]:
            case "succeeded":
                return LineAnswer(custom_id, 200, jsonl.dumps(result["message"]))
            case "errored":
                error = result["error"]
                return LineAnswer(custom_id, _STATUSES.get(error["error"]["type"], 500), jsonl.dumps(error))
            case kind:
                return unmade(custom_id, _UNMADE.get(kind, f"the job says of this call: {kind}"))
    except (ValueError, KeyError, TypeError):
        return None


def _time_of(stamp: Any) -> float:
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (TypeError, ValueError) as error:
        raise CallFailed("bad_response", f"the provider says a time that is none: {stamp!r}") from error
