"""What an endpoint looked up by itself is read in every form in which it says so."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fusiontools.llm.reply_reader import ReplyReader, read_completion

NESTED = {"type": "url_citation", "url_citation": {"url": "https://a.example/1", "title": " One\n", "start_index": 0}}
FLAT = {"type": "url_citation", "url": "https://a.example/1", "title": "One"}


def body(message: dict[str, Any] | None = None, **beside: Any) -> bytes:
    whole = {"role": "assistant", "content": "So it is.", **(message or {})}
    return orjson.dumps({"model": "m", "choices": [{"message": whole, "finish_reason": "stop"}], **beside})


@pytest.mark.parametrize(
    "said",
    [
        body({"annotations": [NESTED]}),
        body({"annotations": [FLAT]}),
        body(citations=["https://a.example/1"]),
        body(search_results=[{"title": "One", "url": "https://a.example/1", "date": "2026-05-01"}]),
        body(search_results=[{"title": "One", "url": "https://a.example/1"}], citations=["https://a.example/1"]),
    ],
)
def test_every_form_of_a_citation_is_a_source(said: bytes) -> None:
    [source] = read_completion(said, "m").sources

    assert (source["url"], source["how"]) == ("https://a.example/1", "search")
    assert source.get("title", "One") == "One"


@pytest.mark.parametrize(
    "annotations", [None, [], {}, "x", [None, 1, {}, {"url_citation": 3}, {"url": 5}, {"url": "javascript:alert(1)"}]]
)
def test_what_is_no_citation_is_nothing(annotations: Any) -> None:
    assert list(read_completion(body({"annotations": annotations}), "m").sources) == []


def test_citations_of_a_stream_are_read_each_page_once() -> None:
    chunks: list[Any] = [
        {"choices": [{"delta": {"content": "So."}}]},
        {"choices": [{"delta": {"annotations": [NESTED]}}], "citations": ["https://a.example/1"]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ]
    reader = ReplyReader("m")
    for chunk in chunks:
        reader.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")

    assert [source["url"] for source in reader.finish().sources] == ["https://a.example/1"]
