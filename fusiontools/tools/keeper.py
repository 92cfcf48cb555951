"""Run a command and, when it ends or we are told to stop, end everything that it started.

Run as a program of its own where no namespace of processes does that: `python keeper.py COMMAND …`. On Linux it becomes
the parent of all that loses its own, so that nothing escapes by starting a session.
"""

import contextlib
import ctypes
import os
import signal
import sys

_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36
_NOT_FOUND = 127


def main() -> None:
    """Run the command of our own command line and exit as it does."""
    system = ctypes.CDLL(None)
    if hasattr(system, "prctl"):
        system.prctl(_ADOPT_ORPHANS, 1)
        system.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    command = os.fork()
    if not command:
        _become(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda number, frame: _stop(command))
    status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    _end_all(command)
    sys.exit(status if status >= 0 else 128 - status)


def _become(command: list[str]) -> None:
    try:
        os.setsid()
        os.execvp(command[0], command)  # noqa: S606 - the caller has chosen it
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_FOUND)


def _stop(command: int) -> None:
    _end_all(command)
    os._exit(128 + signal.SIGTERM)


def _end_all(command: int) -> None:
    """Kill the command's group, then whatever has become our child, until there is nothing."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(command, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(child, signal.SIGKILL)
            # Those of a child that has just ended become ours now.
            os.wait()


def _children() -> list[int]:
    try:
        # No pathlib: it costs as much as everything else here.
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
            return [int(number) for number in file.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    main()
