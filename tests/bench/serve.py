"""`fuse-serve` under load, beside a bare server in the same minutes and what its rivals took once; see README.md.

The server has the first CPU for itself; the fake upstream and the load client (`load.py`) have the others.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stand import BIN, Stand
from table import Row

HERE = Path(__file__).parent
OURS, BARE, RAW = "fuse-serve", "bare", "raw calls"
CHAINS = {"four calls": "panel | synth", "five calls": "panel | judge | synth"}
CLIENTS = (1, 16, 64, 256)
#: What two calls, one after the other, take at the least of an upstream of 50 ms, its timers included.
TWO_CALLS_S = 0.101
#: The stream of which each token is looked at.
TOKENS, BETWEEN_S = 500, 0.005
STREAM = f"fake/synth+stamps={TOKENS}+itl={BETWEEN_S}"

#: What each measure is to be: at least or at most so much, so many times the bare server's, or that and so much more.
TARGETS: dict[str, tuple[str, float, str]] = {
    **{
        f"requests, four calls, 0 ms, {clients}": ("≥", 1.0, "×")
        for clients in ("1 client", "16 clients", "64 clients")
    },
    "requests, four calls, 50 ms, 64 clients": ("≥", 1.0, "×"),
    "requests, four calls, 50 ms, 256 clients": ("≥", 1.4, "×"),
    "share of what 50 ms allow, four calls, 64 clients": ("≥", 0.8, ""),
    "CPU per request, four calls, 0 ms, 16 clients": ("≤", 1.0, "×"),
    "added to the first token, four calls, 50 ms, 1 client": ("≤", 0.3, "+"),
    "peak memory, four calls, 0 ms, 256 clients": ("≤", 100, ""),
    "peak memory, four calls, 50 ms, 256 clients": ("≤", 100, ""),
    "requests, by name, 0 ms, 16 clients": ("≥", 0.9, "×"),
    "added latency, by name, 0 ms, 1 client": ("≤", 0.3, ""),
    "CPU of a stream, 64 streams": ("≤", 1.0, "×"),
    "added to a token's delay, 64 streams": ("≤", 0.05, "+"),
    "added to a token's delay, 64 streams, p99": ("≤", 1.5, ""),
    "1,000 at once, 0 ms, the last answered after": ("≤", 2, ""),
    "1,000 at once, 50 ms, the last answered after": ("≤", 2, ""),
    "1,000 at once, 0 ms, peak memory": ("≤", 150, ""),
    "1,000 at once, 50 ms, peak memory": ("≤", 150, ""),
    "1,000 at once, 0 ms, not answered": ("≤", 0, ""),
    "1,000 at once, 50 ms, not answered": ("≤", 0, ""),
}

#: OpenFusion 64094a4 and Fusion Engine 167e32d, four calls each: measured once, on a machine of the same kind.
RIVALS: dict[str, tuple[float | None, float | None]] = {
    "requests, four calls, 0 ms, 1 client": (163, 43.7),
    "requests, four calls, 0 ms, 16 clients": (130, 45.7),
    "requests, four calls, 0 ms, 64 clients": (137, 43.9),
    "requests, four calls, 50 ms, 64 clients": (128, 44.1),
    "requests, four calls, 50 ms, 256 clients": (11.8, 43.3),
    "added latency, four calls, 0 ms, 1 client": (6.0, 24.1),
    "p99, four calls, 0 ms, 64 clients": (647, 1544),
    "p99, four calls, 50 ms, 64 clients": (830, 2003),
    "p99, four calls, 50 ms, 256 clients": (36157, 9728),
    "added to the first token, four calls, 0 ms, 1 client": (4.6, 23.1),
    "added to the first token, four calls, 50 ms, 1 client": (5.4, 26.0),
    "CPU per request, four calls, 0 ms, 64 clients": (7.3, 23.1),
    "CPU per request, four calls, 50 ms, 64 clients": (7.7, 22.1),
    "peak memory, four calls, 50 ms, 256 clients": (88, 300),
    "added to a token's delay, 1 stream": (0.25, None),
    "added to a token's delay, 64 streams": (1.37, None),
    "CPU of a stream, 1 stream": (138, None),
    "CPU of a stream, 64 streams": (45, None),
    "1,000 at once, 0 ms, the last answered after": (227, 23.0),
    "1,000 at once, 50 ms, the last answered after": (217, 22.5),
    "1,000 at once, 0 ms, peak memory": (143, 400),
    "1,000 at once, 50 ms, peak memory": (142, 398),
    "1,000 at once, 0 ms, not answered": (838, 0),
    "1,000 at once, 50 ms, not answered": (746, 0),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """A stand, its servers' base URLs and pids, and what came of every load that was put on them.

    A load is filed under who bore it and what it was; a figure of it is the median over its repetitions.
    """

    stand: Stand
    servers: dict[str, tuple[str, int]]
    loads: dict[tuple[str, object], list[dict[str, float]]] = field(default_factory=dict)

    def put(self, name: str, what: object, *options: object) -> None:
        """Put a load on a server, or on the upstream where no server has this name."""
        url, more = self.stand.url, ()
        if name in self.servers:
            url, pid = self.servers[name]
            more = ("--pid", pid, "--upstream", self.stand.url)
        command = [sys.executable, str(HERE / "load.py"), *map(str, (url, *more, *options))]
        with on_cpus(servers=False):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        load = json.loads(done.stdout)
        if load["failed"]:
            print(f"{name}, {what}: {load['failed']} not answered, one with {load['said']}", file=sys.stderr)
        self.loads.setdefault((name, what), []).append(load)

    def of(self, name: str, what: object, figure: str) -> float | None:
        loads = self.loads.get((name, what))
        return statistics.median(load[figure] for load in loads) if loads else None

    def row(self, measure: str, what: object, figure: str, unit: str, less: float = 0.0, times: float = 1.0) -> Row:
        """Return a figure of ours beside the bare server's: both `less` so much, `times` so much."""
        value, bare = ((self.of(name, what, figure)) for name in (OURS, BARE))
        reference = None if bare is None else (bare - less) * times
        return judged(measure, (value - less) * times, unit, reference)


