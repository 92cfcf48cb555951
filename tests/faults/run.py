"""Do to fusiontools what machines, endpoints and clients do in bad times, and print what it withstood.

    python tests/faults/run.py [PART …]

Fifteen minutes in all on two idle cores. Each part prints its figures as they come; at the end they stand in one table.
Exit 1 where a bound is broken.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import early_interrupt
import endurance
import fuzzed
import injected
import kills
import money_race
from bounds import Bound, table

#: Each part with its count; the last one takes seconds.
PARTS: dict[str, tuple[Callable[[int], Iterator[Bound]], int]] = {
    "interrupts": (early_interrupt.measure, 70),
    "kills": (kills.measure, 80),
    "injected": (injected.measure, 10),
    "money": (money_race.measure, 200),
    "fuzzed": (fuzzed.measure, 30_000),
    "endurance": (endurance.measure, 240),
}
ALL_S = 15 * 60
#: Endurance takes what the others have left, and no less than this.
LEAST_ENDURANCE_S = 60


def main() -> int:
    """Run the parts that are named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all where none is named")
    chosen = parser.parse_args().parts or [*PARTS]
    if unknown := set(chosen) - PARTS.keys():
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    started, found = time.monotonic(), []
    for name in chosen:
        measure, count = PARTS[name]
        if name == "endurance":
            count = max(LEAST_ENDURANCE_S, min(count, int(ALL_S - 30 - (time.monotonic() - started))))
        for bound in measure(count):
            print(bound, flush=True)
            found.append(bound)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes\n")
    print("\n".join(table(found)))
    return int(any(bound.verdict == "BROKEN" for bound in found))


if __name__ == "__main__":
    sys.exit(main())
