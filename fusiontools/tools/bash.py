"""The tool `bash`: commands in a sandbox, in a folder that lasts as long as the response whose tool it is."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.errors import UsageError
from fusiontools.tools.sandbox import FOLDER, SHOWN, Sandbox, end, find_sandbox
from fusiontools.tools.tool import Arguments, Tool, ToolContext, ToolResult, ToolStatus
from fusiontools.tools.watch import Bounds, Ending, Output, wait_within

_DESCRIPTION = (
    "Run a command with bash. {network} Files in the current directory are still there at the next call; "
    "nothing else is kept. Standard output and standard error are returned, of long output the beginning and the end."
)
_NETWORK = {False: "There is no network.", True: "The network can be reached."}
_PARAMETERS = {
    "type": "object",
    "properties": {"command": {"type": "string", "minLength": 1, "maxLength": 100_000}},
    "required": ["command"],
    "additionalProperties": False,
}
#: What the model is shown of the output, and what is kept for it to look at.
_HEAD_BYTES, _TAIL_BYTES, _KEPT_BYTES = 12_000, 8_000, 16 * 2**20
#: What a folder may hold, and in how many files.
_FOLDER_BYTES, _FOLDER_FILES = 512 * 2**20, 50_000
_FILE_BYTES, _OPEN_FILES = 128 * 2**20, 256
#: What a process may reserve, in terms of what all may use: some reserve much and use little.
_RESERVED = 4
#: When the box gives up on us, beyond our own limit: what was said until then is worth having.
_GRACE_S = 15.0
_PATH = "/usr/local/bin:/usr/bin:/bin"
_OTHER_WAYS = (
    'or name another sandbox in the recipe (sandbox: "srt --"), or let commands run with your own rights: '
    "--unsafe-shell"
)
_ENDINGS: dict[Ending, tuple[ToolStatus, str]] = {
    "timeout": ("timeout", "ended: not through after {0.seconds:g} s; what it said until then:"),
    "memory": ("refused", "ended: it takes more than {0.memory_bytes} bytes of memory; what it said until then:"),
    "processes": ("refused", "ended: it runs more than {0.processes} processes; what it said until then:"),
    "output": ("refused", "ended: it says too much; what it said until then:"),
    "disk": ("refused", "ended: its files are too many or too large; what it said until then:"),
}


class _Session(Struct):
    """What the calls of one response share: a folder, and which commands have changed it."""

    folder: Path
    shown: Path
    close: Callable[[], object]
    #: Every command in the order in which it was asked for, and how many of them were run in this folder.
    asked: list[str] = []
    ran: int = 0


class Place(Struct, frozen=True):
    """A folder that is there already, and in which all commands run.

    Args:
        folder: where a command begins and may write.
        shown: what it may read only: where long output is kept.
        at: where the folder is, inside of bubblewrap.
        env: variables that a command gets beside the usual ones.
        is_too_full: whether it holds more than it may; asked several times a second.
        network: whether there is one, for the tool's description.
    """

    folder: Path
    shown: Path
    at: str
    env: Mapping[str, str]
    is_too_full: Callable[[], bool]
    network: bool = False


class CommandRun(Struct, frozen=True):
    """What came of a command; `text` is all that it said, or the beginning and the end of that."""

    ending: Ending
    status: int
    text: str


class Shell:
    """Runs the commands of all responses of a run, those of each in a folder of its own, or all in one place.

    Args:
        secrets: what is taken out of every output, should it ever stand there: the values of keys.
    """

    def __init__(
        self, sandbox: Sandbox, bounds: Bounds, secrets: Sequence[str] = (), place: Place | None = None
    ) -> None:
        self._sandbox = sandbox
        self._bounds = bounds
        self._place = place
        self._secrets = [secret for secret in secrets if secret]
        self._sessions: weakref.WeakKeyDictionary[ToolContext, _Session] = weakref.WeakKeyDictionary()
        self._stack = contextlib.ExitStack()

    def tool(self) -> Tool:
        """Return the tool."""
        return Tool(
            name="bash",
            description=_DESCRIPTION.format(network=_NETWORK[self._place is not None and self._place.network]),
            parameters=_PARAMETERS,
            run=self._run,
            reach=("machine",),
            check=self._note,
            repeatable=False,
            timeout_s=self._bounds.seconds + _GRACE_S,
        )

    def close(self) -> None:
        """Take all folders away."""
        self._stack.close()

    def _note(self, arguments: Arguments, context: ToolContext) -> str | None:
        """Remember what is asked, also where its result is known already: a later command may build on it."""
        self._session(context).asked.append(arguments["command"])
        return None

    async def _run(self, arguments: Arguments, context: ToolContext) -> ToolResult:
        session = self._session(context)
        at = session.asked.index(arguments["command"], session.ran)
        for command in session.asked[session.ran : at]:
            await self._execute(command, session)
            session.ran += 1
        session.ran = at + 1
        return await self._execute(arguments["command"], session)

    async def _execute(self, command: str, session: _Session) -> ToolResult:
        return self._result(await self.execute(command, session))

    async def execute(
        self, command: str, session: _Session | None = None, *, seconds: float | None = None, whole: bool = False
    ) -> CommandRun:
        """Run a command, and return what came of it; cancelling ends it.

        Args:
            session: where; by default in the one place that there is.
            seconds: how long it may take, where that is not what every command may.
            whole: whether all of its output is wanted, up to what is kept of any.
        """
        session = session or self._session(ToolContext())
        bounds = self._bounds if seconds is None else replace(self._bounds, seconds=seconds)
        shown = session.shown / f"{len(list(session.shown.iterdir())) + 1}.txt"
        output = Output(_KEPT_BYTES if whole else _HEAD_BYTES, _TAIL_BYTES, None if whole else shown, _KEPT_BYTES)
        place = self._place
        reader, writer = os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, reader)
            stack.callback(output.close)
            try:
                process = self._start(command, session, bounds, writer)
            finally:
                os.close(writer)
            waiting = asyncio.get_running_loop().run_in_executor(
                None,
                lambda: wait_within(
                    process,
                    bounds,
                    reader=reader,
                    output=output,
                    too_full=lambda: is_too_full(session.folder) if place is None else place.is_too_full(),
                ),
            )
            try:
                ending = await asyncio.shield(waiting)
            finally:
                await asyncio.to_thread(end, process)
                await waiting
        said = output.text("" if whole else str(Path(SHOWN if self._sandbox.boxed else shown.parent, shown.name)))
        for secret in self._secrets:
            said = said.replace(secret, "[a key stood here]")
        return CommandRun(ending, process.returncode, said)

    def _start(self, command: str, session: _Session, bounds: Bounds, writer: int) -> Any:
        if self._sandbox.user is not None:
            # Who says `> /dev/stderr` opens it anew.
            os.fchown(writer, self._sandbox.user, self._sandbox.user)
        boxed, place = self._sandbox.boxed, self._place
        kilobytes = bounds.memory_bytes // 1024
        limits = f"ulimit -c 0 -n {_OPEN_FILES} -f {_FILE_BYTES // 1024} -t {math.ceil(bounds.seconds)}"
        limits += f" -v {kilobytes * _RESERVED}"
        # Outside of a namespace of its own, the count would be of all that this user runs.
        limits += f" -u {bounds.processes}" if boxed else ""
        home = os.environ.get("HOME", "/")
        env = {"PATH": _PATH if boxed else os.environ.get("PATH", _PATH), "HOME": FOLDER if boxed else home}
        env |= {"LANG": "C.UTF-8", "TERM": "dumb", **(place.env if place else {})}
        shell = ["bash", "--noprofile", "--norc", "-c"]
        own_home = "" if place else "HOME=$PWD "
        line = [*shell, f'{limits}; {own_home}exec {" ".join(shell)} "$1"', "bash", command]
        folder, shown, at = session.folder, session.shown, place.at if place else FOLDER
        return self._sandbox.start(line, stdout=writer, stderr=writer, folder=folder, shown=shown, at=at, env=env)

    def _result(self, run: CommandRun) -> ToolResult:
        if run.ending == "exit":
            return ToolResult(f"exit {run.status}\n{run.text}")
        code, words = _ENDINGS[run.ending]
        return ToolResult(f"{words.format(self._bounds)}\n{run.text}", code)

    def _session(self, context: ToolContext) -> _Session:
        if self._place is not None:
            if context not in self._sessions:
                self._sessions[context] = _Session(self._place.folder, self._place.shown, lambda: None)
            return self._sessions[context]
        if context not in self._sessions:
            stack = contextlib.ExitStack()
            base = stack.enter_context(self._sandbox.lend())
            folder, shown = base / "work", base / "output"
            for each in (folder, shown):
                each.mkdir()
            if self._sandbox.user is not None:
                os.chown(folder, self._sandbox.user, self._sandbox.user)
            self._sessions[context] = _Session(folder, shown, stack.close)
            # Whichever comes first: the response is written, or the run ends.
            weakref.finalize(context, stack.close)
            self._stack.callback(stack.close)
        return self._sessions[context]


def require_sandbox(
    wrapper: str | None = None, *, unsafe: bool = False, network: bool = False, readable: Sequence[str] = ()
) -> Sandbox:
    """Return the sandbox in which commands run here; the arguments are those of `find_sandbox`.

    Raises:
        UsageError: there is none, or no bash.
    """
    if shutil.which("bash") is None:
        raise UsageError("the tool bash: there is no bash on this machine; install it", code="no_sandbox")
    try:
        trial = ["bash", "-c", ":"]
        return find_sandbox(wrapper, unsafe=unsafe, network=network, readable=readable, trial=trial)
    except UsageError as error:
        message = f"the tool bash runs what models write, and has no sandbox: {error.message}"
        raise UsageError(f"{message}; {_OTHER_WAYS}", code="no_sandbox") from error


@contextlib.asynccontextmanager
async def open_bash(
    bounds: Bounds, *, wrapper: str | None = None, unsafe: bool = False, secrets: Sequence[str] = ()
) -> AsyncIterator[Sequence[Tool]]:
    """Open the tool for a run; its folders go when it closes.

    Args:
        wrapper: the recipe's `sandbox:`, a command that shuts in what follows it.
        unsafe: whether somebody has said that it goes without a sandbox, where there is none.

    Raises:
        UsageError: there is no sandbox, or no bash.
    """
    sandbox = await asyncio.to_thread(require_sandbox, wrapper, unsafe=unsafe)
    shell = Shell(sandbox, bounds, secrets)
    try:
        yield [shell.tool()]
    finally:
        await asyncio.to_thread(shell.close)


def is_too_full(folder: Path) -> bool:
    """Say whether a folder holds more than it may; no link is followed."""
    size = files = 0
    waiting = [str(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                files += 1
                with contextlib.suppress(OSError):
                    # What takes room, not how long it says it is.
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                if size > _FOLDER_BYTES or files > _FOLDER_FILES:
                    return True
    return False
