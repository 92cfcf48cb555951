"""What is written down of a call."""

from __future__ import annotations

from calling import (
    BUSY,
    CUT,
    ENTRY,
    ask_once,
    attempts,
    steady,
)
from scripted import USAGE, Scripted, said

from fusiontools.llm.completion import Completion


def test_a_call_is_entered_with_its_slot_tokens_and_cost() -> None:
    completion, [call] = ask_once(Scripted(m=said("Paris.", "real/m")))

    assert completion == said("Paris.", "real/m")
    assert steady(call) == {
        **ENTRY, "model": "real/m", "usage": USAGE, "cost_usd": 0.001, "cost_source": "upstream",
        "status": "ok", "replayed": False,
    }  # fmt: skip
    assert call["latency_s"] >= 0


def test_a_backend_that_lets_calls_wait_says_itself_how_long_one_took() -> None:
    _, [call] = ask_once(Scripted(m=said("Paris.", latency_s=7.5)))

    assert call["latency_s"] == 7.5


def test_every_attempt_is_entered_whatever_becomes_of_it() -> None:
    completion, calls = ask_once(Scripted(m=[BUSY, CUT, "Paris."]))

    assert isinstance(completion, Completion)
    assert attempts(calls) == [(1, "rate_limited"), (2, "connection"), (3, "ok")]
