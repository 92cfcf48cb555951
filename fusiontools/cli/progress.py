"""The progress of a filter on standard error: a line for each call of one question, one bar for a batch.

Nothing where standard error is no terminal, or with `-q`. Lines are written whole; the bar is drawn by the last tool
of the pipeline only, which is the one whose output is no pipe.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING

from fusiontools.cli.command import complain
from fusiontools.cli.text import money
from fusiontools.runs.counts import RunCounts

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

    from fusiontools.cli.io import Input
    from fusiontools.llm.ledger import Event
    from fusiontools.record.types import Record

_REDRAW_S = 0.1
_DETAIL_CHARS = 300


class Progress:
    """The progress of one tool; of how many records is known once its input has ended.

    Args:
        alone: nothing goes to standard output that a bar could land among.
    """

    def __init__(self, tool: str, *, quiet: bool, alone: bool = False) -> None:
        self._tool, self._stages = tool, (tool.removeprefix("fuse-"),)
        self._shown = not quiet and os.isatty(2)
        # Answers on a terminal are their own progress; a bar would land among them.
        self._last = alone or (not stat.S_ISFIFO(os.fstat(1).st_mode) and not os.isatty(1))
        self._arrived = 0
        self._quiet = quiet
        self.counts = RunCounts()
        self._expected: int | None = None
        self._seen = 0
        self._bar: Live | None = None
        self._drawn = 0.0
        self._started = time.monotonic()
        self._replayed = 0
        self._last_failure = ""
        #: Whether each note has been said when its record left.
        self._said_each = False
        #: An answer on the screen speaks for itself; a line about it would land in its text.
        self.answer_is_live = False
        #: Where the records come from.
        self.source: Input | None = None

    @property
    def draws_bar(self) -> bool:
        """Whether a batch is shown as a bar by this tool."""
        return self._shown and self._last

    @property
    def shows_calls(self) -> bool:
        """Whether somebody is told of each call of a single question."""
        return self._shown

    @property
    def is_batch(self) -> bool:
        """Whether more than one record has come in."""
        return self._arrived > 1

    def arrived(self) -> None:
        """Count a record; the second one makes it a batch."""
        self._arrived += 1
        if self._arrived == 2 and self.draws_bar:
            self._bar = make_bar()
            self._bar.start()

    def settled(self, event: Event) -> None:
        """Say how one call went, while there is one question only."""
        if not self._shown or event.began or self._arrived > 1 or (self.answer_is_live and event.failure is None):
            return
        if event.replayed:
            self._replayed += 1
        elif event.failure is None:
            cost = f"  {money(event.cost_usd)}" if event.cost_usd else ""
            complain(self._tool, f"{event.label}  {event.latency_s:.1f} s{cost}")
        else:
            if self.answer_is_live:
                # The text that came until now has no end of its line.
                os.write(2, b"\n")
            why = f"{event.failure.code}: {event.failure.message}"
            said = "the same" if why == self._last_failure else why
            complain(self._tool, f"{event.label}  failed after {event.latency_s:.1f} s: {said}")
            self._last_failure = why

    @property
    def degraded(self) -> int:
        """How many records this tool has degraded."""
        return self.counts.degraded

    def begin(self, expected: int) -> None:
        """Show a batch of so many records, whose counts come in parts (`add`)."""
        self._arrived = self._expected = expected
        self._started = time.monotonic()
        if self.draws_bar:
            self._bar = make_bar()
            self._bar.start()
            self._draw(self._bar)

    def show(self, done: int) -> None:
        """Show that so many are done, of which not all are counted yet."""
        self._seen = done
        if self._bar is not None:
            self._draw(self._bar)

    def add(self, counts: RunCounts) -> None:
        """Add what a part of the batch came to."""
        self.counts.merge(counts)
        if self._bar is not None:
            self._draw(self._bar)

    def finished(self, record: Record, *, passed_on: bool = False) -> None:
        """Count a record that leaves; what stands in one that is only passed on is no work of this tool."""
        self.counts.add(record, self._stages, passed_on=passed_on)
        if self.draws_bar:
            self.counts.add_calls(record)
        if self._bar is not None:
            self._draw(self._bar)
        elif self._shown and self._arrived <= 1:
            self._note(record)

    def close(self) -> None:
        """Leave the bar as it stands at the end."""
        if self._bar is not None:
            self._draw(self._bar, last=True)
            self._bar.stop()
            self._bar = None

    def sum_up(self) -> None:
        """Say what was degraded, terminal or not; under `-q` only what has failed on every record."""
        if self._said_each:
            return
        for code, (count, detail) in self.counts.notes.items():
            if self._quiet and not (count == self.counts.done and code.endswith("_failed")):
                continue
            first = f"{detail[:_DETAIL_CHARS]}…" if len(detail) > _DETAIL_CHARS else detail
            plural = "" if self.counts.done == 1 else "s"
            complain(self._tool, f"{count:,} of {self.counts.done:,} record{plural}: {code} ({first})")

    def _draw(self, bar: Live, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._drawn < _REDRAW_S:
            return
        self._drawn = now
        bar.update(one_line(self._describe(now - self._started)), refresh=True)

    def _describe(self, elapsed_s: float) -> str:
        """Return how far the batch is, and what it has cost."""
        counts, total = self.counts, self._expected
        if self.source is not None:
            total = self.source.count or self.source.expected
        done = max(counts.done, self._seen)
        rate = done / elapsed_s if elapsed_s else 0.0
        left = f"{clock((total - done) / rate)} left  " if total and rate and total > done else ""
        of_total = f" of {total:,}" if total else ""
        degraded = f"{counts.degraded:,} degraded, " if counts.degraded else ""
        known = "≥ " if counts.unknown_cost else ""
        return (
            f"{done:,}{of_total} done  {clock(elapsed_s)}  {left}{rate:.2f}/s, "
            f"{counts.failed:,} failed, {degraded}{known}{money(counts.cost_usd)}"
        )

    def _note(self, record: Record) -> None:
        if self._replayed:
            complain(self._tool, f"{self._replayed} call{'s' if self._replayed > 1 else ''} from the journal")
        self._said_each = True
        stage = self._tool.removeprefix("fuse-")
        own = (note for note in record.get("degraded", []) if note.get("stage") == stage)
        # A failed member had a line of its own.
        said = (f"{note.get('code')}: {note.get('detail', '')}" for note in own if note.get("code") != "member_failed")
        for line in dict.fromkeys(said):
            complain(self._tool, line)


def make_bar() -> Live:
    """Return a line that is drawn over itself, when told to: no thread draws while a tool waits."""
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=False, redirect_stderr=False)


def one_line(text: str) -> Text:
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")


def clock(seconds: float) -> str:
    """Return a time as a clock shows it: 0:07, 12:30, 1:02:30."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
