"""What a run comes to: records done, failed and degraded, calls replayed, money; a worker's is added to the run's."""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from fusiontools.record.types import Record


class RunCounts(Struct):
    """Sums over records.

    Args:
        unknown_cost: whether nobody knows what some call cost.
        replayed: calls that the journal answered.
        notes: for each code of a `degraded` note on how many records it stands, and what it said first.
    """

    done: int = 0
    failed: int = 0
    degraded: int = 0
    replayed: int = 0
    cost_usd: float = 0.0
    unknown_cost: bool = False
    notes: dict[str, tuple[int, str]] = {}

    def add(self, record: Record, stages: Collection[str], *, passed_on: bool = False) -> None:
        """Count a record; notes are those of these stages, and what stands in one that is passed on is no news."""
        self.done += 1
        if not passed_on and "degraded" in record:
            own = [note for note in record["degraded"] if note.get("stage") in stages]
            self.degraded += bool(own)
            for code, detail in {note.get("code", ""): note.get("detail", "") for note in reversed(own)}.items():
                count, first = self.notes.get(code, (0, detail))
                self.notes[code] = count + 1, first
        self.failed += "error" in record

    def add_calls(self, record: Record) -> None:
        """Add what a record's calls have cost."""
        for call in record.get("calls", ()):
            if call.get("replayed"):
                self.replayed += 1
            elif cost_usd := call.get("cost_usd"):
                self.cost_usd += cost_usd
            elif cost_usd is None:
                self.unknown_cost = True

    def merge(self, other: RunCounts) -> None:
        """Add what another part of the run came to."""
        self.done += other.done
        self.failed += other.failed
        self.degraded += other.degraded
        self.replayed += other.replayed
        self.cost_usd += other.cost_usd
        self.unknown_cost |= other.unknown_cost
        for code, (count, detail) in other.notes.items():
            before, first = self.notes.get(code, (0, detail))
            self.notes[code] = before + count, first
