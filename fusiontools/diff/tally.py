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
    `unread_*` counts a file's lines that could not be read, `unpaired_*` its records whose partner may stand in such a
    line of the other file.
    """

    compared: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    only_in_a: int = 0
    only_in_b: int = 0
    unread_a: int = 0
    unread_b: int = 0
    unpaired_a: int = 0
    unpaired_b: int = 0
    a: Spent = field(default_factory=Spent)
    b: Spent = field(default_factory=Spent)

    @property
    def same(self) -> int:
        """How many of the compared records differ in nothing."""
        return self.compared - self.kinds.total()

    @property
    def differ(self) -> bool:
        """Whether anything differs."""
        return self.same < self.compared or self.only_in_a + self.only_in_b > 0

    def add(self, a: Side, b: Side, change: Change | None) -> None:
        """Count a pair of records."""
        self.compared += 1
        self.a += a.spent
        self.b += b.spent
        if change is not None:
            self.kinds[change.kind] += 1

    def count_unmatched(self, number: int) -> bool:
        """Count a record without a partner; return whether it is sure that it stands in its file only.

        Args:
            number: 0 for a record of the first file, 1 for one of the second.
        """
        match number, bool(self.unread_a if number else self.unread_b):
            case 0, False:
                self.only_in_a += 1
            case _, False:
                self.only_in_b += 1
            case 0, True:
                self.unpaired_a += 1
            case _:
                self.unpaired_b += 1
        return not (self.unread_a if number else self.unread_b)

    def data(self) -> Data:
        """Return the counts as one JSON object."""
        return {
            "compared": self.compared,
            "same": self.same,
            **{kind: self.kinds[kind] for kind in KINDS},
            "only_in_a": self.only_in_a,
            "only_in_b": self.only_in_b,
            "unread": {"a": self.unread_a, "b": self.unread_b},
            "unpaired": {"a": self.unpaired_a, "b": self.unpaired_b},
            "cost_usd": cost_data(self.a, self.b),
            "call_time_s": time_data(self.a, self.b),
        }
