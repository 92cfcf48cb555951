"""Batch jobs as OpenAI has them, and in nearly the same words Mistral and OpenRouter.

Source: OpenAI "Batch API" reference, Mistral "Batch" reference, OpenRouter "Batch API Quickstart" (beta).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusiontools.errors import CallFailed
from fusiontools.llm.batches.batch_api import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    REFUSED,
    LineAnswer,
    LineFault,
    Standing,
    unmade,
)
from fusiontools.llm.batches.batch_http import BatchHttp
from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.config.models import BatchTerms, Endpoint
    from fusiontools.llm.batches.job_file import BatchJob

_COMPLETIONS = "/v1/chat/completions"
#: Under which name ours stands in a job's metadata.
_OURS = "fusiontools_job"
#: What a job is while its calls are looked through.
_CHECKING = "validating"
_ENDS = {
    "completed": COMPLETED,
    "success": COMPLETED,
    "failed": REFUSED,
    "expired": EXPIRED,
    "timeout_exceeded": EXPIRED,
    "cancelled": CANCELLED,
}
#: Words in the names of errors that nothing mends.
_NAMED = {"invalid": 400, "not_found": 404, "authentication": 401, "permission": 403, "rate_limit": 429}
#: So many pages of a list are looked through for a job of the last minutes.
PAGES = 20
#: How far the clocks of two machines may be apart.
SKEW_S = 300.0


class OpenAIJobs:
    """OpenAI's: a file is uploaded, a job created of it, and two files come back: of answers, and of errors."""

    max_calls = 50_000
    max_bytes = 200_000_000
    cancels = True

    def __init__(self, endpoint: Endpoint, terms: BatchTerms) -> None:
        self.http = BatchHttp(endpoint, terms.url or endpoint.base_url, ("authorization", "Bearer "))

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """Return a call as a line of the file."""
        return jsonl.dumps({"custom_id": custom_id, "method": "POST", "url": _COMPLETIONS, "body": body})

    async def upload(self, job: BatchJob, lines: Path) -> str:
        """Upload the file; returns its id."""
        return id_of(await self.http.upload("/files", lines, {"purpose": "batch"}))

    async def create(self, job: BatchJob, lines: Path, uploaded: str) -> str:
        """Create the job of an uploaded file."""
        made = {"input_file_id": uploaded, "endpoint": _COMPLETIONS, "completion_window": "24h"}
        return id_of(await self.http.post("/batches", {**made, "metadata": {_OURS: job.id}}))

    async def find(self, job: BatchJob, is_strange: Any) -> tuple[str, bool] | None:
        """Return the job whose metadata has our id."""
        after: dict[str, Any] = {}
        for _ in range(PAGES):
            page = await self.http.get("/batches", limit=100, **after)
            found = listed(page)
            for each in found:
                if (each.get("metadata") or {}).get(_OURS) == job.id:
                    return id_of(each), False
            if not page.get("has_more") or not found or _time_of(found[-1]) < job.made_s - SKEW_S:
                return None
            after = {"after": id_of(found[-1])}
        return None

    async def look(self, job: BatchJob) -> Standing:
        """Return how far the job is."""
        said = shown(await self.http.get(f"/batches/{job.remote}"), "status")
        counts = said.get("request_counts") or {}
        errors = (said.get("errors") or {}).get("data") or []
        return Standing(
            _ENDS.get(str(said.get("status")).lower()),
            (counts.get("completed") or 0) + (counts.get("failed") or 0),
            said.get("expires_at"),
            [LineFault(str(e.get("code")), str(e.get("message")), e.get("line")) for e in errors],
            said.get("status") == _CHECKING,
        )

    async def answers(self, job: BatchJob) -> AsyncIterator[LineAnswer]:
        """Yield the lines of both files; a job of which every call failed has no file of answers."""
        said = await self.http.get(f"/batches/{job.remote}")
        for name in ("output_file_id", "error_file_id"):
            if said.get(name):
                async for line in self.http.lines(f"/files/{said[name]}/content"):
                    if answer := read_line(line):
                        yield answer

    async def cancel(self, job: BatchJob) -> None:
        """Have the job end; what is done by then is delivered."""
        await self.http.post(f"/batches/{job.remote}/cancel")


