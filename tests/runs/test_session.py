"""Sessions: what is kept of a conversation, who may write it, and what a killed process leaves."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fusiontools.errors import UsageError
from fusiontools.record import jsonl
from fusiontools.runs.session import CODE, Session, SessionInUse, list_sessions, new_session, open_session

#: Holds a session open until its input ends.
HOLDER = """
import sys
from pathlib import Path
from fusiontools.runs.session import open_session
with open_session(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def turn(session: Session, asked: str, said: str = "Yes.") -> Any:
    return {
        "id": session.next_id(),
        "messages": session.ask(asked),
        "answer": {"content": said, "by": "synth", "model": "m"},
    }


def kept(folder: Path, *questions: str, kind: str = "chat") -> Path:
    with new_session(kind, folder) as session:
        for question in questions:
            session.append(turn(session, question))
    return session.path


def test_a_turn_is_sent_with_all_that_was_said_before(tmp_path: Path) -> None:
    path = kept(tmp_path, "One?", "Two?")

    with open_session("", folder=tmp_path) as session:
        asked = session.ask("Three?")

    assert [(message["role"], message["content"]) for message in asked] == [
        *(("user", "One?"), ("assistant", "Yes."), ("user", "Two?"), ("assistant", "Yes."), ("user", "Three?")),
    ]
    assert [jsonl.loads(line)["id"] for line in path.read_bytes().splitlines()] == [f"{path.stem}-1", f"{path.stem}-2"]


def test_the_conversation_goes_on_from_the_last_answer(tmp_path: Path) -> None:
    with new_session(folder=tmp_path) as session:
        session.append(turn(session, "One?"))
        session.append(turn(session, "Two?", "No."))
        failed = turn(session, "Three?")
        del failed["answer"]
        failed["error"] = {"stage": "panel", "code": "all_failed", "message": "none"}
        session.append(failed)

    with open_session("", folder=tmp_path) as again:
        assert [m["content"] for m in again.ask("Four?")] == ["One?", "Yes.", "Two?", "No.", "Four?"]
        assert again.next_id().endswith("-4")


def test_a_record_cut_at_any_byte_costs_that_turn_only(tmp_path: Path) -> None:
    path = kept(tmp_path, "One?", "Two?")
    first, last = path.read_bytes().splitlines(keepends=True)

    for cut in range(len(last) + 1):
        path.write_bytes(first + last[:cut])
        with open_session(path.stem, folder=tmp_path) as session:
            session.append(turn(session, "Three?"))
        with open_session(path.stem, folder=tmp_path) as again:
            whole = cut >= len(last) - 1
            assert [r["messages"][-1]["content"] for r in again.records] == ["One?", *(["Two?"] * whole), "Three?"]
            assert again.warnings == []
        if 0 < cut < len(last) - 1:
            torn = path.with_suffix(".torn")
            assert torn.read_bytes() == last[:cut] + b"\n"
            assert [warning.startswith(f"{path}:2: the last turn is torn") for warning in session.warnings] == [True]
            torn.unlink()


def test_a_line_that_is_no_record_is_left_out_and_named(tmp_path: Path) -> None:
    path = kept(tmp_path, "One?", "Two?", "Three?")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"id": "x", "messages": 3}\n' + lines[2])

    with open_session(path.stem, folder=tmp_path) as session:
        assert [r["messages"][-1]["content"] for r in session.records] == ["One?", "Three?"]
        assert [warning.startswith(f"{path}:2: no record, left out: ") for warning in session.warnings] == [True]
        assert session.next_id().endswith("-4")


def test_a_session_belongs_to_one_process_until_that_ends(tmp_path: Path) -> None:
    path = kept(tmp_path, "One?")
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()

        with pytest.raises(SessionInUse, match=f"session {path.stem}: another process has it open"):
            open_session("", folder=tmp_path)
        looked_at = open_session("", folder=tmp_path, read_only=True)
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    assert len(looked_at.records) == 1
    open_session("", folder=tmp_path).close()


def test_a_fork_has_the_turns_and_goes_its_own_way(tmp_path: Path) -> None:
    path = kept(tmp_path, "One?")

    with open_session(str(path), read_only=True).fork() as forked:
        forked.append(turn(forked, "Two?"))

    assert len(path.read_bytes().splitlines()) == 1
    assert len(forked.path.read_bytes().splitlines()) == 2


def test_only_its_owner_reads_a_session(tmp_path: Path) -> None:
    path = kept(tmp_path / "state" / "sessions", "One?")

    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]


def test_a_session_without_a_turn_leaves_no_file(tmp_path: Path) -> None:
    with new_session(folder=tmp_path):
        pass

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="there is no session to go on with"):
        open_session("", folder=tmp_path)


def test_a_full_disk_leaves_whole_lines_and_the_conversation(tmp_path: Path) -> None:
    path = kept(tmp_path, "One?")
    size = path.stat().st_size
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    with open_session("", folder=tmp_path) as session:
        record = turn(session, "Two?")
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        try:
            with pytest.raises(OSError, match=f"{os.strerror(errno.ENOSPC)}|{os.strerror(errno.EFBIG)}"):
                session.append(record)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

        assert path.stat().st_size == size
        assert session.messages[-2]["content"] == "Two?"


def test_a_session_is_found_by_how_its_id_begins(tmp_path: Path) -> None:
    for name in ("chat-aa11", "chat-aa22", "code-bb11"):
        kept(tmp_path, name).rename(tmp_path / f"{name}.jsonl")

    assert open_session("aa2", folder=tmp_path, read_only=True).id == "chat-aa22"
    assert open_session("chat-aa1", folder=tmp_path, read_only=True).id == "chat-aa11"
    assert open_session("", (CODE,), tmp_path, read_only=True).id == "code-bb11"
    with pytest.raises(UsageError, match="session 'aa': 2 begin so: chat-aa11, chat-aa22"):
        open_session("aa", folder=tmp_path)
    with pytest.raises(UsageError, match=r"session 'And why[?]': .*; what is to be asked comes after `--`"):
        open_session("And why?", folder=tmp_path)
    with pytest.raises(UsageError, match=r"session 'bb': there is none that begins so; the latest is chat-aa22$"):
        open_session("bb", folder=tmp_path)
    with pytest.raises(UsageError, match=r"session .*none\.jsonl: cannot be opened: No such file"):
        open_session(str(tmp_path / "none.jsonl"))


def test_a_list_shows_the_latest_first_and_how_each_begins(tmp_path: Path) -> None:
    paths = [kept(tmp_path, "Which\nis \x1b[31mred\x1b[m?", "And?"), kept(tmp_path, "b" * 200, kind=CODE)]
    for path, at in zip(paths, (100, 50), strict=True):
        os.utime(path, (at, at))

    listed = list_sessions(folder=tmp_path)

    assert [(each.kind, each.turns, each.title) for each in listed] == [
        ("chat", 2, "Which is red?"),
        ("code", 1, "b" * 71 + "…"),
    ]
    assert [(each.id, each.path, each.modified) for each in listed] == [(p.stem, p, t) for p, t in zip(paths, (100, 50), strict=True)]  # fmt: skip  # noqa: E501
    assert list_sessions(folder=tmp_path / "nowhere") == []
