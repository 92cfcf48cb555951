"""`fuse-ray`: what it refuses before anything is bought; and, on a real Ray, files in and files out."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from batching import Provider, recipe
from stores import StoreServer
from workdir import Result, Run, Upstream, hermetic, start_upstream

CHAIN = "panel -m fake/a -m fake/b | judge -m fake/judge | synth -m fake/s"


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def asked(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"q{i}", "prompt": f"Question {i}?", "mine": {"n": i}} for i in range(start, start + count)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-o", "out"], "name the files of records"),
        (["q.jsonl"], "-o FOLDER"),
        (["none/*.jsonl", "-o", "out"], "none/*.jsonl: no such file"),
        (["q.jsonl", "-o", "out", "--chain", "panle"], "--chain: column 1"),
        (["nowhere://x/q.jsonl", "-o", "out"], "nowhere://x/q.jsonl: cannot be reached"),
        (["q.jsonl", "-o", "other"], "other: made with the chain 'panel -m fake/z'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(run: Run, tmp_path: Path, given: list[str], said: str) -> None:
    write(tmp_path / "q.jsonl", asked(1))
    (tmp_path / "other").mkdir()
    made_with = {"chain": "panel -m fake/z", "recipe": "budget", "format": "jsonl"}
    (tmp_path / "other" / "_fuse-ray.json").write_text(json.dumps(made_with))
    chain = [] if "--chain" in given else ["--chain", "panel -m fake/a"]

    result = run(["fuse-ray", *chain, *given])

    assert (result.status, result.out) == (2, b"")
    assert result.err.startswith(f"fuse-ray: {said}")


def test_a_cluster_that_is_not_there_is_said_at_once(run: Run, tmp_path: Path, env: dict[str, str]) -> None:
    write(tmp_path / "q.jsonl", asked(1))

    result = run(["fuse-ray", "-c", "local", "q.jsonl", "-o", "out"], env={**env, "RAY_ADDRESS": "127.0.0.1:1"})

    assert result.status == 2
    assert result.err == "fuse-ray: RAY_ADDRESS: no cluster answers at 127.0.0.1:1: Connection refused\n"


# On a real Ray


@dataclass
class Cluster:
    """A Ray of this machine that stands for a module of tests, and the upstream that its workers know."""

    folder: Path
    env: dict[str, str]
    upstream: Upstream

    def run(self, *given: str, env: Mapping[str, str] | None = None) -> Result:
        done = subprocess.run(
            ["fuse-ray", *given], cwd=self.folder, env={**self.env, **(env or {})}, capture_output=True, timeout=300
        )
        return Result(done.returncode, done.stdout, done.stderr.decode())

    def records(self, output: str, folder: str = "") -> list[dict[str, Any]]:
        paths = sorted((self.folder / output / folder).glob("*.jsonl"))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


@contextlib.contextmanager
def ray_nodes(folder: Path, env: Mapping[str, str], count: int = 1) -> Iterator[str]:
    """Start Ray as an operator does, on so many machines that are all this one; yields its address."""
    mark = f"FUSE_RAY_TEST_RUN={uuid.uuid4().hex}"
    whole = {**env, **dict([mark.split("=")]), "RAY_USAGE_STATS_ENABLED": "0"}
    plain = ["--num-cpus=3", "--object-store-memory=100000000", "--disable-usage-stats"]
    # Sockets want a short path.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        address = f"127.0.0.1:{free_port()}"
        of_head = [f"--port={address.partition(':')[2]}", "--include-dashboard=false", f"--temp-dir={sockets}"]
        head = ["ray", "start", "--head", *of_head, *plain]
        try:
            for command in [head, *[["ray", "start", f"--address={address}", *plain]] * (count - 1)]:
                subprocess.run(command, cwd=folder, env=whole, check=True, capture_output=True, timeout=180)
            yield address
        finally:
            for pid in marked(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def marked(mark: str) -> list[int]:
    """Return the processes with this in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


