"""What the batch APIs of five providers take, refuse and say: their words, over the jobs of `batch_upstream.py`.

A field that an API does not know is refused everywhere here, as some of the real ones do.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any, ClassVar

import anthropic_upstream
import fake_models
import orjson

COMPLETIONS = "/v1/chat/completions"
#: When jobs seem to have been made: real time, as clients ask for those since a moment.
now = time.time


@dataclass
class FakeJob:
    """A job, and what has come of its calls."""

    id: str
    api: str
    model: str
    lines: list[dict[str, Any]]
    said: dict[str, Any]
    made_s: float
    state: str = "under way"
    looks: int = 0
    checking: bool = True
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)


class Refused(Exception):
    """A refusal."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status, self.body = status, body


def whole(said: Any) -> tuple[int, Any, dict[str, str]]:
    """Return status, body and headers of what a route says."""
    return said if isinstance(said, tuple) else (200, said, {})


def refuse(message: str, status: int = 400, code: str | None = None) -> Refused:
    return Refused(status, fake_models.error(status, message, None, code))


def only(said: Any, must: set[str], may: set[str], where: str) -> None:
    """Refuse an object that lacks a field, or has one more."""
    if not isinstance(said, dict):
        raise refuse(f"{where}: must be an object")
    if missing := must - said.keys():
        raise refuse(f"{where}: missing {sorted(missing)}")
    if more := said.keys() - must - may:
        raise refuse(f"{where}: Extra inputs are not permitted: {sorted(more)}")


def loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise refuse("We could not parse the JSON body of your request") from None


