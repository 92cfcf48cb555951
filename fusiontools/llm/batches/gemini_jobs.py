"""Batch jobs as Gemini has them: its own API, beside the chat completions under which its models are asked otherwise.

Source: Google "Gemini API: Batch API", "Files", "Generating content", "OpenAI compatibility".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusiontools.errors import CallFailed
from fusiontools.llm.batches.batch_api import CANCELLED, COMPLETED, EXPIRED, REFUSED, LineAnswer, LineFault, Standing
from fusiontools.llm.batches.batch_http import BatchHttp
from fusiontools.llm.batches.openai_jobs import PAGES, shown
from fusiontools.record import jsonl
from fusiontools.record.sections import text_of

if TYPE_CHECKING:
    from fusiontools.config.models import BatchTerms, Endpoint
    from fusiontools.llm.batches.job_file import BatchJob

ENDS = {
    "SUCCEEDED": COMPLETED,
    "PARTIALLY_SUCCEEDED": COMPLETED,
    "FAILED": REFUSED,
    "CANCELLED": CANCELLED,
    "EXPIRED": EXPIRED,
}
#: What a chat completion's parameters are called here, in `generationConfig`.
_CONFIG = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "max_tokens": "maxOutputTokens",
    "max_completion_tokens": "maxOutputTokens",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "seed": "seed",
}
#: Those that say nothing that matters here, or are read elsewhere in this file.
_ELSEWHERE = ("model", "messages", "stop", "response_format", "reasoning_effort", "tools", "tool_choice")
_IGNORED = ("parallel_tool_calls", "user", "store", "metadata", "service_tier", "logprobs")
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
#: How many tokens of thought an effort is, for models that count them; later ones take its name.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
FINISHED = {"STOP": "stop", "MAX_TOKENS": "length", "MALFORMED_FUNCTION_CALL": "stop"}
#: HTTP's status for the codes of gRPC.
_STATUSES = {3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 13: 500, 14: 503, 16: 401}


class GeminiJobs:
    """Gemini's: a file is uploaded, a job created of it, and one file comes back; expired jobs bring nothing."""

    max_calls = 100_000
    max_bytes = 2_000_000_000
    cancels = True

    def __init__(self, endpoint: Endpoint, terms: BatchTerms) -> None:
        root = terms.url or endpoint.base_url.partition("/v1beta")[0]
        self.http = BatchHttp(endpoint, root, ("x-goog-api-key", ""))

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """Return a call as a line of the file.

        Raises:
            CallFailed: it asks for what a job cannot do.
        """
        return jsonl.dumps({"key": custom_id, "request": native_request(body)})

    async def upload(self, job: BatchJob, lines: Path) -> str:
        """Upload the file; returns its name."""
        size = _size_of(lines)
        begun = {
            "x-goog-upload-protocol": "resumable",
            "x-goog-upload-command": "start",
            "x-goog-upload-header-content-length": str(size),
            "x-goog-upload-header-content-type": "application/jsonl",
            "content-type": "application/json",
        }
        answered = await self.http.start("/upload/v1beta/files", {"file": {"displayName": job.id}}, begun)
        finished = {"x-goog-upload-offset": "0", "x-goog-upload-command": "upload, finalize"}
        sent = {**finished, "content-length": str(size)}
        made = await self.http.post(answered.get("x-goog-upload-url", ""), content=_pieces(lines), headers=sent)
        return _name_of(made.get("file"))

    async def create(self, job: BatchJob, lines: Path, uploaded: str) -> str:
        """Create the job of an uploaded file."""
        path = f"/v1beta/models/{job.model.removeprefix('models/')}:batchGenerateContent"
        batch = {"displayName": job.id, "inputConfig": {"fileName": uploaded}}
        return _name_of(await self.http.post(path, {"batch": batch}))

    async def find(self, job: BatchJob, is_strange: Any) -> tuple[str, bool] | None:
        """Return the job that is called by our id."""
        token: dict[str, Any] = {}
        for _ in range(PAGES):
            page = await self.http.get("/v1beta/batches", pageSize=100, **token)
            for each in page.get("operations") or []:
                if (each.get("metadata") or {}).get("displayName") == job.id:
                    return _name_of(each), False
            if not page.get("nextPageToken"):
                return None
            token = {"pageToken": page["nextPageToken"]}
        return None

    async def look(self, job: BatchJob) -> Standing:
        """Return how far the job is."""
        said = shown(await self.http.get(f"/v1beta/{job.remote}"), "name")
        about = said.get("metadata") or {}
        state = str(about.get("state", "")).removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
        stats = about.get("batchStats") or {}
        # Numbers are texts here.
        done = sum(int(stats.get(name) or 0) for name in ("successfulRequestCount", "failedRequestCount"))
        error = said.get("error")
        faults = [LineFault(str(error.get("status")), str(error.get("message")))] if isinstance(error, dict) else []
        return Standing(ENDS.get(state), done, None, faults)

    async def answers(self, job: BatchJob) -> AsyncIterator[LineAnswer]:
        """Yield the lines of the file of responses, where there is one."""
        said = await self.http.get(f"/v1beta/{job.remote}")
        holders = ((said.get("metadata") or {}).get("output"), said.get("response"), said.get("output"))
        names = [
            holder["responsesFile"] for holder in holders if isinstance(holder, dict) and "responsesFile" in holder
        ]
        for name in names[:1]:
            async for line in self.http.lines(f"/download/v1beta/{name}:download", alt="media"):
                if answer := read_line(line):
                    yield answer

    async def cancel(self, job: BatchJob) -> None:
        """Have the job end."""
        await self.http.post(f"/v1beta/{job.remote}:cancel", {})


