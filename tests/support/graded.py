"""Graded records of members whose skill, and whose errors' correlation, is known: the right answer is computable."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

WRONG = ("w0", "w1", "w2")


@dataclass(frozen=True)
class World:
    """Members with a skill each; `together` is how much of their luck they share.

    The fusion answers as the first member does, but for `mended` of its errors and `broken` of what it has right.
    """

    skills: Mapping[str, float] = field(default_factory=lambda: {"a": 0.6, "b": 0.5, "c": 0.4})
    together: float = 0.4
    mended: float = 0.0
    broken: float = 0.0

    @property
    def lift(self) -> float:
        """What the fusion has over the first member."""
        skill = next(iter(self.skills.values()))
        return self.mended * (1 - skill) - self.broken * skill

    @property
    def differing(self) -> float:
        """The share of tasks on which the two differ."""
        skill = next(iter(self.skills.values()))
        return self.mended * (1 - skill) + self.broken * skill

    def draw(self, tasks: int, rng: random.Random) -> tuple[list[bool], dict[str, list[bool]]]:
        """Return on which tasks the fusion is right, and each member."""
        limits = {name: NormalDist().inv_cdf(skill) for name, skill in self.skills.items()}
        shared, own = math.sqrt(self.together), math.sqrt(1 - self.together)
        members: dict[str, list[bool]] = {name: [] for name in self.skills}
        fused = []
        for _ in range(tasks):
            hardness = rng.gauss(0, 1)
            for name, limit in limits.items():
                members[name].append(shared * hardness + own * rng.gauss(0, 1) < limit)
            first = next(iter(members.values()))[-1]
            fused.append(rng.random() >= self.broken if first else rng.random() < self.mended)
        return fused, members


def grade(of: str, member: str, score: float, key: str | None = None, **more: Any) -> dict[str, Any]:
    key = key or ("t" if score == 1 else "w0")
    layer = 0 if of == "answer" else 1
    return {
        "of": of,
        "member": member,
        "sample": 0,
        "layer": layer,
        "grader": "exact",
        "score": score,
        "key": key,
    } | more


def call(stage: str, member: str, usd: float | None = 0.001, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": 80, "completion_tokens": 20}
    whose = {"member": member, "sample": 0} | ({"layer": 1} if stage in ("panel", "baseline") else {})
    return {
        "stage": stage, **whose, "model": member, "endpoint": "e", "usage": usage, "cost_usd": usd,
        "latency_s": 1.0, "status": "ok", "replayed": False, **more,
    }  # fmt: skip


def record(name: str, grades: Sequence[Any], calls: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    return {"id": name, "messages": [{"role": "user", "content": "?"}], "grades": [*grades], "calls": [*calls], **more}


def scored(name: str, fused: float, **members: float) -> dict[str, Any]:
    """A record with a score for the fusion and each member, and a call for each."""
    grades = [grade("answer", "j", fused), *(grade("panel", member, score) for member, score in members.items())]
    return record(
        name, grades, [*(call("panel", member) for member in members), call("judge", "j"), call("synth", "j")]
    )


def run_of(world: World, tasks: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return the records of a simulated run, with votes, a ranking, a baseline sampled five times, and categories."""
    rng = random.Random(seed)
    fused, members = world.draw(tasks, rng)
    first = next(iter(world.skills))
    records = []
    for i in range(tasks):
        right = {name: members[name][i] for name in members}
        keys = {name: "t" if is_right else rng.choice(WRONG) for name, is_right in right.items()}
        again = [right[first] if rng.random() < 0.7 else rng.random() < world.skills[first] for _ in range(5)]
        grades = [
            grade("answer", "j", float(fused[i])),
            *(grade("panel", name, float(right[name]), keys[name]) for name in right),
            *(
                grade("baseline", first, float(ok), "t" if ok else rng.choice(WRONG), sample=n)
                for n, ok in enumerate(again)
            ),
        ]
        calls = [
            *(call("panel", name, 0.001 * (n + 1), latency_s=rng.uniform(1, 3)) for n, name in enumerate(right)),
            call("judge", "j", 0.004, latency_s=rng.uniform(2, 5)),
            call("synth", "j", 0.003, latency_s=rng.uniform(2, 5)),
            *(call("baseline", first, 0.001, sample=n) for n in range(5)),
        ]  # fmt: skip
        order = sorted(range(len(right)), key=lambda n, row=i: (members[list(right)[n]][row] < (rng.random() < 0.7), n))
        category = ("arithmetic", "facts", "choice")[i % 3]
        more = {"meta": {"category": category}, "analysis": analysis(order), "answer": answer()}
        records.append(record(f"task/{i}", grades, calls, **more))
    return records


def analysis(ranking: Sequence[int]) -> dict[str, Any]:
    empty: dict[str, Any] = {key: [] for key in ("consensus", "contradictions", "partial_coverage", "unique_insights")}
    return empty | {
        "blind_spots": [], "ranking": [*ranking], "agreement": 1.0, "labels": {}, "seed": 1, "judges": ["j"],
    }  # fmt: skip


def answer(by: str = "synth") -> dict[str, Any]:
    return {"content": "x", "by": by, "model": "j", "finish_reason": "stop", "tool_calls": []}


def lines(records: Sequence[Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)
