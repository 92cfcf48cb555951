"""Do to fusiontools what machines, endpoints and clients do in bad times, and print what it withstood.

    python tests/faults/run.py [PART …]

Fifteen minutes in all on two idle cores: endurance runs beside the others. Each part prints its figures as they come;
at the end they stand in one table. Exit 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import early_interrupt
import endurance
import fuzzed
import injected
import kills
import money_race
from bounds import Bound, table

#: Each part with its count; that of endurance is seconds.
PARTS: dict[str, tuple[Callable[[int], Iterator[Bound]], int]] = {
    "interrupts": (early_interrupt.measure, 70),
    "kills": (kills.measure, 80),
    "injected": (injected.measure, 10),
    "money": (money_race.measure, 200),
    "fuzzed": (fuzzed.measure, 30_000),
    "endurance": (endurance.measure, 600),
}


def run(name: str) -> list[Bound]:
    """Run a part; print its figures as they come, and return them."""
    measure, count = PARTS[name]
    found = []
    for bound in measure(count):
        print(bound, flush=True)
        found.append(bound)
    return found


def main() -> int:
    """Run the parts that are named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is named")
    chosen = parser.parse_args().parts or [*PARTS]
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    started, found = time.monotonic(), []
    with ThreadPoolExecutor(1) as beside:
        long = beside.submit(run, "endurance") if "endurance" in chosen else None
        for name in chosen:
            if name != "endurance":
                found += run(name)
        if long is not None:
            found += long.result()
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes\n")
    print("\n".join(table(found)))
    return int(any(bound.verdict == "BROKEN" for bound in found))


if __name__ == "__main__":
    sys.exit(main())
