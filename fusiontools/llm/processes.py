"""A program with a group of processes of its own: no start that is given up leaves it behind, and it ends with all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Coroutine
from typing import Any

#: How long a program that was killed may take to end.
ENDED_WITHIN_S = 2.0


async def begin(starting: Coroutine[Any, Any, Process]) -> Process:
    """Return the process that is being started; it leads a group of its own.

    Where we are cancelled meanwhile it is killed: left alone, asyncio would kill a shell only, and wait for the pipes
    that its children hold.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    started = asyncio.ensure_future(starting)
    try:
        return await asyncio.shield(started)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError, ValueError):
            process = await started
            kill(process)
            await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=ENDED_WITHIN_S)
        raise


def kill(process: Process) -> None:
    """Kill a process and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
