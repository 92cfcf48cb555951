"""The loop that every filter is: read records, run a stage over them, write them; and how it may end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusiontools.cli.options import InputOptions, JournalOptions, StreamOptions, complain, leave
from fusiontools.cli.progress import Progress
from fusiontools.errors import (
    EXIT_BUDGET,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    FusionError,
    InputError,
    UsageError,
)
from fusiontools.record import Record
from fusiontools.stages.runtime import Runtime, Stage

_IDS_REMEMBERED = 16_384


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command wants done.

    Args:
        tool: its name, as errors show it.
        stage: what is done to each record.
        door: makes the way to the models, inside the event loop.
        needs: the section a record must bring along, and which tool makes it.
        stream: whether the answer is shown as it is written.
    """

    tool: str
    stage: Stage
    door: Callable[[], Any]
    needs: tuple[str, str] | None = None
    stream: bool = False


def run_filter(
    plan: Plan, files: Sequence[str], stream: Mapping[str, Any], reading: Mapping[str, Any] | None = None
) -> None:
    """Run the filter to its end and leave with the right status."""
    options = StreamOptions(**stream)
    inputs = InputOptions(**(reading or {}))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        leave(runner.run(_Filter(plan, options, inputs).run(files)))


class _Filter:
    """One run of a filter: its counts, and its ways out."""

    def __init__(self, plan: Plan, options: StreamOptions, inputs: InputOptions) -> None:
        self.plan = plan
        self.options = options
        self.inputs = inputs
        self.as_text = options.output == "text" or (options.output is None and os.isatty(1))
        self.progress = Progress(plan.tool, quiet=options.quiet)
        self.answered = self.failed = self.rejected = 0
        self._seen: dict[str, str] = {}
        self._rejects: int | None = None

    async def run(self, files: Sequence[str]) -> int:
        from fusiontools.cli.sink import Sink
        from fusiontools.cli.source import Source

        loop = asyncio.get_running_loop()
        self._hint(files)
        if self.options.rejects:
            self._rejects = _create(self.options.rejects)
        form = "text" if self.inputs.text else "lines" if self.inputs.lines else "auto"
        source = Source(files, form, int(self.options.max_line_mib * 2**20))
        self.sink = Sink()
        self.door = self.plan.door()
        self.door.notify = self.progress.settled
        self._view = self._make_view()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupted, number)
        gone = asyncio.create_task(self.sink.closed.wait())
        work = asyncio.create_task(self._work(source))
        await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return self._output_gone()
        work.result()
        self.sink.finish()
        if self.sink.closed.is_set():
            return self._output_gone()
        await self.door.aclose()
        self.progress.close()
        self._say_journal()
        return self._status()

    async def _work(self, source: Any) -> None:
        from fusiontools import chain

        async for results in chain.over(
            source.batches(), self._one, jobs=self.options.jobs, unordered=self.options.unordered
        ):
            pieces = [piece for piece in map(self._emit, results) if piece]
            if pieces:
                await self.sink.put(b"".join(pieces))

    async def _one(self, line: Any) -> Record | None:
        """Take one line through the stage; None where it is no record."""
        try:
            record = self._parsed(line)
        except InputError as error:
            self._reject(line, error.message)
            return None
        on_delta = self._view.opened(record["id"]) if self._view else None
        return await self.plan.stage(record, Runtime(self.door, on_delta))

    def _parsed(self, line: Any) -> Record:
        from fusiontools import jsonl

        if line.problem:
            raise InputError(line.problem)
        record = jsonl.from_text(line.data) if line.as_text else jsonl.parse(line.data)
        if self.plan.needs and "error" not in record:
            section, maker = self.plan.needs
            if section not in record:
                raise InputError(f"no `{section}` in this record; {maker} makes it", "$")
        self._note_duplicate(record["id"], line)
        self.progress.arrived()
        return record

    def _emit(self, record: Record | None) -> bytes | None:
        from fusiontools import jsonl

        if record is None:
            return None
        failed = "error" in record
        self.failed += failed
        self.answered += not failed
        self.progress.finished(record)
        if not self.as_text:
            return jsonl.write(record)
        from fusiontools.cli import show

        if failed:
            complain(self.plan.tool, show.failure(record))
            return None
        shown = self._view.closed(record["id"]) if self._view else False
        text = show.record_as_text(record, self.options.verbose, with_answer=not shown)
        heading = f"\n--- {record['id']} ---\n" if self.answered > 1 else ""
        return (heading + text).encode("utf-8", "replace") if text else None

    def _make_view(self) -> Any:
        if not (self.plan.stream and self.as_text and os.isatty(1) and self.options.jobs == StreamOptions().jobs):
            return None
        from fusiontools.cli.show import LiveAnswer

        return LiveAnswer(self.sink.put_nowait, self.options.verbose)

    def _hint(self, files: Sequence[str]) -> None:
        """Say what to do where a person typed the tool bare."""
        if files or not os.isatty(0) or self.options.quiet:
            return
        what = "reads records from the tool on its left; paste JSON Lines" if self.plan.needs else "type your question"
        complain(self.plan.tool, f"{what}, then press Ctrl-D on an empty line (Ctrl-C leaves, --help explains)")

    def _note_duplicate(self, record_id: str, line: Any) -> None:
        """Warn of an id that was seen: later tools join on it. The last 16,384 are remembered, in bounded memory."""
        if (first := self._seen.get(record_id)) is not None:
            complain(self.plan.tool, f"{line.place}: warning: the id {record_id[:80]!r} was seen before, at {first}")
            return
        self._seen[record_id] = line.place
        if len(self._seen) > _IDS_REMEMBERED:
            del self._seen[next(iter(self._seen))]

    def _reject(self, line: Any, reason: str) -> None:
        self.rejected += 1
        complain(self.plan.tool, f"{line.place}: {reason}")
        if self._rejects is not None and line.data:
            _write_all(self._rejects, line.data.rstrip(b"\n") + b"\n")

    def _status(self) -> int:
        if self.door.budget.stopped:
            complain(
                self.plan.tool, "stopped by --max-cost-usd; run the same command again with --replay and a higher limit"
            )
            return EXIT_BUDGET
        if self.answered == 0:
            if not self.failed and not self.rejected:
                complain(self.plan.tool, "nothing came in: " + ("no records" if self.plan.needs else "no question"))
            return EXIT_NOTHING_USABLE
        return EXIT_SOME_FAILED if self.failed or self.rejected else EXIT_OK

    def _output_gone(self) -> int:
        """End where nobody reads on (no error), or where nothing can be written (say so)."""
        self.progress.close()
        if self.sink.failure is None:
            return EXIT_OK
        complain(
            self.plan.tool,
            f"stdout: {self.sink.failure.strerror}; finished calls are in the journal: run again with --replay",
        )
        return EXIT_SOME_FAILED

    def _say_journal(self) -> None:
        journal = self.door.journal
        if journal is not None and journal.broken:
            complain(self.plan.tool, f"warning: the journal {journal.path} could not be written: {journal.broken}")

    def _interrupted(self, number: int) -> None:
        self.progress.close()
        self.sink.finish(timeout_s=0.2)
        leave(EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number)


