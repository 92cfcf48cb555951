"""Real stores of shared state for tests: Redis, PostgreSQL and PgBouncer, each a process on a free port.

Debian's packages have them (`make system`); what is not there is skipped. PostgreSQL runs as nobody's servant where the
tests run as root, which it refuses.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_START_S = 30.0


@dataclass
class StoreServer:
    """A store that runs, and can be killed and started again on the same port and files.

    Args:
        url: where it is; a test takes a namespace of its own.
    """

    url: str
    command: list[str]
    port: int
    log: Path
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*_as_user(self.user), *self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        give_up = time.monotonic() + _START_S
        while not self.serves():
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self.command[0]} does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        if "--cluster-enabled" in self.command:
            self._take_all_slots()

    def _take_all_slots(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), 5) as told, told.makefile("rwb") as said:
            for order in (b"CLUSTER ADDSLOTSRANGE 0 16383", b"CLUSTER INFO"):
                while True:
                    said.write(order + b"\r\n")
                    said.flush()
                    answer = said.readline()
                    if answer.startswith(b"$"):
                        answer = said.read(int(answer[1:]) + 2)
                    if b"cluster_state:fail" not in answer:
                        break
                    time.sleep(0.02)

    def kill(self) -> None:
        """Kill it as a power cut would, with its children: one that has not yet noticed goes on to answer."""
        if self.process is not None:
            doomed = [self.process.pid, *_children(self.process.pid)]
            for pid in doomed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            give_up = time.monotonic() + _START_S
            while any(_lives(pid) for pid in doomed) and time.monotonic() < give_up:
                time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def serves(self) -> bool:
        """Return whether it takes orders; PostgreSQL listens before it has mended what a cut has left."""
        if self.url.startswith("postgresql:"):
            import psycopg

            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
                return True
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2):
            return True
        return False

    def own(self, namespace: str | None = None) -> str:
        """Return the URL of a part of it that nobody else uses."""
        mark = "&" if "?" in self.url else "?"
        return f"{self.url}{mark}namespace={namespace or f't_{uuid.uuid4().hex[:12]}'}"


@contextlib.contextmanager
def start_redis(*options: str) -> Iterator[StoreServer]:
    """Run a Redis of one's own, which keeps nothing on disk."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server is not installed: `make system`")
    with _folder() as folder:
        port = _free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *options]
        yield from _running(StoreServer(f"redis://127.0.0.1:{port}", command, port, folder / "log"))


def start_cluster() -> contextlib.AbstractContextManager[StoreServer]:
    """Run a Redis that is a cluster of one: it refuses scripts that do not name all their keys, or keys far apart."""
    return start_redis("--cluster-enabled", "yes", "--cluster-port", str(_free_port()))


@contextlib.contextmanager
def start_postgres() -> Iterator[StoreServer]:
    """Run a PostgreSQL of one's own, which trusts everybody on this machine."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb", path=os.pathsep.join([*map(str, folders[-1:]), os.environ["PATH"]]))
    if found is None:
        pytest.skip("postgresql is not installed: `make system`")
    programs = Path(found).parent
    user = _servant()
    with _folder(user) as folder:
        port, data = _free_port(), folder / "data"
        making = [str(programs / "initdb"), "--no-sync", "-A", "trust", "-U", "postgres", "-D", str(data)]
        subprocess.run([*_as_user(user), *making], check=True, capture_output=True, cwd=folder)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
            "port": str(port),
        }
        command = [str(programs / "postgres"), "-D", str(data), *(f"--{k}={v}" for k, v in settings.items())]
        yield from _running(
            StoreServer(f"postgresql://postgres@127.0.0.1:{port}/postgres", command, port, folder / "log", user)
        )


@contextlib.contextmanager
def start_pgbouncer(behind: StoreServer) -> Iterator[StoreServer]:
    """Run a pooler in transaction mode with two connections before a PostgreSQL."""
    program = shutil.which("pgbouncer", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if program is None:
        pytest.skip("pgbouncer is not installed: `make system`")
    user = _servant()
    with _folder(user) as folder:
        port = _free_port()
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={behind.port} user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\nauth_file =\n"
        )
        settings.chmod(0o644)
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        yield from _running(StoreServer(url, [program, str(settings)], port, folder / "log", user))


def _running(server: StoreServer) -> Iterator[StoreServer]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def _folder(user: str | None = None) -> Iterator[Path]:
    """Give a short-lived folder that another user can work in; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="fusion-store-", ignore_cleanup_errors=True) as name:
        if user is not None:
            entry = pwd.getpwnam(user)
            os.chown(name, entry.pw_uid, entry.pw_gid)
        yield Path(name)


def _children(pid: int) -> list[int]:
    """Return the children of a process, as the kernel lists them."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _servant() -> str | None:
    """Return whose process it is to be; None for our own."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def _as_user(user: str | None) -> list[str]:
    if user is None:
        return []
    entry = pwd.getpwnam(user)
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups", "--"]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
