"""A forked tool of `tests/support/forking.py` is as good as one that starts from nothing."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from forking import can_fork, fork, read_pipeline, run_forked
from samples import judged, lines, panelled
from workdir import TOOLS


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_starts_from_nothing_and_says_the_same(tool: str, env: dict[str, str], tmp_path: Path) -> None:
    command = [tool, "--version"]

    started = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, check=False)

    assert can_fork(command, env)
    forked = run_forked([command], b"", env, tmp_path, 60, False)
    assert forked == (started.returncode, started.stdout, started.stderr)


@pytest.mark.parametrize("pipefail", [False, True])
@pytest.mark.parametrize(
    ("pipeline", "stdin"),
    [
        ("fuse-vote", lines([panelled("q1")])),
        ("fuse-vote -q | fuse-cost --tee", lines([panelled("q1")]) + b"no record\n"),
        ("fuse-vote --none | fuse-cost", b""),
        ("fuse-judge --method lexical 'no*ne.jsonl' | fuse-vote", lines([judged("q1")])),
    ],
)
def test_a_pipeline_ends_as_it_does_in_a_shell(
    pipeline: str, stdin: bytes, pipefail: bool, env: dict[str, str], tmp_path: Path
) -> None:
    shell = ["bash", *(["-o", "pipefail"] if pipefail else []), "-c", pipeline]
    started = subprocess.run(shell, input=stdin, env=env, cwd=tmp_path, capture_output=True, check=False)

    commands = read_pipeline(pipeline)

    assert commands is not None
    status, out, err = run_forked(commands, stdin, env, tmp_path, 60, pipefail)
    assert (status, out) == (started.returncode, started.stdout)
    assert sorted(err.splitlines()) == sorted(started.stderr.splitlines())


@pytest.mark.parametrize("text", ["fuse-vote > file", "fuse-vote a*", "fuse-vote $X", "fuse-vote & wait", "a\nb"])
def test_what_a_shell_would_read_is_left_to_it(text: str) -> None:
    assert read_pipeline(text) is None


@pytest.mark.parametrize(
    ("command", "more"),
    [
        (["cat"], {}),
        (["fuse-vote"], {"PYTHONPATH": "."}),
        (["fuse-vote"], {"LANG": "C"}),
        (["fuse-vote"], {"PATH": "/bin"}),
    ],
)
def test_what_an_interpreter_reads_as_it_starts_is_left_to_one(
    command: list[str], more: dict[str, str], env: dict[str, str]
) -> None:
    assert not can_fork(command, {**env, **more})


# SIGTERM ends it with the one or the other status, as it comes before or after the tool listens for it.
@pytest.mark.parametrize(
    ("number", "statuses"), [(signal.SIGTERM, {-15, 143}), (signal.SIGKILL, {-9}), (signal.SIGINT, {130})]
)
def test_a_signal_ends_it_with_the_status_that_it_has_elsewhere(
    number: signal.Signals, statuses: set[int], env: dict[str, str], tmp_path: Path
) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdin is not None
        assert held.stdout is not None
        with open(tmp_path / "out", "wb") as out:  # noqa: PTH123
            process = fork(["fuse-vote"], env, tmp_path, held.stdout.fileno(), out.fileno(), out.fileno())
            assert process.poll() is None
            process.send_signal(number)

            assert process.wait(60) in statuses
            held.stdin.close()
