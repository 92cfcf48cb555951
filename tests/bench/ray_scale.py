"""Measure `fuse-ray`: records a second with 1, 2 and 4 workers, memory over the run, and from when it pays.

    python tests/bench/ray_scale.py [--records 100000] [--workers 1 2 4] [--jobs 16] [--latency 0.05] [--shell]
    python tests/bench/ray_scale.py --ids 1000000

One call a record, to a stand-in that takes `--latency`; that allows workers × jobs / latency records a second. The rate
is that of the middle three fifths of the records, by when their files came, so that start and end are left out. Memory
is read every second from /proc: at most in the last fifth of the run against the second fifth. `--shell` measures
`fuse-panel -j N` in the same way, with as many records at once as all workers have. `--ids` measures what the driver
does before the first call: the input read and cut, and so many ids looked through for those that stand twice.
Where FUSION_STATE names a store, each run has a namespace of its own in it, else a file.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stand import Stand, lines_of, questions, tool, upstream
from table import Row, table

BLOCK = 100
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class Watch:
    """What is seen of a run while it runs."""

    output: Path
    started: float = field(default_factory=time.monotonic)
    #: When so many records were out.
    out: list[tuple[float, int]] = field(default_factory=list)
    #: Memory of each kind of process, all of the kind added up, in MiB.
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))

    def look(self, pid: int) -> None:
        now = time.monotonic() - self.started
        if self.out and now - self.out[-1][0] < 1:
            return
        self.out.append((now, self._records()))
        sums: dict[str, float] = defaultdict(float)
        for kind, mib in processes(pid):
            sums[kind] += mib
        for kind, mib in sums.items():
            self.memory[kind].append((now, mib))

    def _records(self) -> int:
        if self.output.is_dir():
            return BLOCK * sum(1 for name in os.listdir(self.output) if name[0] not in "._")  # noqa: PTH208
        return self.output.read_bytes().count(b"\n") if self.output.exists() else 0

    def rate(self, records: int) -> float:
        """Return the records a second between a fifth and four fifths of all."""
        inner = [(at, out) for at, out in self.out if 0.2 * records <= out <= 0.8 * records]
        if len(inner) < 2:
            return float("nan")
        (begun, first), (ended, last) = inner[0], inner[-1]
        return (last - first) / (ended - begun)

    def first_s(self) -> float:
        """Return when the first records were out."""
        return next((at for at, out in self.out if out), float("nan"))

    def growth(self, kind: str) -> tuple[float, float]:
        """Return the most of the last fifth of the run, and of its second fifth."""
        seen = self.memory[kind]
        end = seen[-1][0]
        late = max(mib for at, mib in seen if at >= 0.8 * end)
        return late, max((mib for at, mib in seen if 0.2 * end <= at <= 0.4 * end), default=late)


def processes(pid: int) -> Iterator[tuple[str, float]]:
    """Yield what a process and those below it are, and their resident memory, in MiB."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        children[int(fields[1])].append(int(entry))
    waiting = [pid]
    while waiting:
        each = waiting.pop()
        waiting += children[each]
        try:
            said = Path(f"/proc/{each}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            resident = int(Path(f"/proc/{each}/statm").read_text().split()[1]) * PAGE_MIB
        except (OSError, IndexError):
            continue
        yield kind_of(said, driver=each == pid), resident


def kind_of(said: str, *, driver: bool) -> str:
    if driver:
        return "driver"
    return "workers" if "MapWorker" in said else "Ray's own"


def measure(records: int, workers: list[int], jobs: int, latency_s: float, *, shell: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="fuse-bench-") as name, upstream(latency_s) as url:
        here = Stand(Path(name), url)
        source = here.folder / "questions.jsonl"
        with source.open("wb") as file:
            file.writelines(questions(records, records, 200))
        for count in workers:
            output = here.folder / f"out-{count}"
            watch = Watch(output)
            chain = ("--chain", "panel -m fake/a", *journal(here, count))
            most = ("--workers", str(count), "-j", str(jobs), "--block", str(BLOCK))
            run = here.run(tool("fuse-ray", *chain, *most, str(source), "-o", str(output)), watch=watch.look)
            allowed = count * jobs / latency_s
            yield Row(f"{count} workers: records a second", watch.rate(records), "/s", allowed, "what latency allows")
            yield Row(f"{count} workers: all of it, with start and end", run.wall_s, "s")
            yield Row(f"{count} workers: until the first records are out", watch.first_s(), "s")
            for kind in ("driver", "workers", "Ray's own"):
                late, early = watch.growth(kind)
                yield Row(f"{count} workers: memory of {kind}", late, "MiB", early, "earlier in the run")
            lines = sum(path.read_bytes().count(b"\n") for path in output.glob("*.jsonl"))
            yield Row(f"{count} workers: records out", lines, "", records, "records in")
            shutil.rmtree(output)
        if shell:
            at_once = jobs * max(workers)
            output = here.folder / "shell.jsonl"
            watch = Watch(output)
            given = ("-m", "fake/a", "-j", str(at_once), *journal(here, 0))
            run = here.run(
                tool("fuse-panel", *given), source=lines_of(source, records), output=output, watch=watch.look
            )
            yield Row(
                f"fuse-panel -j {at_once}: records a second",
                watch.rate(records),
                "/s",
                at_once / latency_s,
                "what latency allows",
            )
            yield Row(f"fuse-panel -j {at_once}: all of it", run.wall_s, "s")


def journal(here: Stand, which: int) -> tuple[str, str]:
    """Return where a run keeps its calls, which no other run has made."""
    if state := os.environ.get("FUSION_STATE"):
        return "--state", f"{state}?namespace=bench_{os.getpid()}_{which}"
    return "--journal", str(here.folder / f"{which}.db")


def measure_ids(count: int) -> Iterator[Row]:
    from fusiontools.runs.cluster.record_blocks import FileBlock, index_file, key_of, number_repeated
    from fusiontools.runs.cluster.record_files import locate

    read = 50_000
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.writelines(questions(read, read, 200))
        file.flush()
        began = time.perf_counter()
        blocks = list(index_file(0, locate(file.name), BLOCK, None, 2**25))
        yield Row("records read and cut into blocks, by one process", read / (time.perf_counter() - began), "/s")
    del blocks
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    blocks = [
        FileBlock(0, i, (i * BLOCK + 1, (i + 1) * BLOCK), b"".join(key_of(f"q-{i}-{j}") for j in range(BLOCK)))
        for i in range(count // BLOCK)
    ]
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    number_repeated(blocks)
    took_s = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield Row(f"{count:,} ids: time to look through", took_s, "s")
    yield Row(f"{count:,} ids: memory that stays", (held - before) / 1024, "MiB")
    yield Row(f"{count:,} ids: memory at most", (most - before) / 1024, "MiB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--shell", action="store_true")
    parser.add_argument("--ids", type=int)
    given = parser.parse_args()
    if given.ids:
        rows = measure_ids(given.ids)
    else:
        rows = measure(given.records, given.workers, given.jobs, given.latency, shell=given.shell)
    for line in table(list(rows)):
        print(line)


if __name__ == "__main__":
    main()
