"""A report as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graded import World, lines, run_of, scored
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
