"""A text that nobody sees says nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusiontools.record.visible import is_visible

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
