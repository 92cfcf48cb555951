"""Short ways to ask what a text votes for, and texts to ask about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from fusiontools.answers.keys import vote_keys

CAPITAL = "What is the capital of France?"
OPTIONS = "Which city is the capital of Australia?\nA) Sydney\nB) Canberra\nC) Perth"

PIECES_TEXT = r"""
Paris Lyon 42 1,000 -5 3-5 1/2 50% $5 km yes not B) (C) Answer: \boxed{ } \frac{1}{2} -\frac12 ** 北京 = x { "a": [1]
the is
"""
WORDS = st.sampled_from([*PIECES_TEXT.split(), "\n", "I don't know"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=8).map(" ".join))
KEYS = st.sampled_from(["auto", "number", "choice", "text", "json:$", "json:a[0]", "regex:\\w+"])


def key_of(text: str, key: str = "auto", question: str = "") -> str | None:
    return vote_keys([text], key, question)[1][0]


def voted(kind: str, *rows: tuple[str, str]) -> Any:
    return pytest.mark.parametrize(("text", "key"), [pytest.param(*row, id=f"{kind}-{row[0][:30]!r}") for row in rows])
