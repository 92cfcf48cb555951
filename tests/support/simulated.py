"""Graded panels of members whose skill, and whose errors' correlation, is known: what is best is known, too."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from graded import call, record

from fusiontools.evaluation.tune.panels import PanelReader, Panels


@dataclass(frozen=True)
class Member:
    """A member that is right on a share `skill` of the questions, at this price.

    `copies` is the part of its luck that it shares with the first one; the rest of what is shared, all members share.
    """

    skill: float
    usd: float = 0.001
    copies: float = 0.0
    latency_s: float = 1.0


def simulate(
    members: Mapping[str, Member],
    questions: int,
    seed: int,
    *,
    together: float = 0.0,
    wrong: int = 3,
    kinds: Sequence[Mapping[str, float]] = (),
) -> list[Any]:
    """Return graded records; a wrong answer is one of `wrong`, and copies err alike.

    Args:
        kinds: the skills of members that differ from theirs, by kind of question; the kinds take turns.
    """
    source = random.Random(f"{seed} simulated")
    share, own = math.sqrt(together), math.sqrt(1 - together)
    limits = [
        {name: NormalDist().inv_cdf(kind.get(name, member.skill)) for name, member in members.items()}
        for kind in (kinds or [{}])
    ]
    records = []
    for i in range(questions):
        common, leader, leads = source.gauss(0, 1), source.gauss(0, 1), source.randrange(wrong)
        grades, calls = [], []
        for name, member in members.items():
            copied = member.copies
            luck = math.sqrt(copied) * leader + math.sqrt(1 - copied) * source.gauss(0, 1)
            right = share * common + own * luck < limits[i % len(limits)][name]
            err = leads if source.random() < copied else source.randrange(wrong)
            key = "t" if right else f"w{err}"
            grades.append(
                {
                    "of": "panel",
                    "member": name,
                    "sample": 0,
                    "layer": 1,
                    "grader": "exact",
                    "score": float(right),
                    "key": key,
                }
            )
            calls.append(call("panel", name, member.usd, latency_s=member.latency_s))
        kind = i % len(limits)
        question = f"{_TOPICS[kind]} {source.getrandbits(48):x} {source.getrandbits(48):x}"
        records.append(record(f"q{i}", grades, calls, messages=[{"role": "user", "content": question}]))
    return records


_TOPICS = ("please add up these two long numbers", "who wrote the novel that is called", "name the chemical element of")


def panels_of(records: Sequence[Any]) -> Panels:
    reader = PanelReader()
    for each in records:
        reader.add(each)
    return reader.finish()
