"""What is kept of what a process says: all of it where it is short, else its beginning and its end."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fusiontools.tools.watch import Output

PIECES = st.lists(st.binary(max_size=60), max_size=20)


@given(PIECES)
def test_what_is_short_enough_is_kept_as_it_is(pieces: list[bytes]) -> None:
    output = Output(1_000, 1_000)
    for piece in pieces:
        output.add(piece)

    assert output.text() == b"".join(pieces).decode("utf-8", "replace")


@given(PIECES, st.integers(1, 30), st.integers(1, 30))
def test_no_more_is_kept_than_head_and_tail(pieces: list[bytes], head: int, tail: int) -> None:
    output = Output(head, tail)
    for piece in pieces:
        output.add(piece)

    whole = b"".join(pieces)
    assert output.size_bytes == len(whole)
    if len(whole) > head + tail:
        first, *_ = output.text().split("\n")
        assert first.endswith("lines are shown, the beginning and the end]")
        assert len(output.text()) < 200 + head + tail


def test_what_does_not_fit_is_written_whole_to_the_file(tmp_path: Path) -> None:
    output = Output(4, 5, tmp_path / "all", 100)
    for number in range(10):
        output.add(b"%d\n" % number)
    output.add(b"")
    output.close()

    assert (tmp_path / "all").read_text() == "".join(f"{number}\n" for number in range(10))
    assert output.text("all") == (
        "[4 of 10 lines are shown, the beginning and the end; the rest is in all]\n"
        "0\n1\n[… 12 bytes left out …]\n8\n9\n"
    )


def test_the_file_has_a_bound_too(tmp_path: Path) -> None:
    output = Output(1, 1, tmp_path / "all", 5)
    for _ in range(10):
        output.add(b"abc")
    output.close()

    assert (tmp_path / "all").stat().st_size <= 8


def test_what_is_short_writes_no_file(tmp_path: Path) -> None:
    output = Output(10, 10, tmp_path / "all", 100)
    output.add(b"short")
    output.close()

    assert list(tmp_path.iterdir()) == []