def judged(measure: str, value: float, unit: str, bare: float | None = None) -> Row:
    """Return the row of a measure with its target and its rivals."""
    rivals = zip(("OpenFusion", "Fusion Engine"), RIVALS.get(measure, ()), strict=False)
    known = ", ".join(f"{name} {figure:,g}" for name, figure in rivals if figure is not None)
    against = "; ".join(filter(None, ["" if bare is None else "bare server", known]))
    if measure not in TARGETS:
        return Row(measure, value, unit, bare, against)
    sign, said, how = TARGETS[measure]
    if how and bare is None:
        return Row(measure, value, unit, bare, against)
    bound = said * bare if how == "×" else said + (bare if how else 0.0)
    met = value >= bound if sign == "≥" else value <= bound
    return Row(measure, value, unit, bare, against, f"{sign} bare {how} {said:g}" if how else f"{sign} {said:g}", met)


def serve() -> Iterator[Row]:
    """Throughput, latency, streams and a burst."""
    for chain in CHAINS:
        for latency_s in (0.0, 0.05):
            yield from throughput(chain, latency_s)
    yield from by_name()
    yield from streams()
    for latency_s in (0.0, 0.05):
        yield from burst(latency_s)


def throughput(chain: str, latency_s: float) -> Iterator[Row]:
    """One chain before one upstream, with more and more clients."""
    path = ("--path", CHAINS[chain].replace(" | ", ","))
    few = ("--count", 15, "--warm", 3) if latency_s else ("--count", 300, "--warm", 30)
    four = chain == "four calls"
    with bench(chain, latency_s, bare=four) as here:
        for _ in range(3 if four and not latency_s else 2):
            for clients in CLIENTS:
                # Against a latency all clients ask in step: whole rounds, each of at least 0.1 s.
                count, seconds = (clients * 20, 2.5) if latency_s else (9_999, 1)
                enough, warm = ("--count", count, "--seconds", seconds), max(clients, 3 if latency_s else 30)
                for name in here.servers:
                    here.put(name, clients, "--clients", clients, "--warm", warm, *enough)
            here.put(RAW, 1, *few, *path)
            for name in (RAW, *here.servers):
                here.put(name, "first", "--stream", *few, *(path if name == RAW else ()))
        yield from throughput_rows(here, f"{chain}, {latency_s * 1000:.0f} ms")