def open_journal(given: Mapping[str, Any], tool: str) -> Any:
    """Open the journal that the options name; None where nothing is to be kept.

    A default journal that cannot be written is warned about, for the answers do not depend on it; a journal that was
    asked for by name, or is to be read, must open.
    """
    from pathlib import Path

    from fusiontools.models.journal import Journal, default_path

    options = JournalOptions(**given)
    if options.no_journal:
        if options.replay or options.offline or options.journal:
            raise UsageError("--no-journal contradicts --replay, --offline and --journal")
        return None
    try:
        return Journal(Path(options.journal) if options.journal else default_path())
    except UsageError as error:
        if options.journal or options.replay or options.offline:
            raise
        complain(tool, f"warning: {error.message}; going on without it")
        return None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _create(path: str) -> int:
    try:
        return os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
    except OSError as error:
        raise UsageError(f"--rejects {path}: cannot be written: {error.strerror}") from error


def _write_all(fd: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        raise FusionError("rejects", f"--rejects: {error.strerror}") from error


def warm_up() -> None:
    """Import and build what the first record will need, on a thread, while the tool on the left is still working."""
    import threading

    def work() -> None:
        from fusiontools import jsonl, prompts, recipe_file, schemas

        schemas.is_valid("record", jsonl.loads(b"{}"))
        prompts.load("default")
        if recipe_file.default_choice() != "local":
            from fusiontools.models import http

            http.warm_up()

    threading.Thread(target=work, name="warm-up", daemon=True).start()
