"""What fuse-tune and fuse-calibrate promise, on panels of which the truth is known.

Usage: PYTHONPATH=tests/support python tests/bench/tuning.py [RUNS] (`make tuning`). Prints two Markdown tables.

equal      no way is better than any other (two answers, each member right on half of them): a gain is a false claim
copies     every member answers as the first does: no vote can gain anything
unequal    members of different skill that err alike in part: what is best is found on 8,000 other questions
kinds      two members, each good at one kind of question: a route can tell, a vote cannot
risk       the share of all questions that is answered wrongly, on other questions than those it was fitted on
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from simulated import Member, panels_of, simulate

from fusiontools.evaluation.calibrate import Counted, controls_asked, fit_answered
from fusiontools.evaluation.report.statistics import Draws, wilson
from fusiontools.evaluation.tune.replay import Replay
from fusiontools.evaluation.tune.selection import Rule, Tuner, Tuning

DRAWS = Draws(resamples=1000)
WORLDS: dict[str, tuple[Mapping[str, Member], dict[str, Any]]] = {
    "equal": ({f"m{i}": Member(0.5) for i in range(6)}, {"wrong": 1}),
    "copies": ({f"m{i}": Member(0.6, copies=1.0) for i in range(4)}, {}),
    "unequal": (
        {f"m{i}": Member(0.5 + 0.05 * i, 0.001 * (1 + i), copies=0.5 if i in (1, 2) else 0.0) for i in range(5)},
        {"together": 0.3},
    ),
    "kinds": (
        {"sums": Member(0.5, 0.001), "books": Member(0.5, 0.001)},
        {"kinds": [{"sums": 0.9, "books": 0.3}, {"sums": 0.3, "books": 0.9}], "together": 0.2},
    ),
}


def tuned(world: str, questions: int, seed: int, rule: Rule | None = None) -> tuple[Tuner, Tuning]:
    """Return what is chosen on one draw of a world."""
    members, settings = WORLDS[world]
    tuner = Tuner(panels_of(simulate(members, questions, seed, **settings)), DRAWS)
    return tuner, tuner.tune(rule or Rule(frugal=False))


class Truth:
    """What ways are worth in a world: their scores on many questions that nobody has learned from."""

    def __init__(self, world: str, questions: int = 8_000) -> None:
        members, settings = WORLDS[world]
        self.replay = Replay(panels_of(simulate(members, questions, 10**6, **settings)))
        self.ways = self.replay.ways(self.replay.subpanels(None))
        self.best = float(self.replay.columns(self.ways).score.mean(axis=0).max())

    def of(self, tuning: Tuning) -> float:
        """Return what a choice is worth; a route by kind of question is followed."""
        way, learned = tuning.chosen.way, tuning.chosen.learned
        if learned.routing is None:
            return float(self.replay.columns([way], [learned.weights]).score.mean())
        from fusiontools.evaluation.tune.routing import question_rows

        columns = self.replay.columns(learned.treatments)
        place = learned.routing.follow(question_rows(self.replay.panels))
        return float(columns.score[np.arange(len(place)), place].mean())


def selection_row(world: str, questions: int, runs: int) -> str:
    """Return how often the reported interval holds the truth, and how often a gain is claimed."""
    truth = Truth(world)
    covers = near = claims = zero = 0
    flattery, regret = [], []
    for seed in range(runs):
        _, found = tuned(world, questions, seed)
        real = truth.of(found)
        low, high = found.chosen.held_out.interval
        covers += low <= real <= high
        near += low <= truth.best <= high or real >= truth.best
        claims += found.verdict == "better"
        below, above = found.gain.interval
        zero += below <= 0 <= above
        flattery.append(found.chosen.seen - real)
        regret.append(truth.best - real)
    cells = [world, f"{questions}", f"{100 * truth.best:.1f}"]
    cells += [f"{100 * float(np.mean(regret)):+.1f}", f"{100 * float(np.mean(flattery)):+.1f}"]
    cells += [share(each, runs) for each in (covers, near, zero, claims)]
    return f"| {' | '.join(cells)} |"


def share(count: int, of: int) -> str:
    low, high = wilson(count, of)
    return f"{100 * count / of:.1f} % ({100 * low:.0f}-{100 * high:.0f})"


def drawn_votes(count: int, source: np.random.Generator) -> list[list[Counted]]:
    """Return votes whose agreement says something of how often they are right, and no more than that."""
    agreement = source.choice([0.2, 0.4, 0.6, 0.8, 1.0], size=count)
    right = source.random(count) < 0.35 + 0.62 * agreement**2
    return [[Counted(str(i), float(a), float(r))] for i, (a, r) in enumerate(zip(agreement, right, strict=True))]


def risk_row(of: str, risk: float, questions: int, runs: int) -> str:
    """Return how often, and by how much, the risk holds on other questions."""
    source = np.random.default_rng(7)
    lost, broken, coverage = [], 0, []
    for _ in range(runs):
        groups, fresh = drawn_votes(questions, source), drawn_votes(4_000, source)
        levels = sorted({votes[0].agreement for votes in groups})
        if of == "asked":
            level = next((each for each in levels if controls_asked(groups, each, risk)), 2.0)
        else:
            level = fit_answered(groups, levels, risk, 0.9)
        answered = [votes[0] for votes in fresh if votes[0].agreement >= level]
        wrong = sum(1 - vote.score for vote in answered)
        lost.append(wrong / (len(fresh) if of == "asked" else max(1, len(answered))))
        broken += lost[-1] > risk
        coverage.append(len(answered) / len(fresh))
    return (
        f"| {of} | {risk:g} | {questions} | {100 * float(np.mean(lost)):.2f} % | {share(broken, runs)} "
        f"| {100 * float(np.mean(coverage)):.0f} % |"
    )


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(
        "| world | questions | best | chosen below it | flattered by | interval holds the choice's worth "
        "| holds the best, or it is chosen | interval of the gain holds 0 | gain claimed |"
    )
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for world, questions in (
        ("equal", 60),
        ("equal", 200),
        ("copies", 100),
        ("unequal", 100),
        ("unequal", 400),
        ("kinds", 200),
    ):
        print(selection_row(world, questions, runs), flush=True)
    print("\n| of | risk | questions | wrong, mean | above the risk | answered |\n|---|--:|--:|--:|--:|--:|")
    for of in ("asked", "answered"):
        for risk, questions in ((0.05, 100), (0.1, 100), (0.1, 400)):
            print(risk_row(of, risk, questions, 5 * runs), flush=True)


if __name__ == "__main__":
    main()
