"""Listen, serve, drain: uvicorn around the app, in one process or several; the home of uvicorn."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import Pipe
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from fusiontools.errors import FusionError, UsageError
from fusiontools.server.http_bounds import BoundedProtocol, Config
from fusiontools.server.metrics import forget
from fusiontools.server.state import ServerArguments, open_server, require_safe, server_keys

_BACKLOG = 2048
#: New objects after which young ones are looked through.
_GARBAGE = 20_000
#: How long requests that are cut off get for their last words.
_FAREWELL_S = 2.0
#: How long a worker that is to replace another one may take until it serves.
_START_S = 30.0


def serve(typed: ServerArguments, said: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    Args:
        said: told where the server listens.

    Raises:
        UsageError: a recipe that cannot be, an address that cannot be listened at.
    """
    options = typed.options
    require_safe(options.host, server_keys())
    listening = listen(options.host, options.port)
    if options.workers == 1:
        app = _app(typed)  # before anything is promised
        said(_url(listening))
        # uvicorn raises the signal again when all is drained; that it was asked to end is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        _Server(_config(app, typed)).run(sockets=[listening])
        return
    open_server(typed)
    if (journal := _journal(typed)) is not None:
        journal.close()  # that of a process is its own
    with tempfile.TemporaryDirectory(prefix="fuse-serve-") as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        config = _config(functools.partial(_app, typed), typed, factory=True)
        said(_url(listening))
        workers = _Workers(config, sockets=[listening])
        workers.run()
    if workers.interrupted:
        raise KeyboardInterrupt
    if workers.failure:
        raise ChildProcessError(errno.ECHILD, f"ended before it could serve: {workers.failure}", "a worker")


class _Server(uvicorn.Server):
    """uvicorn's server, which leaves at once when it is interrupted, and tells whom it cuts off why.

    Args:
        ready: called when requests are taken.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.force_exit = self.force_exit or sig == signal.SIGINT

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        left = list(self.server_state.tasks)
        for task in left:
            if not task.cancelling():  # a second time would cut the farewell off
                task.cancel()
        if left:
            await asyncio.wait(left, timeout=_FAREWELL_S)


class _Worker(Process):
    """uvicorn's process, which runs our server, and says when it serves or why it cannot."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        self._words, self._mouth = Pipe(duplex=False)
        self._word: str | None = None
        super().__init__(config, sockets)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; runs in the process itself."""
        self._server = _Server(self.config, lambda: self._mouth.send(""))
        try:
            super().target(sockets)
        except FusionError as error:
            self._mouth.send(error.message)
            sys.exit(STARTUP_FAILURE)

    def word(self) -> str | None:
        """Return what it has said: nothing yet, that it serves (an empty text), or why it cannot."""
        if self._word is None and self._words.poll():
            self._word = self._words.recv()
        return self._word

    def is_alive(self, timeout: float = 5) -> bool:
        # Who has not begun yet may be slow to answer.
        return super().is_alive(timeout) if self.word() == "" else self.process.is_alive()


class _Workers(Multiprocess):
    """uvicorn's supervisor, around our workers.

    It takes no connection any more once it ends, leaves at once when interrupted, and ends where a worker ends before
    it could serve, for the next one would too.
    """

    processes: list[_Worker]  # type: ignore[assignment]
    interrupted = False
    failure = ""

    def init_processes(self) -> None:
        self.processes.extend([self._begun() for _ in range(self.processes_num)])

    def keep_subprocess_alive(self) -> None:
        for number, worker in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if worker.is_alive(timeout=self.config.timeout_worker_healthcheck):
                continue
            worker.kill()
            self._bury(worker)
            if (why := worker.word()) != "":
                self.failure = why or f"exit status {worker.exitcode}"
                self.should_exit.set()
            else:
                self.processes[number] = self._begun()

    def restart_all(self) -> None:
        for number, worker in enumerate(self.processes):
            fresh = self._begun()
            if not fresh.wait_until_ready(_START_S, self.should_exit):
                fresh.kill()
                self._bury(fresh)
                return
            worker.terminate()
            self._bury(worker)
            self.processes[number] = fresh

    def handle_ttin(self) -> None:
        """Stay as many: the limits are shares of so many workers."""

    def handle_ttou(self) -> None:
        """Stay as many."""

    def handle_int(self) -> None:
        self.interrupted = True
        super().handle_int()

    def terminate_all(self) -> None:
        for listening in self.sockets:
            listening.close()
        for process in self.processes:
            if self.interrupted:
                process.kill()
            else:
                process.terminate()

    def _begun(self) -> _Worker:
        worker = _Worker(self.config, self.sockets)
        worker.start()
        return worker

    def _bury(self, worker: _Worker) -> None:
        worker.join()
        if worker.pid is not None:
            forget(worker.pid)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UsageError: no such address, or somebody listens there already.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--host {host} --port {port}: cannot listen there: {reason}") from error
    listening.set_inheritable(True)
    return listening


def _app(typed: ServerArguments) -> Any:
    from fusiontools.server.app import make_app

    # What is worth saying is said by us; what uvicorn says of a failure holds a trace.
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).disabled = True
    # What lives as long as the process is never garbage: looking through it again and again took a tenth of a request.
    gc.freeze()
    gc.set_threshold(_GARBAGE, 20, 20)
    return make_app(open_server(typed, _journal(typed)))


def _journal(typed: ServerArguments) -> Any:
    """Open the journal where one is asked for."""
    from fusiontools.llm.journal import open_journal

    wanted = {"journal", "replay", "offline"} & typed.journal.keys()
    return open_journal(typed.journal, _warn) if wanted else None


def _warn(message: str) -> None:
    sys.stderr.write(f"fuse-serve: {message}\n")


def _config(app: Any, typed: ServerArguments, *, factory: bool = False) -> Config:
    config = Config(
        app,
        factory=factory,
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        workers=typed.options.workers,
        backlog=_BACKLOG,
    )
    config.read_s = typed.options.read_s
    config.timeout_graceful_shutdown = typed.options.drain_s  # type: ignore[assignment]  # fractions do as well
    return config


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
