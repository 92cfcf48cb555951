"""Run a program as a model: `claude -p`, `codex exec`, `llm`, or a script of one's own.

The program gets the prompt by standard input, a file or an argument, an empty directory to work in, and of the
environment what is harmless and what the recipe names: never a key that it does not name, and nothing by which an agent
takes itself for the child of another one. It leads a process group, which is killed as a whole when the answer is no
longer wanted, and when the program has ended. It prints into files: nobody whom it left behind can keep us waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.errors import CallFailed
from fusiontools.llm.answer_form import hold_to, words_for
from fusiontools.llm.command_output import ProgramAnswer, failure_in, read_paths, read_text
from fusiontools.llm.completion import TRACED, Completion, CompletionRequest, OnDelta
from fusiontools.llm.key_mask import KeyMask, current_key
from fusiontools.llm.processes import ENDED_WITHIN_S, begin, kill
from fusiontools.llm.programs import MOST_SYSTEM_BYTES, PROGRAMS, Asked, Program, asked_model
from fusiontools.llm.thoughts import split_thoughts
from fusiontools.record import jsonl
from fusiontools.record.sections import text_of

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint
    from fusiontools.record.types import Message

#: What every program may see of the environment.
HARMLESS = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TERM", "TZ", "TMPDIR"),
    *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SYSTEMROOT", "COMSPEC", "PATHEXT", "APPDATA", "LOCALAPPDATA", "USERPROFILE", "TEMP", "TMP"),
)
#: Linux takes 128 KiB in one argument, with its end.
MOST_ARGUMENT_BYTES = 131_071
_PLACEHOLDER = re.compile(r"\{(model|prompt|prompt_file|system|system_file|cwd)\}")
_TELLS = ("system", "developer")
_MOST_OUTPUT_BYTES = 64 * 2**20
#: How often the size of the output is looked at.
_LOOK_S = 1.0


class ProgramPrompt(Struct, frozen=True):
    """A request as text: what a program is told about its part, and what it is asked."""

    system: str
    text: str

    def joined(self) -> ProgramPrompt:
        """Return the prompt for a program that is told everything at once."""
        return ProgramPrompt("", f"{self.system}\n\n{self.text}" if self.system else self.text)


class _Start(Struct, frozen=True):
    """How a program is started: its arguments, and the file that it reads as standard input."""

    arguments: Sequence[str]
    stdin: str = os.devnull


class CommandBackend:
    """A program as a `Backend`; it is started anew for every request."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._program: Program | None = PROGRAMS[endpoint.program] if endpoint.program else None

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        """Run the program once; its answer is shown when it is whole, because only then it is known to be one."""
        prompt = write_prompt(request)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="fuse-", ignore_cleanup_errors=True) as folder:
            printed, complaint, status = await self._run(self._start(request, prompt, Path(folder)), Path(folder))
        completion = self._read(request, printed, complaint, status)
        form = request.params.get("response_format")
        if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
            completion = hold_to(completion, form)
        if on_delta is not None:
            on_delta(completion.content)
        return replace(completion, latency_s=time.monotonic() - began)

    async def aclose(self) -> None:
        """Nothing runs between requests."""

    def _start(self, request: CompletionRequest, prompt: ProgramPrompt, folder: Path) -> _Start:
        arguments: list[str]
        by_stdin: str | None
        if self._program is not None:
            arguments, by_stdin = self._known_arguments(self._program, request, prompt, folder)
        else:
            arguments, by_stdin = self._own_arguments(request, prompt, folder)
        if any(len(os.fsencode(argument)) > MOST_ARGUMENT_BYTES for argument in arguments):
            said = f"the prompt is longer than an argument of {self._name} may be; "
            raise CallFailed("bad_request", said + "leave out `{prompt}` for standard input, or write `{prompt_file}`")
        return _Start(arguments) if by_stdin is None else _Start(arguments, _write(folder / "stdin", by_stdin))

    def _known_arguments(
        self, program: Program, request: CompletionRequest, prompt: ProgramPrompt, folder: Path
    ) -> tuple[list[str], str]:
        if not program.system_by_file and len(prompt.system.encode()) > MOST_SYSTEM_BYTES:
            prompt = prompt.joined()
        effort = request.params.get("reasoning_effort")
        asked = Asked(asked_model(request.model), prompt.system, _write(folder / "system", prompt.system), effort)
        more = fill(self._endpoint.args, {"model": request.model, "cwd": str(Path.cwd()), **_files(prompt, folder)})
        return [*_located(self._endpoint.called), *program.arguments(asked), *more, *program.last], prompt.text

    def _own_arguments(
        self, request: CompletionRequest, prompt: ProgramPrompt, folder: Path
    ) -> tuple[list[str], str | None]:
        template = [*self._endpoint.command, *self._endpoint.args]
        wanted = names_in(template)
        if not wanted & {"system", "system_file"}:
            prompt = prompt.joined()
        values = {"model": request.model, "cwd": str(Path.cwd()), **_files(prompt, folder)}
        by_stdin = None if wanted & {"prompt", "prompt_file"} else prompt.text
        return _located(fill(template, values)), by_stdin

    async def _run(self, start: _Start, folder: Path) -> tuple[str, str, int]:
        """Return what the program prints and complains, and its exit status; kill all of it in any case."""
        (folder / "empty").mkdir()
        key = await current_key(self._endpoint)
        environment = self._environment(key)
        out, err = folder / "out", folder / "err"
        with _open(stdin=(start.stdin, "rb"), stdout=(out, "wb"), stderr=(err, "wb")) as files:
            process = await self._begin(start.arguments, {**files, "cwd": folder / "empty", "env": environment})
        ended = asyncio.ensure_future(process.wait())
        try:
            while not (await asyncio.wait({ended}, timeout=_LOOK_S))[0]:
                self._refuse_flood(out, err)
        finally:
            kill(process)
            await asyncio.wait({ended}, timeout=ENDED_WITHIN_S)
        self._refuse_flood(out, err)
        secrets = [*self._secrets(), *filter(None, [key])]
        return _masked(out, secrets), _masked(err, secrets), ended.result()

    async def _begin(self, arguments: Sequence[str], settings: Mapping[str, Any]) -> Process:
        try:
            return await begin(asyncio.create_subprocess_exec(*arguments, start_new_session=True, **settings))
        except (OSError, ValueError) as error:
            raise CallFailed("connect", f"cannot start {self._name}: {error}") from error

    def _read(self, request: CompletionRequest, printed: str, complaint: str, status: int) -> Completion:
        answer = self._answer_in(printed)
        if failure := failure_in(answer, status, complaint, self._name):
            raise failure
        content, thought = split_thoughts(answer.text or "", request.model)
        if not content.strip():
            raise CallFailed("empty", f"{self._name} answered nothing but thoughts")
        return Completion(
            content=content,
            model=request.model,
            finish_reason="length" if answer.cut else "stop",
            reasoning=thought or None,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
        )

    def _answer_in(self, printed: str) -> ProgramAnswer:
        if self._program is not None:
            return self._program.read(printed)
        return read_text(printed) if self._endpoint.output is None else read_paths(self._endpoint.output, printed)

    def _environment(self, key: str | None) -> dict[str, str]:
        """Return what the program sees of the environment: with a key nothing of a subscription, and without none."""
        named = {*HARMLESS, *self._endpoint.env}
        if self._program is not None:
            named |= {*self._program.home_env, *(() if self._endpoint.api_key_env else self._program.plan_env)}
        ours = {name: value for name, value in os.environ.items() if name in named or name.startswith("LC_")}
        if self._endpoint.api_key_env and key:
            ours[self._endpoint.api_key_env] = key
        if (traced := TRACED.get()) is not None:
            # As OpenTelemetry names a span to a process that another one starts.
            ours |= {name.upper(): value for name, value in traced.headers.items()}
        return ours | dict(self._program.set_env if self._program is not None else ())

    def _secrets(self) -> Iterator[str]:
        plan = self._program.plan_env if self._program is not None else ()
        named = (*plan, *self._endpoint.env)
        return (os.environ[name] for name in named if os.environ.get(name) and _is_secret(name))

    def _refuse_flood(self, *files: Path) -> None:
        if sum(file.stat().st_size for file in files) > _MOST_OUTPUT_BYTES:
            raise CallFailed("bad_response", f"{self._name} printed more than {_MOST_OUTPUT_BYTES >> 20} MiB")

    @property
    def _name(self) -> str:
        return _name_of(self._endpoint)


