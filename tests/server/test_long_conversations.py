"""Long conversations at the server: where the recipe says so, members see a summary and the last turns."""

from __future__ import annotations

from typing import Any

from serving import CHAT, asking
from workdir import Serve, Upstream

RECIPE = """
panel: [fake/a]
judge: {method: lexical}
synth: {method: copy}
compact: {model: fake/scribe+text=They talked., over_tokens: 400}
"""


def turns(count: int) -> list[Any]:
    said = [{"role": role, "content": f"{role} {n} " + "word " * 40} for n in range(count) for role in ("user", "assistant")]  # fmt: skip  # noqa: E501
    return said[:-1]


def test_a_long_conversation_is_made_shorter_and_the_summary_serves_the_next_turn(
    serve: Serve, upstream: Upstream
) -> None:
    server = serve(recipe=RECIPE)

    first = server.post(CHAT, asking(messages=turns(8)))
    second = server.post(CHAT, asking(messages=[*turns(8), {"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}]))  # fmt: skip  # noqa: E501

    assert (first.status_code, second.status_code) == (200, 200), first.text + second.text
    sent, sent_next = (body["messages"] for body in upstream.bodies("fake/a"))
    assert sent[0]["content"].startswith(
        "[Earlier in this conversation, summarised by fake/scribe+text=They talked.:]\nThey talked.\n"
    )
    assert sent[-1] == turns(8)[-1]
    assert sent_next[: len(sent)] == sent
    assert upstream.stats()["per_model"]["fake/scribe+text=They talked."] == 1


def test_a_short_one_is_sent_as_it_came(serve: Serve, upstream: Upstream) -> None:
    serve(recipe=RECIPE).post(CHAT, asking("Why?"))

    assert [body["messages"] for body in upstream.bodies()] == [[{"role": "user", "content": "Why?"}]]