def _size_of(file: Path) -> int:
    return file.stat().st_size


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            yield piece


def native_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a chat completion as a GenerateContentRequest.

    Raises:
        CallFailed: it asks for what a job cannot do.
    """
    for name in body:
        if name not in (*_CONFIG, *_ELSEWHERE, *_IGNORED):
            raise CallFailed("bad_request", f"Gemini's batch jobs do not know the parameter `{name}`")
    system = [m for m in body["messages"] if m.get("role") in ("system", "developer")]
    config = {_CONFIG[name]: value for name, value in body.items() if name in _CONFIG and value is not None}
    if stop := body.get("stop"):
        config["stopSequences"] = [stop] if isinstance(stop, str) else list(stop)
    config |= _form(body.get("response_format"))
    if effort := body.get("reasoning_effort"):
        counted = "gemini-2" in str(body.get("model"))
        thinking = {"thinkingBudget": _BUDGETS.get(effort, -1)} if counted else {"thinkingLevel": effort}
        config["thinkingConfig"] = thinking
    request: dict[str, Any] = {"contents": _contents([m for m in body["messages"] if m not in system])}
    if system:
        request["systemInstruction"] = {"parts": [{"text": text_of(message)} for message in system]}
    if config:
        request["generationConfig"] = config
    return request | _tools(body)


def _form(wanted: Any) -> dict[str, Any]:
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            return {"responseMimeType": "application/json", "responseJsonSchema": schema}
        case {"type": "json_schema" | "json_object"}:
            return {"responseMimeType": "application/json"}
    return {}


def _tools(body: Mapping[str, Any]) -> dict[str, Any]:
    declared = []
    for tool in body.get("tools") or []:
        function = tool["function"]
        said = {name: function[name] for name in ("name", "description") if function.get(name)}
        declared.append({**said, "parametersJsonSchema": function.get("parameters") or {"type": "object"}})
    if not declared:
        return {}
    choice = body.get("tool_choice") or "auto"
    named = choice["function"]["name"] if isinstance(choice, dict) else None
    calling = {"mode": "ANY", "allowedFunctionNames": [named]} if named else {"mode": _MODES.get(choice, "AUTO")}
    return {"tools": [{"functionDeclarations": declared}], "toolConfig": {"functionCallingConfig": calling}}


def _contents(messages: list[Any]) -> list[dict[str, Any]]:
    """Return the turns; what tools answered is the user's, by the names of the calls that it answers."""
    called = {call["id"]: call["function"]["name"] for m in messages for call in m.get("tool_calls") or []}
    contents: list[dict[str, Any]] = []
    for message in messages:
        role = "model" if message["role"] == "assistant" else "user"
        if message["role"] == "tool":
            name = called.get(message.get("tool_call_id"), "tool")
            parts = [{"functionResponse": {"name": name, "response": {"result": text_of(message)}}}]
        else:
            parts = _parts(message)
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    given: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    parts: list[dict[str, Any]] = []
    for part in given:
        if part.get("type") == "text":
            parts.append({"text": part["text"]})
            continue
        url = (part.get("image_url") or {}).get("url", "")
        kind, found, data = url.removeprefix("data:").partition(";base64,")
        if not found:
            raise CallFailed("bad_request", "Gemini's batch jobs take pictures by their bytes only, and no other files")
        parts.append({"inlineData": {"mimeType": kind, "data": data}})
    for call in message.get("tool_calls") or []:
        made = {"name": call["function"]["name"], "args": jsonl.loads(call["function"]["arguments"].encode() or b"{}")}
        signature = ((call.get("extra_content") or {}).get("google") or {}).get("thought_signature")
        parts.append({"functionCall": made} | ({"thoughtSignature": signature} if signature else {}))
    return parts or [{"text": ""}]


