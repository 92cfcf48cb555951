"""The fixtures of every test: a stand-in upstream, a hermetic environment, and real tools in real pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from batching import Provider, start_provider
from forking import can_fork, read_pipeline, run_forked
from hypothesis import settings
from serving import RECIPE, Server, start_server
from stores import StoreServer, start_cluster, start_pgbouncer, start_postgres, start_redis
from webbing import Web, start_web
from workdir import SUPPORT, Result, Run, Serve, Upstream, hermetic, start_upstream

# A busy machine is no failure: no example is held to a time. By default a run repeats the run before it, example by
# example; `make fuzz` looks for new ones, and keeps those that failed.
settings.register_profile("steady", max_examples=25, deadline=None, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("steady")

# The same marks around the same texts in every run, and nothing written to the home of whoever runs the tests.
os.environ["FUSION_FENCE_SECRET"] = "of the tests"

# A job that a script starts in the background has Ctrl-C ignored, and so would every tool that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Folders of slow tests alone: where those are left out, what drives browsers and clients is not even imported.
_SLOW = ("clients", "page", "slow")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    leaves_out = config.option.markexpr == "not slow" and collection_path.parent == Path(__file__).parent
    return True if leaves_out and collection_path.name in _SLOW else None


@pytest.fixture(scope="session")
def upstream_process() -> Iterator[Upstream]:
    with start_upstream("--record") as upstream:
        yield upstream


@pytest.fixture
def upstream(upstream_process: Upstream) -> Upstream:
    """The one stand-in of the session, with counts, recorded requests and scripts forgotten."""
    upstream_process.reset()
    return upstream_process


@pytest.fixture(scope="session")
def provider_process() -> Iterator[Provider]:
    with start_provider() as provider:
        yield provider


@pytest.fixture
def provider(provider_process: Provider) -> Provider:
    """The one stand-in of batch APIs, with jobs and settings forgotten."""
    provider_process.reset()
    return provider_process


@pytest.fixture
def env(upstream: Upstream, tmp_path: Path) -> dict[str, str]:
    """Everything that a tool may see of the world."""
    return hermetic(upstream, tmp_path)


@pytest.fixture
def run(tmp_path: Path, env: dict[str, str]) -> Run:
    """Run a shell pipeline (text) or one tool (a list) in `tmp_path`, with the hermetic environment."""
    default_env = env

    def run(
        cmd: str | Sequence[str],
        stdin: bytes | str = b"",
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        pipefail: bool = False,
    ) -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        environment = default_env if env is None else env
        commands = read_pipeline(cmd) if isinstance(cmd, str) else [cmd]
        if commands and all(can_fork(command, environment) for command in commands):
            status, out, err = run_forked(commands, data, environment, cwd or tmp_path, timeout, pipefail)
            return Result(status, out, err.decode(errors="replace"))
        if isinstance(cmd, str):
            cmd = ["bash", *(["-o", "pipefail"] if pipefail else []), "-c", cmd]
        with subprocess.Popen(
            cmd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd or tmp_path,
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(data, timeout)
            except BaseException:  # the whole pipeline, or its other ends would keep our pipes open
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return Result(process.returncode, out, err.decode(errors="replace"))

    return run


@pytest.fixture
def serve(env: dict[str, str], tmp_path: Path) -> Iterator[Serve]:
    """Start servers with options, a recipe and an environment of their own; they end with the test."""
    with contextlib.ExitStack() as running:

        def start(*options: str, recipe: str = RECIPE, env: Mapping[str, str] | None = None) -> Server:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            return running.enter_context(start_server(folder, {**base, **(env or {})}, *options, recipe=recipe))

        base = env
        yield start


@pytest.fixture(scope="module")
def standing_servers(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with contextlib.ExitStack() as running:
        started: dict[tuple[Any, ...], Server] = {}

        def start(*options: str, recipe: str = RECIPE, env: Mapping[str, str] | None = None) -> Server:
            key = (*options, recipe, *sorted((env or {}).items()))
            if key not in started:
                folder = tmp_path_factory.mktemp("standing")
                whole = {**hermetic(upstream_process, folder), **(env or {})}
                started[key] = running.enter_context(start_server(folder, whole, *options, recipe=recipe))
            return started[key]

        yield start


@pytest.fixture
def standing(upstream: Upstream, standing_servers: Serve) -> Serve:
    """As `serve`, but equal servers are one, started once a module: for tests that mind nothing others leave in it."""
    return standing_servers


@pytest.fixture(scope="session")
def server_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with start_server(folder, hermetic(upstream_process, folder)) as server:
        yield server


@pytest.fixture
def server(upstream: Upstream, server_process: Server) -> Server:
    """The one server of the session with the usual recipe and options, its upstream's counts forgotten."""
    return server_process


@pytest.fixture(scope="session")
def web_process() -> Iterator[Web]:
    with start_web() as web:
        yield web


@pytest.fixture
def web(web_process: Web) -> Web:
    """The one small web of the session, with what was asked and scripted before forgotten."""
    web_process.reset()
    return web_process


@pytest.fixture(scope="session")
def redis_server() -> Iterator[StoreServer]:
    """The one Redis of the session; whoever uses it takes a namespace of their own."""
    with start_redis() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[StoreServer]:
    """The one PostgreSQL of the session; whoever uses it takes a namespace of their own."""
    with start_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[StoreServer]:
    """A Redis that is strict about the keys of scripts."""
    with start_cluster() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer_server(postgres_server: StoreServer) -> Iterator[StoreServer]:
    """A pooler in transaction mode before the PostgreSQL of the session."""
    with start_pgbouncer(postgres_server) as server:
        yield server


# Those that take seconds to start are for the slow tests.
_SLOW_STORES = ("cluster", "postgres", "pgbouncer")


@pytest.fixture(params=["sqlite", "redis", *(pytest.param(name, marks=pytest.mark.slow) for name in _SLOW_STORES)])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty state, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'journal.db'}"
    server: StoreServer = request.getfixturevalue(f"{request.param}_server")
    return server.own()


@pytest.fixture
def claude() -> Iterator[str]:
    """A stand-in for Anthropic's API, in a process of its own; its base URL."""
    command = [sys.executable, str(SUPPORT / "anthropic_upstream.py"), "--key", "key-of-claude"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
