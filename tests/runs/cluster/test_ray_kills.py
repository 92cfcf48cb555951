"""`fuse-ray` killed again and again: each record comes out once, and no finished call is made twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from stores import StoreServer, start_redis
from workdir import Upstream, hermetic, start_upstream

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

RECORDS, WORKERS, JOBS, LATENCY_S = 600, 2, 4, 0.2
#: Before each of these so many calls are made: workers, then the driver or all there is, the store excepted.
ROUNDS = [("worker", "worker", "worker", last) for last in ("driver", "machine", "driver", "machine", "driver")]
CALLS_BETWEEN = 18
MARK = "FUSE_RAY_TEST_RUN"
PATIENCE_S = 180.0


@dataclass
class Scene:
    """A run that is killed, what it works with, and what was seen of it."""

    folder: Path
    env: dict[str, str]
    upstream: Upstream
    redis: StoreServer
    #: Of each kill, when what the journal held was read, and what that was.
    kept: list[tuple[float, set[str]]] = field(default_factory=list)
    kills: int = 0

    @property
    def command(self) -> list[str]:
        given = ["--workers", str(WORKERS), "-j", str(JOBS), "--block", "20", "--chain", "panel -m fake/a"]
        return ["fuse-ray", *given, "questions.jsonl", "-o", "out"]

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(self.command, stdout=said, stderr=said, cwd=self.folder, env=self.env)

    def ours(self, kind: Callable[[str], bool] = lambda said: True) -> list[int]:
        """Return the processes of the run whose command line is of a kind."""
        return [pid for pid, said in processes(self.env[MARK]) if kind(said)]

    def calls(self) -> int:
        return int(self.upstream.stats()["requests"])

    def note_journal(self) -> None:
        """Note which answers the journal holds now."""
        import redis

        with redis.Redis.from_url(self.redis.url) as client:
            values = [client.get(key) for key in client.scan_iter(count=1000) if client.type(key) == b"string"]
        bodies = [json.loads(value[value.index(b"{") :]) for value in values if b"{" in value]
        # What began before they were read may have been finished after it.
        self.kept.append((time.monotonic(), {body["content"] for body in bodies if "content" in body}))


def processes(mark: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


def wait_until(holds: Callable[[], Any], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up, f"not within {PATIENCE_S:g} s: {what}"
        time.sleep(0.02)


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def is_worker(said: str) -> bool:
    return "MapWorker" in said


def disturb(scene: Scene, kinds: tuple[str, ...], draw: random.Random) -> None:
    """Start the run and kill parts of it, the last of which ends it."""
    with scene.start() as process:
        for kind in kinds:
            seen = scene.calls()
            wait_until(
                lambda seen=seen: scene.calls() >= seen + CALLS_BETWEEN or process.poll() is not None,
                f"calls before the {kind} dies",
            )
            assert process.poll() is None, (process.returncode, (scene.folder / "said").read_text())
            if kind == "worker":
                wait_until(lambda: scene.ours(is_worker), "a worker")
                kill([draw.choice(scene.ours(is_worker))])
            elif kind == "driver":
                kill([process.pid])
            else:
                kill(scene.ours())
            scene.kills += 1
            if kind != "worker":
                process.wait()
                wait_until(lambda: not scene.ours(), "nothing of a run that was killed is left")
            scene.note_journal()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with start_redis() as redis, start_upstream("--record", "--latency", str(LATENCY_S)) as upstream:
        run = Scene(
            tmp_path,
            {**hermetic(upstream, tmp_path), "FUSION_STATE": redis.url, MARK: uuid.uuid4().hex},
            upstream,
            redis,
        )
        yield run
        kill(run.ours())


def test_each_record_comes_out_once_and_no_finished_call_is_made_twice(scene: Scene) -> None:
    asked = {f"q{i}": f"Question {i}: which of these holds?" for i in range(RECORDS)}
    lines = (json.dumps({"id": name, "prompt": text}) + "\n" for name, text in asked.items())
    (scene.folder / "questions.jsonl").write_text("".join(lines))
    draw = random.Random(1)

    for kinds in ROUNDS:
        disturb(scene, kinds, draw)
    with scene.start() as process:
        status = process.wait(PATIENCE_S)

    assert scene.kills >= 20
    assert status == 0, (scene.folder / "said").read_text()
    records = [
        json.loads(line) for path in (scene.folder / "out").glob("*.jsonl") for line in path.read_text().splitlines()
    ]
    assert sorted(record["id"] for record in records) == sorted(asked)
    assert not list((scene.folder / "out" / "failed").glob("*"))
    answer_to = {record["messages"][-1]["content"]: record["panel"][0]["content"] for record in records}
    requests = scene.upstream.requests()
    assert len(requests) == scene.calls() < 1000
    again = [
        (request["at"] - at, request["body"]["messages"][-1]["content"])
        for request in requests
        for at, kept in scene.kept
        if request["at"] > at and answer_to[request["body"]["messages"][-1]["content"]] in kept
    ]
    print(f"{scene.kills} kills, {len(requests)} calls for {RECORDS} records, {len(again)} finished ones made again")
    assert again == []
    # What was in flight at a kill is made again, and nothing else.
    assert len(requests) - RECORDS <= scene.kills * WORKERS * JOBS


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-s"]))
