"""Tools on a terminal, as a person has them: a real one, and what comes to its screen."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def on_a_terminal(
    args: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    *,
    out: int | IO[bytes] | None = None,
    stdin: int = subprocess.PIPE,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run a tool whose error stream is a terminal, as is its output unless that is sent elsewhere; yield our end."""
    ours, theirs = pty.openpty()
    stdout = theirs if out is None else out
    env = {"TERM": "xterm", "COLUMNS": "100", **env}
    with subprocess.Popen(args, stdin=stdin, stdout=stdout, stderr=theirs, env=env, cwd=cwd) as process:
        os.close(theirs)
        try:
            yield ours, process
        finally:
            process.kill()
            os.close(ours)


def read_screen(ours: int) -> str:
    """Return all that comes to the terminal until the other end is closed."""
    pieces = []
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # how a terminal says that the other end is closed
            break
        if not piece:
            break
        pieces.append(piece)
    return b"".join(pieces).decode()


def without_controls(screen: str) -> str:
    """Return what was written, without what steered the terminal."""
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen)


def everything(ours: int) -> str:
    """Return the text of all that comes to the terminal."""
    return without_controls(read_screen(ours))
