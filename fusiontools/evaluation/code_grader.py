"""Grade texts by running the programs in them: find the program, shut it in, hold it against its checks.

A program and its checks run in a process each, apart from the machine and from each other, with an empty environment,
no network, a temporary directory, limits on time, memory, files and processes, and a process group that is killed as
a whole. Jobs come in through files without a name, never on a command line.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import hashlib
import math
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from msgspec import Struct, field

from fusiontools.answers.extract import drop_thoughts
from fusiontools.answers.fences import fenced_blocks, is_python
from fusiontools.errors import UsageError
from fusiontools.evaluation.task import Code
from fusiontools.record import jsonl
from fusiontools.tools.sandbox import Sandbox, end, find_sandbox
from fusiontools.tools.watch import Bounds, wait_within

_PYTHON = frozenset({"", "python", "py", "python3", "py3"})


def program_of(text: str, code: Code) -> str | None:
    """Return the program to be checked; None where the text holds none.

    Of several fenced blocks it is the last that defines what is wanted, else the longest. What does not define it goes
    on from the prompt; before what does stand the prompt's own imports and helpers.
    """
    visible = drop_thoughts(text).replace("\r\n", "\n").replace("\r", "\n")
    blocks, others = fenced_blocks(visible, _PYTHON)
    if others and not blocks:
        return None
    body = _choose(blocks or [visible], code.entry_point)
    if not body.strip():
        return None
    if not code.prompt or (code.entry_point and _defines(body, code.entry_point)):
        return f"{head_of(code)}\n{body}"
    goes_on = [f"{code.prompt}{body}", f"{code.prompt}\n{body}", f"{code.prompt}\n{_indent(body)}"]
    return next(filter(is_python, goes_on), f"{head_of(code)}\n{body}")


def head_of(code: Code) -> str:
    """Return what the prompt brings along before the function that is wanted: imports and helpers."""
    if not code.entry_point:
        return ""
    found = list(
        re.finditer(rf"^(?:@.*\n)*(?:async )?(?:def|class) {re.escape(code.entry_point)}\b", code.prompt, re.M)
    )
    head = code.prompt[: found[-1].start()] if found else ""
    return head if is_python(head) else ""


def program_key(program: str) -> str | None:
    """Return a key that is the same for programs that differ in comments, docstrings and layout only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(program)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
        plain = ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return f"program {hashlib.sha256(plain.encode('utf-8', 'replace')).hexdigest()[:16]}"


def _choose(blocks: list[str], entry_point: str) -> str:
    defining = [block for block in blocks if entry_point and _defines(block, entry_point)]
    return defining[-1] if defining else max(blocks, key=len)


def _defines(text: str, name: str) -> bool:
    return re.search(rf"^(?:(?:async )?def|class) {re.escape(name)}\b|^{re.escape(name)} *[:=]", text, re.M) is not None


def _indent(body: str) -> str:
    return "".join(f"    {line}" for line in body.splitlines(keepends=True))


_ROOT = Path(__file__).parents[1]
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from fusiontools.evaluation.sandbox.{} import main; main()"
_TRIAL = "import sys; sys.path.insert(0, sys.argv.pop(1)); import fusiontools.evaluation.sandbox.protocol"
_OWN_RIGHTS = "or let such programs run with your own rights: --unsafe"
_VERDICT_BYTES = 4_096
#: Why a program that was ended has failed.
_ENDINGS = {
    "memory": "its processes take more than {0.memory_bytes} bytes of memory",
    "processes": "it starts more than {0.processes} processes",
}


class ProgramOutcome(Struct, frozen=True):
    """How a program fared; `said` says it in words."""

    passed: bool
    said: str


