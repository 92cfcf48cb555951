"""One run of `fuse-ray`: what is left to do, handed out and watched, and what it came to."""

from __future__ import annotations

import asyncio
import shutil
import signal
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from msgspec.structs import replace

from fusiontools.cli.command import complain, leave
from fusiontools.cli.io import Flood
from fusiontools.cli.progress import Progress
from fusiontools.cli.setup import named_recipe, read_chain
from fusiontools.cli.text import money
from fusiontools.config.resolve import check_calls, missing_keys, named_models
from fusiontools.errors import (
    EXIT_BUDGET,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    UsageError,
)
from fusiontools.llm.state.shared import chosen_state
from fusiontools.runs.cluster import ray_run
from fusiontools.runs.cluster.chain_actor import BlockReport, ChainJob, kept_of, open_client, records_of
from fusiontools.runs.cluster.output_folder import FAILED, OutputFolder
from fusiontools.runs.cluster.record_blocks import BlockTask, FileBlock, read_blocks
from fusiontools.runs.cluster.record_files import Location, find_files, locate
from fusiontools.runs.cluster.resume import claim_output, drop_retried, find_left

if TYPE_CHECKING:
    from fusiontools.config.ray_options import RayOptions
    from fusiontools.config.stage_table import BatchOptions
    from fusiontools.record.types import Record

_TOOL = "fuse-ray"
_FAILURES_SHOWN = 10