def _name_of(endpoint: Endpoint) -> str:
    return endpoint.program or Path(endpoint.command[0]).name


def _located(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the program's own path whole: it is started in another directory than ours."""
    called, *rest = arguments
    return [str(Path(called).absolute()) if os.sep in called else called, *rest]


@contextlib.contextmanager
def _open(**files: tuple[Path | str, str]) -> Iterator[dict[str, Any]]:
    with contextlib.ExitStack() as opened:
        yield {name: opened.enter_context(Path(file).open(mode)) for name, (file, mode) in files.items()}


def _files(prompt: ProgramPrompt, folder: Path) -> dict[str, str]:
    return {
        "prompt": prompt.text,
        "system": prompt.system,
        "prompt_file": _write(folder / "prompt", prompt.text),
        "system_file": _write(folder / "system", prompt.system),
    }


def _write(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8", errors="replace")
    return str(file)


def _masked(file: Path, secrets: Sequence[str]) -> str:
    data = file.read_bytes()
    for secret in secrets:
        data = KeyMask(secret).hide(data)
    return data.decode("utf-8", "replace")


def _is_secret(name: str) -> bool:
    return any(word in name.upper() for word in ("KEY", "TOKEN", "SECRET", "PASSWORD"))


def write_prompt(request: CompletionRequest) -> ProgramPrompt:
    """Return the request as text.

    Raises:
        CallFailed: `bad_request`, where the messages hold more than text.
    """
    messages = list(request.messages)
    told: list[str] = []
    while messages and messages[0].get("role") in _TELLS:
        told.append(_text(messages.pop(0)))
    form = request.params.get("response_format")
    if isinstance(form, dict) and form.get("type") in ("json_object", "json_schema"):
        told.append(words_for(form))
    system = "\n\n".join(text for text in told if text)
    if len(messages) == 1 and messages[0].get("role") == "user":
        return ProgramPrompt(system, _text(messages[0]))
    return ProgramPrompt(system, _transcript(messages))


def fill(arguments: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Return the arguments with `{model}` and the others filled in; every other brace stays."""
    return [_PLACEHOLDER.sub(lambda found: values[found[1]], argument) for argument in arguments]


def names_in(arguments: Sequence[str]) -> set[str]:
    """Return which values the arguments want."""
    return {found[1] for argument in arguments for found in _PLACEHOLDER.finditer(argument)}


def _transcript(messages: Sequence[Message]) -> str:
    """Return a conversation, in marks that no text in it can forge: they hold a digest of the whole."""
    turns = [(str(message.get("role")), _text(message)) for message in messages]
    nonce = hashlib.sha256(jsonl.dumps(turns)).hexdigest()[:12]
    written = [f"[{nonce} {role}]\n{text}\n[{nonce} end]" for role, text in turns]
    asked = "This is a conversation so far. Write what the assistant says next, and nothing else."
    return "\n\n".join([asked, *written])


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list) and any(part.get("type") != "text" for part in content):
        raise CallFailed("bad_request", "a program is sent text only, no images or files", param="messages")
    called = [call["function"] for call in message.get("tool_calls") or ()]
    lines = [text_of(message), *(f"(calls {call['name']} with {call['arguments']})" for call in called)]
    return "\n".join(line for line in lines if line)
