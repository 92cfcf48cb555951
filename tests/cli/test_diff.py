"""`fuse-diff`: two files in, a report and an exit status out."""

from __future__ import annotations

import json
import os
import pty
import random
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from diffs import FAILED, answered, call, without
from samples import lines, question
from workdir import Result, Run


def pair(directory: Path, a: Sequence[Any], b: Sequence[Any]) -> list[str]:
    """Write two files and return the command that compares them."""
    (directory / "a.jsonl").write_bytes(lines(a))
    (directory / "b.jsonl").write_bytes(lines(b))
    return ["fuse-diff", "a.jsonl", "b.jsonl"]


def test_a_report_lists_changes_in_the_order_of_the_first_file_and_ends_with_a_summary(
    run: Run, tmp_path: Path
) -> None:
    a = [
        answered("q1", "It is red.", call(0.002, 2.0)),
        answered("q2", "The same.", call()),
        answered("q3", "Gone."),
        answered("q4", "Here.", call(0.0)),
        answered("q5", "So.", call(0.5)),
    ]
    b = [
        answered("q6", "New."),
        {**answered("q5", "So.", call(None)), "route": {"to": "fuse"}},
        {**without(answered("q4", "", call(0.0)), "answer", "analysis", "panel"), "error": FAILED},
        answered("q2", "The same.", call(0.5, 1.0)),
        answered("q1", "It is green.", call(0.003, 3.0)),
    ]

    result = run(pair(tmp_path, a, b))

    assert (result.status, result.err) == (1, "")
    assert (
        result.text
        == """\
--- q1 --- answer changed --- What is q1?
answer:
    It is [-red-]{+green+}.
cost $0.0020 → $0.0030 (+$0.0010, +50.0%), call time 2.0 s → 3.0 s (+1.0 s, +50.0%)

only in a.jsonl: q3

--- q4 --- newly failed --- What is q4?
error: none → panel: all_failed: nobody came
answer: gone
    [-Here.-]
panel:
    fake/a: gone
    fake/b: gone
analysis: gone
cost $0.0000 → $0.0000, call time 2.0 s → 2.0 s

--- q5 --- changed, answer the same --- What is q5?
route: new
cost $0.5000 → unknown, call time 2.0 s → 2.0 s

only in b.jsonl: q6

4 records compared: 1 same, 1 changed answer, 1 newly failed, 1 changed otherwise
only in a.jsonl: 1
only in b.jsonl: 1
cost       $0.7520 → ≥ $0.5030
call time  8.0 s → 8.0 s
"""
    )


def test_a_file_does_not_differ_from_itself(run: Run, tmp_path: Path) -> None:
    records = [answered(f"q{i}", f"Answer {i}.", call()) for i in range(3)]

    result = run([*pair(tmp_path, records, [])[:2], "a.jsonl"])

    assert (result.status, result.err) == (0, "")
    assert result.text == "3 records compared: 3 same\ncost       $0.7500 → $0.7500\ncall time  6.0 s → 6.0 s\n"


def test_the_order_of_records_makes_no_difference(run: Run, tmp_path: Path) -> None:
    records = [answered(f"q{i}", f"Answer {i}.") for i in range(9)]
    shuffled = random.Random(7).sample(records, 9)

    result = run(pair(tmp_path, records, shuffled))

    assert (result.status, result.text) == (0, "9 records compared: 9 same\n")


def test_a_record_that_stands_in_one_file_only_is_a_difference(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "x")], [])

    forth, back = run([*command, "--brief"]), run([command[0], "b.jsonl", "a.jsonl", "--answers"])

    assert (forth.status, forth.text) == (1, "only in a.jsonl: q1\n")
    assert (back.status, back.text) == (1, "only in a.jsonl: q1\n\n0 records compared\nonly in a.jsonl: 1\n")


