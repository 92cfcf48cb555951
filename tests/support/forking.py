"""Tools that start at once: each is a process of its own, forked off one that has imported them all.

An interpreter and our imports take a quarter of a second of every tool's start, hundreds of times in a run of the
tests. The process that is forked is a tool's in everything else: its session, environment, folder, streams, signals and
status. Nobody forks what a shell has to read (redirections, variables), what an interpreter reads as it starts, the
commands of the documents, workers, and what a test starts itself; `tests/contract/test_forking.py` holds both alike.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_SCRIPTS: dict[str, str] = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
    "scripts"
]
_BIN = Path(sys.executable).parent
#: What an interpreter reads as it starts, which the one that is forked did long ago.
_READ_AT_START = ("PYTHON", "COVERAGE_", "LC_", "LANG", "LD_", "PROMETHEUS_")
#: Other programs, what runs in them, and what is loaded for few tools only.
_NOT_LOADED = ("evaluation.sandbox", "llm.local", "llm.weights", "__main__")
#: What tools import where they use it, and need so often that a fork that has it takes half of the time.
_LOADED = ("genai_prices", "json_repair", "jsonschema", "matplotlib.figure", "numpy", "re2", "uvloop")


class Forked:
    """A forked tool, in the words of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], told: socket.socket, pid: int) -> None:
        self.args, self.pid = command, pid
        self.returncode: int | None = None
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self._told = told

    def __del__(self) -> None:
        self._told.close()  # nobody wants to know how it ended

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            said = self._told.recv(4)
            self.returncode = int.from_bytes(said, "big", signed=True) if said else -signal.SIGKILL
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and we are about to be told
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def can_fork(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a forked tool is as good as a started one: nothing in its environment is for the interpreter."""
    if not hasattr(os, "pidfd_open"):
        return False
    plain = env.get("LANG") == "C.UTF-8" and env.get("PATH", "").split(os.pathsep)[0] == str(_BIN)
    return (
        plain and "".join(command[:1]) in _SCRIPTS and not any(n.startswith(_READ_AT_START) for n in env if n != "LANG")
    )


def fork(command: Sequence[str], env: Mapping[str, str], cwd: Path, *streams: int) -> Forked:
    """Start a tool with these three descriptors as its streams, in a session of its own."""
    ours, its = socket.socketpair()
    with its:
        socket.send_fds(_forker(), [b"\0"], [its.fileno(), *streams])
    pid = int.from_bytes(_read(ours, 4), "big")
    asked = json.dumps([list(command), str(cwd), dict(env)]).encode()
    ours.sendall(len(asked).to_bytes(4, "big") + asked)
    return Forked(command, ours, pid)


def start(command: Sequence[str], env: Mapping[str, str], cwd: Path, stderr: int) -> Forked:
    """Start a tool with pipes as its other two streams, whose ends here the process has as `stdin` and `stdout`."""
    its_in, ours_in = os.pipe()
    ours_out, its_out = os.pipe()
    process = fork(command, env, cwd, its_in, its_out, stderr)
    os.close(its_in)
    os.close(its_out)
    process.stdin, process.stdout = open(ours_in, "wb", 0), open(ours_out, "rb", 0)  # noqa: PTH123, SIM115
    return process


def read_pipeline(text: str) -> list[list[str]] | None:
    """Return the tools of a pipeline that means the same without a shell, each with its arguments; None if none."""
    if re.search(r"[$`*?~&;<>(){}\[\]!#\\\n]", re.sub(r"'[^']*'", "", text)):
        return None
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|")
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word == "|":
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def run_forked(
    commands: Sequence[Sequence[str]], stdin: bytes, env: Mapping[str, str], cwd: Path, timeout: float, pipefail: bool
) -> tuple[int, bytes, bytes]:
    """Run the tools of a pipeline to their end: its status, and what came to standard output and to standard error."""
    source, write_in = os.pipe()
    read_err, write_err = os.pipe()
    processes = []
    for command in commands:
        read_out, write_out = os.pipe()
        processes.append(fork(command, env, cwd, source, write_out, write_err))
        os.close(source)
        os.close(write_out)
        source = read_out
    os.close(write_err)
    written: dict[int, bytes] = {}
    threads = [threading.Thread(target=_write_all, args=(write_in, stdin))]
    threads += [threading.Thread(target=_read_all, args=(end, written)) for end in (source, read_err)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    try:
        statuses = [process.wait(max(0, end - time.monotonic())) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        for thread in threads:
            thread.join()
    status = next((status for status in reversed(statuses) if status), 0) if pipefail else statuses[-1]
    return status, written[source], written[read_err]


def _write_all(descriptor: int, data: bytes) -> None:
    with open(descriptor, "wb", 0) as stream, contextlib.suppress(BrokenPipeError):
        rest = memoryview(data)
        while rest:
            rest = rest[stream.write(rest) :]


def _read_all(descriptor: int, written: dict[int, bytes]) -> None:
    with open(descriptor, "rb") as stream:
        written[descriptor] = stream.read()


def _read(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        if not (more := connection.recv(count - len(data))):
            raise EOFError("the process that tools are forked off is gone")
        data += more
    return data


_forkers: list[socket.socket] = []


def _forker() -> socket.socket:
    """Return the connection to the process that tools are forked off, one for all workers of a run of the tests."""
    started = None
    while not _forkers:
        assert started is None or not started.poll(), "the process that tools are forked off has failed"
        name = f"\0fusiontools-forker-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
        with socket.socket(socket.AF_UNIX) as listener:
            try:
                listener.bind(name)  # whoever is first starts it
                listener.listen()
            except OSError:
                pass
            else:
                started = _start(listener)
        connection = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            connection.connect(name)
            if connection.recv(1):
                _forkers.append(connection)
                atexit.register(connection.close)
                return connection
        # It was about to end, because nobody needed it.
        connection.close()
        time.sleep(0.01)
    return _forkers[0]


def _start(listener: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process; it ends when the last worker has."""
    env = {
        "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "HOME": "/nonexistent",
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        # A thread of numpy's would not survive the fork.
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "",
    }
    process = subprocess.Popen(
        [sys.executable, __file__, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        env=env,
        start_new_session=True,
    )
    # Before that, our own connection is closed: what is registered last is done first.
    atexit.register(process.wait)
    return process


# --- In the process that is forked ---


def main() -> None:
    """Import everything, then fork whenever it is asked for; in the forked process, be the tool."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    sys.argv = ["fuse-forked"]  # `fusiontools.cli` prepares for Ctrl-C in a tool only
    import fusiontools

    for found in pkgutil.walk_packages(fusiontools.__path__, "fusiontools."):
        if not any(part in found.name for part in _NOT_LOADED):
            importlib.import_module(found.name)
    for name in _LOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    from fusiontools.record import schemas

    for name in ("record", "recipe"):
        schemas.check_of(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread does not survive a fork"
    gc.freeze()
    job = _serve(listener)
    if job is not None:
        _be(*job)


def _serve(listener: socket.socket) -> tuple[socket.socket, list[int]] | None:
    """Fork until every connection has ended: None then, and in a forked process its connection and streams."""
    running: dict[int, tuple[int, socket.socket]] = {}
    workers: set[socket.socket] = set()
    begun = False
    while workers or not begun:
        for ready in select.select([listener, *workers, *running], [], [])[0]:
            if ready is listener:
                worker, _ = listener.accept()
                worker.sendall(b"\0")
                workers.add(worker)
                begun = True
            elif ready in workers:
                _, fds, _, _ = socket.recv_fds(ready, 1, 4)
                if not fds:
                    workers.remove(ready)
                    ready.close()
                    continue
                told = socket.socket(fileno=fds[0])
                if not (pid := os.fork()):
                    return told, fds[1:]
                running[os.pidfd_open(pid)] = pid, told
                for descriptor in fds[1:]:
                    os.close(descriptor)
            else:
                pid, told = running.pop(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError), told:
                    told.sendall(status.to_bytes(4, "big", signed=True))
                os.close(ready)
    return None


def _be(told: socket.socket, streams: list[int]) -> None:
    os.setsid()
    told.sendall(os.getpid().to_bytes(4, "big"))
    command, cwd, env = json.loads(_read(told, int.from_bytes(_read(told, 4), "big")))
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.closerange(3, max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    random.seed()
    os.chdir(cwd)
    sys.argv = [str(_BIN / command[0]), *command[1:]]
    module, name = _SCRIPTS[command[0]].split(":")
    sys.exit(getattr(importlib.import_module(module), name)())


if __name__ == "__main__":
    main()