def read_line(line: bytes) -> LineAnswer | None:
    """Return what a line says came of a call; None where it says nothing that can be read."""
    try:
        said = jsonl.loads(line)
        key, response = said["key"], said.get("response")
        if isinstance(response, dict):
            return LineAnswer(key, 200, jsonl.dumps(as_completion(response)))
        error = said.get("error") or said.get("status") or {"message": "the job says nothing of this call", "code": 13}
        code: Any = error.get("code")
        status = code if isinstance(code, int) and code in range(400, 600) else _STATUSES.get(code, 500)
        return LineAnswer(key, status, jsonl.dumps({"error": error}))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def as_completion(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a GenerateContentResponse as a chat completion."""
    [candidate] = (response.get("candidates") or [{}])[:1]
    blocked = (response.get("promptFeedback") or {}).get("blockReason")
    parts = (candidate.get("content") or {}).get("parts") or []
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(part["text"] for part in parts if "text" in part and not part.get("thought")),
    }
    if thoughts := "".join(part["text"] for part in parts if "text" in part and part.get("thought")):
        message["reasoning"] = thoughts
    calls = [_call(at, part) for at, part in enumerate(parts) if "functionCall" in part]
    if calls:
        message["tool_calls"] = calls
    reason = "content_filter" if blocked else FINISHED.get(str(candidate.get("finishReason")), "content_filter")
    finished = "tool_calls" if calls and reason == "stop" else reason
    counts = response.get("usageMetadata") or {}
    thought = counts.get("thoughtsTokenCount") or 0
    usage = {
        "prompt_tokens": counts.get("promptTokenCount"),
        "completion_tokens": (counts.get("candidatesTokenCount") or 0) + thought,
        "prompt_tokens_details": {"cached_tokens": counts.get("cachedContentTokenCount") or 0},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    return {
        "id": response.get("responseId") or "gemini",
        "object": "chat.completion",
        "model": response.get("modelVersion"),
        "choices": [{"index": 0, "message": message, "finish_reason": finished}],
        "usage": usage if counts else None,
    }


def _call(at: int, part: Mapping[str, Any]) -> dict[str, Any]:
    made = part["functionCall"]
    function = {"name": made["name"], "arguments": jsonl.dumps(made.get("args") or {}).decode()}
    call: dict[str, Any] = {"id": made.get("id") or f"call_{at}", "type": "function", "function": function}
    if signature := part.get("thoughtSignature"):
        call["extra_content"] = {"google": {"thought_signature": signature}}
    return call


def _name_of(said: Any) -> str:
    """Return Gemini's name of what it has made."""
    found = said.get("name") if isinstance(said, dict) else None
    if not isinstance(found, str) or not found:
        raise CallFailed("bad_response", "the provider says no name of what it has made")
    return found