def test_records_with_the_same_id_are_paired_in_order_with_a_warning(run: Run, tmp_path: Path) -> None:
    a = [answered("q1", "one"), answered("q1", "two"), answered("q1", "three")]
    command = pair(tmp_path, a, [answered("q1", "one"), answered("q1", "2")])

    result, quiet = run([*command, "--brief"]), run([*command, "-q"])

    assert result.text.splitlines() == ["q1: answer changed", "only in a.jsonl: q1"]
    assert result.err == (
        "fuse-diff: b.jsonl: more than one record with the same id, paired in order: q1\n"
        "fuse-diff: a.jsonl: more than one record with the same id, paired in order: q1\n"
    )
    assert (quiet.status, quiet.out, quiet.err) == (1, b"", "")


@pytest.mark.parametrize("side", [0, 1])
def test_one_side_may_be_standard_input(side: int, run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [])
    files = ["a.jsonl"]
    files.insert(side, "-")

    result = run([command[0], *files], lines([answered("q2", "two"), answered("q1", "one")]))

    assert result.status == 1
    assert result.text == "only in stdin: q2\n\n1 record compared: 1 same\nonly in stdin: 1\n"


def test_json_has_a_line_for_each_change_and_the_summary_last(run: Run, tmp_path: Path) -> None:
    a = [answered("q1", "It is red.", call(0.002, 2.0)), answered("q2", "x", call(None)), answered("q3", "y")]
    b = [answered("q2", "x", call(0.5)), answered("q1", "It is\u009b green.", call(None, 3.5)), answered("q4", "y")]

    result = run([*pair(tmp_path, a, b), "--json"])

    assert result.status == 1
    assert "\u009b" not in result.text
    assert result.records == [
        {
            "id": "q1",
            "change": "answer",
            "changed": {"answer": {"content": {"a": "It is red.", "b": "It is\u009b green."}}},
            "cost_usd": {"a": 0.002, "b": None, "delta": None, "unknown": {"a": 0, "b": 1}},
            "call_time_s": {"a": 2.0, "b": 3.5, "delta": 1.5},
        },
        {"id": "q3", "change": "only_in_a"},
        {"id": "q4", "change": "only_in_b"},
        {
            "summary": {
                "compared": 2,
                "same": 1,
                **dict.fromkeys(("answer", "only_in_a", "only_in_b"), 1),
                **dict.fromkeys(("analysis", "failed", "answered", "other"), 0),
                "unread": {"a": 0, "b": 0},
                "unpaired": {"a": 0, "b": 0},
                "cost_usd": {"a": 0.002, "b": 0.5, "delta": None, "unknown": {"a": 1, "b": 1}},
                "call_time_s": {"a": 4.0, "b": 5.5, "delta": 1.5},
            }
        },
    ]


