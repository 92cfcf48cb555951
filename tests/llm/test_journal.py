"""The journal: what tells two calls apart, and what becomes of it when a process, a file or a disk gives out."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scripted import MESSAGES, USAGE, Scripted, model, open_door, said

from fusiontools.errors import UsageError
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.journal import Journal, count_before, default_path, forget_before, open_journal
from fusiontools.llm.journal_entry import request_key
from fusiontools.record.types import Message

REQUEST = CompletionRequest("there", "m", MESSAGES, {"temperature": 0.5, "max_tokens": 9}, sample=0)
WHERE = "https://there.example/v1"
KEY = request_key(REQUEST, WHERE)
ANSWER = said("Paris.")

#: Keeps answers for ever, and says the number of each that is safe.
WRITER = """
import asyncio, sys
from pathlib import Path
from fusiontools.llm.journal import Journal
from fusiontools.llm.journal_entry import request_key
from fusiontools.llm.completion import Completion, CompletionRequest

async def main(path, who, count):
    journal = Journal(Path(path))
    for i in range(int(count)):
        request = CompletionRequest("there", who, [{"role": "user", "content": str(i)}])
        await journal.put(request_key(request, ""), request, Completion("answer " * 50 + str(i), who), 0.5)
        if journal.broken:
            print("broken", journal.broken, flush=True)
            break
        print(i, flush=True)
    journal.close()

