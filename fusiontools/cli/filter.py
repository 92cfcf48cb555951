"""The loop that every filter is: read records, run a stage over them, write them; and how it may end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.cli.command import collect_less, complain, leave, report_bug
from fusiontools.cli.given import read_evidence, with_evidence
from fusiontools.cli.io import Flood, SeenIds, Sink, note_list, write_all
from fusiontools.cli.progress import Progress
from fusiontools.config.stage_table import BatchOptions, InputOptions, StreamOptions
from fusiontools.errors import (
    EXIT_BUDGET,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    InputError,
    UsageError,
)
from fusiontools.record import jsonl
from fusiontools.record.sections import with_error
from fusiontools.record.types import Record
from fusiontools.stages.runtime import Runtime, Stage, traced

if TYPE_CHECKING:
    from fusiontools.cli.batch_run import BatchRun
    from fusiontools.cli.io import Input, Line
    from fusiontools.cli.text import Live, Screen
    from fusiontools.record.types import Call

_FAILURES_SHOWN, _SAME_SHOWN = 10, 3
_GIVE_UP_S = 0.2


class FilterPlan(Struct, frozen=True):
    """What a command wants done.

    Args:
        tool: its name, as errors show it.
        stage: what is done to each record.
        client: makes the way to the models, inside the event loop.
        needs: the section a record must bring along, and which tool makes it.
        stream: whether the answer is shown as it is written.
        as_text: how a record is said to a person, where that is not its answer.
        keep: keeps a record that has got its answer here, or has failed here; None where nobody wants that.
        batch: whether calls go as batch jobs.
    """

    tool: str
    stage: Stage
    client: Callable[[], Any]
    needs: tuple[str, str] | None = None
    stream: bool = False
    as_text: Callable[[Record], str] | None = None
    keep: Callable[[Record], None] | None = None
    batch: BatchOptions | None = None


def run_filter(
    plan: FilterPlan, files: Sequence[str], stream: Mapping[str, Any], reading: Mapping[str, Any] | None = None
) -> None:
    """Run the filter to its end and leave with the right status."""
    options = StreamOptions(**stream)
    inputs = InputOptions(**(reading or {}))
    progress = Progress(plan.tool, quiet=options.quiet)
    collect_less()
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            leave(runner.run(_Filter(plan, options, inputs, progress).run(files)))
    finally:
        progress.close()


class _Done(Struct, frozen=True):
    """A record that is through, and where its answer has been shown.

    Args:
        line: how it is written, where it is no text for a person.
        passed_on: whether it had failed before it came here.
    """

    record: Record
    live: Live | None
    failed_here: bool
    passed_on: bool
    line: bytes | None


class _Filter:
    """One run of a filter: its counts, and its ways out."""

    def __init__(self, plan: FilterPlan, options: StreamOptions, inputs: InputOptions, progress: Progress) -> None:
        from fusiontools.cli.text import sets_markdown

        self.plan = plan
        self._stage = traced(plan.tool, plan.stage, whole=True)
        self.options = options
        self.inputs = inputs
        self._evidence = read_evidence(inputs.evidence)
        self.as_text = options.output == "text" or (options.output is None and os.isatty(1))
        self._is_set = self.as_text and sets_markdown(options.plain)
        self.progress = progress
        self.answered = self.failed = self.rejected = 0
        self.reasons, self.more_failed = Counter[str](), False
        self._seen = SeenIds(plan.tool)
        self._flood = Flood(plan.tool)
        self._rejects: int | None = None
        self._bugs: set[str] = set()
        self._leaving: asyncio.Task[None] | None = None
        self._batch: BatchRun | None = None
        #: The status that batch jobs end the run with; and the records that wait for them.
        self._batch_status: int | None = None
        self.waiting = 0

    async def run(self, files: Sequence[str]) -> int:
        from fusiontools.cli.io import Input

        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        self._hint(files)
        if self.options.rejects:
            self._rejects = _create_file(self.options.rejects)
        form = "text" if self.inputs.text else "lines" if self.inputs.lines else "jsonl" if self.plan.needs else "auto"
        source = Input(files, form, int(self.options.max_line_mib * 2**20), counts_ahead=self.progress.draws_bar)
        self.progress.source = source
        self.sink = Sink()
        self.client = self.plan.client()
        # Where nobody watches, what nobody sees is not even put together, call by call.
        self.client.notify = self.progress.settled if self.progress.shows_calls else None
        self._screen = self._make_screen()
        self.progress.answer_is_live = self._screen is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            # A job that a script put into the background has Ctrl-C ignored, and keeps it so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._interrupt, number)
        gone = asyncio.create_task(self.sink.closed.wait())
        work = asyncio.create_task(self._work(source))
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        if self._leaving is not None:
            await self._leaving  # it ends the process
        if not work.done():
            await give_up()
            return self._end_without_output()
        # On a thread, so that Ctrl-C still works while a slow reader takes the rest.
        await asyncio.to_thread(self.sink.finish)
        work.result()
        if self.sink.closed.is_set():
            return self._end_without_output()
        if self._batch is not None and self._batch_status is None:
            self._batch_status = await self._batch.ended(self.waiting, self.answered + self.failed)
        await self.client.aclose()
        self.progress.close()
        self._flood.sum_up()
        self.progress.sum_up()
        return self._exit_status()

    async def _work(self, source: Input) -> None:
        from fusiontools.runs import chain

        batches = source.batches() if self.plan.batch is None else await self._go_by_batch(source, self.plan.batch)
        async for results in chain.over(
            batches, self._work_on, jobs=self.options.jobs, unordered=self.options.unordered
        ):
            pieces = [piece for piece in map(self._format, results) if piece]
            if pieces:
                await self.sink.put(b"".join(pieces))

    async def _go_by_batch(self, source: Input, options: BatchOptions) -> AsyncIterator[Sequence[Line]]:
        """Send and fetch what the records need as batch jobs; returns the lines whose records are to leave."""
        from fusiontools.cli.batch_run import BatchRun, LineSpool

        self._batch = BatchRun(self.plan.tool, options, self.options.quiet, self.client)
        spool = LineSpool()
        async for lines in source.batches():
            spool.add(lines)
        records = partial(spool.records, self._read)
        self._batch_status = await self._batch.go(self.plan.stage, records, self.options.jobs)
        if self._batch_status is None:
            return spool.batches()
        for line in spool:
            self._try_to_parse(line)
        return LineSpool().batches()

    def _try_to_parse(self, line: Line) -> None:
        """Say of a line why it is no record, where it is none."""
        try:
            self._parse(line)
        except InputError as error:
            self._reject(line, error.message)

    async def _run_stage(self, record: Record, runtime: Runtime) -> Record | None:
        """Return what the stage makes of a record; None where it waits for batch jobs."""
        if self._batch is None:
            return await self._stage(record, runtime)
        from fusiontools.llm.batches.desk import attempt

        return await attempt(lambda: self._stage(record, runtime))

    async def _work_on(self, line: Line) -> _Done | None:
        """Take one line through the stage; None where it is no record."""
        record: Record | None = None
        calls: list[Call] = []
        try:
            record = self._parse(line)
            live = self._screen.open(record) if self._screen else None
            result = await self._run_stage(
                record, Runtime(self.client, live.take if live else None, on_call=calls.append)
            )
            if result is None:
                self.waiting += 1
                return None
            return self._done(line, record, result, live)
        except InputError as error:
            self._reject(line, error.message)
            return None
        except UsageError as error:
            # It would be the same for every record: nothing is bought for what nobody can make.
            raise UsageError(
                f"{line.place}: {error.message}" if error.message[:2] == "$." else error.message
            ) from error
        except Exception as error:
            # Nobody expected this one. It is this record's alone: the others are paid for, too.
            words = report_bug(self.plan.tool, line.place, error, self._bugs)
            if record is None:
                self._reject(line, words)
                return None
            failed = with_error(record, self.plan.tool.removeprefix("fuse-"), "bug", words, calls)
            return self._done(line, record, failed, None)

    def _done(self, line: Line, record: Record, result: Record, live: Live | None) -> _Done:
        passed_on = "error" in record
        ended_here = "error" in result or result.get("answer") is not record.get("answer")
        if self.plan.keep is not None and ended_here and not passed_on:
            self.plan.keep(result)
        written = None
        if not self.as_text:
            written = jsonl.as_it_came(line.data, result) if passed_on else jsonl.write(result)
        return _Done(result, live, "error" in result and not passed_on, passed_on, written)

    def _parse(self, line: Line) -> Record:
        record = self._read(line)
        if line.as_text and not (line.number or self.options.quiet or self.inputs.text):
            note_list(self.plan.tool, line)
        self._seen.note(record["id"], line.place)
        self.progress.arrived()
        return record

    def _read(self, line: Line) -> Record:
        """Return the record in a line."""
        if line.problem:
            raise InputError(line.problem)
        try:
            record = jsonl.from_text(line.data) if line.as_text else jsonl.parse(line.data)
        except InputError as error:
            if self.plan.needs and line.number == 1 and not line.data.lstrip().startswith((b"{", b"[")):
                raise InputError(f"{error.message}; {self.plan.tool} reads what {self.plan.needs[1]} writes") from None
            raise
        if self.plan.needs and "error" not in record:
            section, maker = self.plan.needs
            if section not in record:
                raise InputError(f"no `{section}` in this record; {maker} makes it", "$")
        return with_evidence(record, self._evidence)

    def _format(self, done: _Done | None) -> bytes | None:
        """Count a finished record and return what is written of it."""
        if done is None:
            return None
        record = done.record
        failed = "error" in record
        self.failed += failed
        self.answered += not failed
        self.progress.finished(record, passed_on=done.passed_on)
        if done.failed_here:
            self._say_failed(record)
        return self._as_text(done) if self.as_text else done.line

    def _as_text(self, done: _Done) -> bytes | None:
        from fusiontools.cli.text import answer_as_markdown, heading, record_as_text

        record = done.record
        shown = done.live.finish(record) if done.live else False
        if "error" in record:
            if not done.failed_here:
                complain(self.plan.tool, f"{record['id'][:80]}: no answer: {record['error']['message']}")
            return None
        if self.plan.as_text is not None:
            return self.plan.as_text(record).encode("utf-8", "replace")
        if "answer" in record and self._is_set and not (shown or self.options.verbose):
            text = answer_as_markdown(record)
        else:
            text = record_as_text(record, self.options.verbose, with_answer=not shown)
        begun = done.live is not None and done.live.begun
        above = heading(record) if text and self.progress.is_batch and not begun else ""
        return (above + text).encode("utf-8", "replace")

    def _say_failed(self, record: Record) -> None:
        """Say why a record failed: each reason a few times, and only the first few where a batch fails as a whole."""
        error = record["error"]
        reason = f"{error['code']}: {error['message']}"
        if self.reasons[reason] < _SAME_SHOWN and self.reasons.total() < _FAILURES_SHOWN:
            self.reasons[reason] += 1
            complain(self.plan.tool, f"{record['id'][:80]}: {reason}")
        elif not self.more_failed:
            self.more_failed = True
            complain(self.plan.tool, "more records failed; each says why in its `error`")

    def _make_screen(self) -> Screen | None:
        """Return where answers are shown as they are written, where somebody watches."""
        if not (self.plan.stream and self.as_text and os.isatty(1)) or self.options.verbose or self.options.unordered:
            return None
        from fusiontools.cli.text import Screen

        return Screen(self.sink.put_nowait, is_set=self._is_set)

    def _hint(self, files: Sequence[str]) -> None:
        """Say what to do where a person typed the tool bare."""
        if files or not os.isatty(0) or self.options.quiet:
            return
        what = "reads records from the tool on its left; paste JSON Lines" if self.plan.needs else "type your question"
        complain(self.plan.tool, f"{what}, then press Ctrl-D on an empty line (Ctrl-C leaves, --help explains)")

    def _reject(self, line: Line, reason: str) -> None:
        self.rejected += 1
        self._flood.say(line.place, reason)
        if self._rejects is not None and line.data:
            try:
                write_all(self._rejects, line.data.rstrip(b"\n") + b"\n")
            except OSError as error:
                # The rest goes on; every further bad line is still reported with its place.
                self._rejects = None
                complain(self.plan.tool, f"--rejects {self.options.rejects}: {error.strerror}; no more are kept")

    def _exit_status(self) -> int:
        if self.client.budget.stopped:
            complain(
                self.plan.tool, "stopped by --max-cost-usd; run the same command again with --replay and a higher limit"
            )
            return EXIT_BUDGET if self._batch_status is None else self._batch_status
        if self._batch_status is not None:
            return self._batch_status
        if self.answered == 0:
            if not self.failed and not self.rejected:
                complain(self.plan.tool, "nothing came in: " + ("no records" if self.plan.needs else "no question"))
            return EXIT_NOTHING_USABLE
        degraded = self.options.strict and self.progress.degraded
        return EXIT_SOME_FAILED if self.failed or self.rejected or degraded else EXIT_OK

    def _end_without_output(self) -> int:
        """End where nobody reads on (no error), or where nothing can be written (say so)."""
        self.progress.close()
        if self.sink.failure is None:
            return EXIT_OK
        kept = "; finished calls are in the journal: run again with --replay" if self.client.journal else ""
        complain(self.plan.tool, f"stdout: {self.sink.failure.strerror}{kept}")
        return EXIT_SOME_FAILED

    def _interrupt(self, number: int) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(number))

    async def _leave(self, number: int) -> None:
        self.progress.close()
        self.sink.finish(timeout_s=0.2)
        await give_up(self._main)
        if (journal := self.client.journal) is not None and journal.broken:
            await journal.aclose(timeout_s=0.2)  # a last try, and a word about what is lost
        if self._batch is not None:
            complain(self.plan.tool, "interrupted; batch jobs go on, and the same command goes on with them")
        elif os.isatty(2) and not self.options.quiet and self.client.journal and self.progress.is_batch:
            done = f"{self.answered + self.failed:,} records are out"
            complain(self.plan.tool, f"{done}; the same command with --replay goes on, and buys no finished call again")
        leave(EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number)


async def give_up(main: asyncio.Task[Any] | None = None) -> None:
    """Cancel what is under way and let it put things in order (a router command has children), but not for long."""
    under_way = asyncio.all_tasks() - {asyncio.current_task(), main}
    for task in under_way:
        task.cancel()
    if under_way:
        await asyncio.wait(under_way, timeout=_GIVE_UP_S)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _create_file(path: str) -> int:
    try:
        return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    except OSError as error:
        raise UsageError(f"--rejects {path}: cannot be written: {error.strerror}") from error