def throughput_rows(here: Bench, where: str) -> Iterator[Row]:
    raw_ms, raw_first_ms = here.of(RAW, 1, "p50_ms"), here.of(RAW, "first", "first_p50_ms")
    yield Row(f"raw calls, {where}", raw_ms, "ms")
    for clients in CLIENTS:
        yield here.row(f"requests, {where}, {counted(clients, 'client')}", clients, "rate", "/s")
    if where == "four calls, 50 ms":
        yield here.row("share of what 50 ms allow, four calls, 64 clients", 64, "rate", "", times=TWO_CALLS_S / 64)
    for clients in CLIENTS:
        yield here.row(f"added latency, {where}, {counted(clients, 'client')}", clients, "p50_ms", "ms", raw_ms)
    for clients in (64, 256):
        yield here.row(f"p99, {where}, {clients} clients", clients, "p99_ms", "ms")
    yield here.row(f"added to the first token, {where}, 1 client", "first", "first_p50_ms", "ms", raw_first_ms)
    for clients in (16, 64):
        yield here.row(f"CPU per request, {where}, {clients} clients", clients, "cpu_ms", "ms")
    yield here.row(f"share of a CPU used, {where}, 64 clients", 64, "cpu_share", "")
    yield here.row(f"calls of the upstream per request, {where}", 64, "calls", "")
    yield here.row(f"peak memory, {where}, 256 clients", 256, "peak_mib", "MiB")
    yield unanswered(here, where)


def by_name() -> Iterator[Row]:
    """A member asked by its own name: one call, there and back as it came."""
    with bench("four calls", 0.0) as here:
        where, asked = "by name, 0 ms", ("--model", "fake/a")
        for _ in range(3):
            for clients in CLIENTS[:3]:
                for name in here.servers:
                    here.put(
                        name,
                        clients,
                        *asked,
                        "--clients",
                        clients,
                        "--warm",
                        max(clients, 30),
                        "--count",
                        9_999,
                        "--seconds",
                        1,
                    )
            here.put(RAW, 1, "--path", "by_name", "--count", 300, "--warm", 30)
        raw_ms = here.of(RAW, 1, "p50_ms")
        yield Row(f"raw call, {where}", raw_ms, "ms")
        for clients in CLIENTS[:3]:
            yield here.row(f"requests, {where}, {counted(clients, 'client')}", clients, "rate", "/s")
        yield here.row(f"added latency, {where}, 1 client", 1, "p50_ms", "ms", raw_ms)
        yield here.row(f"CPU per request, {where}, 16 clients", 16, "cpu_ms", "ms")
        yield here.row(f"calls of the upstream per request, {where}", 16, "calls", "")
        yield unanswered(here, where)


