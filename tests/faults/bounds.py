"""What the parts of `make faults` share: a stand-in and a home of their own, a figure and its bound, a table."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from workdir import Upstream, hermetic, start_upstream


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure that was measured, and the most that it may be; `most` is None where it only tells."""

    part: str
    figure: str
    value: float
    most: float | None = None

    @property
    def verdict(self) -> str:
        if self.most is None:
            return ""
        return "held" if self.value <= self.most else "BROKEN"

    def __str__(self) -> str:
        most = "" if self.most is None else f", at most {self.most:,.6g}: {self.verdict}"
        return f"{self.part}: {self.figure}: {self.value:,.6g}{most}"


@dataclass(frozen=True, slots=True)
class Scene:
    """A stand-in upstream, a folder, and all that a tool may see of the world."""

    upstream: Upstream
    folder: Path
    env: dict[str, str]

    def start(self, command: Sequence[str], source: Path, output: Path) -> subprocess.Popen[bytes]:
        """Start a tool that reads one file and writes another; what it says to people is kept beside the output."""
        said = output.with_suffix(".said")
        with source.open("rb") as reads, output.open("wb") as writes, said.open("ab") as errors:
            return subprocess.Popen(command, stdin=reads, stdout=writes, stderr=errors, cwd=self.folder, env=self.env)


@contextlib.contextmanager
def scene(*options: str) -> Iterator[Scene]:
    """Make a scene whose stand-in was started with these options."""
    with tempfile.TemporaryDirectory(prefix="fuse-faults-") as name, start_upstream(*options) as upstream:
        folder = Path(name)
        yield Scene(upstream, folder, hermetic(upstream, folder))


def run_part(measure: Callable[[int], Iterator[Bound]], count: int) -> int:
    """Measure one part, with the count that the command line gives; print every figure and return the exit status."""
    found = []
    for bound in measure(int(sys.argv[1]) if len(sys.argv) > 1 else count):
        print(bound, flush=True)
        found.append(bound)
    return int(any(bound.verdict == "BROKEN" for bound in found))


def table(bounds: Sequence[Bound]) -> Iterator[str]:
    """Yield the lines of a table of figures."""
    cells = [("part", "figure", "value", "at most", "")]
    for bound in bounds:
        most = "" if bound.most is None else f"{bound.most:,.6g}"
        cells.append((bound.part, bound.figure, f"{bound.value:,.6g}", most, bound.verdict))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (c.rjust(w) if i in (2, 3) else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        yield "  ".join(padded).rstrip()
