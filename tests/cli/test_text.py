"""A record as a person reads it."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from graded import analysis
from workdir import Run

from fusiontools.cli.text import record_as_text

APART = [{"topic": "when", "stances": [{"model": "a", "stance": "1648"}, {"model": "b", "stance": "1658"}]}]


@pytest.mark.parametrize(
    ("found", "is_said"),
    [
        ({"agreement": 1.0}, True),
        ({"agreement": None}, False),
        ({"agreement": 1.0, "contradictions": APART, "judges": ["fake/judge"]}, False),
        ({"agreement": 0.5, "contradictions": APART, "judges": ["lexical"]}, True),
    ],
)
def test_an_agreement_is_said_where_code_can_tell_and_no_judge_contradicts(found: Any, is_said: bool) -> None:
    compared: Any = {"id": "q", "messages": [], "analysis": {**analysis([0, 1]), **found}}

    assert ("agreement: " in record_as_text(compared, verbose=False)) == is_said


def test_of_long_texts_that_code_cannot_compare_no_agreement_is_said(run: Run) -> None:
    text = "The parties of the long war met for four years before they signed the treaty, and all of them kept it."
    members = [f"fake/{name}+text={quote(said)}" for name, said in (("a", text), ("b", text.replace("four", "five")))]
    chain = f"panel -m {members[0]} -m {members[1]} | judge --method lexical | pick"

    shown = run(["fuse-ask", "-v", "--chain", chain, "Tell me of the peace."])

    assert (shown.status, "── analysis" in shown.text, "agreement: " in shown.text) == (0, True, False)
