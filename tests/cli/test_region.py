"""The end of a screen that is drawn over itself, and what others write to standard error meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path

from terminal import on_a_terminal, read_screen, shown

#: Draws two lines anew many times, while others write.
DRAW = """
import itertools, sys
from rich.console import Console
from rich.text import Text
from fusiontools.cli.command import complain
from fusiontools.cli.region import Region
count = itertools.count()
region = Region(Console(stderr=True), lambda: Text(f"first\\nsecond {next(count)}"))
region.start()
print("fetching the model", file=sys.stderr, flush=True)
complain("fuse-x", "a warning")
print("half a ", end="", file=sys.stderr, flush=True)
region.close()
print("line", file=sys.stderr)
"""


def test_what_is_written_meanwhile_stands_above_it_whole(env: dict[str, str], tmp_path: Path) -> None:
    with on_a_terminal([sys.executable, "-c", DRAW], env, tmp_path) as (ours, _):
        lines = shown(read_screen(ours)).split("\n")

    assert [line for line in lines if line] == ["fetching the model", "fuse-x: a warning", "half a line"]
