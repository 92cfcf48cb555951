"""The stand on which the benchmarks run: a fake upstream, a hermetic environment, and children that are weighed.

Kept small in imports and memory: what the kernel says of a child's peak memory is never less than what this process
has when it starts that child.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BIN = Path(sys.executable).parent
UPSTREAM = Path(__file__).parents[1] / "support" / "upstream.py"
FLOORS = Path(__file__).with_name("floors.py")


@dataclass(frozen=True, slots=True)
class Run:
    """What one child, or a pipeline of them, took."""

    wall_s: float
    cpu_s: float
    peak_mib: float

    def __sub__(self, other: Run) -> Run:
        return Run(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s, self.peak_mib - other.peak_mib)


@contextlib.contextmanager
def upstream(latency_s: float = 0.0) -> Iterator[str]:
    """Run a fake upstream until the block ends; yields its base URL."""
    command = [sys.executable, str(UPSTREAM), "--latency", str(latency_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Stand:
    """A folder of its own, an upstream, and nothing else of the world.

    `PYTHONPATH` is handed on, so that another checkout can be measured with this one's benchmarks.
    """

    folder: Path
    url: str
    #: What else the children see of the environment.
    more: Mapping[str, str] = field(default_factory=dict)

    def run(
        self,
        *commands: Sequence[str],
        source: Path | Iterable[bytes] = (),
        output: Path | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> Run:
        """Run commands in a pipe from `source` to `output`.

        Args:
            source: a file, or lines that are written as they are made.
            output: where the last one's output goes; thrown away where none is named.
            watch: called with the last one's pid about every 50 ms.

        Returns:
            The wall time until the last one ended, the CPU time and the peak memory of all, added up.
        """
        name_of_errors = self.folder / "stderr"
        with contextlib.ExitStack() as opened:
            errors = opened.enter_context(name_of_errors.open("wb"))
            sink = opened.enter_context((output or Path(os.devnull)).open("wb"))
            given = opened.enter_context(source.open("rb")) if isinstance(source, Path) else subprocess.PIPE
            started = time.perf_counter()
            children: list[subprocess.Popen[bytes]] = []
            for command in commands:
                last = len(children) + 1 == len(commands)
                child = subprocess.Popen(
                    command,
                    stdin=children[-1].stdout if children else given,
                    stdout=sink if last else subprocess.PIPE,
                    stderr=errors,
                    env=self.environment(),
                    cwd=self.folder,
                )
                if children:
                    children[-1].stdout.close()
                children.append(child)
            if not isinstance(source, Path):
                threading.Thread(target=_feed, args=(children[0].stdin, source), daemon=True).start()
            if watch:
                while os.waitid(os.P_PID, children[-1].pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    watch(children[-1].pid)
                    time.sleep(0.05)
            ended = [os.wait4(child.pid, 0) for child in reversed(children)]
            wall_s = time.perf_counter() - started
        for child, (_, status, _) in zip(reversed(children), ended, strict=True):
            child.returncode = os.waitstatus_to_exitcode(status)
        if any(child.returncode for child in children) or name_of_errors.stat().st_size:
            said = name_of_errors.read_text(errors="replace")[:2000]
            raise RuntimeError(f"{commands} ended with {[child.returncode for child in children]}:\n{said}")
        usage = [usage for _, _, usage in ended]
        return Run(wall_s, sum(u.ru_utime + u.ru_stime for u in usage), sum(u.ru_maxrss for u in usage) / 1024)

    def environment(self) -> dict[str, str]:
        """Return all that a child may see."""
        return {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "HOME": str(self.folder),
            "XDG_STATE_HOME": str(self.folder),
            "FUSION_BASE_URL": self.url,
            **{name: value for name, value in os.environ.items() if name == "PYTHONPATH"},
            **self.more,
        }


def tool(name: str, *arguments: str) -> list[str]:
    """Return the command of one of our tools, quiet."""
    return [str(BIN / name), "-q", *arguments]


def python(code: str) -> list[str]:
    """Return the command of a reference."""
    return [sys.executable, "-c", code]


def floor(stand: Stand, *arguments: str) -> list[float]:
    """Return the figures that `floors.py` prints."""
    output = stand.folder / "floor"
    stand.run([sys.executable, str(FLOORS), *arguments], output=output)
    return [float(word) for word in output.read_text().split()]


def questions(count: int, distinct: int, chars: int) -> Iterator[bytes]:
    """Make records with ids of their own that ask the same `distinct` questions of about so many characters in turn."""
    for i in range(count):
        text = f"Question {i % distinct}: which of these holds, and why? " + "Some words of context. " * (chars // 23)
        yield b'{"id":"q-%07d","messages":[{"role":"user","content":"%b"}]}\n' % (i, text.encode())


def lines_of(path: Path, count: int) -> Iterator[bytes]:
    """Yield so many lines of a file, from its start again where it is shorter."""
    left = count
    while left > 0:
        with path.open("rb") as file:
            for line in itertools.islice(file, left):
                left -= 1
                yield line


def median(runs: Iterable[Run]) -> Run:
    """Return the median of each figure."""
    listed = list(runs)
    return Run(*(statistics.median(getattr(run, name) for run in listed) for name in Run.__slots__))


def _feed(pipe: Iterable[bytes], source: Iterable[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.writelines(source)