class RayRun:
    """One run: its options, what it was told, and its counts."""

    def __init__(
        self,
        options: RayOptions,
        config: str | None,
        tools: Mapping[str, Any],
        limits: Mapping[str, Any],
        journal: Mapping[str, Any],
        batch: BatchOptions | None = None,
    ) -> None:
        self.options = options
        self._batch = batch
        #: The status that batch jobs end the run with; and the records that wait for them.
        self._batch_status: int | None = None
        self._waiting = 0
        self._most_bytes = int(options.max_line_mib * 2**20)
        self._recipe = named_recipe(config, _TOOL, journal, typed=bool(options.chain), quiet=options.quiet)
        check_calls(self._recipe)
        self._chain = read_chain(options.chain, self._recipe)
        self._limits = self._recipe.limits.replace(**limits)
        self._output = OutputFolder(locate(options.output or ""), options.format)
        self._job = ChainJob(
            chain=self._chain.text,
            recipe=self._recipe,
            output=self._output,
            binding=config is not None,
            limits=limits,
            journal=journal,
            tools=tools,
            purse=f"{_TOOL} {uuid.uuid4().hex}",
            workers=1,
            jobs=options.jobs,
            batched=batch is not None,
            # A file is shared by the processes of one machine only.
            shares_state=not (chosen_state(journal.get("state")) or "sqlite:").startswith("sqlite:"),
        )
        self._progress = Progress(_TOOL, quiet=options.quiet, alone=True)
        self._rejected = self._records = self._planned = 0
        self._folder: str | None = None
        self._reasons: dict[str, int] = {}
        self._bugs: set[str] = set()
        self._warned: set[str] = set()
        self._stopped = False

    def run(self, texts: Sequence[str]) -> int:
        """Take the files through the chain; returns the exit status.

        Raises:
            UsageError: options, files or a recipe that cannot be; nothing is bought then.
            OSError: a file cannot be read or written.
        """
        self._job.bind()
        for warning in missing_keys(self._recipe, offline=bool(self._job.journal.get("offline"))):
            complain(_TOOL, f"warning: {warning}")
        files = find_files(texts, self._output.at)
        made_with = {"chain": self._chain.text, "recipe": self._recipe.name, "format": self._output.form}
        claim_output(self._output, made_with)
        try:
            self._run(files)
        finally:
            self._progress.close()
        if self._batch is None or self._batch.batch != "submit":
            self._sum_up()
        return self._exit_status()

    def _run(self, files: Sequence[Location]) -> None:
        with ray_run.open_ray(self.options.workers) as (cpus, self._folder):
            self._heed_signals()
            self._check_places(files)
            workers = min(self.options.workers or max(1, cpus - 1), self._most_workers())
            blocks = self._index(files)
            left = find_left(self._output, files, blocks, partial(ray_run.keys_done, most_bytes=self._most_bytes))
            if left.repeated:
                self._warn_of_repeated(left.repeated)
            if left.tasks and self._batch is not None:
                with asyncio.Runner() as runner:
                    self._go_by_batch(runner, files, left.tasks, workers)
            elif left.tasks:
                self._work(files, left.tasks, workers)
            if left.unknown and not (self._stopped or self._batch_status):
                drop_retried(self._output, left.unknown, blocks)

    def _check_places(self, files: Sequence[Location]) -> None:
        """Refuse what only one of several machines would see, and say what each of them would count by itself."""
        if (machines := ray_run.nodes()) < 2:
            return
        local = [place.shown for place in (*files, self._output.at) if place.is_local]
        if local and not self.options.shared:
            raise UsageError(
                f"{local[0]}: a cluster of {machines} machines works on addresses (s3://…), or on paths that all of "
                "them see: --shared-paths"
            )
        if self._job.shares_state:
            return
        if self._batch is not None:
            raise UsageError(f"--batch: {machines} machines know of the same jobs where they share a state: --state")
        if self._limits.max_cost_usd is not None:
            raise UsageError(f"--max-cost-usd: {machines} machines have one limit where they share a state: --state")
        if not self._job.journal.get("no_journal"):
            complain(_TOOL, f"warning: {machines} machines, and each has a journal of its own; --state gives them one")

    def _index(self, files: Sequence[Location]) -> list[FileBlock]:
        """Return all blocks, in the order of the files; say which lines are no records."""
        flood = Flood(_TOOL)
        found = ray_run.index_files(files, self.options.block, self._needs, self._most_bytes)
        blocks = sorted(found, key=lambda block: (block.file, block.number))
        for block in blocks:
            self._rejected += len(block.rejected)
            for line, reason in block.reasons:
                flood.say(f"{files[block.file].shown}:{line}", reason)
        flood.sum_up()
        self._records = sum(block.size for block in blocks)
        return blocks

    @property
    def _needs(self) -> tuple[str, str] | None:
        return ("panel", "fuse-panel") if self._chain.first_panel is None else None

    def _most_workers(self) -> int:
        """Return how many workers can have a call in flight each, by the limits of the run and of who is asked."""
        recipe = self._recipe
        models = [model for step in self._chain.steps for model in named_models(step.name, step.given, recipe)]
        asked = [recipe.endpoints[name] for name in {model.endpoint for model in models} & recipe.endpoints.keys()]
        bounds = [endpoint.max_concurrency for endpoint in asked if endpoint.max_concurrency is not None]
        return min([self._limits.max_concurrency, *bounds])

    def _warn_of_repeated(self, repeated: int) -> None:
        what = f"{repeated:,} records have ids that were" if repeated > 1 else "1 record has an id that was"
        complain(_TOOL, f"warning: {what} seen before: numbered, so that the second `q1` is `q1#2`")

    def _go_by_batch(
        self, runner: asyncio.Runner, files: Sequence[Location], tasks: Sequence[BlockTask], workers: int
    ) -> None:
        """Send and fetch what the blocks need as batch jobs, from here; then let the workers make of it what is made.

        The workers find answers in the journal, and failures beside it, and send nothing.
        """

        async def records() -> AsyncIterator[list[Record]]:
            for number, of_file in groupby(tasks, lambda task: task.block.file):
                for task, lines in read_blocks(files[number], list(of_file), self._most_bytes):
                    kept = kept_of(task, self._output)
                    yield [record for record in records_of(task, lines) if record["id"] not in kept]

        from fusiontools.cli.batch_run import BatchRun

        async def go() -> BatchRun:
            client = open_client(self._job, partial(complain, _TOOL), pursed=False)
            run = BatchRun(_TOOL, cast("BatchOptions", self._batch), self.options.quiet, client, writes=False)
            self._batch_status = await run.go(self._job.bind(), records, self.options.jobs)
            return run

        run = runner.run(go())
        try:
            if self._batch_status is None:
                if run.client.budget.stopped:
                    self._stopped = True
                    self._job = replace(self._job, moneyless="the cost limit has no room for it")
                self._work(files, tasks, workers)
                self._batch_status = runner.run(run.ended(self._waiting, self._progress.counts.done))
        finally:
            runner.run(run.client.aclose())

    def _work(self, files: Sequence[Location], tasks: Sequence[BlockTask], workers: int) -> None:
        self._job = replace(self._job, workers=min(workers, len(tasks)))
        self._planned = sum(task.left for task in tasks)
        self._progress.begin(self._planned)
        for report in ray_run.run_tasks(self._job, files, tasks, self._most_bytes):
            if isinstance(report, int):
                self._progress.show(report)
            else:
                self._hear(report)

    def _hear(self, report: BlockReport) -> None:
        """Count what became of a block, and say what a person should know."""
        for warning in set(report.warnings) - self._warned:
            self._warned.add(warning)
            complain(_TOOL, warning)
        for bug in report.bugs:
            if bug not in self._bugs:
                self._bugs.add(bug)
                complain(_TOOL, f"{report.name}: a bug in fusiontools; the run goes on")
                for line in bug.splitlines():
                    complain(_TOOL, line)
        if report.refused is not None:
            raise UsageError(report.refused)
        if report.broken is not None:
            self._progress.close()
            complain(_TOOL, f"{report.broken}; finished calls are in the journal: the same command goes on")
            leave(EXIT_SOME_FAILED)
        self._stopped |= report.stopped
        self._waiting += report.waiting
        for reason, count in report.reasons.items():
            if reason not in self._reasons and len(self._reasons) < _FAILURES_SHOWN:
                complain(_TOOL, f"{report.examples[reason][:80]}: {reason}")
            self._reasons[reason] = self._reasons.get(reason, 0) + count
        self._progress.add(report.counts)

    def _heed_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _: Any) -> None:
        """Leave at once; Ray on this machine ends with us, and a cluster ends what belongs to us."""
        self._progress.close()
        if not self.options.quiet:
            done = f"{self._progress.counts.done:,} records are in {self._output.at.shown}"
            complain(_TOOL, f"{done}; the same command goes on, and buys no finished call again")
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        leave(EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number)

    def _sum_up(self) -> None:
        counts = self._progress.counts
        self._progress.sum_up()
        if self.options.quiet:
            return
        # Where all that was planned has been seen to, what was not made now is there of a block that had failures.
        before = self._records - (self._planned if self._stopped or self._waiting else counts.done)
        left = self._records - counts.done - before
        parts = [f"{counts.done - counts.failed:,} answered", f"{before:,} before" if before else ""]
        parts += [f"{left:,} left" if left else ""]
        parts += [f"{counts.degraded:,} degraded" if counts.degraded else ""]
        parts += [f"{counts.failed:,} failed ({self._output.at.shown}/{FAILED})" if counts.failed else ""]
        parts += [f"{self._rejected:,} line{'s' if self._rejected > 1 else ''} refused" if self._rejected else ""]
        known = "≥ " if counts.unknown_cost else ""
        replayed = f", {counts.replayed:,} calls from the journal" if counts.replayed else ""
        said = ", ".join(filter(None, parts))
        complain(_TOOL, f"{self._records:,} records: {said}; {known}{money(counts.cost_usd)}{replayed}")

    def _exit_status(self) -> int:
        counts = self._progress.counts
        if self._batch_status is not None:
            return self._batch_status
        if self._stopped:
            complain(_TOOL, "stopped by --max-cost-usd; the same command with a higher limit goes on")
            return EXIT_BUDGET
        if not self._records:
            complain(_TOOL, "nothing came in: no records")
            return EXIT_NOTHING_USABLE
        if counts.failed == self._records:
            return EXIT_NOTHING_USABLE
        degraded = self.options.strict and counts.degraded
        return EXIT_SOME_FAILED if counts.failed or self._rejected or self._bugs or degraded else EXIT_OK
