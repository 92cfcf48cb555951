"""Answer requests with a model in this very process: llama.cpp, through xllamacpp. No key, no server, no compiler.

The model is loaded by the first request, on a thread. One thread per slot takes requests from a queue, so a request
that is cancelled before its turn costs nothing, and one that is cancelled while it runs stops at the next token.
Requests are cut down to what llama.cpp's chat completion takes, and its stream of chunks is read into a completion.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import queue
import re
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from fusiontools.errors import CallFailed, FusionError, UsageError, install_line
from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta
from fusiontools.llm.finish_reasons import read_finish_reason
from fusiontools.llm.ledger import usage_of
from fusiontools.llm.logprobs import read_logprobs, sum_up
from fusiontools.llm.thoughts import ThoughtFilter, split_thoughts
from fusiontools.llm.weights import find_weights
from fusiontools.record.clean import is_visible
from fusiontools.record.sections import text_of
from fusiontools.record.types import Message

Chunk = dict[str, Any]
#: A generation's chunks, and the seconds it took once it was its turn.
Work = tuple[list[Chunk], float]
#: What llama.cpp understands as it stands. The rest (`tools`, `reasoning_effort`, `n`, …) means nothing to it.
PARAMS = {"temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "grammar", "logit_bias"} | {
    f"{kind}_penalty" for kind in ("presence", "frequency", "repeat")
}
#: What an answer may have at most where nobody says: else it goes on until the context is full.
MAX_TOKENS = 1024
#: Bounds of a schema that has none: with these the analysis was complete in 60 of 60 cases, in under 700 tokens.
TEXT_CHARS, LIST_ITEMS = 80, 2
#: Tokens read between two looks at the stop flag: 0.6 s of a cancelled prompt, and 5 % slower than the default.
PROMPT_BATCH_TOKENS = 256
#: How long an exit waits for the threads: one prompt batch, with room to spare.
EXIT_WAIT_S = 2.0


class LocalEngine:
    """The embedded model as a `Backend`.

    One slot is the measured choice: a second one reads the shared few-shot prefix again (1.3 s against 0.8 s for five
    short answers), takes 100 MB more, and generates no faster: 81 tokens/s against 125, on two cores.

    Args:
        path: a GGUF file; None for `$FUSION_LOCAL_MODEL` or the built-in model (see `weights`).
        context_tokens: what prompt and answer may have together, per slot.
        slots: how many requests are generated at the same time.
    """

    def __init__(self, path: str | None = None, context_tokens: int = 4096, slots: int = 1) -> None:
        self._path = path
        self._context_tokens = context_tokens
        self._slots = slots
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._loading = threading.Lock()
        self._server: Any = None
        self._failure: FusionError | None = None
        self._closing = threading.Event()

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        """Answer once; `on_delta` is called on the running loop. Cancelling stops the generation at the next token."""
        started = time.monotonic()
        body = chat_body(request)
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        first: list[float] = []
        visible = ThoughtFilter(request.model)

        def deliver(text: str) -> None:
            if on_delta and not stop.is_set():
                first.append(time.monotonic() - started)
                on_delta(text)

        def on_chunk(chunk: Chunk) -> bool:
            if on_delta and not stop.is_set() and (text := visible.take(_text_delta(chunk))):
                loop.call_soon_threadsafe(deliver, text)
            return stop.is_set() or self._closing.is_set()

        def work() -> Work:
            begun = time.monotonic()
            return self._generate(body, on_chunk), time.monotonic() - begun

        try:
            chunks, worked_s = await asyncio.wrap_future(self._submit(work))
        finally:
            stop.set()
        completion = read_chunks(request.model, chunks, body, first[0] if first else None, worked_s)
        if on_delta and completion.content.startswith(visible.shown) and completion.content != visible.shown:
            on_delta(completion.content[len(visible.shown) :])
        return completion

    async def aclose(self) -> None:
        """Stop what runs and free the model."""
        await asyncio.to_thread(self._shut_down)
        atexit.unregister(self._shut_down)
        self._server = None

    def _submit(self, work: Callable[[], Work]) -> Future[Work]:
        if self._closing.is_set():
            raise CallFailed("engine", "the engine is closed")
        future: Future[Work] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:  # handed to the task that waits for it
                future.set_exception(error)

        if not self._threads:
            # Daemons, because an executor's threads are joined at exit, however long their generation still takes.
            self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(self._slots)]
            for thread in self._threads:
                thread.start()
            # A thread that comes back from llama.cpp into a dying interpreter would abort it.
            atexit.register(self._shut_down)
        self._jobs.put(job)
        return future

    def _work(self) -> None:
        while job := self._jobs.get():
            job()

    def _shut_down(self) -> None:
        self._closing.set()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + EXIT_WAIT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _generate(self, body: dict[str, Any], on_chunk: Callable[[Chunk], bool]) -> list[Chunk]:
        """Run one request on this thread to its end, or until `on_chunk` returns True."""
        chunks: list[Chunk] = []

        def callback(chunk: Chunk) -> bool:
            # An exception in here would be swallowed by llama.cpp: all reading of the chunks is done afterwards.
            chunks.append(chunk)
            return on_chunk(chunk)

        try:
            if not self._closing.is_set():
                self._loaded().handle_chat_completions(_with_grammar(body), callback)
        except ValueError as error:
            raise CallFailed("bad_request", f"llama.cpp: {error}", status=400) from error
        except RuntimeError as error:
            raise CallFailed("engine", f"llama.cpp: {error}") from error
        if self._closing.is_set():
            raise CallFailed("engine", "the engine was closed before the answer was complete")
        if not chunks:
            raise CallFailed("engine", "llama.cpp gave no reply")
        return chunks

    def _loaded(self) -> Any:
        """Return the server, loading it once. A failure stays: a panel of nine must not try nine downloads."""
        with self._loading:
            if self._failure:
                raise self._failure
            if self._server is None:
                try:
                    self._server = _load(self._path, self._context_tokens, self._slots)
                except FusionError as error:
                    self._failure = error
                    raise
            return self._server


def chat_body(request: CompletionRequest) -> dict[str, Any]:
    """Return the body of the call; `schema` in it is ours, to be turned into a grammar.

    Raises:
        CallFailed: `bad_request`, where the messages hold what a text model cannot read.
    """
    return {**_known_params(request), "messages": _plain_messages(request.messages)}


def read_chunks(
    model: str, chunks: Sequence[Chunk], body: dict[str, Any], ttft_s: float | None, latency_s: float
) -> Completion:
    """Read a finished stream, or fail by name: `context_length`, `bad_request`, `empty`."""
    if "error" in chunks[-1]:
        raise _call_failed(chunks[-1]["error"])
    choices = [choice for chunk in chunks for choice in chunk.get("choices", [])]
    said = next((choice["finish_reason"] for choice in choices if choice.get("finish_reason")), None)
    finish_reason = read_finish_reason(said) or "stop"
    content, thought = split_thoughts("".join(_text_delta(chunk) for chunk in chunks), model)
    reasoning = "".join(_text_delta(chunk, "reasoning_content") for chunk in chunks)
    usage, _ = usage_of(chunks[-1])
    if not is_visible(content):
        raise CallFailed("empty", "the model wrote nothing", usage=dict(usage) if usage else None)  # type: ignore[arg-type]
    if "schema" in body and finish_reason == "stop":
        _refuse_ignored_schema(content)
    return Completion(
        content=content,
        model=model,
        finish_reason=finish_reason,
        reasoning=reasoning or thought or None,
        usage=usage,
        **sum_up([logprob for choice in choices for logprob in read_logprobs(choice.get("logprobs"))]),
        ttft_s=ttft_s,
        latency_s=latency_s,
    )


def _text_delta(chunk: Chunk, key: str = "content") -> str:
    """Return the piece of visible text that a chunk brings, or of its `reasoning_content`."""
    return "".join(choice.get("delta", {}).get(key) or "" for choice in chunk.get("choices", []))


def _load(path: str | None, context_tokens: int, slots: int) -> Any:
    """Load the model, fetched first where it is not here; nothing is where there is no engine for it.

    xllamacpp keeps the GIL meanwhile: about 0.4 s in which no other thread of ours runs.
    """
    # Before the import: the default spins in barriers, and two processes on two cores then bring each other to a halt.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise UsageError(f"the embedded engine is not installed: {install_line('local')}") from error
    except ImportError as error:
        raise UsageError(
            f"the embedded engine does not load: {error}; libgomp.so.1 is Debian's libgomp1 package"
        ) from error
    weights = str(find_weights(path))
    params = xllamacpp.CommonParams()
    params.model.path = weights
    params.verbosity = -1
    params.n_parallel = slots
    params.n_ctx = context_tokens * slots
    params.n_batch = params.n_ubatch = PROMPT_BATCH_TOKENS
    # With passive barriers one thread writes 125 tokens/s and two write 50; a prompt is read faster by several.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = min(4, os.cpu_count() or 1)
    # Without this limit the states of past prompts are kept: 1.4 GB after 150 questions.
    params.cache_ram_mib = 0
    params.api_keys = [secrets.token_hex(16)]
    params.endpoint_slots = False
    params.ui = False
    # It listens whether we want it or not. A socket in a directory that is gone after the load cannot be reached by
    # anyone, and nothing is left behind by whatever way this process ends. Windows has to do with TCP and the key.
    with tempfile.TemporaryDirectory(prefix="fuse-") as private:
        if os.name != "nt":
            params.hostnames = [f"{private}/x.sock"]
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise CallFailed("engine", f"llama.cpp cannot load {path}: {error}") from error


def _with_grammar(body: dict[str, Any]) -> dict[str, Any]:
    """Turn the schema into a grammar without free whitespace: given its own way the model prints newlines for ever."""
    if "schema" not in body:
        return body
    import xllamacpp

    schema = {**body["schema"], "x-guidance": {"whitespace_flexible": False}}
    rest = {key: value for key, value in body.items() if key != "schema"}
    return {**rest, "grammar": xllamacpp.json_schema_to_grammar(schema)}


def _known_params(request: CompletionRequest) -> dict[str, Any]:
    """Return the request's parameters that the engine knows, under its names, and what we need of its replies."""
    given = {key: value for key, value in request.params.items() if value is not None}
    if "max_completion_tokens" in given:
        given.setdefault("max_tokens", given["max_completion_tokens"])
    body = {key: value for key, value in given.items() if key in PARAMS}
    schema = _schema(given.get("response_format"))
    if schema is not None:
        body["schema"] = schema
    # `return_progress` calls back between prompt batches, so that a long prompt can be stopped too.
    own = {"stream": True, "stream_options": {"include_usage": True}, "return_progress": True}
    return {"max_tokens": MAX_TOKENS, **body, **own, "logprobs": True, "top_logprobs": 1}


