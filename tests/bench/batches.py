"""Measure what batch jobs cost the machine that sends them and fetches what came of them.

    python tests/bench/batches.py [CALLS] [STATE]      10,000 calls and a file where nothing is said

Processor time and memory are the tool's own, as the kernel counts them at its end, so what else the machine does
matters little. The provider is the stand-in of the tests, in a process of its own; its work is not counted.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from batching import questions, recipe, start_provider
from stand import tool
from table import Row, table


def run(folder: Path, state: str | None, *options: str) -> tuple[float, float, float]:
    """Return the seconds of processor time, the MiB of memory at most, and the seconds that a run takes."""
    names = {"FAKE_KEY": "test-key", "HOME": str(folder), "XDG_STATE_HOME": str(folder), "PATH": os.environ["PATH"]}
    with (folder / "q.jsonl").open("rb") as asked, (folder / "out.jsonl").open("wb") as out:
        began = time.monotonic()
        command = tool("fuse-panel", "--batch", *options)
        env = {**names, **({"FUSION_STATE": state} if state else {})}
        process = subprocess.Popen(command, stdin=asked, stdout=out, stderr=subprocess.DEVNULL, cwd=folder, env=env)
        _, _, used = os.wait4(process.pid, 0)
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, time.monotonic() - began


def main(calls: int, state: str | None) -> None:
    with start_provider() as provider, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "q.jsonl").write_text(questions(calls))
        (folder / "fusion.yaml").write_text(recipe(provider))
        provider.set(looks=0)
        rows = []
        for what in ("submit", "collect", "collect again"):
            cpu_s, mib, took_s = run(folder, state, what.split()[0])
            rows.append(Row(f"{what}: processor time", 1e6 * cpu_s / calls, "µs a call"))
            rows.append(Row(f"{what}: memory at most", mib, "MiB"))
            rows.append(Row(f"{what}: on the clock", took_s, "s"))
            provider.end()
        came = sum(1 for _ in (folder / "out.jsonl").open())
        assert came == calls, f"{came} records of {calls} came"
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, sys.argv[2] if len(sys.argv) > 2 else None)