class MistralJobs(OpenAIJobs):
    """Mistral's: the same steps under other names. The file has bodies only, and the job says the model."""

    # The batch page says 1,000,000 calls, the page of known limits 100,000 and 512 MB.
    max_calls = 100_000
    max_bytes = 500_000_000

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """Return a call as a line of the file."""
        return jsonl.dumps({"custom_id": custom_id, "body": body})

    async def create(self, job: BatchJob, lines: Path, uploaded: str) -> str:
        """Create the job of an uploaded file."""
        made = {"input_files": [uploaded], "endpoint": _COMPLETIONS, "model": job.model, "timeout_hours": 24}
        return id_of(await self.http.post("/batch/jobs", {**made, "metadata": {_OURS: job.id}}))

    async def find(self, job: BatchJob, is_strange: Any) -> tuple[str, bool] | None:
        """Return the job whose metadata has our id."""
        since = datetime.fromtimestamp(job.made_s - SKEW_S, UTC).isoformat()
        for page in range(PAGES):
            said = await self.http.get("/batch/jobs", page=page, page_size=100, created_after=since)
            for each in listed(said):
                if (each.get("metadata") or {}).get(_OURS) == job.id:
                    return id_of(each), False
            if len(listed(said)) < 100:
                return None
        return None

    async def look(self, job: BatchJob) -> Standing:
        """Return how far the job is."""
        said = shown(await self.http.get(f"/batch/jobs/{job.remote}"), "status")
        faults = [LineFault("refused", str(each.get("message"))) for each in said.get("errors") or []]
        return Standing(_ENDS.get(str(said.get("status")).lower()), said.get("completed_requests"), None, faults)

    async def answers(self, job: BatchJob) -> AsyncIterator[LineAnswer]:
        """Yield the lines of both files."""
        said = await self.http.get(f"/batch/jobs/{job.remote}")
        for name in ("output_file", "error_file"):
            if said.get(name):
                async for line in self.http.lines(f"/files/{said[name]}/content"):
                    if answer := read_line(line):
                        yield answer

    async def cancel(self, job: BatchJob) -> None:
        """Have the job end; what is done by then is delivered."""
        await self.http.post(f"/batch/jobs/{job.remote}/cancel")


class OpenRouterJobs(OpenAIJobs):
    """OpenRouter's, a beta: calls stand in the job itself, whose model is the `:batch` variant; nothing cancels it."""

    max_calls = 5_000
    max_bytes = 200_000_000
    cancels = False

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """Return a call as an item of the list; its model is the job's."""
        own = {name: value for name, value in body.items() if name != "model"}
        return jsonl.dumps({"custom_id": custom_id, "body": own})

    async def upload(self, job: BatchJob, lines: Path) -> str:
        """Return nothing: the calls stand in the job."""
        return ""

    async def create(self, job: BatchJob, lines: Path, uploaded: str) -> str:
        """Create the job; the API reads it as it comes and wants the list last."""
        head = {"endpoint": _COMPLETIONS, "model": _variant(job.model), "completion_window": "24h"}
        return id_of(await self.http.post("/batches", with_list(head, "requests", lines)))

    async def find(self, job: BatchJob, is_strange: Any) -> tuple[str, bool] | None:
        """Return the newest job for this model of as many calls that was created since and is not known: a guess."""
        said = await self.http.get("/batches", limit=100, created_after=int(job.made_s - SKEW_S))
        for each in listed(said):
            total = (each.get("request_counts") or {}).get("total")
            if each.get("model") == _variant(job.model) and total in (0, job.calls) and not is_strange(id_of(each)):
                return id_of(each), True
        return None

    async def look(self, job: BatchJob) -> Standing:
        """Return how far the job is."""
        said = shown(await self.http.get(f"/batches/{job.remote}"), "status")
        counts = said.get("request_counts") or {}
        fault = (said.get("error") or {}).get("message")
        done = (counts.get("completed") or 0) + (counts.get("failed") or 0)
        faults = [LineFault("refused", str(fault))] if fault else []
        end, checking = _ENDS.get(str(said.get("status")).lower()), said.get("status") == _CHECKING
        return Standing(end, done, said.get("expires_at"), faults, checking)

    async def answers(self, job: BatchJob) -> AsyncIterator[LineAnswer]:
        """Yield the results, page by page; where there are no pages, those that stand in the job itself."""
        cursor: dict[str, Any] = {}
        while True:
            try:
                page = await self.http.get(f"/batches/{job.remote}/results", **cursor)
            except CallFailed as failure:
                if failure.status != 404 or cursor:
                    raise
                page = await self.http.get(f"/batches/{job.remote}")
            for each in page.get("results") or page.get("data") or []:
                if answer := read_answer(each):
                    yield answer
            if not page.get("next_cursor"):
                return
            cursor = {"cursor": page["next_cursor"]}