@pytest.fixture(scope="module")
def standing_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("cluster")
    with start_upstream("--record") as upstream:
        env = hermetic(upstream, folder)
        with ray_nodes(folder, env) as address:
            yield Cluster(folder, {**env, "RAY_ADDRESS": address}, upstream)


@pytest.fixture
def cluster(standing_cluster: Cluster, tmp_path: Path) -> Cluster:
    """The one Ray of the module, with a folder of one's own and the upstream's counts forgotten."""
    standing_cluster.upstream.reset()
    return Cluster(tmp_path, standing_cluster.env, standing_cluster.upstream)


@pytest.mark.slow
def test_records_come_out_as_a_pipeline_makes_them(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", asked(7))

    done = cluster.run("--chain", CHAIN, "q.jsonl", "-o", "out", "--block", "3", "--workers", "2")

    assert (done.status, done.out) == (0, b"")
    assert done.err == "fuse-ray: 7 records: 7 answered; $0.0280\n"
    pipe = "fuse-panel -m fake/a -m fake/b | fuse-judge -m fake/judge | fuse-synth -m fake/s"
    by_pipe = subprocess.run(
        ["bash", "-c", f"cat q.jsonl | {pipe}"], cwd=tmp_path, env=cluster.env, capture_output=True, check=True
    )
    expected = [json.loads(line) for line in by_pipe.stdout.splitlines()]
    came = cluster.records("out")
    for record in (*expected, *came):
        record.pop("calls")
        record.pop("recipe")
    assert came == expected


@pytest.mark.slow
def test_the_same_command_does_what_is_not_done(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", [*asked(4), {"id": "q1", "prompt": "Another?"}, {"id": "日本", "prompt": "K?"}])
    with (tmp_path / "q.jsonl").open("a") as file:
        file.write("no record\n")
    command = ["--chain", "panel -m fake/a", "q.jsonl", "-o", "out", "--block", "2", "--retries", "0", "--workers", "1"]
    cluster.upstream.script("fake/a", "status=500", "status=500")

    first = cluster.run(*command)
    failed = cluster.records("out", "failed")
    second = cluster.run(*command)
    third = cluster.run(*command)

    assert first.status == second.status == third.status == 1
    assert "q.jsonl:7: not JSON" in first.err
    assert "1 record has an id that was seen before: numbered, so that the second `q1` is `q1#2`" in first.err
    assert first.err.endswith("6 records: 4 answered, 2 failed (out/failed), 1 line refused; $0.0040\n")
    assert [record["error"]["code"] for record in failed] == ["all_failed"] * 2
    assert "6 records: 2 answered, 4 before, 1 line refused; $0.0020" in second.err
    assert "6 records: 0 answered, 6 before, 1 line refused; $0.0000" in third.err
    assert [record["id"] for record in cluster.records("out")] == ["q0", "q1", "q2", "q3", "q1#2", "日本"]
    assert cluster.records("out", "failed") == []
    assert cluster.upstream.stats()["requests"] == 8


@pytest.mark.slow
def test_parquet_goes_in_and_comes_out_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    command = ["--chain", "panel -m fake/a | vote", "in/", "-o", "out", "--format", "parquet", "--workers", "1"]
    (tmp_path / "in").mkdir()
    parquet.write_table(pa.table({"id": [7, 8], "prompt": ["Seven?", "Eight?"]}), tmp_path / "in" / "a.parquet")
    first = cluster.run(*command)
    parquet.write_table(pa.table({"id": [8, 9], "prompt": ["Eight?", "Nine?"]}), tmp_path / "in" / "a.parquet")

    second = cluster.run(*command)

    assert (first.status, second.status) == (0, 0), first.err + second.err
    table = parquet.read_table(tmp_path / "out").to_pylist() if (tmp_path / "out").is_dir() else []
    assert sorted(row["id"] for row in table) == ["7", "8", "9"]
    assert all(json.loads(row["record"])["answer"]["content"] == row["answer"] for row in table)
    assert cluster.upstream.stats()["requests"] == 3


@pytest.mark.slow
def test_input_that_grows_or_is_cut_otherwise_is_paid_for_once(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", asked(5))
    command = ["--chain", "panel -m fake/a", "--no-journal", "--workers", "2", "*.jsonl", "-o", "out"]
    cluster.run(*command, "--block", "2")
    write(tmp_path / "p.jsonl", asked(2, start=100))
    write(tmp_path / "q.jsonl", asked(6))

    done = cluster.run(*command, "--block", "4")

    assert done.err.endswith("8 records: 3 answered, 5 before; $0.0030\n")
    assert sorted(record["id"] for record in cluster.records("out")) == sorted(
        record["id"] for record in [*asked(6), *asked(2, start=100)]
    )
    assert cluster.upstream.stats()["requests"] == 8


@pytest.mark.slow
def test_money_is_one_for_all_workers_and_more_of_it_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", asked(40))
    model = "{model: fake/a, price_usd_per_mtok: {prompt: 1, completion: 1}}"
    (tmp_path / "r.yaml").write_text(f"panel: [{model}]\nchain: panel\n")
    command = ["-c", "./r.yaml", "q.jsonl", "-o", "out", "--block", "5", "--workers", "2", "-j", "2"]

    poor = cluster.run(*command, "--max-cost-usd", "0.015")
    bought = cluster.upstream.stats()["requests"]
    rich = cluster.run(*command, "--max-cost-usd", "1")

    assert (poor.status, rich.status) == (4, 0), poor.err + rich.err
    assert "stopped by --max-cost-usd" in poor.err
    assert 0 < bought <= 15
    assert len(cluster.records("out")) == 40
    assert cluster.records("out", "failed") == []
    assert cluster.upstream.stats()["requests"] == 40


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "3"])
def test_calls_in_flight_keep_to_the_limit_however_many_workers_there_are(
    cluster: Cluster, tmp_path: Path, workers: str
) -> None:
    write(tmp_path / "q.jsonl", asked(60))
    limits = ["--max-concurrency", "6", "-j", "50", "--block", "10", "--workers", workers]

    done = cluster.run("--chain", "panel -m fake/a+slow=0.05", *limits, "--no-journal", "q.jsonl", "-o", "out")

    assert done.status == 0, done.err
    assert cluster.upstream.stats()["max_in_flight"] <= 6


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "4", "8"])
def test_an_endpoints_limit_is_that_of_the_state_however_many_workers_there_are(
    cluster: Cluster, tmp_path: Path, redis_server: StoreServer, workers: str
) -> None:
    write(tmp_path / "q.jsonl", asked(80))
    there = {"base_url": cluster.upstream.url, "api_key_env": "FUSION_API_KEY", "max_concurrency": 8}
    member = {"model": "fake/a+slow=0.05", "endpoint": "there"}
    (tmp_path / "r.yaml").write_text(json.dumps({"endpoints": {"there": there}, "panel": [member], "chain": "panel"}))
    command = ["-c", "./r.yaml", "q.jsonl", "-o", "out", "--block", "5", "-j", "50", "--workers", workers]

    done = cluster.run(*command, "--state", redis_server.own())

    assert done.status == 0, done.err
    assert len(cluster.records("out")) == 80
    assert cluster.upstream.stats()["requests"] == 80
    assert cluster.upstream.stats()["max_in_flight"] <= 8


