"""Tools on a terminal, as a person has them: a real one, and what comes to its screen."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from forking import Forked, can_fork, fork


@contextmanager
def on_a_terminal(
    args: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    *,
    out: int | IO[bytes] | None = None,
    stdin: int = subprocess.PIPE,
) -> Iterator[tuple[int, subprocess.Popen[bytes] | Forked]]:
    """Run a tool whose error stream is a terminal, as is its output unless that is sent elsewhere; yield our end."""
    ours, theirs = pty.openpty()
    stdout = theirs if out is None else out
    env = {"TERM": "xterm", "COLUMNS": "100", **env}
    process = _start(args, env, cwd, stdin, stdout if isinstance(stdout, int) else stdout.fileno(), theirs)
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()


def _start(
    args: Sequence[str], env: Mapping[str, str], cwd: Path, stdin: int, stdout: int, stderr: int
) -> subprocess.Popen[bytes] | Forked:
    if stdout < 0 or not can_fork(args, env):
        return subprocess.Popen(args, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd)
    if stdin == subprocess.PIPE:
        theirs, ours = os.pipe()
        process = fork(args, env, cwd, theirs, stdout, stderr)
        process.stdin = open(ours, "wb", 0)  # noqa: PTH123, SIM115
    else:
        theirs = os.open(os.devnull, os.O_RDONLY) if stdin == subprocess.DEVNULL else os.dup(stdin)
        process = fork(args, env, cwd, theirs, stdout, stderr)
    os.close(theirs)
    return process


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


def shown(screen: str) -> str:
    """Return what stands on an endless screen in the end: what was drawn over is gone, and no line is too long.

    Knows what our tools and those of the readers say to a terminal: the cursor goes up, down or to the side, lines and
    the rest of the screen are cleared.
    """
    lines, row, column = [""], 0, 0
    for control, count, command, character in re.findall(r"(\x1b\[\??([\d;]*)([A-Za-z]))|([^\x1b])", screen, re.DOTALL):
        if command == "A":
            row = max(0, row - int(count or 1))
        elif command == "B":
            row += int(count or 1)
            lines += [""] * (row + 1 - len(lines))
        elif command in ("C", "D"):
            column = max(0, column + int(count or 1) * (1 if command == "C" else -1))
        elif command == "K":
            lines[row] = lines[row][:column] if count in ("", "0") else ""
        elif command == "J":
            lines[row:] = [lines[row][:column]]
        elif character == "\r":
            column = 0
        elif character == "\b":
            column = max(0, column - 1)
        elif character == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif not control:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + character + line[column + 1 :]
            column += 1
    return "\n".join(line.rstrip() for line in lines)
