"""What a person watches on standard error while `fuse-ask` runs a chain: each call, how long it took, what it cost."""

from __future__ import annotations

import time
from typing import Any

from msgspec import Struct
from rich.console import Console, Group
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fusiontools.cli import text
from fusiontools.cli.region import Region
from fusiontools.llm.ledger import Event
from fusiontools.record.clean import clean

_WHY_CHARS = 60


class _Row(Struct):
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
        self._unfinished: list[_Row] = []
        self._started = time.monotonic()
        self._spinner: Any = Spinner("dots")
        self._region: Region | None = None
        self._closed = False

    def notify(self, event: Event) -> None:
        """Take note of a call that begins or settles."""
        running = [
            row
            for row in (*self._rows, *self._unfinished)
            if row.event is None and (row.stage, row.label) == _key_of(event)
        ]
        if event.began:
            (self._unfinished if self._closed else self._rows).append(_Row(*_key_of(event), time.monotonic()))
        elif running:
            running[0].event = event
        else:
            self._rows.append(_Row(*_key_of(event), time.monotonic(), event))
        if self._region is None and not self._closed:
            self._region = Region(self._console, self._draw)
            self._region.start()

    def close(self) -> None:
        """Leave the table as it stands; nothing is drawn any more, for the answer stands below it.

        Who is still at work then writes that answer, or has been given up: `sum_up` says which.
        """
        self._closed = True
        if self._region is not None:
            self._region.close()
            self._region = None
            self._unfinished = [row for row in self._rows if row.event is None]
            self._rows = [row for row in self._rows if row.event is not None]
            if self._rows:
                self._console.print(self._draw())
                self._console.print()

    def sum_up(self, record: Any) -> None:
        """Say below the answer what it took, and how the calls have ended that were under way when it began."""
        self._console.print()
        if ended := [row for row in self._unfinished if row.event is not None]:
            self._console.print(self._draw_rows(ended))
        self._console.print(Text(self._summary_text(record), style="dim"))

    def _draw(self) -> Group:
        return self._draw_rows(list(self._rows))

    def _draw_rows(self, rows: list[_Row]) -> Group:
        table = Table.grid(padding=(0, 2))
        stage = ""
        for row in rows:
            shown = row.stage if row.stage != stage else ""
            stage = row.stage
            table.add_row(Text(shown, style="dim"), *self._cells_of(row))
        return Group(table)

    def _cells_of(self, row: _Row) -> list[Any]:
        event, name = row.event, Text(clean(row.label))
        if event is None:
            return [self._spinner, name, Text(f"{time.monotonic() - row.started:.1f} s", style="dim"), Text("")]
        if event.failure is not None:
            why = clean(f"{event.failure.code}: {event.failure.message}")
            shown = why if len(why) <= _WHY_CHARS else why[: _WHY_CHARS - 1] + "…"
            return [Text("✗", style="red"), name, Text(f"{event.latency_s:.1f} s"), Text(shown, style="red")]
        cost = "from the journal" if event.replayed else _cost_text(event.cost_usd)
        return [Text("✓", style="green"), name, Text(f"{event.latency_s:.1f} s"), Text(cost, style="dim")]

    def _summary_text(self, record: Any) -> str:
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
        return clean(f"{by}{count}, {bound}{_cost_text(known) or '$0'}, {time.monotonic() - self._started:.1f} s")


def _key_of(event: Event) -> tuple[str, str]:
    """Return what a row stands for; the first layer is just the panel."""
    purpose = "" if event.purpose == "layer 1" else event.purpose
    return " ".join(filter(None, (event.stage, purpose))), event.label


def _cost_text(usd: float | None) -> str:
    """Return what a call cost; nothing where it cost nothing."""
    if usd is None:
        return "cost unknown"
    return text.money(usd) if usd else ""
