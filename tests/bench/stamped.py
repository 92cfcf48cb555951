"""The fake upstream, with one model more: `+stamps=N` streams N tokens that hold the moment they were sent.

The moment is `time.monotonic_ns()`, which all processes of a machine share, as `@` 16 digits `@`. Tokens that do not
wait for their turn (`+itl` says how long) leave with the head and stay unstamped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import fake_models
import upstream

BLANK = "@................@"


class Stamped(upstream.Connection):
    """A connection that fills in the moment as it sends a token."""

    def wake(self, piece: bytes) -> None:
        super().wake(piece.replace(BLANK.encode(), b"@%016d@" % time.monotonic_ns()))


if __name__ == "__main__":
    fake_models.BEHAVIOURS["stamps"] = lambda _, n: {"chunks": int(n), "text": BLANK * int(n)}
    upstream.Connection = Stamped
    upstream.main()
