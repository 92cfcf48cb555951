"""Kill batches at random moments, with SIGKILL, and resume them: nothing may be lost, changed or paid twice.

    python tests/faults/kills.py [KILLS]

80 kills fall on 60 batches of 200 records where nothing is said. What the batches should say is known from a run that
nobody disturbs. The stand-in counts what is bought: a call may be bought again only where it was in flight when the
kill came. A record that was out proves that its calls were finished; of the others the stand-in knows whose answer had
left it whole when the kill came: on its way, or not yet in the journal.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bounds import Bound, Scene, run_part, scene

RECORDS, MEMBERS, JOBS, LATENCY_S = 200, ("fake/a", "fake/b"), 8, 0.02
COMMAND = ["fuse-panel", "-q", "-j", str(JOBS), *(word for name in MEMBERS for word in ("-m", name))]


@dataclass
class Losses:
    """What went wrong, over all batches."""

    kills: int = 0
    batches: int = 0
    lost: int = 0
    differ: int = 0
    finished_again: int = 0
    ages_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


def questions(batch: int) -> dict[str, str]:
    """Return the questions of a batch by their records' ids."""
    return {f"{batch}-{i}": f"Question {i} of batch {batch}: which of these holds?" for i in range(RECORDS)}


def write_questions(path: Path, batch: int) -> None:
    path.write_text("".join(json.dumps({"id": i, "prompt": text}) + "\n" for i, text in questions(batch).items()))


def records(path: Path) -> dict[str, Any]:
    """Return the records of an output without their ledgers; a line that a kill has cut off is none."""
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    found = [json.loads(line) for line in whole]
    return {record["id"]: {key: value for key, value in record.items() if key != "calls"} for record in found}


def kill(here: Scene, source: Path, output: Path, after_s: float) -> float | None:
    """Run the batch, kill it after so long, and return when that was; None where it had ended."""
    with here.start([*COMMAND, "--replay"], source, output) as process:
        time.sleep(after_s)
        if process.poll() is not None:
            return None
        process.kill()
        return time.monotonic()


@dataclass(frozen=True)
class Bought:
    """A call as the stand-in saw it; `at` is when it came, in seconds of the machine's clock."""

    at: float
    member: str
    record: str


def bought_of(here: Scene, batch: int) -> list[Bought]:
    """Return what was bought of a batch, in the order of the requests."""
    ids = {text: i for i, text in questions(batch).items()}
    requests = [(request["at"], request["body"]) for request in here.upstream.requests()]
    return [Bought(at, body["model"], ids[body["messages"][-1]["content"]]) for at, body in requests]


def ages_again(bought: list[Bought], kills: list[float]) -> Iterator[float]:
    """Yield, for every call that was bought again, how long before the kill its answer had left; below 0 in flight."""
    first: dict[tuple[str, str], float] = {}
    for call in bought:
        key = call.member, call.record
        if key in first:
            yield min((kill for kill in kills if kill > first[key]), default=first[key]) - first[key] - LATENCY_S
        first[key] = call.at


def compare(came: dict[str, Any], should: dict[str, Any]) -> int:
    """Return how many of the records that came are not what they should be."""
    return sum(came[i] != should[i] for i in came)


def disturb(here: Scene, batch: int, kills: int, losses: Losses, longest_s: float, draw: random.Random) -> None:
    """Kill one batch so many times, then resume it, and hold what came against what should have come."""
    source, expected, output = (here.folder / f"{name}.jsonl" for name in ("asked", "expected", "output"))
    write_questions(source, batch)
    with here.start([*COMMAND, "--no-journal"], source, expected) as process:
        losses.statuses[process.wait()] += 1
    here.upstream.reset()
    should, out, before = records(expected), set[str](), 0
    moments = []
    for _ in range(kills):
        moments.append(kill(here, source, output, draw.uniform(0.1, longest_s)))
        losses.finished_again += sum(call.record in out for call in bought_of(here, batch)[before:])
        losses.differ += compare(records(output), should)
        out |= records(output).keys()
        before = here.upstream.stats()["requests"]
    with here.start([*COMMAND, "--replay"], source, output) as process:
        losses.statuses[process.wait()] += 1
    came, bought = records(output), bought_of(here, batch)
    losses.finished_again += sum(call.record in out for call in bought[before:])
    losses.lost += RECORDS - len(came)
    losses.differ += compare(came, should)
    landed = [moment for moment in moments if moment is not None]
    losses.kills += len(landed)
    losses.ages_s += ages_again(bought, landed)


def duration_s(here: Scene) -> float:
    """Return how long an undisturbed batch takes."""
    source, output = here.folder / "asked.jsonl", here.folder / "output.jsonl"
    write_questions(source, -1)
    started = time.monotonic()
    with here.start(COMMAND, source, output) as process:
        process.wait()
    return time.monotonic() - started


def measure(kills: int, seed: int = 1) -> Iterator[Bound]:
    """Kill so many times; yields what went wrong."""
    draw, losses = random.Random(seed), Losses()
    with scene("--record", "--latency", str(LATENCY_S)) as here:
        longest_s = duration_s(here)
        while losses.kills < kills:
            disturb(here, losses.batches, 2 if losses.batches % 3 == 0 else 1, losses, longest_s, draw)
            losses.batches += 1
    in_flight = losses.kills * JOBS * len(MEMBERS)
    yield Bound("kills", f"kill -9 in {losses.batches} batches of {RECORDS} records", losses.kills)
    yield Bound("kills", "runs that ended otherwise than with 0", losses.statuses.total() - losses.statuses[0], 0)
    yield Bound("kills", "records lost", losses.lost, 0)
    yield Bound("kills", "records that differ", losses.differ, 0)
    yield Bound("kills", "calls of records that were out, bought again", losses.finished_again, 0)
    answered_s = [age for age in losses.ages_s if age > 0]
    yield Bound("kills", "calls bought again; at most those in flight", len(losses.ages_s), in_flight)
    yield Bound("kills", "of these, answered and not yet in the journal", len(answered_s))
    yield Bound("kills", "the oldest such answer, ms before the kill", round(1000 * max(answered_s, default=0), 1))


if __name__ == "__main__":
    sys.exit(run_part(measure, 80))
