"""`fuse-log`: past runs where the user has said that they are kept, and what is removed when the user says so."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mistakes import SECRET
from samples import judged, lines, question
from terminal import everything, on_a_terminal
from workdir import Run

KEEPING = {"FUSION_LOG": "1"}
ASK = ["fuse-ask", "-m", "fake/a", "-J", "fake/judge", "-S", "fake/s"]


@pytest.fixture
def keeping(env: dict[str, str]) -> dict[str, str]:
    return {**env, **KEEPING}


def typed(
    command: Sequence[str], env: Mapping[str, str], cwd: Path, keys: str = "", columns: int = 80
) -> tuple[int, str]:
    """Return status and screen of a command on a terminal of so many columns, with these keys pressed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd) as process:
        os.close(theirs)
        os.write(ours, keys.encode())
        screen = everything(ours)
    os.close(ours)
    return process.returncode, screen


def listed(run: Run, *words: str) -> list[dict[str, Any]]:
    result = run(["fuse-log", *words, "--json"])
    assert result.status in (0, 3), result.err
    return result.records


def test_nothing_is_kept_unless_somebody_says_so(run: Run, env: dict[str, str], keeping: dict[str, str]) -> None:
    run([*ASK, "Why?"])
    run([*ASK, "Why?"], env={**env, "FUSION_LOG": "0"})
    run([*ASK, "--no-journal", "Why?"], env=keeping)

    result = run(["fuse-log"])

    assert (result.status, result.out) == (3, b"")
    assert "no run was kept; FUSION_LOG=1, or `log: true` in a recipe of yours" in result.err


def test_a_question_is_listed_and_given_back_to_the_pipe(run: Run, keeping: dict[str, str]) -> None:
    asked = run([*ASK, "--json", "Why is the sky\n blue?"], env=keeping)

    [entry] = listed(run, "SKY", "blue")
    shown = run(f"fuse-log show {entry['id']} | tee shown.jsonl | fuse-cost -o json")

    assert (entry["tool"], entry["question"], entry["error"]) == ("fuse-ask", "Why is the sky blue?", None)
    assert run(["cat", "shown.jsonl"]).out == asked.out
    assert json.loads(shown.out)["total"]["calls"] == len(asked.records[0]["calls"])
    assert listed(run, "sea") == []