def form(body: bytes, headers: dict[str, str]) -> tuple[dict[str, str], str, bytes]:
    """Return the fields of a form, and the name and content of its file."""
    if not headers.get("content-type", "").startswith("multipart/form-data"):
        raise refuse("files are sent as multipart/form-data")
    message = message_from_bytes(b"content-type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
    fields, name, content = {}, "", b""
    for part in message.get_payload():  # type: ignore[union-attr]
        data = part.get_payload(decode=True)  # type: ignore[union-attr]
        if part.get_filename():  # type: ignore[union-attr]
            name, content = part.get_filename(), data  # type: ignore[union-attr,assignment]
        else:
            fields[part.get_param("name", header="content-disposition")] = data.decode()  # type: ignore[union-attr]
    return fields, name, content


def answered(job: Any, body: dict[str, Any], nth: int) -> tuple[int, Any]:
    """Return what a model says to the body of a chat completion."""
    try:
        request = fake_models.check(orjson.dumps(body))
    except fake_models.RequestError as refused:
        return 400, fake_models.error(400, *refused.args)
    answer = fake_models.answer({**request, "model": body["model"].removesuffix(":batch")}, nth)
    said = b"".join(piece for _, piece in fake_models.body(answer))
    return answer.status, orjson.loads(said) if said.startswith(b"{") else said.decode()


def make(job: Any, line: dict[str, Any], nth: int) -> None:
    """Make a call of a job."""
    APIS[job.api].make(job, line, nth)


def leave(job: Any, line: dict[str, Any], how: str) -> None:
    """Note of a call that it was not made."""
    APIS[job.api].leave(job, line, how)


Route = tuple[str, str, Callable[..., Any]]


class OpenAI:
    """OpenAI's."""

    name, prefix = "openai", "/v1"
    states: ClassVar[dict[str, str]] = {"under way": "in_progress", "cancelling": "cancelling"}

    def admit(self, headers: dict[str, str], key: str) -> None:
        if headers.get("authorization") != f"Bearer {key}":
            raise refuse("Incorrect API key provided", 401, "invalid_api_key")

    @property
    def routes(self) -> list[Route]:
        return [
            ("POST", f"{self.prefix}/files", self.upload),
            ("GET", f"{self.prefix}/files/([^/]+)/content", self.content),
            ("POST", f"{self.prefix}/batches", self.create),
            ("GET", f"{self.prefix}/batches", self.list),
            ("GET", f"{self.prefix}/batches/([^/]+)", self.read),
            ("POST", f"{self.prefix}/batches/([^/]+)/cancel", self.cancel),
        ]

    def upload(self, book: Any, body: bytes, headers: dict[str, str], **_: Any) -> Any:
        fields, name, content = form(body, headers)
        if fields != {"purpose": "batch"}:
            raise refuse(f"'purpose' must be 'batch', and stand alone: {fields}")
        if not name.endswith(".jsonl"):
            raise refuse("Invalid file format. Must be .jsonl")
        if len(content) > book.settings.max_bytes:
            raise refuse("File is too large", 413)
        file_id = f"file-{len(book.files)}"
        book.files[file_id] = content
        made = {"id": file_id, "object": "file", "bytes": len(content), "created_at": int(now()), "filename": name}
        return {**made, "purpose": "batch", "status": "processed", "expires_at": int(now()) + 30 * 86400}

    def content(self, book: Any, file_id: str, **_: Any) -> Any:
        name, _, job_id = file_id.partition("-of-")
        if file_id in book.files:
            return 200, book.files[file_id], {}
        if job_id not in book.jobs:
            raise refuse(f"No such File object: {file_id}", 404)
        job = book.jobs[job_id]
        return 200, b"".join(orjson.dumps(r) + b"\n" for r in (job.errors if name == "errors" else job.results)), {}

    def create(self, book: Any, body: bytes, **_: Any) -> Any:
        said = loads(body)
        only(said, {"input_file_id", "endpoint", "completion_window"}, {"metadata", "output_expires_after"}, "batch")
        if said["endpoint"] != COMPLETIONS or said["completion_window"] != "24h":
            raise refuse("Invalid endpoint or completion_window")
        metadata = said.get("metadata", {})
        if len(metadata) > 16 or any(len(k) > 64 or len(v) > 512 for k, v in metadata.items()):
            raise refuse("metadata is too large")
        if said["input_file_id"] not in book.files:
            raise refuse(f"No such File object: {said['input_file_id']}", 400)
        self.may_create(book)
        # What stands in the file is looked at later.
        lines, faults = self.check(book, book.files[said["input_file_id"]])
        job = book_job(book, self.name, said, lines, faults)
        return self.object(job)

    def may_create(self, book: Any) -> None:
        if book.settings.refusals:
            status, message = book.settings.refusals.pop(0)
            raise refuse(message, status)

    def check(self, book: Any, content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the lines of a file, and what is wrong with them."""
        lines, faults = [], []
        for number, raw in enumerate(content.splitlines(), start=1):
            try:
                line = orjson.loads(raw)
                self.check_line(line)
                lines.append(line)
            except orjson.JSONDecodeError:
                faults.append({"code": "invalid_json_line", "message": "This line is not parseable", "line": number})
            except Refused as refused:
                said = refused.body["error"]
                faults.append({"code": said["code"] or "invalid_request", "message": said["message"], "line": number})
        if not content.strip():
            faults.append({"code": "empty_file", "message": "The file is empty", "line": None})
        if len(lines) > book.settings.max_lines:
            faults.append({"code": "too_many_tasks", "message": "The batch has too many tasks", "line": None})
        seen: set[str] = set()
        for number, line in enumerate(lines, start=1):
            if line["custom_id"] in seen:
                faults.append({"code": "duplicate_custom_id", "message": "custom_id is taken", "line": number})
            seen.add(line["custom_id"])
        if len({line["body"].get("model") for line in lines}) > 1:
            faults.append({"code": "model_mismatch", "message": "one model in a batch", "line": None})
        return lines, faults

    def check_line(self, line: Any) -> None:
        only(line, {"custom_id", "method", "url", "body"}, set(), "line")
        if line["url"] != COMPLETIONS or line["method"] != "POST":
            raise refuse("The URL does not match the batch's", code="url_mismatch")
        if "stream" in line["body"] or not line["body"].get("model"):
            raise refuse("a body has a model and no stream")
        check_id(line["custom_id"])

    def list(self, book: Any, query: dict[str, str], **_: Any) -> Any:
        unknown = query.keys() - {"limit", "after"}
        if unknown or not 1 <= int(query.get("limit", 20)) <= 100:
            raise refuse(f"Unknown parameters: {sorted(unknown)}")
        return page([self.object(job) for job in newest(book, self.name)], query.get("after"), 2)

    def read(self, book: Any, job_id: str, **_: Any) -> Any:
        job = job_of(book, self.name, job_id)
        book.look(job)
        return self.object(job)

    def cancel(self, book: Any, job_id: str, **_: Any) -> Any:
        job = job_of(book, self.name, job_id)
        if job.state != "under way":
            raise refuse(f"Cannot cancel a batch with status '{job.state}'.", 409)
        job.state = "cancelling"
        return self.object(job)

    def object(self, job: Any) -> dict[str, Any]:
        files = {
            "output_file_id": f"outputs-of-{job.id}" if job.results else None,
            "error_file_id": f"errors-of-{job.id}" if job.errors else None,
        }
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": COMPLETIONS,
            "input_file_id": job.said["input_file_id"],
            "completion_window": "24h",
            "status": "validating" if job.checking else self.states.get(job.state, job.state),
            "errors": {"object": "list", "data": job.faults} if job.state == "failed" else None,
            **(files if job.state not in self.states else dict.fromkeys(files)),
            "created_at": int(job.made_s),
            "expires_at": int(job.made_s) + 86_400,
            "request_counts": {
                "total": len(job.lines),
                "completed": len(job.results),
                "failed": sum(e["response"] is not None for e in job.errors),
            },
            "metadata": job.said.get("metadata"),
        }

    def make(self, job: Any, line: dict[str, Any], nth: int) -> None:
        status, body = answered(job, line["body"], nth)
        response = {"status_code": status, "request_id": "req", "body": body}
        result = {"id": f"batch_req_{nth}", "custom_id": line["custom_id"], "response": response, "error": None}
        (job.results if status == 200 else job.errors).append(result)

    def leave(self, job: Any, line: dict[str, Any], how: str) -> None:
        if how == "cancelled":
            return  # what is in flight then is in neither file
        error = {"code": "batch_expired", "message": "This request could not be executed before the window expired."}
        job.errors.append({"id": "batch_req", "custom_id": line["custom_id"], "response": None, "error": error})


class Mistral(OpenAI):
    """Mistral's."""

    name = "mistral"
    ends: ClassVar[dict[str, str]] = {
        "under way": "RUNNING",
        "completed": "SUCCESS",
        "failed": "FAILED",
        "expired": "TIMEOUT_EXCEEDED",
        "cancelling": "CANCELLATION_REQUESTED",
        "cancelled": "CANCELLED",
    }

    @property
    def routes(self) -> list[Route]:
        return [
            ("POST", "/v1/files", self.upload),
            ("GET", "/v1/files/([^/]+)/content", self.content),
            ("POST", "/v1/batch/jobs", self.create),
            ("GET", "/v1/batch/jobs", self.list),
            ("GET", "/v1/batch/jobs/([^/]+)", self.read),
            ("POST", "/v1/batch/jobs/([^/]+)/cancel", self.cancel),
        ]

    def create(self, book: Any, body: bytes, **_: Any) -> Any:
        said = loads(body)
        only(said, {"input_files", "endpoint", "model"}, {"metadata", "timeout_hours", "agent_id"}, "job")
        if said["endpoint"] != COMPLETIONS or not 1 <= said.get("timeout_hours", 24) <= 168:
            raise refuse("Invalid endpoint or timeout_hours", 422)
        if any(file_id not in book.files for file_id in said["input_files"]):
            raise refuse("File not found", 404)
        self.may_create(book)
        lines, faults = self.check(book, b"".join(book.files[file_id] for file_id in said["input_files"]))
        return self.object(book_job(book, self.name, said, lines, faults))

    def check_line(self, line: Any) -> None:
        only(line, {"custom_id", "body"}, set(), "line")
        if "stream" in line["body"]:
            raise refuse("a body has no stream")
        check_id(line["custom_id"])

    def list(self, book: Any, query: dict[str, str], **_: Any) -> Any:
        if unknown := query.keys() - {"page", "page_size", "created_after", "status", "model", "created_by_me"}:
            raise refuse(f"Unknown parameters: {sorted(unknown)}", 422)
        since = datetime.fromisoformat(query["created_after"]).timestamp() if "created_after" in query else 0.0
        jobs = [self.object(job) for job in newest(book, self.name) if job.made_s >= since]
        size = int(query.get("page_size", 100))
        first = int(query.get("page", 0)) * size
        return {"object": "list", "data": jobs[first : first + size], "total": len(jobs)}

    def object(self, job: Any) -> dict[str, Any]:
        over = job.state not in ("under way", "cancelling")
        stamp = datetime.fromtimestamp(job.made_s, UTC).isoformat()
        return {
            "id": job.id,
            "object": "batch",
            "input_files": job.said["input_files"],
            "endpoint": COMPLETIONS,
            "model": job.said["model"],
            "metadata": job.said.get("metadata"),
            "status": "QUEUED" if not job.looks else self.ends[job.state],
            "errors": [{"message": fault["message"], "count": 1} for fault in job.faults],
            "output_file": f"outputs-of-{job.id}" if over and job.results else None,
            "error_file": f"errors-of-{job.id}" if over and job.errors else None,
            "created_at": stamp,
            "total_requests": len(job.lines),
            "completed_requests": len(job.results) + len(job.errors),
            "succeeded_requests": len(job.results),
            "failed_requests": len(job.errors),
        }

    def make(self, job: Any, line: dict[str, Any], nth: int) -> None:
        super().make(job, {**line, "body": {"model": job.said["model"], **line["body"]}}, nth)

    def leave(self, job: Any, line: dict[str, Any], how: str) -> None:
        pass


class OpenRouter(OpenAI):
    """OpenRouter's beta."""

    name, prefix = "openrouter", "/api/v1"

    @property
    def routes(self) -> list[Route]:
        return [
            ("POST", "/api/v1/batches", self.create),
            ("GET", "/api/v1/batches", self.list),
            ("GET", "/api/v1/batches/([^/]+)", self.read),
            ("GET", "/api/v1/batches/([^/]+)/results", self.results),
        ]

    def create(self, book: Any, body: bytes, **_: Any) -> Any:
        said = loads(body)
        must, may = {"endpoint", "model", "requests"}, {"callback_url", "completion_window", "provider"}
        only(said, must, may, "batch")
        if list(said)[-1] != "requests":
            raise refuse("endpoint and model must come before requests")
        if said["endpoint"] != COMPLETIONS or said.get("completion_window", "24h") != "24h":
            raise refuse("Invalid endpoint or completion_window")
        if not said["model"].endswith(":batch"):
            raise refuse(f"{said['model']} is not available in batches; use {said['model']}:batch")
        if len(said["requests"]) > min(5_000, book.settings.max_lines) or len(body) > book.settings.max_bytes:
            raise refuse("the batch is too large", 413)
        self.may_create(book)
        for line in said["requests"]:
            only(line, {"custom_id", "body"}, set(), "request")
            if line["body"].get("model", said["model"]) != said["model"] or "stream" in line["body"]:
                raise refuse("the model of a request must be the batch's, and nothing streams")
            check_id(line["custom_id"])
        job = book_job(book, self.name, {k: v for k, v in said.items() if k != "requests"}, said["requests"], [])
        return 202, self.object(job), {}

    def list(self, book: Any, query: dict[str, str], **_: Any) -> Any:
        if unknown := query.keys() - {"limit", "after", "status", "created_after"}:
            raise refuse(f"Unknown parameters: {sorted(unknown)}")
        since = float(query.get("created_after", 0))
        return page([self.object(job) for job in newest(book, self.name) if job.made_s >= since], query.get("after"), 9)

    def results(self, book: Any, job_id: str, query: dict[str, str], **_: Any) -> Any:
        job = job_of(book, self.name, job_id)
        if job.state in ("under way", "cancelling"):
            raise refuse("The batch is not finished", 409)
        first = int(query.get("cursor", 0))
        found = [*job.results, *job.errors]
        after = str(first + 2) if first + 2 < len(found) else None
        return {"object": "list", "data": found[first : first + 2], "next_cursor": after}

    def object(self, job: Any) -> dict[str, Any]:
        return {
            "id": job.id,
            "object": "batch",
            "endpoint": COMPLETIONS,
            "model": job.said["model"],
            "status": "validating" if job.checking else self.states.get(job.state, job.state),
            "completion_window": "24h",
            "created_at": int(job.made_s),
            "expires_at": None,
            "results": None,
            "error": {"message": job.faults[0]["message"]} if job.faults else None,
            "request_counts": {
                "total": len(job.lines),
                "completed": len(job.results),
                "failed": len(job.errors),
            },
        }

    def make(self, job: Any, line: dict[str, Any], nth: int) -> None:
        status, body = answered(job, {"model": job.said["model"], **line["body"]}, nth)
        result: dict[str, Any] = {"id": f"r{nth}", "custom_id": line["custom_id"], "response": None, "error": None}
        if status == 200:
            job.results.append({**result, "response": {"status_code": 200, "request_id": "req", "body": body}})
        else:
            said = body["error"] if isinstance(body, dict) else {"message": body, "type": "server_error"}
            job.errors.append({**result, "error": {"type": said["type"], "message": said["message"]}})

    def leave(self, job: Any, line: dict[str, Any], how: str) -> None:
        pass


class Anthropic(OpenAI):
    """Anthropic's Message Batches."""

    name = "anthropic"

    def admit(self, headers: dict[str, str], key: str) -> None:
        if headers.get("x-api-key") != key:
            raise Refused(401, anthropic_upstream.error(401, "invalid x-api-key"))
        if headers.get("anthropic-version") != "2023-06-01":
            raise Refused(400, anthropic_upstream.error(400, "anthropic-version: header is required"))

    @property
    def routes(self) -> list[Route]:
        return [
            ("POST", "/v1/messages/batches", self.create),
            ("GET", "/v1/messages/batches", self.list),
            ("GET", "/v1/messages/batches/([^/]+)", self.read),
            ("GET", "/v1/messages/batches/([^/]+)/results", self.results),
            ("POST", "/v1/messages/batches/([^/]+)/cancel", self.cancel),
        ]

    def create(self, book: Any, body: bytes, **_: Any) -> Any:
        said = loads(body)
        only(said, {"requests"}, set(), "batch")
        if len(said["requests"]) > min(100_000, book.settings.max_lines) or len(body) > book.settings.max_bytes:
            raise Refused(413, anthropic_upstream.error(413, "Request exceeds the maximum size"))
        self.may_create(book)
        seen: set[str] = set()
        for at, line in enumerate(said["requests"]):
            only(line, {"custom_id", "params"}, set(), f"requests.{at}")
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", line["custom_id"]):
                message = f"requests.{at}.custom_id: String should have at most 64 characters"
                raise Refused(400, anthropic_upstream.error(400, message))
            if line["custom_id"] in seen or line["params"].get("stream"):
                message = f"requests.{at}: custom_id is taken, or streams"
                raise Refused(400, anthropic_upstream.error(400, message))
            seen.add(line["custom_id"])
        return self.object(book_job(book, self.name, {}, said["requests"], []))

    def list(self, book: Any, query: dict[str, str], **_: Any) -> Any:
        if unknown := query.keys() - {"limit", "after_id", "before_id"}:
            raise refuse(f"Unknown parameters: {sorted(unknown)}")
        return page([self.object(job) for job in newest(book, self.name)], query.get("after_id"), 2)

    def results(self, book: Any, job_id: str, **_: Any) -> Any:
        job = job_of(book, self.name, job_id)
        if job.state in ("under way", "cancelling"):
            raise Refused(404, anthropic_upstream.error(404, "results are not ready"))
        return 200, b"".join(orjson.dumps(result) + b"\n" for result in [*job.errors, *job.results]), {}

    def object(self, job: Any) -> dict[str, Any]:
        over = job.state not in ("under way", "cancelling")
        kinds = ["processing", "succeeded", "errored", "canceled", "expired"]
        found = [result["result"]["type"] for result in [*job.results, *job.errors]]
        # Nothing is counted before all is over.
        counts = (
            {kind: found.count(kind) for kind in kinds}
            if over
            else {**dict.fromkeys(kinds, 0), "processing": len(job.lines)}
        )
        stamp = datetime.fromtimestamp(job.made_s, UTC)
        return {
            "id": job.id,
            "type": "message_batch",
            "request_counts": counts,
            "processing_status": "ended" if over else "canceling" if job.state == "cancelling" else "in_progress",
            "created_at": stamp.isoformat(),
            "expires_at": datetime.fromtimestamp(job.made_s + 86_400, UTC).isoformat(),
            "ended_at": stamp.isoformat() if over else None,
            "results_url": f"https://api.anthropic.com/v1/messages/batches/{job.id}/results" if over else None,
        }

    def make(self, job: Any, line: dict[str, Any], nth: int) -> None:
        shared = anthropic_upstream.Messages()
        shared.per_model[line["params"]["model"]] = nth - 1
        headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "content-type": "application/json"}
        pieces = b"".join(piece for _, piece in shared.complete(headers, orjson.dumps(line["params"])) if piece)
        head, _, body = pieces.partition(b"\r\n\r\n")
        said = orjson.loads(body)
        if b" 200 " in head.partition(b"\r\n")[0]:
            said["usage"]["service_tier"] = "batch"
            job.results.append({"custom_id": line["custom_id"], "result": {"type": "succeeded", "message": said}})
        else:
            job.errors.append({"custom_id": line["custom_id"], "result": {"type": "errored", "error": said}})

    def leave(self, job: Any, line: dict[str, Any], how: str) -> None:
        kind = "expired" if how == "expired" else "canceled"
        job.errors.append({"custom_id": line["custom_id"], "result": {"type": kind}})


class Gemini(OpenAI):
    """Gemini's own API."""

    name = "gemini"
    ends: ClassVar[dict[str, str]] = {
        "under way": "RUNNING",
        "completed": "SUCCEEDED",
        "failed": "FAILED",
        "expired": "EXPIRED",
        "cancelling": "RUNNING",
        "cancelled": "CANCELLED",
    }

    def admit(self, headers: dict[str, str], key: str) -> None:
        if headers.get("x-goog-api-key") != key:
            raise Refused(400, {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}})

    @property
    def routes(self) -> list[Route]:
        return [
            ("POST", "/upload/v1beta/files", self.begin),
            ("POST", "/upload/v1beta/files/([^/]+)/put", self.put),
            ("POST", "/v1beta/models/([^/]+(?:/[^/]+)?):batchGenerateContent", self.start),
            ("GET", "/v1beta/batches", self.list),
            ("GET", "/v1beta/batches/([^/:]+)", self.read),
            ("POST", "/v1beta/batches/([^/:]+):cancel", self.cancel),
            ("GET", "/download/v1beta/files/([^/]+):download", self.content),
        ]

    def begin(self, book: Any, body: bytes, headers: dict[str, str], **_: Any) -> Any:
        only(loads(body), {"file"}, set(), "upload")
        if headers.get("x-goog-upload-protocol") != "resumable" or headers.get("x-goog-upload-command") != "start":
            raise refuse("an upload is resumable and starts")
        if not headers.get("x-goog-upload-header-content-length", "").isdigit():
            raise refuse("how long is it?")
        url = f"http://{headers['host']}/gemini/upload/v1beta/files/in{len(book.files)}/put"
        return 200, b"", {"x-goog-upload-url": url}

    def put(self, book: Any, name: str, body: bytes, headers: dict[str, str], **_: Any) -> Any:
        if headers.get("x-goog-upload-command") != "upload, finalize" or headers.get("x-goog-upload-offset") != "0":
            raise refuse("an upload is finalized")
        book.files[f"files/{name}"] = body
        return {"file": {"name": f"files/{name}", "mimeType": "application/jsonl", "sizeBytes": str(len(body))}}

    def start(self, book: Any, model: str, body: bytes, **_: Any) -> Any:
        said = loads(body)
        only(said, {"batch"}, set(), "request")
        only(said["batch"], {"displayName", "inputConfig"}, {"priority", "webhookConfig"}, "batch")
        only(said["batch"]["inputConfig"], {"fileName"}, set(), "inputConfig")
        self.may_create(book)
        lines, faults = self.check(book, book.files[said["batch"]["inputConfig"]["fileName"]])
        return self.object(book_job(book, self.name, {"model": model, **said["batch"]}, lines, faults))

    def check(self, book: Any, content: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        lines = [orjson.loads(raw) for raw in content.splitlines()]
        for line in lines:
            only(line, {"key", "request"}, set(), "line")
            line["custom_id"] = line["key"]
        return lines, []

    def list(self, book: Any, query: dict[str, str], **_: Any) -> Any:
        jobs = [self.object(job) for job in newest(book, self.name)]
        first = int(query.get("pageToken", 0))
        more = {"nextPageToken": str(first + 2)} if first + 2 < len(jobs) else {}
        return {"operations": jobs[first : first + 2], **more}

    def cancel(self, book: Any, job_id: str, **_: Any) -> Any:
        super().cancel(book, job_id)
        return {}

    def object(self, job: Any) -> dict[str, Any]:
        over = job.state not in ("under way", "cancelling")
        has_file = over and job.state in ("completed", "cancelled")
        stats = {
            "requestCount": str(len(job.lines)),
            "successfulRequestCount": str(len(job.results)),
            "failedRequestCount": str(len(job.errors)),
        }
        about = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": f"models/{job.model}",
            "displayName": job.said["displayName"],
            "state": f"BATCH_STATE_{self.ends[job.state] if job.looks else 'PENDING'}",
            "batchStats": stats,
        } | ({"output": {"responsesFile": f"files/outputs-of-{job.id}"}} if has_file else {})
        error = {"code": 3, "message": job.faults[0]["message"], "status": "INVALID_ARGUMENT"} if job.faults else None
        return {"name": f"batches/{job.id}", "metadata": about, "done": over} | ({"error": error} if error else {})

    def content(self, book: Any, file_id: str, query: dict[str, str] | None = None, **_: Any) -> Any:
        if query != {"alt": "media"}:
            raise refuse("alt=media is wanted")
        job = book.jobs[file_id.partition("-of-")[2]]
        return 200, b"".join(orjson.dumps(result) + b"\n" for result in [*job.results, *job.errors]), {}

    def make(self, job: Any, line: dict[str, Any], nth: int) -> None:
        try:
            body = gemini_as_openai(line["request"])
        except Refused as refused:
            said = {"code": 3, "message": refused.body["error"]["message"], "status": "INVALID_ARGUMENT"}
            job.errors.append({"key": line["key"], "error": said})
            return
        status, said = answered(job, {"model": job.model, **body}, nth)
        if status != 200:
            error = {"code": status, "message": said["error"]["message"], "status": "UNKNOWN"}
            job.errors.append({"key": line["key"], "status": error})
            return
        message, usage = said["choices"][0]["message"], said["usage"] or {}
        parts = [{"text": "Hm.", "thought": True}, {"text": message["content"] or ""}]
        for call in message.get("tool_calls") or []:
            function = call["function"]
            made = {"name": function["name"], "args": orjson.loads(function["arguments"])}
            parts.append({"functionCall": made, "thoughtSignature": "c2ln"})
        reason = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}.get(said["choices"][0]["finish_reason"], "STOP")
        response = {
            "candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": reason}],
            "modelVersion": job.model,
            "usageMetadata": {
                "promptTokenCount": usage.get("prompt_tokens"),
                "candidatesTokenCount": usage.get("completion_tokens"),
                "thoughtsTokenCount": 2,
            },
        }
        job.results.append({"key": line["key"], "response": response})

    def leave(self, job: Any, line: dict[str, Any], how: str) -> None:
        pass


