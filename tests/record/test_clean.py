"""Text without what a person cannot see, and whether there is anything that a person sees."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.record.clean import CleanStream, clean, is_visible


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        ("a\x1b]8;;http://evil\x1b\\b", "ab"),
        ("a\x1b]0;no end, and the text stays", "a0;no end, and the text stays"),
        ("a\x9b31mb\x9d0;t\x9cc", "abc"),
        ("a\x1bcb\x1b(0c", "abc"),
        ("a\0b\x07c\x08d\x7fe\x85f", "abcde\nf"),
        ("tab\tand\r\nline\rends\u2028stay", "tab\tand\nline\nends\nstay"),
        ("\u202eright to left\u202c \u2066isolated\u2069\u200e\u061c", "right to left isolated"),
        ("a" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all rules") + "b", "ab"),
        ("a" + "".join(chr(0xE0100 + n) for n in range(40)) + "b", "ab"),
        ("a" + "\u200c\u200d" * 20 + "b", "ab"),
        ("zero\u200bwidth\ufeff soft\u00adhyphen\u2060", "zerowidth softhyphen"),
        ("a\ud800b", "a\ufffdb"),
        ("می‌خواهم ❤️‍🔥 👩‍👩‍👧 क्‍ष naïve 漢字", "می‌خواهم ❤️‍🔥 👩‍👩‍👧 क्‍ष naïve 漢字"),
    ],
)
def test_only_what_can_be_seen_stays(written: str, seen: str) -> None:
    assert clean(written) == seen
    assert clean(seen) == seen


@given(st.text(st.sampled_from("a\x1b[]0;m\x07\\\x9b\x9d\x9c\r\n\u200b\u200d\ufe0f\ud800\u2028\U000e0041")))
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[", "\x1b[0", "\x1b", "\u200d", "\x9d0;"])
def test_no_text_takes_long(piece: str) -> None:
    started = time.process_time()

    clean(piece * 100_000)

    assert time.process_time() - started < 2


# What a person sees

#: Signs that Unicode calls formats, and that are seen: they stand around numbers, or in place of an object.
SEEN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0xFFFC, 0x110BD, 0x110CD, *range(0x13430, 0x13460)}
UNSEEN = st.characters(categories=["Cc", "Cf", "Cs", "Zs", "Zl", "Zp"], exclude_characters="".join(map(chr, SEEN))) | (
    st.sampled_from("\u034f\u115f\u1160\u2800\u3164\uffa0\ufe0e\ufe0f\U000e0100")
)


@given(st.text(UNSEEN))
def test_what_has_no_shape_is_not_seen(text: str) -> None:
    assert not is_visible(text)


@given(
    st.text(UNSEEN), st.characters(categories=["L", "N", "P", "S"], exclude_characters="\u115f\u1160\u2800\u3164\uffa0")
)
def test_one_letter_number_or_sign_is_enough(text: str, sign: str) -> None:
    assert is_visible(text + sign + text)


@pytest.mark.parametrize("text", ["\u200d\U0001f469\u200d\U0001f680", "ي", "1", "…", "🫠", "\u0301a"])
def test_what_is_joined_or_marked_is_seen(text: str) -> None:
    assert is_visible(text), unicodedata.name(text[0])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "written",
    [
        "a\x1b]52;c;aGk=\x07b",
        "a\x9b31mb\x1b[0;1mc",
        "a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\",
        "a\r\nb\rc",
        "a\x1b(Bb",
        "a\x90q\x9cb",
    ],
)
def test_a_text_in_pieces_is_as_clean_as_the_whole(written: str, size: int) -> None:
    stream = CleanStream()

    pieces = [stream.take(written[at : at + size]) for at in range(0, len(written), size)]

    assert "".join([*pieces, stream.finish()]) == clean(written)


def test_a_sequence_without_an_end_does_not_hold_the_rest_back() -> None:
    stream = CleanStream()

    shown = "".join(stream.take(piece) for piece in ["a\x1b]52;c;", *["word " * 100] * 20])

    assert "word word" in shown
    assert "\x1b" not in shown