class ProgramRunner(Struct, frozen=True):
    """Runs programs against their checks.

    Args:
        sandbox: what shuts both in.
    """

    sandbox: Sandbox = field(default_factory=Sandbox)
    _site: tuple[str, ...] = field(default_factory=lambda: _site_paths())

    def run(self, program: str, code: Code, seconds: float) -> ProgramOutcome:
        """Run a program against its checks; blocks, at most for so many seconds."""
        nonce = secrets.token_hex(16)
        limits = {"cpu_s": math.ceil(seconds), "boxed": self.sandbox.boxed, "site": self._site}
        checks = {"tests": code.tests, "head": head_of(code), "entry_point": code.entry_point, "nonce": nonce}
        bounds = Bounds(seconds)
        with contextlib.ExitStack() as stack:
            ours, theirs = (stack.enter_context(each) for each in socket.socketpair())
            verdict = stack.enter_context(tempfile.TemporaryFile())
            tested = self._start(stack, "program", {"program": program, **limits}, theirs, None)
            theirs.close()
            process = self._start(stack, "checks", {**checks, **limits}, ours, verdict)
            ours.close()
            ending = wait_within(process, bounds, also=[tested])
            if ending == "timeout":
                return ProgramOutcome(False, f"timeout: not through after {seconds:g} s")
            if ending in _ENDINGS:
                return ProgramOutcome(False, f"failed: {_ENDINGS[ending].format(bounds)}")
            verdict.seek(0)
            return _read_verdict(verdict.read(_VERDICT_BYTES).decode("utf-8", "replace"), nonce)

    def _start(
        self, stack: contextlib.ExitStack, side: str, job: Any, link: socket.socket, out: IO[bytes] | None
    ) -> subprocess.Popen[bytes]:
        """Start one side; it is dead when the stack unwinds."""
        source = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
        source.write(jsonl.dumps(job))
        source.seek(0)
        folder = None if self.sandbox.boxed else stack.enter_context(self.sandbox.lend())
        process = self.sandbox.start(
            [*_command(_BOOT.format(side)), str(link.fileno())],
            stdin=source,
            stdout=out or subprocess.DEVNULL,
            folder=folder,
            pass_fds=[link.fileno()],
        )
        stack.callback(end, process)
        return process


def find_runner(*, unsafe: bool = False) -> ProgramRunner:
    """Return what runs programs on this machine.

    Raises:
        UsageError: there is no sandbox, and nobody has said that it can do without.
    """
    own = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent), str(_ROOT), *_site_paths()]
    try:
        return ProgramRunner(find_sandbox(unsafe=unsafe, readable=own, trial=_command(_TRIAL)))
    except UsageError as error:
        message = f"a task runs model-written programs, and this machine has no sandbox for them: {error.message}"
        raise UsageError(f"{message}, {_OWN_RIGHTS}", code="no_sandbox") from error


def _command(boot: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-B", "-c", boot, str(_ROOT.parent)]


def _site_paths() -> tuple[str, ...]:
    """Return where installed packages are, so that a program may use them."""
    return tuple(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))


def _read_verdict(verdict: str, nonce: str) -> ProgramOutcome:
    word, _, rest = verdict.partition("\n")
    if word == "passed" and secrets.compare_digest(rest.encode(), nonce.encode()):
        return ProgramOutcome(True, "passed")
    if word == "failed" and rest:
        return ProgramOutcome(False, f"failed: {rest}")
    return ProgramOutcome(False, "failed: the checks did not run to their end")


class CodeGrader:
    """Where programs are run; the sandbox is looked for when the first one comes.

    Args:
        jobs: the most programs that run at once.
        unsafe: run them where no sandbox is to be had.
        seconds: the longest run.
    """

    def __init__(self, jobs: int, *, unsafe: bool, seconds: float) -> None:
        self._unsafe = unsafe
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(max(1, min(jobs, _count_processors())), thread_name_prefix="grade")
        self._finding = threading.Lock()
        self._runner: ProgramRunner | None = None

    async def grade(self, texts: Sequence[str], code: Code) -> list[dict[str, Any]]:
        """Return for each text what its grade says beside whose it is.

        Raises:
            UsageError: there is no sandbox, and nobody has said that it can do without.
        """
        runner = await asyncio.get_running_loop().run_in_executor(self._threads, self._find)
        return await asyncio.gather(*(self._run(runner, text, code) for text in texts))

    async def _run(self, runner: ProgramRunner, text: str, code: Code) -> dict[str, Any]:
        program = program_of(text, code)
        if program is None:
            return {"score": 0.0, "said": "no program", "key": None}
        loop = asyncio.get_running_loop()
        outcome = await loop.run_in_executor(self._threads, runner.run, program, code, self._seconds)
        return {"score": float(outcome.passed), "said": outcome.said, "key": program_key(program)}

    def _find(self) -> ProgramRunner:
        with self._finding:
            self._runner = self._runner or find_runner(unsafe=self._unsafe)
            return self._runner


def _count_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