asyncio.run(main(*sys.argv[1:]))
"""


def keep(journal: Journal, completion: Completion = ANSWER, key: bytes = KEY, paid_usd: float | None = 0.25) -> None:
    asyncio.run(journal.put(key, REQUEST, completion, paid_usd))


def writer(path: Path, who: str, count: int, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), who, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def held(path: Path, who: str, number: int) -> str | None:
    journal = Journal(path)
    request = CompletionRequest("there", who, [{"role": "user", "content": str(number)}])
    found = journal.get(request_key(request, ""))
    journal.close()
    return found[0].content if found else None


# What tells calls apart


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n"},
        {"messages": [{"role": "user", "content": "Why not?"}]},
        {"messages": [{"role": "system", "content": "Why?"}]},
        {"messages": [*MESSAGES, *MESSAGES]},
        {"params": {"temperature": 0.5, "max_tokens": 8}},
        {"params": {"temperature": 0.5}},
        {"params": {"temperature": 0.5, "max_tokens": 9, "seed": 0}},
        {"sample": 1},
    ],
)
def test_whatever_decides_the_answer_decides_the_key(other: Any) -> None:
    assert request_key(replace(REQUEST, **other), WHERE) != KEY


def test_where_it_is_asked_decides_the_key_and_what_the_place_is_called_does_not() -> None:
    assert request_key(REQUEST, "https://elsewhere.example/v1") != KEY
    assert request_key(replace(REQUEST, endpoint="alias"), WHERE) == KEY


def test_the_mark_of_fences_decides_nothing_and_what_stands_between_them_does() -> None:
    def key(mark: str, text: str) -> bytes:
        fenced: list[Message] = [{"role": "user", "content": f"<<<A {mark}>>>\n{text}\n<<<END A {mark}>>>"}]
        return request_key(replace(REQUEST, messages=fenced, marks=(mark,)), WHERE)

    assert key("1" * 32, "x") == key("2" * 32, "x")
    assert key("1" * 32, "x") != key("1" * 32, "y")
    assert key("1" * 32, "2" * 32) != key("1" * 32, "3" * 32)


def test_how_sure_a_model_was_is_no_part_of_what_is_asked() -> None:
    assert request_key(replace(REQUEST, logprobs=True), WHERE) == KEY


def test_the_order_of_keys_decides_nothing() -> None:
    assert request_key(replace(REQUEST, params={"max_tokens": 9, "temperature": 0.5}), WHERE) == KEY


@given(st.tuples(*[st.text(max_size=4)] * 3), st.tuples(*[st.text(max_size=4)] * 3))
def test_no_two_requests_share_a_key_by_the_way_they_are_written_down(one: Any, other: Any) -> None:
    keys = [
        request_key(CompletionRequest("e", name, [{"role": "user", "content": text}]), where)
        for where, name, text in (one, other)
    ]

    assert (keys[0] == keys[1]) == (one == other)


# What is kept


@pytest.mark.parametrize(
    "completion",
    [
        ANSWER,
        said("", tool_calls=[{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
        said("x", reasoning="hm", mean_logprob=-0.25, lowest_window_logprob=-0.5, finish_reason="length"),
        said("x", usage=None, cost_usd=None),
        said("ünïcödé\0\n", cost_usd=0.0),
        said(
            "x",
            unmet="no JSON",
            sources=[{"url": "https://a/"}],
            native=[{"a": 1}],
            reasoning_details=[{"b": 2}],
            cost_usd=0.5,
        ),
    ],
)
def test_a_kept_call_comes_back_as_it_was(tmp_path: Path, completion: Completion) -> None:
    keep(journal := Journal(tmp_path / "j.db"), completion)

    assert journal.get(KEY) == (completion, 0.25)


def test_the_time_to_the_first_word_is_not_kept(tmp_path: Path) -> None:
    keep(journal := Journal(tmp_path / "j.db"), said("x", ttft_s=0.5))

    assert journal.get(KEY) == (said("x"), 0.25)


def test_an_unknown_price_stays_unknown(tmp_path: Path) -> None:
    keep(journal := Journal(tmp_path / "j.db"), paid_usd=None)

    assert journal.get(KEY) == (ANSWER, None)


def test_what_is_not_held_is_none(tmp_path: Path) -> None:
    assert Journal(tmp_path / "j.db").get(KEY) is None


def test_the_last_answer_to_a_request_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    for text in ("one", "two"):
        keep(journal, said(text))

    assert journal.get(KEY) == (said("two"), 0.25)


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    keep(Journal(tmp_path / "state" / "fusiontools" / "j.db"))

    files = list((tmp_path / "state" / "fusiontools").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state" / "fusiontools").stat().st_mode) == 0o700


def test_no_key_and_no_question_stands_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSION_API_KEY", "hunter2-hunter2")
    journal = Journal(tmp_path / "j.db")
    keep(journal)
    journal.close()

    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Paris." in content
    assert b"hunter2" not in content
    assert b"Why?" not in content


def test_the_place_is_the_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path() == tmp_path / "fusiontools" / "journal.db"

    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".local" / "state" / "fusiontools" / "journal.db"


# Processes


def test_what_is_said_to_be_safe_survives_a_kill(tmp_path: Path) -> None:
    with writer(tmp_path / "j.db", "w", 1_000_000) as process:
        safe = [int(process.stdout.readline()) for _ in range(50)][-1]  # type: ignore[union-attr]
        process.kill()

    assert process.returncode == -signal.SIGKILL
    assert all(held(tmp_path / "j.db", "w", number) for number in range(safe + 1))
    keep(Journal(tmp_path / "j.db"))


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    processes = [writer(tmp_path / "new" / "j.db", f"w{i}", 40) for i in range(4)]

    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    assert {output.split()[-1] for output in outputs} == {"39"}
    assert all(held(tmp_path / "new" / "j.db", f"w{i}", number) for i in range(4) for number in (0, 39))


def test_one_process_reads_what_another_one_keeps(tmp_path: Path) -> None:
    reader = Journal(tmp_path / "j.db")

    with writer(tmp_path / "j.db", "w", 1) as process:
        process.communicate(timeout=60)

    request = CompletionRequest("there", "w", [{"role": "user", "content": "0"}])
    assert reader.get(request_key(request, "")) is not None


# Files that are none


@pytest.mark.parametrize(
    "content", [b"hello, this is no database, as anyone can see" * 100, b"SQLite format 3\0" + b"x" * 4096]
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=r"^journal .*j\.db: cannot be written: "):
        Journal(path)

    assert path.read_bytes() == content


@pytest.mark.parametrize("place", [".", "file/j.db", "/proc/journal.db", "/dev/null/x.db"])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match=r": cannot be written: "):
        Journal(tmp_path / place)


def test_a_journal_whose_table_is_gone_is_made_anew(tmp_path: Path) -> None:
    journal = Journal(path := tmp_path / "j.db")
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE completion")

    assert journal.get(KEY) is None
    keep(journal)
    assert journal.get(KEY) == (ANSWER, 0.25)


def test_a_journal_with_the_table_of_earlier_versions_goes_on(tmp_path: Path) -> None:
    with closing(sqlite3.connect(path := tmp_path / "j.db")) as db:
        db.execute(
            "CREATE TABLE completion (key BLOB PRIMARY KEY, created_s REAL NOT NULL, endpoint TEXT NOT NULL, "
            "model TEXT NOT NULL, body BLOB NOT NULL) WITHOUT ROWID"
        )
    journal = Journal(path)

    keep(journal)
    keep(journal, said("Rome."))
    keep(journal, said("a long answer " * 500), key=(1).to_bytes(16))

    assert journal.get(KEY) == (said("Rome."), 0.25)
    journal.close()
    assert count_before(path, float("inf")) == 2


def test_a_journal_that_vanishes_before_the_first_answer_stops_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    journal = Journal(folder / "j.db")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

    asyncio.run(asyncio.wait_for(journal.put(KEY, REQUEST, ANSWER, None), 5))

    assert journal.broken
    journal.close()


#: Fills a disk of 60 kB, and goes on when there is room again.
FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from fusiontools.llm.journal import Journal
from fusiontools.llm.journal_entry import request_key
from fusiontools.llm.completion import Completion, CompletionRequest

def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(path, more):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    room(60_000)
    journal = Journal(Path(path), print)
    for i in range(300):
        if i == 290 and more == "more":
            room(resource.RLIM_INFINITY)
        request = CompletionRequest("there", "w", [{"role": "user", "content": str(i)}])
        key = request_key(request, "")
        await journal.put(key, request, Completion("answer " * 50 + str(i), "w"), 0.5)
        assert journal.broken or journal.get(key)
    journal.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("more", ["more", "none"])
def test_on_a_full_disk_calls_wait_in_memory_and_are_kept_once_there_is_room(tmp_path: Path, more: str) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(path := tmp_path / "j.db"), more]

    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (process.returncode, process.stderr) == (0, "")
    first, last = process.stdout.splitlines()
    assert first.startswith(f"warning: the journal {path} cannot be written: ")
    kept = [number for number in range(300) if held(path, "w", number)]
    if more == "more":
        assert "written again" in last
        assert kept == list(range(300))
    else:
        assert f"{300 - len(kept)} finished calls are not in the journal" in last
        assert kept == list(range(len(kept)))


def test_whoever_waits_for_a_commit_that_fails_unexpectedly_goes_on_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    journal = Journal(tmp_path / "j.db", told.append)

    def fail(*_: object) -> None:
        raise LookupError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "_keep", fail)
        asyncio.run(asyncio.wait_for(journal.put(KEY, REQUEST, ANSWER, 0.25), 30))
        assert journal.get(KEY) == (ANSWER, 0.25)
    journal.close()

    assert Journal(tmp_path / "j.db").get(KEY) == (ANSWER, 0.25)
    assert "LookupError: a bug" in told[0]


def _nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("request_", "completion"),
    [
        (replace(REQUEST, model="\udc80"), ANSWER),
        (REQUEST, replace(ANSWER, content="a \ud800")),
        (REQUEST, replace(ANSWER, native=[{"a": _nested(100_000)}])),
    ],
)
def test_a_call_that_cannot_be_kept_is_said_and_keeps_no_other_from_it(
    tmp_path: Path, request_: CompletionRequest, completion: Completion
) -> None:
    told: list[str] = []
    journal = Journal(tmp_path / "j.db", told.append)

    async def work() -> None:
        await asyncio.gather(
            journal.put((1).to_bytes(16), request_, completion, None), journal.put(KEY, REQUEST, ANSWER, 0.25)
        )

    asyncio.run(asyncio.wait_for(work(), 30))
    journal.close()

    assert [text.split(" in the journal")[0] for text in told] == ["warning: a finished call cannot be kept"]
    assert Journal(tmp_path / "j.db").get(KEY) == (ANSWER, 0.25)


def test_a_lock_is_said_soon_and_loses_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    journal = Journal(path := tmp_path / "j.db", told.append)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asyncio.run(asyncio.wait_for(journal.put(KEY, REQUEST, ANSWER, 0.25), 20))
        assert [text.split(": ")[0] for text in told] == ["warning"]
        assert journal.get(KEY) == (ANSWER, 0.25)
        other.execute("ROLLBACK")

    journal.close()

    assert len(told) == 2
    assert Journal(path).get(KEY) == (ANSWER, 0.25)


def test_while_another_process_writes_calls_wait_and_the_loop_goes_on(tmp_path: Path) -> None:
    told: list[str] = []
    journal = Journal(path := tmp_path / "j.db", told.append)

    async def work() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            put = asyncio.create_task(journal.put(KEY, REQUEST, ANSWER, 0.25))
            for _ in range(5):
                await asyncio.sleep(0.005)
            assert not put.done()
            other.execute("ROLLBACK")
        await asyncio.wait_for(put, 20)

    asyncio.run(work())

    assert told == []
    assert journal.get(KEY) == (ANSWER, 0.25)


def test_what_was_committed_is_moved_to_its_place_from_time_to_time(tmp_path: Path) -> None:
    journal = Journal(path := tmp_path / "j.db")
    long = said("a long answer " * 2000)
    count = 2500

    async def work() -> None:
        for number in range(count):
            await journal.put(number.to_bytes(16), REQUEST, long, None)

    asyncio.run(asyncio.wait_for(work(), 60))

    size = path.with_name("j.db-wal").stat().st_size
    assert size < count * len(long.content) / 2
    assert all(journal.get(number.to_bytes(16)) == (long, None) for number in range(count))
    journal.close()


def test_a_commit_that_was_given_up_is_made_all_the_same(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")

    async def work() -> None:
        put = asyncio.create_task(journal.put(KEY, REQUEST, ANSWER, 0.25))
        await asyncio.sleep(0)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put

    asyncio.run(work())
    journal.close()

    assert Journal(tmp_path / "j.db").get(KEY) == (ANSWER, 0.25)


def test_what_finishes_after_the_journal_was_closed_is_kept(tmp_path: Path) -> None:
    journal, later = Journal(tmp_path / "j.db"), (1).to_bytes(16)

    async def work() -> None:
        put = asyncio.create_task(journal.put(KEY, REQUEST, ANSWER, 0.25))
        await asyncio.sleep(0)
        await journal.aclose()
        await put
        await asyncio.wait_for(journal.put(later, REQUEST, ANSWER, 0.5), 30)

    asyncio.run(work())

    assert Journal(tmp_path / "j.db").get(later) == (ANSWER, 0.5)


def test_what_many_short_runs_keep_is_moved_to_its_place_while_a_long_one_has_the_file(tmp_path: Path) -> None:
    path, long = tmp_path / "j.db", said("a long answer " * 20_000)

    async def work() -> None:
        holder = Journal(path)
        await holder.put(KEY, REQUEST, ANSWER, None)
        for run in range(60):
            journal = Journal(path)
            for number in range(3):
                await journal.put(f"{run} {number}".encode(), REQUEST, long, None)
            journal.close()

    asyncio.run(asyncio.wait_for(work(), 60))

    # So soon that no commit must do it, which would hold up all calls until it is on the disk.
    assert path.with_name("j.db-wal").stat().st_size < 8 * 2**20


def test_short_runs_beside_a_long_one_do_not_each_move_what_is_moved_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = Journal._make_checkpoint
    monkeypatch.setattr(Journal, "_make_checkpoint", lambda journal: [made.append(1), make(journal)])
    path = tmp_path / "j.db"

    async def run(count: int, answer: Completion) -> None:
        journal = Journal(path)
        for number in range(count):
            await journal.put(f"{number}".encode(), REQUEST, answer, None)
        journal.close()

    holder = Journal(path)
    holder.get(KEY)
    asyncio.run(run(40, said("a long answer " * 20_000)))
    made.clear()
    for _ in range(20):
        asyncio.run(run(1, ANSWER))
    holder.close()

    assert len(made) <= 1


def test_a_loop_that_was_closed_under_its_calls_holds_up_no_later_one(tmp_path: Path) -> None:
    journal, first = Journal(tmp_path / "j.db"), asyncio.new_event_loop()
    given_up = journal.put(KEY, REQUEST, ANSWER, 0.25)
    task = first.create_task(given_up)
    first.call_soon(first.stop)
    first.run_forever()
    first.close()

    asyncio.run(asyncio.wait_for(journal.put((1).to_bytes(16), REQUEST, ANSWER, 0.5), 30))

    given_up.close()
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was left on purpose
    assert journal.get(KEY) == (ANSWER, 0.25)
    journal.close()


def test_a_journal_that_somebody_has_for_himself_is_written_later(tmp_path: Path) -> None:
    told: list[str] = []
    Journal(path := tmp_path / "j.db").close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        journal = Journal(path, told.append)
        assert journal.broken
        with pytest.raises(UsageError, match="cannot be read: somebody has locked it"):
            open_journal({"journal": str(path), "replay": True}, told.append)
    keep(journal)
    journal.close()

    assert Journal(path).get(KEY) == (ANSWER, 0.25)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"no JSON", b"[]", b"{}", b'{"content": 5, "model": "m"}'),
        b'{"content": "x", "model": "m", "usage": "y"}',
        b'{"content": "x", "model": "m", "native": %b}' % (b"[" * 200_000 + b"]" * 200_000),
        7,
    ],
)
def test_an_entry_that_cannot_be_read_is_one_that_is_missing_and_is_said(tmp_path: Path, body: bytes | int) -> None:
    told: list[str] = []
    journal = Journal(path := tmp_path / "j.db", told.append)
    other = request_key(replace(REQUEST, sample=1), WHERE)
    for key in (KEY, other):
        keep(journal, key=key)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE completion SET body = ? WHERE key = ?", (body, KEY))

    assert [journal.get(KEY), journal.get(KEY)] == [None, None]
    assert journal.get(other) == (ANSWER, 0.25)
    assert len(told) == 1
    assert "an entry that cannot be read" in told[0]


READER = """
import os, sys
from pathlib import Path
from fusiontools.llm.journal import open_journal
import fusiontools.llm.http
if os.geteuid() == 0:
    os.setuid(65534)
