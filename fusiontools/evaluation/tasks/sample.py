"""Choose among tasks: by category and split, and a seeded sample.

A sample is the first N of one fixed order, that of a hash of seed and id: so the first 50 of a sample of 100 are the
sample of 50, and adding tasks to a file changes a sample only where a new one comes in.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from fusiontools.errors import nearest
from fusiontools.evaluation.tasks.rows import BadRow
from fusiontools.record.sections import digest
from fusiontools.record.types import Record


class Chooser(Struct):
    """What is wanted of the tasks; and what was there, to say so where nothing fits."""

    categories: tuple[str, ...] = ()
    split: str | None = None
    number: int | None = None
    seed: int = 0
    seen: dict[str, dict[str, None]] = field(default_factory=lambda: {"category": {}, "split": {}})

    def of(self, tasks: Iterable[Record | BadRow]) -> Iterator[Record | BadRow]:
        """Yield the chosen tasks, and every bad row as soon as it comes.

        Without a number, tasks leave as they come, in their own order; a sample leaves in the order of its hash.
        """
        kept: list[tuple[int, int, Record]] = []
        for position, task in enumerate(tasks):
            if isinstance(task, BadRow):
                yield task
            elif not self._fits(task):
                continue
            elif self.number is None:
                yield task
            else:
                # The largest leaves first; positions tell apart what has the same id.
                entry = (-digest(str(self.seed), task["id"]), -position, task)
                if len(kept) < self.number:
                    heapq.heappush(kept, entry)
                else:
                    heapq.heappushpop(kept, entry)
        yield from (task for _, _, task in sorted(kept, key=lambda entry: (-entry[0], -entry[1])))

    def why_nothing(self) -> str:
        """Return what to say where no task was chosen."""
        for kind, asked in (("category", self.categories), ("split", (self.split,) if self.split else ())):
            known = list(self.seen[kind])
            for wanted in asked:
                if wanted.casefold() not in map(str.casefold, known):
                    hint = nearest(wanted, known) if known else "; they name none"
                    return f"no task has the {kind} {wanted!r}{hint}"
        return "no tasks"

    def _fits(self, task: Record) -> bool:
        meta = task.get("meta", {})
        wanted = {"category": self.categories, "split": (self.split,) if self.split else ()}
        fits = True
        for kind, accepted in wanted.items():
            found = str(meta.get(kind, ""))
            if found:
                self.seen[kind][found] = None
            if accepted and found.casefold() not in map(str.casefold, accepted):
                fits = False
        return fits