def test_a_recipe_of_ones_own_switches_it_on_and_the_environment_off(
    run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("log: true\npanel: [fake/a]\nsynth: fake/s\n")

    run(["fuse-ask", "-c", "mine.yaml", "Kept?"])
    run(["fuse-ask", "-c", "mine.yaml", "Not kept?"], env={**env, "FUSION_LOG": "off"})

    assert [(run["recipe"], run["question"]) for run in listed(run)] == [("mine", "Kept?")]


def test_the_last_question_is_kept_to_go_on_from_and_listed_when_somebody_has(
    run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    ask = ["fuse-ask", "--chain", "panel -m fake/a | synth --method copy"]
    kept = tmp_path / "home" / "state" / "fusiontools" / "sessions" / "chat-last.jsonl"

    def on_screen(**more: str) -> None:
        with on_a_terminal([*ask, "Why?"], {**env, **more}, tmp_path, stdin=subprocess.DEVNULL) as (ours, process):
            everything(ours)
            assert process.wait() == 0

    on_screen(FUSION_LOG="0")
    assert not kept.exists()
    on_screen()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert run(["fuse-log"]).status == 3
    assert run([*ask, "--continue", "And?"], env={**env, "FUSION_LOG": "1"}).status == 0
    assert [each["turns"] for each in run(["fuse-log", "--json"]).records] == [2]


def test_a_record_switches_nothing_on(run: Run) -> None:
    record = {**judged("q1"), "log": True}
    record["recipe"] = {**record.get("recipe", {}), "log": True}

    assert run(["fuse-synth", "-m", "fake/s"], lines([record])).status == 0

    assert listed(run) == []


def test_of_a_pipeline_the_tool_that_gives_the_answer_keeps_the_run(run: Run, keeping: dict[str, str]) -> None:
    run(
        "fuse-panel -m fake/a -m fake/b | fuse-judge -m fake/judge | fuse-synth -m fake/s | fuse-cost --tee",
        lines([question("q1"), question("q2")]),
        env=keeping,
    )
    run("fuse-panel -m fake/a+status=400", "Why not?", env=keeping)
    run(["fuse-vote"], lines([judged("q3")]), env=keeping)

    runs = listed(run)

    assert [(run["tool"], run["error"]) for run in runs] == [
        ("fuse-vote", None),
        ("fuse-panel", "all_failed"),
        ("fuse-synth", None),
        ("fuse-synth", None),
    ]
    assert [record["id"] for record in run(["fuse-log", "show", runs[-1]["id"], runs[-2]["id"]]).records] == [
        "q1",
        "q2",
    ]


def test_a_list_is_bounded_and_asked_by_recipe_and_age(run: Run, keeping: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("panel: [fake/a]\nsynth: fake/s\n")
    for number in range(3):
        run(["fuse-ask", "-c", "mine.yaml", f"Question {number}?"], env=keeping)

    assert [run["question"] for run in listed(run, "-n", "2")] == ["Question 2?", "Question 1?"]
    assert len(listed(run, "--recipe", "mine")) == 3
    assert listed(run, "--recipe", "other") == []
    assert len(listed(run, "--since", "1h")) == 3
    assert listed(run, "--since", "2999-01-01") == []
    wrong = run(["fuse-log", "--since", "yesterday"])
    assert (wrong.status, "write 30d, 12h, 90m, 2w, or a day" in wrong.err) == (2, True)


def test_a_run_that_cannot_be_kept_is_said_once_and_answered(run: Run, keeping: dict[str, str], tmp_path: Path) -> None:
    state = tmp_path / "home" / "state" / "fusiontools"
    state.mkdir(parents=True)
    (state / "log").touch()

    result = run(["fuse-synth", "-m", "fake/s"], lines([judged("q1"), judged("q2")]), env=keeping)

    assert (result.status, len(result.records)) == (0, 2)
    assert result.err.count("warning: runs are not kept: ") == 1


def test_the_log_is_its_owners_alone_and_holds_no_key(run: Run, keeping: dict[str, str], tmp_path: Path) -> None:
    run([*ASK, "Why?"], env=keeping)

    [file] = (tmp_path / "home" / "state" / "fusiontools" / "log").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert SECRET not in file.read_text()


@pytest.mark.parametrize("columns", [80, 200])
def test_every_run_takes_one_line_of_the_screen(
    env: dict[str, str], keeping: dict[str, str], run: Run, tmp_path: Path, columns: int
) -> None:
    run([*ASK, "Why? " * 100], env=keeping)
    run([*ASK, "\x1b[2JWhy\tnot?\x07"], env=keeping)

    screen = typed(["fuse-log"], env, tmp_path, columns=columns)[1].splitlines()

    assert len(screen) == 3
    assert all(len(line) <= columns for line in screen)
    assert "\x07" not in "".join(screen)


# --- What is kept, and how it goes ---


def test_sizes_are_those_of_the_disk(run: Run, keeping: dict[str, str]) -> None:
    run([*ASK, "Why?"], env=keeping)

    sizes = {entry["kind"]: entry for entry in run(["fuse-log", "size", "--json"]).records}
    table = run(["fuse-log", "size"]).text

    assert [*sizes] == ["journal", "log", "sessions", "weights", "other"]
    assert sizes["log"]["count"] == 1
    assert sizes["journal"]["size_bytes"] > 0
    assert sizes["log"]["path"] in table


def test_nothing_goes_without_a_word_of_the_user(
    run: Run, keeping: dict[str, str], env: dict[str, str], tmp_path: Path
) -> None:
    run([*ASK, "Why?"], env=keeping)

    piped = run(["fuse-log", "clear", "log"])
    status, screen = typed(["fuse-log", "clear", "log"], env, tmp_path, "n\n")
    kept = listed(run)
    agreed, _ = typed(["fuse-log", "clear", "log"], env, tmp_path, "y\n")

    assert (piped.status, "1 day of the log: --yes removes it where nobody can be asked" in piped.err) == (2, True)
    assert (status, len(kept)) == (0, 1)
    assert "Remove 1 day of the log? [y/N]" in screen
    assert "nothing was removed" in screen
    assert (agreed, listed(run)) == (0, [])


def test_old_runs_and_calls_go_and_the_others_stay(run: Run, keeping: dict[str, str], tmp_path: Path) -> None:
    run([*ASK, "Why?"], env=keeping)
    log = tmp_path / "home" / "state" / "fusiontools" / "log"
    [today] = log.iterdir()
    (log / "2020-01-01.jsonl").write_bytes(today.read_bytes())

    pruned = run(["fuse-log", "prune", "--older", "30d", "--yes"])
    again = run(["fuse-log", "prune", "--older", "30d", "--yes"])

    assert (pruned.status, pruned.err) == (0, "fuse-log: 1 day of the log removed\n")
    assert (again.status, again.err) == (0, "fuse-log: there is nothing to remove\n")
    assert [*log.iterdir()] == [today]


def test_a_cleared_journal_makes_the_next_replay_buy(run: Run, keeping: dict[str, str]) -> None:
    run([*ASK, "Why?"], env=keeping)

    cleared = run(["fuse-log", "clear", "journal", "log", "-y"])
    offline = run([*ASK, "--offline", "Why?"])

    assert cleared.status == 0
    assert (
        "finished calls in the journal removed" in cleared.err or "finished call in the journal removed" in cleared.err
    )
    assert offline.status == 3
    assert listed(run) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prune"], "say from what age on: fuse-log prune --older 30d"),
        (["clear"], "say what: fuse-log clear journal log sessions weights"),
        (["clear", "jurnal"], "did you mean 'journal'?"),
        (["prune", "--older", "30d", "weights"], "knows journal, log, sessions"),
        (["--older", "30d"], "--older goes with `fuse-log prune`"),
        (["show"], "show what?"),
        (["show", "nothing"], "no run and no session begins so"),
        (["size", "log"], "says it of everything"),
    ],
)
def test_what_cannot_be_is_said(run: Run, words: list[str], said: str) -> None:
    result = run(["fuse-log", *words])

    assert (result.status, result.out) == (2, b"")
    assert said in result.err


def test_a_list_that_nobody_reads_to_its_end_is_no_error(run: Run, keeping: dict[str, str]) -> None:
    run([*ASK, "Why?"], env=keeping)

    result = run("fuse-log show $(fuse-log --json | head -1 | cut -d'\"' -f4) | head -c 5; echo ${PIPESTATUS[0]}")

    assert result.text.endswith("0\n")
    assert result.err == ""