journal = open_journal({"journal": sys.argv[1], "offline": True}, print)
print(journal.get(bytes.fromhex(sys.argv[2]))[0].content)
journal.close()
"""


def test_a_journal_that_cannot_be_written_can_be_read_offline(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        keep(journal := Journal(path := Path(folder) / "j.db"))
        journal.close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)

        command = [sys.executable, "-c", READER, str(path), KEY.hex()]
        process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        Path(folder).chmod(0o700)

    assert (process.stdout, process.stderr) == ("Paris.\n", "")


def test_a_broken_journal_costs_no_answer(tmp_path: Path) -> None:
    opened = Journal(tmp_path / "j.db")
    for path in tmp_path.glob("j.db*"):
        path.unlink()
    (tmp_path / "j.db").mkdir()

    async def work(journal: Journal) -> str:
        client = open_door(Scripted(m="Paris."), journal=journal)
        asked = model()
        completion = await client.complete(client.request(asked, MESSAGES, {}), asked, client.ledger("panel", "1"))
        await client.aclose()
        return completion.content

    assert asyncio.run(work(opened)) == "Paris."
    assert USAGE["prompt_tokens"]


# What is forgotten


def test_old_calls_are_forgotten_in_the_file_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = Journal(path)
    for number in range(1200):
        keep(journal, key=number.to_bytes(16))
    journal.close()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE completion SET created_s = 5 WHERE key < ?", ((1000).to_bytes(16),))
    before = path.stat().st_size

    assert count_before(path, 10) == 1000
    assert forget_before(path, 10) == (1000, None)
    assert count_before(path, float("inf")) == 200
    assert path.stat().st_size < before / 2


def test_a_process_that_writes_goes_on_while_calls_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with writer(path, "w", 300) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        forgotten = sum(forget_before(path, float("inf"))[0] for _ in range(5))
        said_of_others = process.stdout.read().splitlines()

    assert said_of_others[-1] == "299"
    assert count_before(path, float("inf")) == 300 - forgotten


def test_a_file_that_is_no_journal_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_text("not a database, and longer than its header would be\n" * 20)

    for ask in (count_before, forget_before):
        with pytest.raises(UsageError, match=r"journal .*journal\.db: cannot be (read|written)"):
            ask(tmp_path / "journal.db", 1.0)
