"""The stage of Ray Data, without Ray: blocks in, reports and files out, whatever happens to a record."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import asdict, replace
from recipes import build
from workdir import Upstream, hermetic

from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.errors import InputError, UsageError
from fusiontools.record.types import Record
from fusiontools.runs.cluster.chain_actor import BlockReport, ChainActor, ChainJob
from fusiontools.runs.cluster.output_folder import FAILED, OutputFolder
from fusiontools.runs.cluster.record_blocks import BlockTask, index_file, plan_tasks
from fusiontools.runs.cluster.record_files import locate
from fusiontools.stages.runtime import Runtime, Stage

IDS = ["a", "b", "é", "d"]


@pytest.fixture
def job(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChainJob:
    for name, value in hermetic(upstream, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    output = OutputFolder(locate("out"), "jsonl")
    return ChainJob("panel -m fake/a", load_recipe("budget"), output, True, {}, {}, {}, "a run", 1, 2)


def task_of(folder: Path, ids: Sequence[str] = IDS) -> tuple[BlockTask, list[bytes]]:
    """Return the block of these records, and its lines."""
    lines = [json.dumps({"id": name, "prompt": f"{name}?"}).encode() for name in ids]
    (folder / "q.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    file = locate(str(folder / "q.jsonl"))
    blocks = list(index_file(0, file, 100, None, 2**20))
    [task] = plan_tasks([file], blocks, {})
    return task, lines


async def ask(actor: ChainActor, block: tuple[BlockTask, list[bytes]]) -> BlockReport:
    row = await actor({"task": pickle.dumps(block[0]), "lines": b"\n".join(block[1])})
    report: BlockReport = pickle.loads(row["report"])  # noqa: S301 - the actor's
    return report


def work(job: ChainJob, *blocks: tuple[BlockTask, list[bytes]]) -> list[BlockReport]:
    """Give blocks to one actor, all at once."""

    async def run() -> list[BlockReport]:
        actor = ChainActor(job)
        return await asyncio.gather(*(ask(actor, block) for block in blocks))

    return asyncio.run(run())


def ids_in(job: ChainJob, name: str, folder: str = "") -> list[str]:
    return [json.loads(line)["id"] for line in job.output.read(name, folder)]


class OddJob(ChainJob, frozen=True):
    """A job whose chain raises for one record."""

    error: Exception = ValueError("odd")

    def bind(self) -> Stage:
        async def stage(record: Record, runtime: Runtime) -> Record:
            if record["id"] == "b":
                raise self.error
            return record

        return stage


def odd(job: ChainJob, error: Exception) -> ChainJob:
    return OddJob(**asdict(job), error=error)


def test_answers_come_in_the_order_of_the_input(job: ChainJob, tmp_path: Path) -> None:
    task, lines = task_of(tmp_path)

    [report] = work(job, (task, lines))

    assert (report.counts.done, report.counts.failed) == (4, 0)
    assert ids_in(job, task.name) == IDS


@pytest.mark.parametrize(("error", "code"), [(ValueError("odd"), "bug"), (InputError("no"), "bad_record")])
def test_what_raises_is_one_failed_record(job: ChainJob, tmp_path: Path, error: Exception, code: str) -> None:
    task, lines = task_of(tmp_path)

    [report] = work(odd(job, error), (task, lines))

    assert (report.counts.done, report.counts.failed) == (4, 1)
    assert ids_in(job, task.name) == ["a", "é", "d"]
    [failed] = job.output.read(task.name, FAILED)
    assert json.loads(failed)["error"]["code"] == code
    assert bool(report.bugs) == (code == "bug")


def test_what_nobody_can_make_ends_the_run_and_writes_nothing(job: ChainJob, tmp_path: Path) -> None:
    task, lines = task_of(tmp_path)

    [report] = work(odd(job, UsageError("no such thing")), (task, lines))

    assert report.refused == "no such thing"
    assert job.output.names() == job.output.names(FAILED) == set()


def test_failed_records_are_tried_again_and_the_others_kept(job: ChainJob, tmp_path: Path, upstream: Upstream) -> None:
    task, lines = task_of(tmp_path)
    upstream.script("fake/a", "status=400", "")
    [first] = work(job, (task, lines))

    [second] = work(job, (task, lines))

    assert (first.counts.failed, second.counts.done, second.counts.failed) == (1, 1, 0)
    assert ids_in(job, task.name) == IDS
    assert job.output.names(FAILED) == set()
    assert upstream.stats()["requests"] == 5


def test_a_block_that_a_worker_wrote_before_it_died_is_not_made_again(
    job: ChainJob, tmp_path: Path, upstream: Upstream
) -> None:
    task, lines = task_of(tmp_path)
    job = replace(job, journal={"no_journal": True})
    work(job, (task, lines))

    work(job, (task, lines))

    assert (ids_in(job, task.name), upstream.stats()["requests"]) == (IDS, 4)


def test_a_finished_call_is_in_the_journal_for_whoever_does_the_block_again(
    job: ChainJob, tmp_path: Path, upstream: Upstream
) -> None:
    task, lines = task_of(tmp_path)
    work(job, (task, lines))
    job.output.write(task.name, [])

    [report] = work(job, (task, lines))

    assert (report.counts.replayed, upstream.stats()["requests"]) == (4, 4)


def test_blocks_of_one_worker_share_its_turns(job: ChainJob, tmp_path: Path, upstream: Upstream) -> None:
    blocks = [task_of(tmp_path, [f"{which}{i}" for i in range(6)]) for which in "xyz"]

    work(replace(job, chain="panel -m fake/a+slow=0.02"), *blocks)

    assert (upstream.stats()["requests"], upstream.stats()["max_in_flight"]) == (18, job.jobs)


def test_nothing_of_a_worker_is_left_when_no_block_is_under_way(job: ChainJob, tmp_path: Path) -> None:
    before = set(threading.enumerate())

    work(job, task_of(tmp_path))

    left = {thread.name for thread in set(threading.enumerate()) - before if not thread.name.startswith("asyncio_")}
    assert left == set()


def test_where_money_ends_nothing_is_an_answer_and_the_next_blocks_are_left(job: ChainJob, tmp_path: Path) -> None:
    blocks = [task_of(tmp_path, [f"{which}{i}" for i in range(4)]) for which in "xy"]
    recipe = build("panel: [{model: fake/a, price_usd_per_mtok: {prompt: 1, completion: 1}}]")
    poor = replace(job, recipe=recipe, chain="panel", limits={"max_cost_usd": 0.0})

    async def one_after_another() -> list[BlockReport]:
        actor = ChainActor(poor)
        return [await ask(actor, block) for block in blocks]

    first, second = asyncio.run(one_after_another())

    assert (first.stopped, first.counts.failed) == (True, 4)
    assert (second.stopped, second.counts.done) == (True, 0)
    assert job.output.names() == set()
    assert len(job.output.names(FAILED)) == 1


def test_a_worker_of_another_version_is_refused(job: ChainJob, tmp_path: Path) -> None:
    [report] = work(replace(job, version="0.0.1"), task_of(tmp_path))

    assert report.refused is not None
    assert "0.0.1" in report.refused


def test_an_output_that_cannot_be_written_is_said(job: ChainJob, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")

    [report] = work(job, task_of(tmp_path))

    assert report.broken is not None
    assert str(tmp_path / "out") in report.broken


@pytest.mark.parametrize("workers", [1, 3])
def test_each_worker_has_its_part_of_the_limits(
    job: ChainJob, tmp_path: Path, upstream: Upstream, workers: int
) -> None:
    slow = replace(job, chain="panel -m fake/a+slow=0.02", jobs=9, workers=workers, limits={"max_concurrency": 6})

    work(slow, task_of(tmp_path, [f"q{i}" for i in range(12)]))

    assert upstream.stats()["max_in_flight"] == 6 // workers