def gemini_as_openai(request: dict[str, Any]) -> dict[str, Any]:
    """Return a GenerateContentRequest as `fake_models` reads it; refuse what the API does not know."""
    only(request, {"contents"}, {"systemInstruction", "generationConfig", "tools", "toolConfig"}, "request")
    messages: list[dict[str, Any]] = []
    if "systemInstruction" in request:
        only(request["systemInstruction"], {"parts"}, {"role"}, "systemInstruction")
        messages.append(
            {"role": "system", "content": "\n".join(p["text"] for p in request["systemInstruction"]["parts"])}
        )
    before = None
    for turn in request["contents"]:
        only(turn, {"role", "parts"}, set(), "contents")
        if turn["role"] not in ("user", "model") or turn["role"] == before or not turn["parts"]:
            raise refuse("roles are user and model, in turns, with parts")
        before = turn["role"]
        known = {"text", "inlineData", "functionCall", "functionResponse"}
        for part in turn["parts"]:
            only(part, set(), {*known, "thoughtSignature"}, "parts")
        role = "assistant" if turn["role"] == "model" else "user"
        messages.append({"role": role, "content": "".join(part.get("text", "") for part in turn["parts"])})
    config = request.get("generationConfig", {})
    sampling = {"temperature", "topP", "topK", "seed", "presencePenalty", "frequencyPenalty", "stopSequences"}
    forms = {"maxOutputTokens", "responseMimeType", "responseJsonSchema", "thinkingConfig"}
    only(config, set(), sampling | forms, "generationConfig")
    body: dict[str, Any] = {"messages": messages}
    if "maxOutputTokens" in config:
        body["max_tokens"] = config["maxOutputTokens"]
    if "responseMimeType" in config:
        body["response_format"] = {"type": "json_schema" if "responseJsonSchema" in config else "json_object"}
    if "tools" in request:
        [tools] = request["tools"]
        functions = tools["functionDeclarations"]
        for function in functions:
            only(function, {"name", "parametersJsonSchema"}, {"description"}, "functionDeclarations")
        body["tools"] = [
            {"type": "function", "function": {"name": f["name"], "parameters": f["parametersJsonSchema"]}}
            for f in functions
        ]
    return body


