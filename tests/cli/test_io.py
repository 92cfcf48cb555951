"""What comes in and leaves as bytes: encodings, long lines, closed streams, full disks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mistakes import JUDGE, PANEL, SYNTH, clear, needs_dev_full
from samples import judged, lines, question
from workdir import Run, Upstream

from fusiontools.cli.io import Sink


def test_a_bom_and_crlf_are_no_part_of_a_record(run: Run) -> None:
    dos = b"\xef\xbb\xbf" + lines([question("q1"), question("q2")]).replace(b"\n", b"\r\n")

    result = run(PANEL, dos)

    assert (result.status, clear(result)) == (0, "")
    assert [r["id"] for r in result.records] == ["q1", "q2"]


@pytest.mark.parametrize("form", ["--lines", "--text"])
def test_a_bom_and_crlf_are_no_part_of_a_question(form: str, run: Run) -> None:
    result = run([*PANEL, form], b"\xef\xbb\xbfWhy?\r\n")

    assert (result.status, clear(result)) == (0, "")
    assert [r["messages"] for r in result.records] == [[{"role": "user", "content": "Why?"}]]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"Why \xff?", "not UTF-8: byte 0xff at offset 4"),
        (
            "Why?".encode("utf-16"),
            "binary, not text: NUL byte at offset 3; if it is UTF-16: iconv -f UTF-16 -t UTF-8; nothing of it is asked",
        ),
        (b"\x7fELF\0\0", "binary, not text: NUL byte at offset 4; nothing of it is asked"),
    ],
    ids=["latin1", "utf16", "binary"],
)
def test_a_question_that_is_no_text_is_refused(data: bytes, reason: str, run: Run) -> None:
    result = run(PANEL, data)

    assert (result.status, result.out) == (3, b"")
    assert clear(result) == f"fuse-panel: stdin: {reason}\n"


def test_a_nul_that_json_escapes_goes_through(run: Run) -> None:
    result = run(PANEL, b'{"prompt": "a\\u0000b"}\n')

    assert (result.status, clear(result)) == (0, "")
    assert result.records[0]["messages"][0]["content"] == "a\0b"


def test_a_last_line_without_newline_counts(run: Run) -> None:
    result = run(PANEL, lines([question("q1"), question("q2")]).removesuffix(b"\n"))

    assert [r["id"] for r in result.records] == ["q1", "q2"]


@pytest.mark.parametrize("head", [b'{"prompt": "', b""], ids=["record", "text"])
def test_fifty_megabytes_on_one_line_are_refused_in_bounded_memory(head: bytes, run: Run) -> None:
    # The peak of the largest child, in KiB; on a Mac in bytes.
    measured = (
        "import resource, subprocess, sys; status = subprocess.call(sys.argv[1:]); "
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss; "
        "print(peak * (1 if sys.platform == 'darwin' else 1024), file=sys.stderr); sys.exit(status)"
    )
    long = head + b"x" * 50_000_000 + b"\n"

    result = run([sys.executable, "-c", measured, *PANEL], long + lines([question("q2")]))

    said, peak = result.err.splitlines()
    what = "stdin:1: the line" if head else "stdin: the question"
    assert said == f"fuse-panel: {what} is longer than 32 MiB (--max-line-mib)"
    assert int(peak) < 160e6
    assert (result.status, [r["id"] for r in result.records]) == ((1, ["q2"]) if head else (3, []))


def test_a_long_line_passes_where_the_limit_is_raised(run: Run) -> None:
    long = lines([question("q1", pad="x" * 40_000)])

    refused = run([*PANEL, "--max-line-mib", "0.03125"], long)
    taken = run([*PANEL, "--max-line-mib", "0.0625"], long)

    assert refused.status == 3
    assert clear(refused) == "fuse-panel: stdin:1: the line is longer than 0.03125 MiB (--max-line-mib)\n"
    assert taken.status == 0


def test_an_id_seen_before_is_warned_about_and_kept(run: Run) -> None:
    result = run(PANEL, lines([question("q1"), question("q2"), question("q1", other=True)]))

    assert result.status == 0
    assert [r["id"] for r in result.records] == ["q1", "q2", "q1"]
    assert clear(result) == "fuse-panel: stdin:3: warning: the id 'q1' was seen before, at stdin:1\n"


def test_a_closed_stdin_is_named(run: Run) -> None:
    result = run("fuse-panel -m fake/a <&-")

    assert (result.status, result.out) == (3, b"")
    assert clear(result) == "fuse-panel: stdin: cannot be read: Bad file descriptor\n"


@pytest.mark.parametrize("tool", [PANEL, JUDGE, SYNTH, ["fuse-cost"]], ids=lambda tool: tool[0])
def test_a_closed_stdout_is_named_and_nothing_is_written_elsewhere(tool: list[str], run: Run) -> None:
    stdin = lines([judged("q1")])

    result = run(f"{' '.join(tool)} >&-", stdin)

    assert result.status == 1
    assert clear(result).startswith(f"{tool[0]}: stdout: Bad file descriptor")
    assert run([*tool, *(["--replay"] if "-m" in tool else [])], stdin).status == 0


def test_a_closed_stderr_costs_no_record(run: Run) -> None:
    result = run(f"{' '.join(PANEL)} 2>&-", b"bad\n" + lines([question("q2")]).replace(b"\n", b" "))

    assert (result.status, result.err) == (0, "")
    assert len(result.records) == 1


@needs_dev_full
@pytest.mark.parametrize("tool", [PANEL, JUDGE, SYNTH], ids=lambda tool: tool[0])
def test_a_full_disk_at_stdout_is_named_and_nothing_is_lost(tool: list[str], run: Run, upstream: Upstream) -> None:
    stdin = lines([judged("q1")])
    full = run(f"{' '.join(tool)} > /dev/full", stdin)
    bought = upstream.stats()["requests"]

    again = run([*tool, "--replay"], stdin)

    assert full.status == 1
    said = "stdout: No space left on device; finished calls are in the journal: run again with --replay"
    assert clear(full) == f"{tool[0]}: {said}\n"
    assert (again.status, len(again.records)) == (0, 1)
    assert upstream.stats()["requests"] == bought


@needs_dev_full
def test_a_full_disk_under_the_sums_is_named(run: Run) -> None:
    result = run("fuse-cost > /dev/full", lines([judged()]))

    assert result.status == 1
    assert clear(result) == "fuse-cost: stdout: No space left on device\n"


@contextmanager
def output_to_a_pipe() -> Iterator[int]:
    """Have standard output be a pipe for a while; yields what is read from."""
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    try:
        yield reading
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(reading)


def test_what_finds_room_and_what_has_to_wait_for_it_leave_in_order_and_hold_nobody_up() -> None:
    async def work(reading: int) -> None:
        sink = Sink()
        for number in range(20):
            sink.put_nowait(b"%d\n" % number)
            assert os.read(reading, 100) == b"%d\n" % number
        pieces = [b"%06d\n" % number * (number % 997) for number in range(1_000)]
        for piece in pieces:
            sink.put_nowait(piece)  # returns, though nobody reads and the pipe is full
        finished = asyncio.create_task(asyncio.to_thread(sink.finish))
        expected, found = b"".join(pieces), b""
        while len(found) < len(expected):
            found += await asyncio.wait_for(asyncio.to_thread(os.read, reading, 5_000_000), 30)
        assert found == expected
        await finished

    with output_to_a_pipe() as reading:
        asyncio.run(work(reading))


def test_what_is_put_when_all_is_finished_is_not_written_in_part() -> None:
    async def work(reading: int) -> None:
        sink = Sink()
        await sink.put(b"a record\n")
        sink.finish()
        sink.put_nowait(b"another one\n" * 20_000)
        assert os.read(reading, 1_000_000) == b"a record\n"

    with output_to_a_pipe() as reading:
        asyncio.run(work(reading))


def test_a_reader_who_has_gone_is_found_out_by_what_is_put() -> None:
    async def work(reading: int) -> None:
        sink = Sink()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, reading)
        os.close(nothing)
        await sink.put(b"Anybody?\n")
        await asyncio.wait_for(sink.closed.wait(), 30)
        assert sink.failure is None

    with output_to_a_pipe() as reading:
        asyncio.run(work(reading))


def test_a_reader_that_is_behind_holds_up_who_writes_and_nothing_is_lost() -> None:
    reading, writing = os.pipe()
    kept = os.dup(1)
    os.dup2(writing, 1)
    os.close(writing)
    pieces = [bytes([number]) * 700_000 for number in range(4)]

    async def work() -> bytes:
        sink = Sink()
        putting = asyncio.create_task(put_all(sink))
        for _ in range(5):
            await asyncio.sleep(0.005)
        assert not putting.done()
        whole = asyncio.create_task(asyncio.to_thread(read_all))
        await asyncio.wait_for(putting, 30)
        await asyncio.to_thread(sink.finish)
        os.dup2(kept, 1)  # which ends what is read
        return await asyncio.wait_for(whole, 30)

    async def put_all(sink: Sink) -> None:
        for piece in pieces:
            await sink.put(piece)

    def read_all() -> bytes:
        with os.fdopen(reading, "rb") as file:
            return file.read()

    try:
        assert asyncio.run(work()) == b"".join(pieces)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
