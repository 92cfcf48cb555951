"""Interrupt tools at random moments while they start: none may show a traceback, crash, hang, or go on.

    python tests/faults/early_interrupt.py [RUNS]

Prints for each tool how its runs ended; RUNS for each, 70 where nothing is said. What Python does before it comes to
our first line (it starts, and runs what an installer wrote into the script) is counted apart: nobody is there yet who
could keep quiet. Exit 1 where a run ended otherwise than it should.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bounds import Bound, run_part

#: A filter, a tool with imports of its own, and the one in which a person presses Ctrl-C most often.
COMMANDS = (["fuse-panel", "-c", "local"], ["fuse-report"], ["fuse-ask", "-c", "local", "--offline", "Why?"])
WITHIN_S = 0.1
INTERRUPTED, EARLY, ENDED = "interrupted", "before our first line", "had ended"


def interrupt(command: list[str], after_s: float, folder: Path) -> str:
    """Start a tool, interrupt it, and return in a word how it ended."""
    program = Path(sys.executable).with_name(command[0])
    with subprocess.Popen(
        [program, *command[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder
    ) as process:
        time.sleep(after_s)
        if process.poll() is not None:
            return ENDED
        process.send_signal(signal.SIGINT)
        try:
            _, said = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            return "hung"
    return verdict(process.returncode, said.decode(errors="replace"))


def verdict(status: int, said: str) -> str:
    """Return how a tool took its interruption."""
    if re.search(r'File "[^"]*/fusiontools/', said):
        return f"traceback: {said.strip().splitlines()[-1]}"
    # What Python drops in a callback of its own, it shows; the tool ends all the same.
    if status == 130 and (not said or said.startswith("Exception ignored in: <function _get_module_lock")):
        return INTERRUPTED
    # Python ends by the signal itself, or, before it could have heard of one, with 1. Whatever ends otherwise went on.
    if status == -signal.SIGINT or (status == 1 and said.rstrip().endswith("KeyboardInterrupt")):
        return EARLY
    return f"exit {status}: {said.strip()[-200:]}"


def start_s() -> float:
    """Return how long a tool takes to say which it is: a busy machine needs longer to come to our first line."""
    started = time.monotonic()
    subprocess.run([Path(sys.executable).with_name("fuse-panel"), "--version"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def measure(runs: int, seed: int = 1) -> Iterator[Bound]:
    """Interrupt each tool so often."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a script: every tool would have Ctrl-C ignored, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    draw = random.Random(seed)
    total: Counter[str] = Counter()
    within_s = max(WITHIN_S, 2 * start_s())
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            ends = Counter(interrupt(command, draw.uniform(0, within_s), Path(folder)) for _ in range(runs))
            print(command[0], dict(ends.most_common()), file=sys.stderr, flush=True)
            total += ends
    faults = total.total() - sum(total[end] for end in (INTERRUPTED, EARLY, ENDED))
    yield Bound("interrupts", f"Ctrl-C in the first {1000 * within_s:.0f} ms", total.total())
    yield Bound("interrupts", EARLY, total[EARLY])
    yield Bound("interrupts", "tracebacks, crashes, runs that hung or went on", faults, 0)


if __name__ == "__main__":
    sys.exit(run_part(measure, 70))
