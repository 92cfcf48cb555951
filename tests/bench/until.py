"""What `fuse-panel --until` loses and what it spares, on samples of which the truth is known.

Usage: PYTHONPATH=tests/support python tests/bench/until.py [QUESTIONS] (`make until`). Prints two Markdown tables.

grid   one model, right on a share of the questions; `correlation` of its samples on one question: at 0 each is drawn
       alike, at 0.6 most questions are answered nearly always right or nearly always wrong, and the errors are alike
share  two answers, of which one is given with this chance: how often the other one is taken for the more frequent one
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean, stdev

from rounds import rounds_until_sure

from fusiontools.answers.certainty import leading, still_needed
from fusiontools.answers.tally import count_votes

MOST = 24
WRONG = 4
SKILLS, CORRELATIONS = (0.3, 0.5, 0.7, 0.9), (0.0, 0.3, 0.6)


def drawn(skill: float, correlation: float, source: random.Random) -> list[str | None]:
    """Return what the samples of one question vote for; `t` is right."""
    share, own, limit = math.sqrt(correlation), math.sqrt(1 - correlation), NormalDist().inv_cdf(skill)
    common, alike = source.gauss(0, 1), source.randrange(WRONG)
    keys: list[str | None] = []
    for _ in range(MOST):
        if share * common + own * source.gauss(0, 1) < limit:
            keys.append("t")
        else:
            keys.append(f"w{alike if source.random() < correlation else source.randrange(WRONG)}")
    return keys


def is_right(keys: Sequence[str | None]) -> float:
    tally = count_votes(keys)
    return float(tally is not None and tally.key == "t")


def spread(values: Iterable[float]) -> str:
    """Return the mean of paired differences with its interval of 95 %, in points."""
    found = [100 * value for value in values]
    half = 1.96 * stdev(found) / math.sqrt(len(found))
    return f"{fmean(found):+.1f} ({fmean(found) - half:+.1f} … {fmean(found) + half:+.1f})"


def grid_row(skill: float, correlation: float, until: float, questions: int) -> str:
    source = random.Random(f"{skill} {correlation} until")
    panels = [drawn(skill, correlation, source) for _ in range(questions)]
    rounds = [rounds_until_sure(keys, until) for keys in panels]
    asked = [each[-1] for each in rounds]
    fixed = [is_right(keys) for keys in panels]
    sure = [is_right(keys[:count]) for keys, count in zip(panels, asked, strict=True)]
    # As many calls, given to every question alike.
    even = [is_right(keys[: math.ceil(fmean(asked))]) for keys in panels]
    unsure = [still_needed(leading(keys[:count]), until) > 0 for keys, count in zip(panels, asked, strict=True)]
    cells = [f"{skill:g}", f"{correlation:g}", f"{until:g}", f"{100 * fmean(fixed):.1f}"]
    cells += [spread(b - a for a, b in zip(fixed, sure, strict=True)), f"{fmean(asked):.1f}"]
    cells += [f"{100 * (1 - fmean(asked) / MOST):.0f} %", spread(b - a for a, b in zip(even, sure, strict=True))]
    cells += [f"{fmean(map(len, rounds)):.1f}", f"{100 * fmean(unsure):.0f} %"]
    return f"| {' | '.join(cells)} |"


def share_row(share: float, until: float) -> str:
    """Count all ways that the votes may come: exact, without a draw."""
    ways = {(0, 0): 1.0}
    right = wrong = calls = 0.0
    for asked in range(MOST + 1):
        after: dict[tuple[int, int], float] = {}
        for (more, less), chance in ways.items():
            if not still_needed((max(more, less), min(more, less)), until):
                right, wrong = right + chance * (more > less), wrong + chance * (more < less)
                calls += chance * asked
            elif asked == MOST:
                calls += chance * asked
            else:
                for (a, b), each in (((more + 1, less), share), ((more, less + 1), 1 - share)):
                    after[a, b] = after.get((a, b), 0.0) + chance * each
        ways = after
    stopped = right + wrong
    return (
        f"| {share:g} | {until:g} | {100 * wrong / stopped:.1f} % | {100 * (1 - until):.0f} % | {100 * stopped:.0f} % "
        f"| {calls:.1f} |"
    )


def main() -> None:
    questions = int(sys.argv[1]) if len(sys.argv) > 1 else 4_000
    print(
        f"| skill | correlation | until | vote of {MOST} | until against it | calls | spared "
        "| against a vote of as many calls | rounds | not sure |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for until in (0.95, 0.8):
        for skill in SKILLS:
            for correlation in CORRELATIONS:
                print(grid_row(skill, correlation, until, questions), flush=True)
    print("\n| share | until | stopped for the wrong one | meant | stopped | calls |\n|--:|--:|--:|--:|--:|--:|")
    for share in (0.5, 0.55, 0.6, 0.75, 0.9):
        for until in (0.8, 0.95, 0.99):
            print(share_row(share, until), flush=True)


if __name__ == "__main__":
    main()
