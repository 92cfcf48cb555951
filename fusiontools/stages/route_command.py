"""Ask a shell command for the route: the record on its stdin, its decision on its stdout.

The command is the user's own and sees the user's whole environment, keys included. It gets the record as one line of
JSON and prints `fuse`, `solo`, `solo TIER` or `TIER`, with the reason after it or on the lines below, or an object
`{"to": …, "tier": …, "reason": …}`. It runs in a session of its own and is killed with its children where it takes too
long or says too much. What it writes to stderr is quoted, in its last line, where it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from asyncio.subprocess import PIPE, Process
from typing import Any

from fusiontools import jsonl
from fusiontools.errors import StageFailed
from fusiontools.record import Record
from fusiontools.routing import SOLO, Decision, decision_in, one_line

_MAX_OUTPUT_BYTES, _PIECE_BYTES, _COMPLAINT_BYTES, _SHOWN_CHARS = 65_536, 16_384, 4_096, 120
#: How long a killed command is waited for; whoever has left its group cannot hold the record up.
_ENDED_WITHIN_S = 2.0
_PRINTED = re.compile(r"(fuse|solo|fast|balanced|strong)(?:[\s:]+(fast|balanced|strong))?(?=[\s:;,.]|$)", re.IGNORECASE)


async def ask_command(command: str, record: Record, within_s: float) -> Decision:
    """Return what the command decides.

    Raises:
        StageFailed: it cannot be started, fails, takes too long, or prints no decision.
    """
    printed = await _output(command, jsonl.write(record), within_s)
    decision = read_printed(printed)
    if decision is None:
        raise StageFailed("route_failed", f"the router command printed no decision: {_shown(printed)!r}")
    return decision


def read_printed(text: str) -> Decision | None:
    """Return the decision in what a command printed, with its reason; None where there is none."""
    stripped = text.strip()
    first, _, below = stripped.partition("\n")
    for candidate in (stripped, first):
        with contextlib.suppress(ValueError):
            data = jsonl.loads(candidate)
            if isinstance(data, dict):
                return decision_in(data)
    found = _PRINTED.match(first)
    if found is None:
        return None
    word, tier, after = found[1].casefold(), found[2], first[found.end() :]
    if tier and word != SOLO:
        # `fuse fast …` is the beginning of a reason.
        tier, after = None, first[found.end(1) :]
    return Decision((tier or word).casefold(), one_line(f"{after.lstrip(' :;,.-–—')} {below}"))


async def _output(command: str, data: bytes, within_s: float) -> str:
    try:
        process = await asyncio.create_subprocess_shell(
            command, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise StageFailed("route_failed", f"the router command cannot be started: {error}") from error
    talk = asyncio.create_task(_talk(process, data))
    ended: set[asyncio.Task[Any]] = set()
    try:
        ended, _ = await asyncio.wait({talk}, timeout=within_s)
    finally:
        if not ended:
            # Its pipes are read to their ends, which come with its own.
            _kill(process)
            await asyncio.wait({talk}, timeout=_ENDED_WITHIN_S)
            talk.cancel()
    if not ended:
        raise StageFailed("route_failed", f"the router command did not end within {within_s:.3g} s")
    printed, complaint, status = talk.result()
    if len(printed) > _MAX_OUTPUT_BYTES:
        raise StageFailed("route_failed", f"the router command printed more than {_MAX_OUTPUT_BYTES} bytes")
    if status != 0:
        said = f": {complaint}" if complaint else ""
        raise StageFailed("route_failed", f"the router command ended with status {status}{said}")
    return printed.decode("utf-8", "replace")


async def _talk(process: Process, data: bytes) -> tuple[bytes, str, int]:
    """Return what a command prints, the last line of its complaints, and its status."""
    printed, complaint, _ = await asyncio.gather(_read(process), _complaint(process), _feed(process, data))
    return printed, complaint, await process.wait()


async def _feed(process: Process, data: bytes) -> None:
    """Write the record; a command that decides without reading it is free to."""
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    if process.stdin.is_closing():
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


async def _read(process: Process) -> bytes:
    """Return what is printed; whoever prints without end is killed."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    printed = b""
    while piece := await process.stdout.read(_PIECE_BYTES):
        if len(printed) > _MAX_OUTPUT_BYTES:
            continue  # what was on its way when it was killed
        printed += piece
        if len(printed) > _MAX_OUTPUT_BYTES:
            _kill(process)
    return printed


async def _complaint(process: Process) -> str:
    """Return the last line of standard error."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    last = b""
    while piece := await process.stderr.read(_PIECE_BYTES):
        last = (last + piece)[-_COMPLAINT_BYTES:]
    lines = last.decode("utf-8", "replace").strip().splitlines()
    return _shown(lines[-1]) if lines else ""


def _kill(process: Process) -> None:
    """Kill the command and all that it started; it leads a group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _shown(text: str) -> str:
    return one_line(text)[:_SHOWN_CHARS]