FUSED = r"""
import pickle, sys
import ray
from ray.data import ActorPoolStrategy
from fusiontools.config.recipe_yaml import load_recipe
from fusiontools.runs.cluster.chain_actor import ChainActor, ChainJob
from fusiontools.runs.cluster.output_folder import OutputFolder
from fusiontools.runs.cluster.record_blocks import index_file, plan_tasks
from fusiontools.runs.cluster.record_files import locate

file = locate("q.jsonl")
tasks = plan_tasks([file], list(index_file(0, file, 2, None, 2**20)), {})
lines = open("q.jsonl", "rb").read().splitlines()
rows = [{"task": pickle.dumps(task), "at": 2 * at} for at, task in enumerate(tasks)]
output = OutputFolder(locate("out"), "jsonl")
job = ChainJob("panel -m fake/a", load_recipe("budget"), output, True, {}, {}, {}, "r", 2, 4)

def before(row):
    return {"task": row["task"], "lines": b"\n".join(lines[row["at"] : row["at"] + 2])}

def after(row):
    return {"answered": pickle.loads(row["report"]).counts.done}

ray.init(log_to_driver=False)
pool = ActorPoolStrategy(size=2, max_concurrent_calls_per_actor=2)
reports = ray.data.from_items(rows, override_num_blocks=len(rows)).map(before)
reports = reports.map(ChainActor, fn_constructor_args=(job,), compute=pool, num_cpus=0.5).map(after)
print(sum(row["answered"] for row in reports.iter_rows()))
"""