def with_list(head: Mapping[str, Any], name: str, lines: Path) -> bytes:
    """Return an object whose last value is the list of these lines."""
    items = lines.read_bytes().rstrip(b"\n").replace(b"\n", b",")
    return b"%b%b%b:[%b]}" % (jsonl.dumps(head)[:-1], b"," if head else b"", jsonl.dumps(name), items)


def read_line(line: bytes) -> LineAnswer | None:
    """Return what a line says came of a call; None where it says nothing that can be read."""
    try:
        return read_answer(jsonl.loads(line))
    except ValueError:
        return None


def read_answer(said: Any) -> LineAnswer | None:
    """Return what a result says came of a call: a response, be it a refusal, or why there is none."""
    if not isinstance(said, dict) or not isinstance(custom_id := said.get("custom_id"), str):
        return None
    response, error = said.get("response"), said.get("error")
    if isinstance(response, dict) and response.get("body") is not None:
        status = response.get("status_code")
        return LineAnswer(custom_id, status if isinstance(status, int) else 200, jsonl.dumps(response["body"]))
    if isinstance(error, dict) and str(error.get("code")) not in ("batch_expired", "batch_cancelled"):
        return LineAnswer(custom_id, _status_of(error), jsonl.dumps({"error": error}))
    said_so = error.get("message") if isinstance(error, dict) else error
    return unmade(custom_id, str(said_so or "the job says nothing of this call"))


def _status_of(error: Mapping[str, Any]) -> int:
    """Return the HTTP status that an error without one would have had; what cannot be told may pass by itself."""
    if isinstance(code := error.get("code"), int) and code in range(400, 600):
        return code
    named = " ".join(str(error.get(name)) for name in ("type", "error_type", "code"))
    return next((status for word, status in _NAMED.items() if word in named), 500)


def _variant(model: str) -> str:
    return model if model.endswith(":batch") else f"{model}:batch"


def listed(page: Any) -> list[Any]:
    found = page.get("data") if isinstance(page, dict) else None
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def id_of(said: Any) -> str:
    """Return the provider's id of what it has made."""
    found = said.get("id") if isinstance(said, dict) else None
    if not isinstance(found, str) or not found:
        raise CallFailed("bad_response", "the provider says no id of what it has made")
    return found


def shown(said: Any, field: str) -> Any:
    """Return the job that an answer shows; where a job is gone, some answer with an error that has HTTP's status 200.

    Args:
        field: what every job has.
    """
    if isinstance(said, dict) and said.get(field):
        return said
    raise CallFailed("not_found", "the provider shows no job there", status=404)


def _time_of(said: Mapping[str, Any]) -> float:
    made = said.get("created_at")
    return float(made) if isinstance(made, int | float) else float("inf")
