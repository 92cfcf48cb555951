"""The stage of Ray Data: a chain over one block of records after another, in a process of its own.

Asynchronous, so that many records of a process wait for models at once. Nothing in here raises for a record or a block:
Ray would end the run for it, or wait for ever. The client lives for as long as a block is under way: it is made inside
the loop that uses it, and nobody tells a stage of Ray Data when its end has come.
"""

from __future__ import annotations

import asyncio
import pickle
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from fusiontools.config.models import Endpoint
from fusiontools.config.recipe import Recipe
from fusiontools.config.stage_table import STAGES
from fusiontools.errors import CallFailed, FusionError, InputError, UsageError, __version__
from fusiontools.llm.client import Client
from fusiontools.llm.ledger import Event
from fusiontools.llm.state.address import VARIABLE
from fusiontools.llm.state.shared import chosen_state, open_budget, open_kept
from fusiontools.record import jsonl
from fusiontools.record.sections import with_error
from fusiontools.record.types import Call, Record
from fusiontools.runs.chain import Chain
from fusiontools.runs.cluster.output_folder import FAILED, OutputFolder
from fusiontools.runs.cluster.record_blocks import BlockTask, numbered_id
from fusiontools.runs.counts import RunCounts
from fusiontools.stages.runtime import Runtime, Stage

#: Of the failures of a block so many reasons are told.
_REASONS = 5
#: So often a worker says how many records are done.
_TELL_S = 1.0


class ChainJob(Struct, frozen=True):
    """What every worker is told.

    Args:
        binding: whether the recipe holds even over one that a record carries.
        limits, journal, tools: what was typed of these options.
        purse: whose money it is.
        workers: how many there are.
        jobs: how many records each works on at once.
        batched: whether calls went as batch jobs: none is sent from here, and a block in which one waits is left.
        moneyless: why calls that are in no job are not sent.
        shares_state: whether all have one state; a worker that knows of none would count by itself.
        watcher: an actor of Ray's that hears what goes on.
        version: of who asks.
    """

    chain: str
    recipe: Recipe
    output: OutputFolder
    binding: bool
    limits: Mapping[str, Any]
    journal: Mapping[str, Any]
    tools: Mapping[str, Any]
    purse: str
    workers: int
    jobs: int
    batched: bool = False
    moneyless: str | None = None
    shares_state: bool = False
    watcher: Any = None
    version: str = __version__

    @property
    def limited(self) -> bool:
        """Whether a cost limit holds."""
        limits = self.recipe.limits.replace(**self.limits)
        return limits.max_cost_usd is not None or limits.max_record_cost_usd is not None

    def bind(self) -> Stage:
        """Return the chain as one stage.

        Raises:
            UsageError: options that cannot be.
        """
        chain = Chain.parse(self.chain)
        return chain.bind(self.recipe, binding=self.binding, offline=True, limited=self.limited)


class BlockReport(Struct):
    """What became of a block.

    Args:
        reasons: why records failed, and how many.
        examples: the id of a record that failed so, by reason.
        refused: what would be the same for every record, so that the run ends.
        bugs: what nobody expected, with its traceback.
        stopped: whether the money is spent; the block may be left as it was.
        waiting: how many records it has, where one of them waits for a batch job; then the block is left as it was.
    """

    name: str
    counts: RunCounts = field(default_factory=RunCounts)
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = {}
    refused: str | None = None
    broken: str | None = None
    bugs: list[str] = []
    warnings: list[str] = []
    stopped: bool = False
    waiting: int = 0