@pytest.mark.slow
def test_the_stage_stands_between_stages_that_are_not_asynchronous(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "q.jsonl", asked(9))

    done = subprocess.run(
        [sys.executable, "-c", FUSED], cwd=tmp_path, env=cluster.env, capture_output=True, timeout=300, text=True
    )

    assert done.stdout.splitlines()[-1:] == ["9"], done.stderr[-2000:]
    assert len(cluster.records("out")) == 9


@dataclass
class BatchCluster:
    """A cluster whose models are a provider's that takes batch jobs."""

    cluster: Cluster
    provider: Provider
    state: str

    def run(self, *given: str, machine: str = "one", members: Sequence[Any] = ("fake/a",), **terms: Any) -> Result:
        (self.cluster.folder / "r.yaml").write_text(recipe(self.provider, members=members, **terms))
        env = {"FAKE_KEY": "test-key", "FUSION_BASE_URL": "", "XDG_STATE_HOME": str(self.cluster.folder / machine)}
        common = ["-c", "./r.yaml", "q.jsonl", "-o", "out", "--block", "2", "--workers", "2", "--state", self.state]
        return self.cluster.run(*common, *given, env=env)


@pytest.fixture
def batched(cluster: Cluster, provider: Provider, redis_server: StoreServer) -> BatchCluster:
    return BatchCluster(cluster, provider, redis_server.own())


@pytest.mark.slow
def test_jobs_are_sent_and_fetched_for_all_workers_by_whichever_machine_comes(
    batched: BatchCluster, tmp_path: Path
) -> None:
    write(tmp_path / "q.jsonl", asked(5))
    provider, cluster = batched.provider, batched.cluster
    provider.set(looks=0)
    sent = batched.run("--chain", "panel", "--batch", "submit")
    early = batched.run("--chain", "panel", "--batch", "collect", machine="other")
    before = cluster.records("out")
    provider.end()

    done = batched.run("--chain", "panel", "--batch", "collect", machine="other")

    assert (sent.status, early.status, before) == (75, 75, []), sent.err + early.err
    assert "5 records wait for 1 batch job with 5 calls; come again with `--batch collect`" in sent.err
    assert "0 records out; 5 records wait for 1 batch job (5 calls); come again" in early.err
    assert done.status == 0, done.err
    assert [record["id"] for record in cluster.records("out")] == [f"q{i}" for i in range(5)]
    assert (provider.jobs(), set(provider.made.values()), provider.direct) == ([5], {1}, {})


