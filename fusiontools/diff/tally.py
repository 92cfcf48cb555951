"""Add up what a comparison of two files found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fusiontools.diff.records import Change, Data, Side
from fusiontools.diff.spent import Spent, cost_data, time_data

KINDS = ("answer", "analysis", "failed", "answered", "other")


@dataclass(slots=True)
class Tally:
    """How many records fared how; every compared record is counted once.

    `a` and `b` are what the compared records cost: what stands in one file only would compare unlike with like.
    For either file: `only_in` counts its records that the other one has not, `unread` its lines that could not be read,
    `unpaired` its records whose partner may stand in such a line of the other file.
    """

    compared: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    only_in: list[int] = field(default_factory=lambda: [0, 0])
    unread: list[int] = field(default_factory=lambda: [0, 0])
    unpaired: list[int] = field(default_factory=lambda: [0, 0])
    a: Spent = field(default_factory=Spent)
    b: Spent = field(default_factory=Spent)

    @property
    def same(self) -> int:
        """How many of the compared records differ in nothing."""
        return self.compared - self.kinds.total()

    @property
    def differ(self) -> bool:
        """Whether anything differs."""
        return self.same < self.compared or any(self.only_in)

    def add(self, a: Side, b: Side, change: Change | None) -> None:
        """Count a pair of records."""
        self.compared += 1
        self.a += a.spent
        self.b += b.spent
        if change is not None:
            self.kinds[change.kind] += 1

    def add_alone(self, file: int) -> bool:
        """Count a record without a partner; return whether it is sure that there is none.

        Args:
            file: 0 for a record of the first file, 1 for one of the second.
        """
        is_sure = not self.unread[1 - file]
        (self.only_in if is_sure else self.unpaired)[file] += 1
        return is_sure

    def data(self) -> Data:
        """Return the counts as one JSON object."""
        return {
            "compared": self.compared,
            "same": self.same,
            **{kind: self.kinds[kind] for kind in KINDS},
            "only_in_a": self.only_in[0],
            "only_in_b": self.only_in[1],
            "unread": dict(zip("ab", self.unread, strict=True)),
            "unpaired": dict(zip("ab", self.unpaired, strict=True)),
            "cost_usd": cost_data(self.a, self.b),
            "call_time_s": time_data(self.a, self.b),
        }