def _schema(response_format: Any) -> dict[str, Any] | None:
    match response_format:
        case {"type": "json_object"}:
            return {"type": "object"}
        case {"type": "json_schema", "json_schema": {"schema": dict(schema)}}:
            bounded: dict[str, Any] = _bound(schema)
            return bounded
        case None | {"type": "text"}:
            return None
    raise CallFailed("bad_request", f"unreadable response_format: {response_format!r}", param="response_format")


def _bound(schema: Any) -> Any:
    """Return the schema with an end to every text and list that has none: a small model would go on for ever."""
    if isinstance(schema, list):
        return [_bound(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bounds = {"string": {"maxLength": TEXT_CHARS}, "array": {"maxItems": LIST_ITEMS}}.get(str(schema.get("type")), {})
    return {**bounds, **{key: _bound(value) for key, value in schema.items()}}


def _plain_messages(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return the messages as the roles and plain texts that a small model's template knows."""
    if not messages:
        raise CallFailed("bad_request", "messages is empty", param="messages")
    return [{"role": _role(message), "content": _plain_text(message)} for message in messages]


def _role(message: Message) -> str:
    role = message.get("role", "")
    known = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "user"}
    if role not in known:
        raise CallFailed("bad_request", f"unknown role {role!r}", param="messages")
    return known[role]


def _plain_text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list) and any(part.get("type") != "text" for part in content):
        raise CallFailed("bad_request", "the embedded model reads text only, no images or files", param="messages")
    calls = [call["function"] for call in message.get("tool_calls", [])]
    lines = [text_of(message), *(f"Call {call['name']}({call['arguments']})" for call in calls)]
    text = "\n".join(line for line in lines if line)
    if message.get("role") == "tool":
        text = f"Tool result: {text}"
    # A text must not be able to end its own message and begin one in another role.
    return re.sub(r"<\|(\w+)\|>", r"< |\1| >", text)


def _refuse_ignored_schema(content: str) -> None:
    """Fail where llama.cpp could not read the schema: it says nothing and generates without one."""
    try:
        json.loads(content)
    except ValueError as error:
        message = "llama.cpp cannot turn this response_format into a grammar"
        raise CallFailed("bad_request", message, status=400, param="response_format") from error


def _call_failed(error: dict[str, Any]) -> CallFailed:
    if error.get("type") == "exceed_context_size_error":
        return CallFailed(
            "context_length",
            f"the prompt has {error['n_prompt_tokens']} tokens and the embedded model's context {error['n_ctx']};"
            " shorten the question, or let fewer or shorter answers into it",
            status=400,
        )
    return CallFailed("bad_request", f"llama.cpp: {error.get('message', error)}", status=error.get("code"))
