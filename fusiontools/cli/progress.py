"""What a person sees on standard error: a line for each call of one question, one bar for a batch.

Nothing where standard error is no terminal, or with `-q`. Lines are written whole; the bar is drawn by the last tool
of the pipeline only, which is the one whose output is no pipe.

What a person watches while a chain runs: who is asked, who has answered, how long it took, what it cost.

It is drawn on standard error, so that the answer alone stands on standard output.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fusiontools.cli import text
from fusiontools.cli.command import complain
from fusiontools.cli.text import clean
from fusiontools.llm.ledger import Event
from fusiontools.record.types import Record

_REDRAW_S = 0.1
_BAR = "{n_fmt} done  {elapsed}  {rate_noinv_fmt}{postfix}"


class Progress:
    """The progress of one tool."""

    def __init__(self, tool: str, *, quiet: bool) -> None:
        self._tool = tool
        self._shown = not quiet and os.isatty(2)
        # Answers on a terminal are their own progress; a bar would land among them.
        self._last = not stat.S_ISFIFO(os.fstat(1).st_mode) and not os.isatty(1)
        self._arrived = self._done = self._failed = 0
        self._cost_usd = 0.0
        self._unknown_cost = False
        self._bar: Any = None
        self._drawn = 0.0
        self._started = time.time()
        self._replayed = 0
        self._last_failure = ""
        #: An answer on the screen speaks for itself; a line about it would land in its text.
        self.answer_is_live = False

    @property
    def is_batch(self) -> bool:
        """Whether more than one record has come in."""
        return self._arrived > 1

    def arrived(self) -> None:
        """Count a record; the second one makes it a batch."""
        self._arrived += 1
        if self._arrived == 2 and self._shown and self._last:
            from tqdm import tqdm

            self._bar = tqdm(bar_format=_BAR, dynamic_ncols=True, file=sys.stderr)
            self._bar.start_t = self._started

    def settled(self, event: Event) -> None:
        """Say how one call went, while there is one question only."""
        if not self._shown or event.began or self._arrived > 1 or (self.answer_is_live and event.failure is None):
            return
        if event.replayed:
            self._replayed += 1
        elif event.failure is None:
            cost = f"  {_money(event.cost_usd)}" if event.cost_usd else ""
            complain(self._tool, f"{event.label}  {event.latency_s:.1f} s{cost}")
        else:
            if self.answer_is_live:
                # The text that came until now has no end of its line.
                os.write(2, b"\n")
            why = f"{event.failure.code}: {event.failure.message}"
            said = "the same" if why == self._last_failure else why
            complain(self._tool, f"{event.label}  failed after {event.latency_s:.1f} s: {said}")
            self._last_failure = why

    def finished(self, record: Record) -> None:
        """Count a record that leaves."""
        self._done += 1
        self._failed += "error" in record
        for call in record.get("calls", []):
            if not call.get("replayed"):
                cost = call.get("cost_usd")
                self._cost_usd += cost or 0.0
                self._unknown_cost |= cost is None
        if self._bar is not None:
            self._draw()
        elif self._shown and self._arrived <= 1:
            self._note(record)

    def close(self) -> None:
        """Leave the bar as it stands at the end."""
        if self._bar is not None:
            self._draw(last=True)
            self._bar.close()
            self._bar = None

    def _draw(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self._drawn < _REDRAW_S:
            return
        self._drawn = now
        known = "" if not self._unknown_cost else "≥ "
        self._bar.set_postfix_str(f"{self._failed} failed, {known}{_money(self._cost_usd)}", refresh=False)
        self._bar.total = None
        self._bar.update(self._done - self._bar.n)
        self._bar.refresh()

    def _note(self, record: Record) -> None:
        if self._replayed:
            complain(self._tool, f"{self._replayed} call{'s' if self._replayed > 1 else ''} from the journal")
        stage = self._tool.removeprefix("fuse-")
        for note in record.get("degraded", []):
            if note.get("stage") == stage and note.get("code") != "member_failed":
                complain(self._tool, f"{note.get('code')}: {note.get('detail', '')}")


def _money(usd: float) -> str:
    return f"${usd:.4f}" if usd < 1 else f"${usd:,.2f}"


_FRAMES_PER_S = 8
_WHY_CHARS = 60


@dataclass(slots=True)
class _Row:
    """One call on the screen."""

    stage: str
    label: str
    started: float
    event: Event | None = None


class View:
    """A table of calls that grows as the chain runs, then stays; the answer is written below it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._rows: list[_Row] = []
        self._started = time.monotonic()
        self._spinner: Any = Spinner("dots")
        self._live: Live | None = None
        self._closed = False

    def notify(self, event: Event) -> None:
        """Take note of a call that begins or settles."""
        running = [row for row in self._rows if row.event is None and (row.stage, row.label) == _key(event)]
        if event.began:
            self._rows.append(_Row(*_key(event), time.monotonic()))
        elif running:
            running[0].event = event
        else:
            self._rows.append(_Row(*_key(event), time.monotonic(), event))
        if self._live is None and not self._closed:
            self._live = Live(
                console=self._console,
                get_renderable=self._drawn,
                refresh_per_second=_FRAMES_PER_S,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def close(self) -> None:
        """Leave the table as it stands; nothing is drawn any more, for the answer stands below it."""
        self._closed = True
        if self._live is not None:
            self._spinner = Text("·")
            self._live.stop()
            self._live = None
            self._console.print()

    def sum_up(self, record: Any) -> None:
        """Say below the answer what it took."""
        self._console.print()
        self._console.print(Text(self._summary(record), style="dim"))

    def _drawn(self) -> Group:
        table = Table.grid(padding=(0, 2))
        stage = ""
        for row in list(self._rows):
            shown = row.stage if row.stage != stage else ""
            stage = row.stage
            table.add_row(Text(shown, style="dim"), *self._cells(row))
        return Group(table)

    def _cells(self, row: _Row) -> list[Any]:
        event, name = row.event, Text(clean(row.label))
        if event is None:
            return [self._spinner, name, Text(f"{time.monotonic() - row.started:.1f} s", style="dim"), Text("")]
        if event.failure is not None:
            why = clean(f"{event.failure.code}: {event.failure.message}")
            shown = why if len(why) <= _WHY_CHARS else why[: _WHY_CHARS - 1] + "…"
            return [Text("✗", style="red"), name, Text(f"{event.latency_s:.1f} s"), Text(shown, style="red")]
        cost = "from the journal" if event.replayed else _money_or_unknown(event.cost_usd)
        return [Text("✓", style="green"), name, Text(f"{event.latency_s:.1f} s"), Text(cost, style="dim")]

    def _summary(self, record: Any) -> str:
        calls = record.get("calls", [])
        costs = [call.get("cost_usd") for call in calls]
        known = sum(cost for cost in costs if cost is not None)
        bound = "≥ " if None in costs else ""
        count = f"{len(calls)} call{'' if len(calls) == 1 else 's'}"
        if spared := len(record.get("spared", [])):
            count += f" ({spared} spared)"
        by = text.author(record) + ", " if "answer" in record else ""
        if record.get("route", {}).get("to") == "solo":
            by += f"routed ({record['route'].get('reason', '')}), "
        return clean(
            f"{by}{count}, {bound}{_money_or_unknown(known) or '$0'}, {time.monotonic() - self._started:.1f} s"
        )


def _key(event: Event) -> tuple[str, str]:
    """Return what a row stands for; the first layer is just the panel."""
    purpose = "" if event.purpose == "layer 1" else event.purpose
    return " ".join(filter(None, (event.stage, purpose))), event.label


def _money_or_unknown(usd: float | None) -> str:
    if usd is None:
        return "cost unknown"
    return f"${usd:.4f}" if usd else ""
