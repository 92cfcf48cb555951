"""What a tool's result is: cleaned, bounded, and the same bytes again."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fusiontools.tools.tool import ToolResult, ToolSource, bounded, known_names

TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("\x1b[]\x07\x9b\u200d\ud800\r\n")))


@given(
    TEXTS,
    st.sampled_from(["ok", "error", "blocked", "refused", "timeout"]),
    st.lists(TEXTS, max_size=3),
    st.one_of(st.none(), st.floats(0, 100)),
    st.booleans(),
)
def test_a_result_comes_back_from_its_bytes(
    text: str, status: Any, titles: list[str], cost_usd: float | None, cacheable: bool
) -> None:
    sources = tuple(ToolSource(url=f"https://a.example/{title}", title=title, how="search") for title in titles)
    result = ToolResult(text, status, sources, cost_usd, cacheable)

    again = ToolResult.from_json(result.to_json())

    assert again == result
    assert again.to_json() == result.to_json()
    assert again.digest == result.digest


def test_size_and_digest_are_those_of_the_text_that_the_model_is_shown() -> None:
    result = ToolResult("Gr\x1b[31müße")

    assert (result.text, result.size_bytes) == ("Grüße", 7)
    assert result.digest == hashlib.sha256("Grüße".encode()).hexdigest()


def test_a_source_is_one_line_of_what_can_be_seen() -> None:
    source: ToolSource = {"url": "https://a.example/", "title": "a\n \x1b[1mb\u202e", "how": "fetched"}

    assert ToolResult("", sources=(source,)).sources == ({**source, "title": "a b"},)


@given(st.text(max_size=300), st.integers(30, 200))
def test_a_text_that_is_cut_says_so_first_and_shows_no_more(text: str, limit: int) -> None:
    shown = bounded(text, limit)

    if len(text) <= limit:
        assert shown == text
    else:
        first, _, rest = shown.partition("\n")
        assert first.startswith(f"[cut: {limit} of {len(text)} characters")
        assert len(rest) < limit + 60
        assert rest.startswith(text[: limit // 3])
        assert rest.endswith(text[-(limit // 3) :])


def test_of_many_names_a_few_are_listed() -> None:
    assert known_names(["b", "a"]) == "a, b"
    assert known_names([f"t{number:02}" for number in range(25)]).endswith("t18, t19 and 5 more")