def test_a_record_as_deep_as_may_be_is_compared(run: Run, tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(250):
        deep = [deep]

    command = pair(tmp_path, [question(mine=deep)], [question(mine=[deep])])
    text, data = run(command), run([*command, "--json"])

    assert (text.status, text.err, data.status, data.err) == (1, "", 1, "")
    assert data.records[0]["changed"]["mine"]["b"] == [deep]


def test_quiet_says_all_by_the_exit_status(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    differ, same_file = run([*command, "-q"]), run([*command[:2], "a.jsonl", "-q"])

    assert (differ.status, differ.out, differ.err) == (1, b"", "")
    assert (same_file.status, same_file.out, same_file.err) == (0, b"", "")


def test_a_recipe_that_changed_alike_in_many_records_is_told_once(run: Run, tmp_path: Path) -> None:
    def asked(name: str, samples: int) -> dict[str, Any]:
        return question(name, recipe={"panel": {"samples": samples, "members": [{"name": "m"}]}})

    a = [asked("q1", 5), asked("q1", 5), asked("q2", 5), asked("q3", 4)]
    b = [asked("q1", 3), asked("q1", 3), asked("q2", 3), asked("q3", 3)]

    result = run(pair(tmp_path, a, b))

    assert [line for line in result.text.splitlines() if line.startswith("recipe")] == [
        "recipe.panel.samples: 5 → 3",
        "recipe.panel.samples: 4 → 3",
        "recipe     changed in 3 records as in q1",
    ]


# Trouble


def test_a_line_that_is_no_record_is_reported_the_rest_compared_and_the_status_2(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one"), {"id": 7, "messages": []}, answered("q3", "x")], [])
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf\n?\n" + lines([answered("q3", "y"), answered("q1", "one")]))

    result = run([*command, "--brief"])

    assert (result.status, result.text) == (2, "q3: answer changed\n")
    second, first = result.err.splitlines()
    assert second.startswith("fuse-diff: b.jsonl:2: not JSON: ")
    assert first.startswith("fuse-diff: a.jsonl:2: $.")


def test_a_line_that_is_too_long_is_trouble(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one " * 2000)], [answered("q1", "one " * 2000)])

    result = run([*command, "-q", "--max-line-mib", "0.00390625"])

    assert result.status == 2
    assert result.err.splitlines()[0] == (
        "fuse-diff: b.jsonl:1: the line is longer than 0.00390625 MiB (--max-line-mib)"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jsonl", "nowhere.jsonl"], "nowhere.jsonl: cannot be read: No such file or directory"),
        (["nowhere.jsonl", "a.jsonl"], "nowhere.jsonl: cannot be read: No such file or directory"),
        (["a.jsonl", "."], ".: cannot be read: Is a directory"),
        ([".", "a.jsonl"], ".: cannot be read: Is a directory"),
        (["-", "-"], "only one of the two can be standard input; name a file for the other"),
        (["a.jsonl", "a.jsonl", "--brief", "--json"], "--brief and --json exclude each other"),
        (["a.jsonl"], "fuse-diff: two files are compared: fuse-diff A B (see fuse-diff --help)\n"),
        ([], "fuse-diff: two files are compared: fuse-diff A B (see fuse-diff --help)\n"),
        (["a.jsonl"] * 3, "fuse-diff: two files are compared: fuse-diff A B (see fuse-diff --help)\n"),
    ],
)
def test_what_cannot_be_compared_is_said_and_ends_with_2(
    arguments: list[str], message: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([answered("q1", "one")]))

    result = run(["fuse-diff", *arguments])

    assert (result.status, result.out, result.err.count("\n")) == (2, b"", 1)
    assert message in result.err


def test_output_that_cannot_be_written_is_trouble_and_no_difference(run: Run, tmp_path: Path) -> None:
    pair(tmp_path, [answered("q1", "one")], [answered("q1", "one")])

    result = run("fuse-diff a.jsonl b.jsonl > /dev/full")

    assert (result.status, result.err) == (2, "fuse-diff: stdout: No space left on device\n")


def test_a_reader_that_has_enough_is_no_trouble(run: Run, tmp_path: Path) -> None:
    a, b = ([answered(f"q{i}", f"{word} {i}" * 500) for i in range(300)] for word in ("one", "two"))
    pair(tmp_path, a, b)

    result = run("fuse-diff a.jsonl b.jsonl | head -1; echo ${PIPESTATUS[0]}")

    assert (result.text, result.err) == ("--- q0 --- answer changed --- What is q0?\n1\n", "")


def test_a_change_is_out_before_the_first_file_ends_and_ctrl_c_ends_with_130(
    env: dict[str, str], tmp_path: Path
) -> None:
    pair(tmp_path, [], [answered("q1", "one")])
    with subprocess.Popen(
        ["fuse-diff", "-", "b.jsonl", "--brief"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=env,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(lines([answered("q1", "two")]))
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 60)
        first = process.stdout.readline() if ready else b""
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert first == b"q1: answer changed\n"
    assert (process.returncode, out, err) == (130, b"", b"")


PROSE = "What is red?\nWhat is green?\n"


@pytest.mark.parametrize("swapped", [False, True])
def test_what_may_stand_in_lines_that_cannot_be_read_is_not_called_missing(
    swapped: bool, run: Run, tmp_path: Path
) -> None:
    command = pair(tmp_path, [answered(f"q{i}", "x") for i in range(3)], [])
    (tmp_path / "b.jsonl").write_text(PROSE)
    if swapped:
        command[1:] = command[:0:-1]

    text, data = run(command), run([*command, "--json"])
    brief, quiet = run([*command, "--brief"]), run([*command, "-q"])

    said = "b.jsonl: 2 lines could not be read; 3 records of a.jsonl may stand in them\n"
    assert text.text == f"no record could be compared\n{said}"
    assert (brief.text, quiet.text) == ("", "")
    assert brief.err == quiet.err == f"{text.err}fuse-diff: {said}"
    sides = "ba" if swapped else "ab"
    summary = data.records[0]["summary"]
    assert (summary["only_in_a"], summary["only_in_b"]) == (0, 0)
    assert summary["unread"] == {sides[0]: 0, sides[1]: 2}
    assert summary["unpaired"] == {sides[0]: 3, sides[1]: 0}
    assert [result.status for result in (text, data, brief, quiet)] == [2, 2, 2, 2]


def test_what_is_missing_from_a_file_that_could_be_read_is_still_said(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "x"), {}, answered("q2", "x")], [answered("q1", "x"), answered("q3", "x")])

    result = run(command)

    assert result.status == 2
    assert result.text == (
        "only in a.jsonl: q2\n\n"
        "1 record compared: 1 same\n"
        "only in a.jsonl: 1\n"
        "a.jsonl: 1 line could not be read; 1 record of b.jsonl may stand in it\n"
    )


def test_a_file_of_prose_is_not_reported_line_by_line(run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "x")], [])
    (tmp_path / "b.jsonl").write_text(PROSE * 20)

    result = run(command)

    assert result.err.count("not JSON") == 5
    assert result.err.splitlines()[5:] == ["fuse-diff: b.jsonl: and 35 more lines cannot be read"]


