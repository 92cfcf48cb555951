"""What a person sees of a filter on standard error."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from mistakes import PANEL, panel
from samples import lines, poll, question
from terminal import on_a_terminal, read_screen, without_controls
from workdir import Upstream

Watched = Callable[..., str]


@pytest.fixture
def watched(env: dict[str, str], tmp_path: Path) -> Watched:
    """Ask a panel so many questions, with a terminal as standard error and a file as output; return its screen."""

    def watched(count: int, tool: Sequence[str] = PANEL, **more: str) -> str:
        with (
            (tmp_path / "panel.jsonl").open("wb") as out,
            on_a_terminal(tool, {**env, **more}, tmp_path, out=out) as (ours, process),
        ):
            assert process.stdin is not None
            process.stdin.write(lines(question(f"q{i}") for i in range(count)))
            process.stdin.close()
            return read_screen(ours)

    return watched


def test_each_call_of_one_question_has_a_line_of_its_own(watched: Watched) -> None:
    screen = watched(1)

    assert sorted(re.sub(r"\d\.\d s", "S", line) for line in screen.split("\r\n")) == [
        "",
        "fuse-panel: fake/a  S  $0.0010",
        "fuse-panel: fake/b  S  $0.0010",
    ]


def test_a_batch_has_one_line_that_is_drawn_over_itself(watched: Watched) -> None:
    screen = watched(12)

    drawn = without_controls(screen)
    assert drawn.count("\n") <= 1
    assert re.search(r"12 of 12 done  0:0\d  \d+\.\d\d/s, 0 failed, \$0\.0240\s*$", drawn)
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h")


def test_failed_records_are_counted(watched: Watched) -> None:
    assert "3 of 3 done" in (shown := without_controls(watched(3, panel("fake/a+status=400"))))
    assert "3 failed" in shown


@pytest.mark.parametrize("count", [1, 3])
def test_quiet_says_nothing(count: int, watched: Watched) -> None:
    assert watched(count, [*PANEL, "-q"]) == ""


def test_no_colour_is_written_where_none_is_wanted(watched: Watched) -> None:
    assert not re.search(r"\x1b\[[\d;]*m", watched(3, NO_COLOR="1"))


def test_a_tool_in_the_middle_leaves_the_bar_to_the_last_one(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines(question(f"q{i}") for i in range(3)))
    line = f"{' '.join(PANEL)} < in.jsonl | fuse-vote --key text > out.jsonl"

    with on_a_terminal(["bash", "-c", line], env, tmp_path) as (ours, process):
        shown = without_controls(read_screen(ours))
        process.wait(60)

    assert "3 of 3 done" in shown
    assert shown.count("failed, $") == shown.count("done")
    assert "$0.0060" in shown


def test_a_batch_that_is_interrupted_says_how_to_go_on(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines(question(f"q{i}") for i in range(40)))
    tool = [*panel("fake/a", "fake/a+hang"), "in.jsonl"]

    with (tmp_path / "out").open("wb") as out, on_a_terminal(tool, env, tmp_path, out=out) as (ours, process):
        poll(upstream, lambda stats: stats["in_flight"] > 1)
        process.send_signal(signal.SIGINT)
        screen = without_controls(read_screen(ours))
        status = process.wait(60)

    assert status == 130
    assert "--replay" in screen.splitlines()[-1]


def test_a_regular_file_has_a_total_while_it_is_read(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines(question(f"q{i}") for i in range(400)))

    with (tmp_path / "out").open("wb") as out, on_a_terminal([*PANEL, "in.jsonl"], env, tmp_path, out=out) as (ours, _):
        screen = without_controls(read_screen(ours))

    totals = set(re.findall(r"done|of ([\d,]+) done", screen))
    assert totals == {"400"}