def open_client(job: ChainJob, warn: Callable[[str], None], *, pursed: bool = True) -> Client:
    """Return a client for one of the workers of a run, or for whoever does all of its work.

    Args:
        pursed: whether the run has a purse of its own, where its money is limited.

    Raises:
        UsageError: options that cannot be, a journal or a state that cannot be opened.
    """
    limits = job.recipe.limits.replace(**job.limits)
    journal, state = open_kept(job.journal, warn)
    # One purse of all workers, where there is a limit: the one that was named, else the run's own.
    own = job.purse if pursed and limits.max_cost_usd is not None else None
    purses, run = open_budget(job.journal.get("budget") or own, limits.max_cost_usd, state)
    return Client(
        # Who shares state shares the limits there; else each has an even part of them.
        endpoints=job.recipe.endpoints if state else _parts(job.recipe.endpoints, job.workers),
        state=state,
        limits=limits.replace(max_concurrency=max(1, limits.max_concurrency // job.workers)),
        journal=journal,
        replay=True,
        offline=bool(job.journal.get("offline")),
        tools=job.recipe.tools.replace(**job.tools) if job.tools else job.recipe.tools,
        redact=job.recipe.redact,
        purses=purses,
        run=run,
    )


def _parts(endpoints: Mapping[str, Endpoint], workers: int) -> dict[str, Endpoint]:
    """Return endpoints with one worker's part of their limits."""
    parts = {}
    for name, endpoint in endpoints.items():
        limits = (endpoint.max_concurrency, endpoint.rpm, endpoint.tpm)
        at_once, rpm, tpm = (limit and max(1, limit // workers) for limit in limits)
        parts[name] = replace(endpoint, max_concurrency=at_once, rpm=rpm, tpm=tpm)
    return parts


class _OpenChain(Struct, frozen=True):
    """A chain and what it needs, while blocks are under way."""

    stage: Stage
    client: Client
    turns: asyncio.Semaphore


class ChainActor:
    """A chain over blocks, called by Ray Data with one of them a row."""

    def __init__(self, job: ChainJob) -> None:
        self._job = job
        self._opened: _OpenChain | None = None
        self._under_way = 0
        self._stopped = False
        self._warnings: list[str] = []
        self._untold, self._told = 0, 0.0

    async def __call__(self, row: Mapping[str, Any]) -> dict[str, bytes]:
        """Work on the block of a row; returns its report."""
        task: BlockTask = pickle.loads(row["task"])  # noqa: S301 - our own driver wrote it
        report = BlockReport(task.name)
        try:
            await self._work_on(task, row["lines"].split(b"\n"), report)
        except CallFailed as failure:
            report.broken = failure.message
        except FusionError as error:
            report.refused = error.message
        except OSError as error:
            report.broken = f"{error.filename or self._job.output.at.shown}: {error.strerror or error}"
        except Exception:
            report.bugs.append(traceback.format_exc())
        report.warnings, self._warnings = self._warnings, []
        return {"report": pickle.dumps(report)}

    async def _work_on(self, task: BlockTask, lines: Sequence[bytes], report: BlockReport) -> None:
        if self._job.version != __version__:
            raise UsageError(f"a worker has fusiontools {__version__}, this is {self._job.version}: install the same")
        if self._job.shares_state and chosen_state(self._job.journal.get("state")) is None:
            raise UsageError(f"{VARIABLE} is set here and not where a worker runs: export it before `ray start` there")
        if self._stopped:
            report.stopped = True
            return
        if self._job.watcher is not None:
            self._job.watcher.begin.remote(task.name)
        records = await asyncio.to_thread(records_of, task, lines)
        kept = await asyncio.to_thread(kept_of, task, self._job.output)
        opened = self._opened = self._opened or self._open()
        self._under_way += 1
        try:
            if opened.client.batch is not None:
                await opened.client.batch.store.catch_up()
            wanted = [record for record in records if record["id"] not in kept]
            done = await asyncio.gather(*(self._take_through(record, opened, report) for record in wanted))
        finally:
            self._under_way -= 1
            report.stopped = self._stopped = self._stopped or opened.client.budget.stopped
            if not self._under_way:
                self._opened = None
                await opened.client.aclose()
        if report.waiting:
            report.waiting, report.counts = len(wanted), RunCounts()
        elif report.refused is None:
            await asyncio.to_thread(self._write, task, [record["id"] for record in records], kept, done)

    def _open(self) -> _OpenChain:
        job = self._job
        client = open_client(job, self._warnings.append)
        if job.batched:
            from fusiontools.runs.batch_rounds import open_desk

            open_desk(client, self._warnings.append).moneyless = job.moneyless
        return _OpenChain(job.bind(), client, asyncio.Semaphore(job.jobs))

    async def _take_through(self, record: Record, opened: _OpenChain, report: BlockReport) -> Record:
        """Take one record through the chain; what cannot be is a failed record."""
        calls: list[Call] = []
        moneyless: list[str] = []

        def hear(event: Event) -> None:
            if event.failure is not None and event.failure.code == "budget":
                moneyless.append(event.failure.message)

        async with opened.turns:
            if report.refused is not None:
                return record
            try:
                runtime = Runtime(opened.client, on_call=calls.append, notify=hear)
                if self._job.batched:
                    from fusiontools.llm.batches.desk import attempt

                    made = await attempt(lambda: opened.stage(record, runtime))
                else:
                    made = await opened.stage(record, runtime)
                if made is None:
                    report.waiting += 1
                    return record
                result = made
            except InputError as error:
                result = with_error(record, "ray", "bad_record", error.message, calls)
            except UsageError as error:
                report.refused = error.message
                return record
            except Exception as error:
                report.bugs.append(traceback.format_exc())
                at = traceback.extract_tb(error.__traceback__)[-1]
                words = f"a bug in fusiontools: {type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
                result = with_error(record, "ray", "bug", words, calls)
        if moneyless and "error" not in result:
            # What could be made of it without money is no answer to keep: the next run has more.
            result = with_error(result, "ray", "budget", moneyless[0])
        self._count(result, report, passed_on="error" in record)
        self._tell()
        return result

    def _tell(self) -> None:
        """Say that a record is done, with others that were within the second."""
        self._untold += 1
        if self._job.watcher is not None and time.monotonic() > self._told + _TELL_S:
            self._job.watcher.count.remote(self._untold)
            self._untold, self._told = 0, time.monotonic()

    def _count(self, record: Record, report: BlockReport, *, passed_on: bool) -> None:
        report.counts.add(record, STAGES, passed_on=passed_on)
        report.counts.add_calls(record)
        if "error" in record:
            reason = f"{record['error']['code']}: {record['error']['message']}"
            if reason in report.reasons or len(report.reasons) < _REASONS:
                report.reasons[reason] += 1
                report.examples.setdefault(reason, record["id"])

    def _write(self, task: BlockTask, order: Sequence[str], kept: Mapping[str, bytes], done: Sequence[Record]) -> None:
        """Write what became of the block, so that a kill between two files leaves nothing done twice or forgotten.

        What has failed is written before what has not: only both together say that a block is done. Where a block has
        failures already, they stand until the answers are written.
        """
        output = self._job.output
        written = {record["id"]: jsonl.write(record) for record in done}
        failed = {record["id"] for record in done if "error" in record}
        answers = {**kept, **{key: line for key, line in written.items() if key not in failed}}
        failures = [written[key] for key in order if key in failed]
        had_failures = bool(output.read(task.name, FAILED))
        if not had_failures:
            output.write(task.name, failures, FAILED)
        output.write(task.name, [answers[key] for key in order if key in answers])
        if had_failures:
            output.write(task.name, failures, FAILED)


def kept_of(task: BlockTask, output: OutputFolder) -> dict[str, bytes]:
    """Return the records of a block that are in the output under its name, by their ids.

    An earlier run may have written them, or a worker that died before it could say so.
    """
    return {jsonl.loads(line)["id"]: line for line in output.read(task.name)}


def records_of(task: BlockTask, lines: Sequence[bytes]) -> list[Record]:
    """Return the records of a block that are not done elsewhere, each under its own id."""
    records = []
    for position, line in enumerate(lines):
        if position in task.done:
            continue
        record = jsonl.parse(line)
        if (number := task.numbers.get(position)) is not None:
            record = {**record, "id": numbered_id(record["id"], number)}
        records.append(record)
    return records