def check_id(custom_id: Any) -> None:
    if not isinstance(custom_id, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", custom_id):
        raise refuse("custom_id must be a string of at most 64 letters, digits, `_` and `-`")


def book_job(book: Any, api: str, said: dict[str, Any], lines: list[Any], faults: list[dict[str, Any]]) -> Any:
    model = (
        said.get("model") or (lines[0].get("body") or lines[0].get("params") or {}).get("model", "") if lines else ""
    )
    name = f"batch_{len(book.jobs):08x}" if api == "openai" else f"{api}_{len(book.jobs)}"
    job = FakeJob(name, api, model, lines, said, now(), faults=faults)
    book.jobs[job.id] = job
    return job


def job_of(book: Any, api: str, job_id: str) -> Any:
    if job_id not in book.jobs or book.jobs[job_id].api != api or book.settings.absent > 0:
        book.settings.absent -= 1
        raise refuse(f"No batch found with id '{job_id}'.", book.settings.absent_status)
    return book.jobs[job_id]


def newest(book: Any, api: str) -> list[Any]:
    """Return the jobs of an API as a list shows them, the newest first."""
    jobs = [job for job in book.jobs.values() if job.api == api][::-1]
    unlisted, book.settings.unlisted = book.settings.unlisted, 0
    return jobs[unlisted:]


def page(objects: list[dict[str, Any]], after: str | None, size: int) -> dict[str, Any]:
    first = next((at + 1 for at, each in enumerate(objects) if each["id"] == after), 0)
    shown = objects[first : first + size]
    ends: ClassVar[dict[str, str]] = (
        {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": shown, "has_more": len(objects) > first + size, **ends}


APIS: dict[str, Any] = {
    "openai": OpenAI(),
    "mistral": Mistral(),
    "openrouter": OpenRouter(),
    "anthropic": Anthropic(),
    "gemini": Gemini(),
}