@pytest.mark.slow
def test_a_whole_chain_goes_by_jobs_and_blocks_that_are_complete_leave(batched: BatchCluster, tmp_path: Path) -> None:
    cluster, chain = batched.cluster, ("--chain", "panel | judge | synth")
    write(tmp_path / "q.jsonl", asked(4))
    first = batched.run(*chain, "--batch", members=["fake/a", "fake/b"])
    write(tmp_path / "q.jsonl", asked(7))
    batched.provider.set(looks=0)
    batched.run(*chain, "--batch", "submit", members=["fake/a", "fake/b"])

    second = batched.run(*chain, "--batch", "collect", members=["fake/a", "fake/b"])

    assert first.status == 0, first.err
    assert second.status == 75, second.err
    assert "7 records: 0 answered, 4 before, 3 left" in second.err
    assert all(record["answer"]["by"] == "synth" for record in cluster.records("out"))
    assert len(cluster.records("out")) == 4
    assert batched.provider.direct == {}


@pytest.mark.slow
def test_what_a_job_could_not_make_fails_with_its_reason_and_is_not_bought(
    batched: BatchCluster, tmp_path: Path
) -> None:
    write(tmp_path / "q.jsonl", asked(3))
    member = [{"model": "fake/a+status=400"}]

    done = batched.run("--chain", "panel", "--batch", members=member)

    assert done.status == 3, done.err
    failed = batched.cluster.records("out", "failed")
    assert [record["error"]["code"] for record in failed] == ["all_failed"] * 3
    assert {call["status"] for record in failed for call in record["calls"]} == {"bad_request"}
    assert batched.provider.direct == {}


@pytest.mark.slow
def test_a_cost_limit_holds_for_jobs_and_more_of_it_goes_on(batched: BatchCluster, tmp_path: Path) -> None:
    """What a call may cost is reserved: 4096 tokens of an answer at half the price are $0.0041."""
    write(tmp_path / "q.jsonl", asked(4))
    priced = [{"model": "fake/a+nocost", "price_usd_per_mtok": {"prompt": 1, "completion": 2}}]

    poor = batched.run("--chain", "panel", "--batch", "--max-cost-usd", "0.001", members=priced)
    bought = batched.provider.jobs()
    rich = batched.run("--chain", "panel", "--batch", "--max-cost-usd", "1", members=priced)

    assert (poor.status, bought) == (4, []), poor.err
    assert rich.status == 0, rich.err
    assert len(batched.cluster.records("out")) == 4
    assert batched.cluster.records("out", "failed") == []


@pytest.mark.slow
def test_paths_of_one_machine_are_refused_on_two(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    write(tmp_path / "q.jsonl", asked(2))
    with start_upstream() as upstream:
        env = hermetic(upstream, tmp_path)
        with ray_nodes(tmp_path, env, 2) as address:
            cluster = Cluster(tmp_path, {**env, "RAY_ADDRESS": address}, upstream)
            command = ["--chain", "panel -m fake/a", "q.jsonl", "-o", "out"]
            refused = cluster.run(*command)
            shared = cluster.run(*command, "--shared-paths")
            unknown = cluster.run(*command, "--shared-paths", "--batch", "submit")

    assert refused.status == 2
    assert refused.err.startswith("fuse-ray: q.jsonl: a cluster of 2 machines")
    assert (shared.status, len(cluster.records("out"))) == (0, 2), shared.err
    assert unknown.status == 2
    assert "--batch: 2 machines know of the same jobs where they share a state: --state" in unknown.err


def wait_until(holds: Callable[[], Any], what: str) -> None:
    give_up = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on_and_leaves_no_process(
    upstream: Upstream, tmp_path: Path, number: int, status: int
) -> None:
    pytest.importorskip("ray")
    write(tmp_path / "q.jsonl", asked(400))
    mark = f"FUSE_RAY_TEST_RUN={uuid.uuid4().hex}"
    env = {**hermetic(upstream, tmp_path), **dict([mark.split("=")])}
    command = ["fuse-ray", "--chain", "panel -m fake/a+slow=0.5", "q.jsonl", "-o", "out", "--workers", "1", "-j", "4"]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: upstream.stats()["requests"] > 4 or process.poll() is not None, "calls")
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]

    assert process.returncode == status
    assert said.endswith("the same command goes on, and buys no finished call again\n")
    wait_until(lambda: not marked(mark), "processes are left")
