"""How near a pick by a check comes to the best of the panel: real tools, scripted members, tasks as in HumanEval.

Usage: PYTHONPATH=tests/support python tests/bench/checked.py [TASKS] (`make checked`). Prints rows of what fuse-report
says of picks by the examples that stand in the question, from panels that one `fuse-panel` has asked.

A question shows a stub with examples; the tests that grade a program are shown to nobody. Each member has the right
program with its own chance; a wrong one fails the examples, or is wrong in a corner that they do not show.
"""

# ruff: noqa: E501 - a row is a task

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from workdir import ROOT, Upstream, hermetic, start_upstream

#: Stub with its examples, right body, wrong body, body that is wrong where the examples do not look, hidden tests.
#: `{k}` is another number in every task.
FAMILIES = [
    ("def add_up(a):\n    \"\"\"Return the sum of a list, and {k}.\n\n    >>> add_up([1, 2])\n    {k3}\n    \"\"\"",
     "return sum(a) + {k}", "return sum(a) - {k}", "return a[0] + a[1] + {k}",
     "assert candidate([]) == {k}\n    assert candidate([5]) == 5 + {k}"),
    ("def last_of(a):\n    \"\"\"Return the last item, or {k} of an empty list.\n\n    >>> last_of([1, 2])\n    2\n    \"\"\"",
     "return a[-1] if a else {k}", "return a[0] if a else {k}", "return a[-1]",
     "assert candidate([]) == {k}\n    assert candidate([7, 8]) == 8"),
    ("def clip(x):\n    \"\"\"Return x, or {k} where x is greater.\n\n    >>> clip({k} + 9)\n    {k}\n    \"\"\"",
     "return min(x, {k})", "return max(x, {k})", "return {k}",
     "assert candidate({k} - 1) == {k} - 1\n    assert candidate({k} + 1) == {k}"),
    ("def is_multiple(x):\n    \"\"\"Say whether x is a multiple of {k}.\n\n    >>> is_multiple({k} * 3)\n    True\n    \"\"\"",
     "return x % {k} == 0", "return x % {k} != 0", "return x >= {k}",
     "assert candidate(0) is True\n    assert candidate({k} * 2 + 1) is False"),
    ("def repeat(s):\n    \"\"\"Return s, {k} times, with a dash between.\n\n    >>> repeat('') == '-' * ({k} - 1)\n    True\n    \"\"\"",
     "return '-'.join([s] * {k})", "return s * {k}", "return s * {k} + '-' * ({k} - 1)",
     "assert candidate('ab').count('ab-') == {k} - 1"),
    ("def count_down(n):\n    \"\"\"Return n, n - 1, … down to {k}.\n\n    >>> count_down({k} + 1) == [{k} + 1, {k}]\n    True\n    \"\"\"",
     "return list(range(n, {k} - 1, -1))", "return list(range(n, {k}, -1))", "return [n, n - 1]",
     "assert candidate({k}) == [{k}]\n    assert candidate({k} - 1) == []"),
]  # fmt: skip
#: How often each member has the right program.
MEMBERS = {"fake/small": 0.35, "fake/middle": 0.5, "fake/other": 0.5, "fake/large": 0.65}
#: Which share of the wrong programs passes the examples: what a check can tell, and what it cannot.
CORNERS = (0.0, 0.25, 0.5)
PICK = f"fuse-pick -q --check 'python3 check_examples.py' --check-with {ROOT}/examples/check_examples.py"


class Scores(NamedTuple):
    """Rows of a report: each a score from 0 to 1 and the interval around it."""

    vote: tuple[float, float, float]
    checked: tuple[float, float, float]
    best_member: tuple[float, float, float]
    oracle: tuple[float, float, float]


def tasks_and_programs(count: int, corner: float) -> tuple[list[dict[str, object]], dict[str, list[str]]]:
    """Return tasks as records, and what each member answers to them."""
    source = random.Random(f"{corner} checked")
    records: list[dict[str, object]] = []
    said: dict[str, list[str]] = {member: [] for member in MEMBERS}
    for i in range(count):
        k = 3 + i // len(FAMILIES)
        stub, right, wrong, almost, tests = (
            text.replace("{k3}", str(k + 3)).replace("{k}", str(k)) for text in FAMILIES[i % len(FAMILIES)]
        )
        name = stub[4 : stub.index("(")]
        meta = {
            "grader": "code",
            "tests": f"def check(candidate):\n    {tests}\n\ncheck({name})\n",
            "entry_point": name,
        }
        asked = f"Complete this function.\n\n{stub}"
        records.append({"id": f"task{i}", "messages": [{"role": "user", "content": asked}], "meta": meta})
        for member, skill in MEMBERS.items():
            body = right if source.random() < skill else almost if source.random() < corner else wrong
            said[member].append(f"Here it is.\n\n```python\n{stub.splitlines()[0]}\n    {body}\n```\n")
    return records, said


def measure(count: int, corner: float, upstream: Upstream, folder: Path) -> Scores:
    """Return what the picks by the check are worth, and the rows of the report beside them."""
    env = hermetic(upstream, folder)
    records, said = tasks_and_programs(count, corner)
    (folder / "tasks.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    for member, texts in said.items():
        upstream.script(member, *(f"text={quote(text)}" for text in texts))
    asking = " ".join(f"-m {member}" for member in MEMBERS)
    # One record at a time: a member's programs are handed out in the order in which it is asked.
    shell(f"fuse-panel -q -j 1 {asking} tasks.jsonl > panel.jsonl", env, folder)
    found = rows(shell(f"{PICK} panel.jsonl | fuse-grade -q | fuse-report -o json", env, folder))
    best = max((found[member] for member in MEMBERS), key=lambda row: row[0])
    return Scores(found["vote"], found["fusion"], best, found["oracle"])


def rows(report: str) -> dict[str, tuple[float, float, float]]:
    """Return the score of each row of a report, and its interval."""
    return {row["system"]: (row["score"], row["low"], row["high"]) for row in json.loads(report)["systems"]}


def shell(line: str, env: Mapping[str, str], folder: Path) -> str:
    command = ["bash", "-o", "pipefail", "-c", line]
    return subprocess.run(command, env=env, cwd=folder, check=True, capture_output=True, text=True).stdout


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    print(
        "| wrong programs that pass the example | vote | pick by the check | best member | oracle |\n|--:|--:|--:|--:|--:|"
    )
    for corner in CORNERS:
        with tempfile.TemporaryDirectory() as folder, start_upstream() as upstream:
            found = measure(count, corner, upstream, Path(folder))
        cells = [f"{100 * score:.1f} ({100 * low:.0f}-{100 * high:.0f})" for score, low, high in found]
        print(f"| {100 * corner:.0f} % | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
