"""A report as a picture."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
from graded import World, call, grade, lines, run_of, scored
from reporting import MIXED
from workdir import Run


def test_a_picture_is_text_that_can_be_searched_and_comes_out_the_same_again(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    graded = lines(run_of(World(mended=0.2), 40))

    for name in ("one.svg", "two.svg"):
        assert run(["fuse-report", "--plot", name], graded).status == 0

    drawn = (tmp_path / "one.svg").read_bytes()
    assert drawn == (tmp_path / "two.svg").read_bytes()
    assert b"<title>fusion: score against cost, 40 tasks" in drawn
    assert all(f">{word}</text>".encode() in drawn for word in ("fusion", "pick", "a*5", "Pareto front", "arithmetic"))


@pytest.mark.parametrize("graded", [[scored("q", 1, a=1)], [scored("q", 0, a=0) | {"calls": []}], MIXED])
def test_any_report_can_be_drawn(graded: list[Any], run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    result = run(["fuse-report", "--plot", "out.png"], lines(graded))

    assert (result.status, result.err) == (0, "")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_system_on_other_tasks_stands_beside_the_picture_and_not_in_it(run: Run, tmp_path: Path) -> None:
    """On the tasks that it was asked it scores 100, where no choice on all tasks could score above 60."""
    pytest.importorskip("matplotlib")
    records = [scored(f"q{i}", float(i < 12), a=float(i < 8), c=float(i < 6)) for i in range(20)]
    for each in records[:12]:
        each["grades"].append(grade("panel", "b", 1))
        each["calls"].append(call("panel", "b"))

    run(["fuse-report", "--plot", "out.svg"], lines(records))

    drawn = (tmp_path / "out.svg").read_text()
    assert ">b: 12 tasks</text>" in drawn
    assert [f">{name}</text>" in drawn for name in "abc"] == [True, False, True]


def test_no_error_bar_lies_on_another(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = [scored(f"q{i}", float(i % 3 > 0), a=float(i % 2), b=float(i % 2), c=float(i % 3 == 0)) for i in range(9)]

    run(["fuse-report", "--plot", "out.svg"], lines(records))

    upright = re.findall(r'd="M ([\d.]+) ([\d.]+) \nL \1 ([\d.]+) \n"', (tmp_path / "out.svg").read_text())
    places = sorted({float(x) for x, *_ in upright})
    assert len(upright) >= len(places) > 4
    assert all(right - left > 5 for left, right in itertools.pairwise(places))