def streams() -> Iterator[Row]:
    """Streams of many tokens, and the same read straight from the upstream."""
    with bench("four calls", 0.0, synth=STREAM) as here:
        for name in here.servers:
            here.put(name, "first ones", "--count", 30)
        for _ in range(2):
            for count in (1, 64):
                here.put(RAW, count, "--model", STREAM, "--stream", "--clients", count, "--count", count)
                for name in here.servers:
                    here.put(name, count, "--stream", "--clients", count, "--count", count)
        for count in (1, 64):
            where = counted(count, "stream")
            least = {share: here.of(RAW, count, f"delay_{share}_ms") for share in ("p50", "p99")}
            yield Row(f"a token's delay straight from the upstream, {where}", least["p50"], "ms")
            yield here.row(f"added to a token's delay, {where}", count, "delay_p50_ms", "ms", least["p50"])
            yield here.row(f"added to a token's delay, {where}, p99", count, "delay_p99_ms", "ms", least["p99"])
            yield here.row(f"CPU of a stream, {where}", count, "cpu_ms", "ms")
        yield unanswered(here, "streams")


def burst(latency_s: float) -> Iterator[Row]:
    """1,000 requests at once on 1,000 connections, to a server that has had one."""
    what, thousand = f"1,000 at once, {latency_s * 1000:.0f} ms", ("--clients", 1000, "--count", 1000, "--seconds", 60)
    with bench("four calls", latency_s) as here:
        for name in here.servers:
            here.put(name, "one", "--count", 1)
            here.put(name, "burst", *thousand)
        yield here.row(f"{what}, the last answered after", "burst", "wall_s", "s")
        yield here.row(f"{what}, peak memory", "burst", "peak_mib", "MiB")
        yield here.row(f"{what}, not answered", "burst", "failed", "")


def unanswered(here: Bench, where: str) -> Row:
    failed = sum(load["failed"] for (name, _), loads in here.loads.items() if name == OURS for load in loads)
    return Row(f"requests not answered, {where}", failed, "", target="≤ 0", met=failed == 0)


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@contextlib.contextmanager
def bench(chain: str, latency_s: float, bare: bool = True, synth: str = "fake/synth") -> Iterator[Bench]:
    """Run an upstream and the servers until the block ends."""
    members = ["fake/a", "fake/b", "fake/c"]
    recipe = {"chain": CHAINS[chain], "panel": members, "judge": "fake/judge", "synth": synth}
    with contextlib.ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="fuse-bench-")))
        (folder / "recipe.yaml").write_text(json.dumps(recipe))
        upstream = [sys.executable, str(HERE / "stamped.py"), "--latency", str(latency_s)]
        stand = Stand(folder, opened.enter_context(running(upstream)))
        commands = {OURS: [str(BIN / "fuse-serve"), "-c", "recipe.yaml", "--port", "0"]}
        if bare:
            commands[BARE] = [sys.executable, str(HERE / "bare.py"), stand.url, synth]
        servers = {name: opened.enter_context(serving(stand, name, command)) for name, command in commands.items()}
        yield Bench(stand, servers)


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[str]:
    """Run an upstream until the block ends; yields its base URL."""
    with on_cpus(servers=False):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@contextlib.contextmanager
def serving(stand: Stand, name: str, command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Run a server until the block ends; yields its URL and its pid."""
    said = stand.folder / f"{name}.log"
    environment = {**stand.environment(), "FUSION_API_KEY": "k"}
    with said.open("wb") as log, on_cpus(servers=True):
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=stand.folder, env=environment)
    try:
        yield listening(process, said), process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def listening(process: subprocess.Popen[bytes], said: Path) -> str:
    """Return the URL that a server says it listens on."""
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        _, found, url = said.read_text().partition(" listening on ")
        if found and "\n" in url:
            return url.split()[0]
        time.sleep(0.02)
    raise RuntimeError(f"{process.args} does not listen:\n{said.read_text()[:2000]}")


@contextlib.contextmanager
def on_cpus(servers: bool) -> Iterator[None]:
    """Give what is started in this block the first CPU, or all others; all of one where there is but one."""
    allowed = os.sched_getaffinity(0)
    first = {min(allowed)}
    os.sched_setaffinity(0, first if servers else (allowed - first or allowed))
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
