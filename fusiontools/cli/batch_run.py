"""`--batch`: what a tool says and does around the rounds of batch jobs, and the input that each round reads anew."""

from __future__ import annotations

import os
import pickle
import select
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from fusiontools.cli.command import complain
from fusiontools.cli.io import Line
from fusiontools.cli.progress import clock, make_bar, one_line
from fusiontools.errors import (
    EXIT_BUDGET,
    EXIT_COME_AGAIN,
    EXIT_OK,
    EXIT_SOME_FAILED,
    CallFailed,
    InputError,
    UsageError,
)
from fusiontools.llm.batches.desk import Desk
from fusiontools.llm.batches.dispatch import counted
from fusiontools.runs.batch_rounds import BatchProgress, BatchRounds, BatchStanding, open_desk

if TYPE_CHECKING:
    from fusiontools.config.stage_table import BatchOptions
    from fusiontools.record.types import Record
    from fusiontools.stages.runtime import Stage

_AT_ONCE = 64
#: So many failures of calls are shown.
_SHOWN = 10


class LineSpool:
    """The lines of an input, on disk, to be read as often as there are rounds."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="fusiontools-input-")  # noqa: SIM115 - it lasts as long as this

    def add(self, lines: Sequence[Line]) -> None:
        """Add lines."""
        for line in lines:
            pickle.dump((line.name, line.number, line.data, line.as_text, line.problem), self._file)

    async def batches(self) -> AsyncIterator[list[Line]]:
        """Yield all lines, from the first one."""
        lines = iter(self)
        while batch := list(islice(lines, _AT_ONCE)):
            yield batch

    async def records(self, read: Callable[[Line], Record]) -> AsyncIterator[list[Record]]:
        """Yield the records in them; what is none is said when the lines are worked on."""
        async for batch in self.batches():
            yield list(_readable(batch, read))

    def __iter__(self) -> Iterator[Line]:
        self._file.seek(0)
        while True:
            try:
                # Our own file, without a name.
                yield Line(*pickle.load(self._file))  # noqa: S301
            except EOFError:
                return


def _readable(lines: Sequence[Line], read: Callable[[Line], Record]) -> Iterator[Record]:
    for line in lines:
        try:
            yield read(line)
        except InputError:
            continue


@dataclass(slots=True)
class BatchRun:
    """`--batch` in one run of a tool.

    Args:
        writes: whether records leave to standard output, so that nothing is to be waited for once nobody reads it.
    """

    tool: str
    options: BatchOptions
    quiet: bool
    client: Any
    writes: bool = True
    #: Records that wait, after a round that sends nothing.
    waiting: int = 0
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        if self.client.offline:
            raise UsageError("--batch buys calls, and --offline none")
        self.desk = open_desk(self.client, self._say, self.options.or_buy_s)

    async def go(
        self, stage: Stage, records: Callable[[], AsyncIterator[Sequence[Record]]], at_once: int = 8
    ) -> int | None:
        """Send and fetch, as far as is wanted; returns the exit status where that is all, None where records leave."""
        rounds = BatchRounds(self.client, self.desk, stage, records, at_once)
        try:
            if self.options.batch == "submit":
                return self._submitted(await rounds.submit_and_check())
            if self.options.batch == "collect":
                self.waiting = (await rounds.collect()).waiting
            else:
                await self._wait(rounds)
            return None
        except CallFailed as failure:
            again = "; come again" if failure.retryable else ""
            complain(self.tool, f"{failure.message}{again}")
            return EXIT_COME_AGAIN if failure.retryable else EXIT_SOME_FAILED

    async def ended(self, waiting: int, out: int) -> int | None:
        """Say what still waits, now that what is done is out; returns the exit status, None where nothing waits."""
        if not waiting:
            await self.desk.forget_failed()
            return None
        jobs, unsent = self.desk.jobs(), len(self.desk.spool) + len(self.desk.held)
        waits = (
            f"for {counted(len(jobs), 'batch job')} ({counted(sum(job.calls for job in jobs), 'call')})" if jobs else ""
        )
        sends = f"for {counted(unsent, 'call')} that `--batch submit` sends" if unsent else ""
        why = " and ".join(filter(None, [waits, sends]))
        complain(
            self.tool, f"{counted(out, 'record')} out; {counted(waiting, 'record')} {_wait(waiting)} {why}; come again"
        )
        return EXIT_COME_AGAIN

    def _submitted(self, standing: BatchStanding) -> int | None:
        if not standing.records:
            return None  # which is said as ever
        failures = self.desk.failures()
        for failure in failures[:_SHOWN]:
            complain(self.tool, failure)
        if len(failures) > _SHOWN:
            complain(self.tool, f"and {len(failures) - _SHOWN:,} more")
        if not standing.waiting and self.client.budget.stopped:
            complain(self.tool, "the cost limit has no room for the calls that are left; nothing is submitted")
            return EXIT_BUDGET
        if not standing.waiting:
            made = "no call is left to send" if failures else "every call has been made"
            complain(self.tool, f"{made}; `--batch collect` gives the records")
            return EXIT_SOME_FAILED if failures else EXIT_OK
        jobs = f"{counted(standing.jobs, 'batch job')} with {counted(standing.calls, 'call')}"
        unsent = f" ({counted(standing.unsent, 'call')} not sent yet)" if standing.unsent else ""
        waiting = f"{counted(standing.waiting, 'record')} {_wait(standing.waiting)}"
        complain(self.tool, f"{waiting} for {jobs}{unsent}; come again with `--batch collect`")
        return EXIT_COME_AGAIN

    async def _wait(self, rounds: BatchRounds) -> None:
        bar = make_bar() if os.isatty(2) and not self.quiet else None

        def tell(progress: BatchProgress) -> None:
            if self.writes and _nobody_reads():
                raise BrokenPipeError  # not in a day, when the first record leaves
            if bar is not None:
                bar.update(one_line(describe(progress)), refresh=True)

        with bar or nullcontext():
            await rounds.wait(tell)

    def _say(self, text: str) -> None:
        if not self.quiet or text.startswith("warning"):
            complain(self.tool, f"{'' if text.startswith('warning') else 'batch: '}{text}")


def describe(progress: BatchProgress) -> str:
    """Return how far the jobs are, and when they may be done."""
    if progress.left_s is not None:
        until = f"about {clock(progress.left_s)} left"
    elif progress.ends_s is not None:
        until = f"{clock(max(0.0, progress.ends_s - time.time()))} left at most"
    else:
        until = "nobody says how long it takes"
    return (
        f"{counted(progress.jobs, 'batch job')}: {progress.done:,} of {counted(progress.calls, 'call')} done, {until}"
    )


def _nobody_reads() -> bool:
    """Return whether the reader of standard output has gone."""
    output = select.poll()
    output.register(1, select.POLLERR)
    return bool(output.poll(0))


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"
