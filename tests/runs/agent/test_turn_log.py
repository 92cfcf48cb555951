"""Files that vanish under an agent, and disks without room: one error, and nothing that was paid for is lost."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from coding import CHECK, FINISH, MEND, Coding, calling, copies_of, sandbox_works

from fusiontools.errors import UsageError
from fusiontools.runs.session import sessions_dir

pytestmark = pytest.mark.skipif(not sandbox_works(), reason="no bubblewrap that works here")


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond this, as if its disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_without_room_for_the_session_a_turn_ends_in_one_error_and_goes_on_later(coding: Coding) -> None:
    (coding.root / "long.txt").write_text("a line of text\n" * 1000)
    read = ("read", {"path": "long.txt"})

    with files_of_at_most(20_000):
        broken = coding.turn(calling(MEND), calling(read), calling(FINISH))
    untouched = (coding.root / "app.py").read_text()
    session = coding.session
    [done] = coding.turns((None, [calling(FINISH)]), session=session)

    code = broken.record["code"]
    log = sessions_dir() / f"{session.id}.turn"
    assert (broken.outcome, code["summary"]) == ("broken", f"{log}: No space left on device")
    assert len(broken.record["calls"]) == len(coding.seen.runs[:2]) == 2
    assert [note.partition(";")[0] for note in code["notes"]] == [
        f"the session is not kept: {log.with_suffix('.jsonl')}: No space left on device"
    ]
    assert "a - b" in untouched
    assert done.outcome == "done"
    assert "a + b" in (coding.root / "app.py").read_text()
    assert len(done.record["calls"]) == 3
    assert not log.exists()


def test_without_room_for_its_record_a_turn_that_is_done_says_so_and_the_next_one_begins_anew(coding: Coding) -> None:
    def forbid(name: str) -> None:
        if name == "finish":
            (sessions_dir() / f"{coding.session.id}.jsonl").mkdir(exist_ok=True)

    coding.seen.on_begin = forbid
    first, second = coding.turns(("Mend it.", [calling(MEND), calling(FINISH)]), ("And now?", [calling(FINISH)]))

    assert (first.outcome, second.outcome) == ("done", "answered")
    assert "a + b" in (coding.root / "app.py").read_text()
    assert "the session is not kept: " in first.record["code"]["notes"][-1]
    assert [m["content"] for m in second.record["messages"] if m["role"] == "user"] == ["Mend it.", "And now?"]


@pytest.mark.parametrize("check", [None, CHECK])
def test_a_project_that_vanishes_gets_the_work_when_it_is_there_again(
    coding: Coding, tmp_path: Path, check: str | None
) -> None:
    coding.options["check"] = check
    coding.seen.on_begin = lambda name: name == "finish" and coding.root.rename(tmp_path / "elsewhere")

    first = coding.turn(calling(MEND), calling(FINISH))
    coding.seen.on_begin = None
    (tmp_path / "elsewhere").rename(coding.root)
    [second] = coding.turns((None, [calling(FINISH)]), session=coding.session)

    assert (first.outcome, first.record["code"]["notes"]) == (
        "unwritten",
        [f"{coding.root}: No such file or directory"],
    )
    assert second.outcome == "done"
    assert "a + b" in (coding.root / "app.py").read_text()


def test_a_copy_that_vanishes_ends_the_turn_in_one_error_and_a_new_one_is_made(coding: Coding) -> None:
    copies: list[Path] = []

    def vanish(name: str) -> None:
        if name == "finish":
            copies.extend(copies_of(coding.root))
            shutil.rmtree(copies[0])

    coding.seen.on_begin = vanish
    first = coding.turn(calling(MEND), calling(FINISH))
    coding.seen.on_begin = None
    [second] = coding.turns((None, [calling(MEND), calling(FINISH)]), session=coding.session)

    assert (first.outcome, first.record["code"]["summary"]) == (
        "broken",
        f"{copies[0]}/tree: No such file or directory",
    )
    assert second.outcome == "done"
    assert "the copy of the turn that was not finished is gone; it goes on with a new one" in coding.seen.texts


def test_without_room_for_the_copy_nothing_is_asked_and_nothing_is_left(coding: Coding) -> None:
    (coding.root / "long.txt").write_text("a line of text\n" * 1000)

    with files_of_at_most(10_000), pytest.raises(UsageError, match=r"the work cannot begin: .*/tree: File too large"):
        coding.turn(calling(MEND))

    assert coding.requests == []
    assert copies_of(coding.root) == []


def test_sessions_that_are_no_folder_are_said_to_be_none(coding: Coding) -> None:
    sessions_dir().parent.mkdir(parents=True)
    sessions_dir().write_text("not a folder")

    with pytest.raises(UsageError, match=r"session .*\.turn: cannot be read: Not a directory"):
        coding.turn(calling(MEND))