def test_an_unexpected_failure_is_trouble_and_no_difference(env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "one")])
    (tmp_path / "orjson.py").write_text("raise RuntimeError('broken')\n")

    result = subprocess.run(
        command, cwd=tmp_path, env={**env, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=False
    )

    assert result.returncode == 2
    assert b"RuntimeError: broken" in result.stderr


# Colour


def on_a_terminal(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> Result:
    """Run a command whose standard output is a terminal."""
    screen, terminal = pty.openpty()
    out = b""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, cwd=cwd, env=env) as process:
        os.close(terminal)
        try:
            while chunk := os.read(screen, 1 << 16):
                out += chunk
        except OSError:  # how a terminal says that nobody writes any more
            pass
        os.close(screen)
    return Result(process.returncode, out.replace(b"\r\n", b"\n"), "")


def test_colour_is_added_on_a_terminal_and_the_words_stay(env: dict[str, str], run: Run, tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "It is red.")], [answered("q1", "It is\x1b[2J green.")])

    shown = on_a_terminal(command, tmp_path, {**env, "TERM": "xterm"})
    plain = run(command)

    assert shown.text.startswith("\x1b[1m--- q1 --- answer changed --- What is q1?\x1b[m\n")
    assert "\x1b[31m[- red-]\x1b[m" in shown.text
    assert "\x1b[2J" not in shown.text
    assert "\x1b" not in plain.text
    stripped = shown.text
    for code in ("\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[m"):
        stripped = stripped.replace(code, "")
    assert stripped == plain.text


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1", "TERM": "xterm"}, {"TERM": "dumb"}, {}], ids=str)
def test_no_colour_where_it_is_not_welcome(setting: dict[str, str], env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    shown = on_a_terminal(command, tmp_path, {**env, **setting})

    assert shown.status == 1
    assert "[-one-]{+two+}" in shown.text
    assert "\x1b" not in shown.text


def test_an_empty_no_color_is_none(env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    shown = on_a_terminal(command, tmp_path, {**env, "NO_COLOR": "", "TERM": "xterm"})

    assert "\x1b[31m[-one-]\x1b[m" in shown.text


def test_json_is_never_coloured(env: dict[str, str], tmp_path: Path) -> None:
    command = pair(tmp_path, [answered("q1", "one")], [answered("q1", "two")])

    shown = on_a_terminal([*command, "--json"], tmp_path, {**env, "TERM": "xterm"})

    assert [json.loads(line).get("id") for line in shown.text.splitlines()] == ["q1", None]
