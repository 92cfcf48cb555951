"""A panel that is asked on until it is sure what most say (`--until`)."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rounds import rounds_until_sure
from samples import question
from scripted import Scripted, model, open_door, said
from workdir import Run, Upstream

from fusiontools.config.models import Endpoint
from fusiontools.config.options import fixed
from fusiontools.config.stage_table import PanelOptions
from fusiontools.errors import CallFailed
from fusiontools.record.schemas import check_record
from fusiontools.record.types import Record
from fusiontools.stages.panel import panel
from fusiontools.stages.panel_plan import seat_first
from fusiontools.stages.runtime import Runtime

DOWN = CallFailed("upstream", "HTTP 400: no", status=400)
A, B, C = model("a"), model("b"), model("c")
OFTEN = {"members": (A,), "until": 0.95, "max_samples": 12}


def ask(backend: Scripted, record: Any = None, **options: Any) -> Record:
    async def work() -> Record:
        asked = PanelOptions(**{**OFTEN, **options})
        result = await panel(fixed(asked))(record or question(), Runtime(open_door(backend)))
        check_record(result)
        return result

    return asyncio.run(work())


def samples(record: Record) -> list[tuple[str, int]]:
    return [(each["member"], each["sample"]) for each in record["panel"]]


def test_four_that_agree_are_enough_and_the_others_are_spared() -> None:
    backend = Scripted(a="It is 42.")

    result = ask(backend)

    assert samples(result) == [("a", n) for n in range(4)]
    assert result["spared"] == [
        {"member": "a", "sample": n, "layer": 1, "model": "a", "endpoint": "there", "why": "until"}
        for n in range(4, 12)
    ]
    assert "degraded" not in result


@pytest.mark.parametrize(
    ("says", "asked"),
    [
        (["42", "41", "42", "42", "42", "42", "42", "41"], 7),
        (["42", "I do not know.", "42", "42", "42"], 5),
        (["42", DOWN, "42", "42", "42"], 5),
    ],
)
def test_it_asks_on_where_they_do_not_agree_abstain_or_fail(says: list[Any], asked: int) -> None:
    result = ask(Scripted(a=says))

    assert len(result["panel"]) == asked
    assert len(result["panel"]) + len(result["spared"]) == 12


@given(st.lists(st.sampled_from(["42", "41", "", "I do not know.", "yes"]), min_size=4, max_size=12), st.integers(1, 5))
def test_what_is_asked_and_what_is_spared_is_the_whole_plan(texts: list[str], at_once: int) -> None:
    steps = [said(text) if text else CallFailed("empty", "the reply is empty") for text in texts]
    options = {"agree": "number", "max_samples": len(texts), "at_once": at_once}

    result = ask(Scripted(a=[*steps, DOWN]), **options)

    if "error" not in result and not any("nobody answers" in note["detail"] for note in result.get("degraded", [])):
        keys = [text if text.isdigit() else None for text in texts]
        assert len(result["panel"]) == rounds_until_sure(keys, 0.95, at_once)[-1]
        assert len(result["panel"]) + len(result.get("spared", [])) == len(texts)
        assert ("spared" in result) + ("not_sure" in str(result.get("degraded"))) <= 1


def test_a_panel_that_never_agrees_is_asked_to_the_end_and_says_so() -> None:
    result = ask(Scripted(a=["1", "2"] * 6))

    assert len(result["panel"]) == 12
    assert "spared" not in result
    assert result["degraded"] == [
        {
            "stage": "panel",
            "code": "not_sure",
            "detail": "6 of 12 say the same, 6 the next: 50.0% sure, where 0.95 was asked for",
        }
    ]


def test_what_can_never_be_counted_is_never_sure() -> None:
    result = ask(Scripted(a="I do not know."), max_samples=6)

    assert [note["code"] for note in result["degraded"]] == ["not_sure"]
    assert "0 of 6 say the same" in result["degraded"][0]["detail"]


def test_a_dead_endpoint_is_not_asked_for_ever() -> None:
    dead = ask(backend := Scripted(a=DOWN), max_samples=1_000)
    half = ask(Scripted(a=["1", "2", "3", "1", DOWN]), max_samples=1_000)

    assert (dead["error"]["code"], len(backend.asked)) == ("all_failed", 4)
    assert "more were not asked, for nobody answers" in half["degraded"][-1]["detail"]
    assert "spared" not in half


def test_one_dead_member_of_several_costs_its_turns_and_no_more() -> None:
    result = ask(Scripted(a=DOWN, b="42"), members=(A, B))

    assert samples(result)[-1] == ("b", 3)
    assert len(result["panel"]) == 8


def test_members_take_turns_the_cheapest_first_and_those_without_a_price_last() -> None:
    def priced(name: str, usd: float) -> Any:
        return model(name, price_usd_per_mtok={"prompt": usd, "completion": usd})

    members = (A, priced("dear", 9), priced("cheap", 1))

    result = ask(Scripted(a="1", dear="2", cheap="3"), members=members, max_samples=7)

    assert samples(result) == [
        ("cheap", 0), ("dear", 0), ("a", 0), ("cheap", 1), ("dear", 1), ("a", 1), ("cheap", 2)
    ]  # fmt: skip


def test_without_a_most_each_member_is_asked_as_often_as_the_panel_says() -> None:
    result = ask(Scripted(a="1", b="2"), members=(model("a", samples=2), B), samples=2, max_samples=None)

    assert samples(result) == [("a", 0), ("a", 1), ("b", 0), ("a", 2), ("a", 3), ("b", 1)]


def together(count: int, *then: Any) -> list[Any]:
    """Return the steps of a model that answers the first so many only once all of them are asked."""
    gate = asyncio.Event()

    def open_gate(_: Any) -> str:
        gate.set()
        return "42"

    return [*[gate] * (count - 1), open_gate, *then]


@pytest.mark.parametrize(("at_once", "asked"), [(1, 4), (3, 4), (8, 8)])
def test_a_round_asks_at_once_for_as_many_as_are_needed_at_the_least_or_were_said(at_once: int, asked: int) -> None:
    assert len(ask(Scripted(a=together(asked, "42")), at_once=at_once)["panel"]) == asked


def test_a_round_is_waited_for_so_that_a_replay_decides_the_same() -> None:
    backend = Scripted(a=["42", "42", *together(2, "41", "42")])

    assert len(ask(backend)["panel"]) == 7
    assert backend.cancelled == []


def test_what_the_scouts_said_counts_and_where_they_agree_nobody_else_is_asked() -> None:
    differ, agree = ask(Scripted(a=["41", "42", "42"]), scout=2), ask(Scripted(a="42"), scout=2)

    assert len(differ["panel"]) == 7
    assert (len(agree["panel"]), {each["why"] for each in agree["spared"]}) == (2, {"scouts"})


def test_a_record_that_is_answered_alone_is_asked_once() -> None:
    route: Any = {"to": "solo", "reason": "short", "model": {"name": "x", "model": "x", "endpoint": "there"}}

    result = ask(Scripted(x="42"), question(route=route))

    assert samples(result) == [("x", 0)]
    assert "degraded" not in result


def test_baselines_are_asked_as_ever() -> None:
    result = ask(Scripted(a="42", b="1"), baselines=(model("b", samples=2),))

    assert [each["sample"] for each in result["baselines"]] == [0, 1]


def test_a_samples_temperature_goes_by_its_number_whatever_the_most_is() -> None:
    few, many = (
        [seat[1] for seat in seat_first(PanelOptions(members=(A,), until=0.95, max_samples=most), short=False).seats]
        for most in (5, 12)
    )
    own = seat_first(PanelOptions(members=(model("a", temperature=0),), until=0.95, max_samples=5), short=False).seats

    assert few == many[:5] == [0.7, 0.55, 0.85, 0.475, 0.775]
    assert own[0][1] == 0


def test_nothing_more_is_asked_once_the_record_is_cancelled() -> None:
    async def work() -> Scripted:
        reached = asyncio.Event()

        class Hanging(asyncio.Event):
            async def wait(self) -> Literal[True]:
                reached.set()
                return await super().wait()

        backend = Scripted(a=["1", "2", "3", "4", Hanging()])
        stage = panel(fixed(PanelOptions(**OFTEN)))  # type: ignore[arg-type]
        task = asyncio.create_task(stage(question(), Runtime(open_door(backend))))  # type: ignore[arg-type]
        await reached.wait()
        task.cancel()
        await asyncio.wait([task])
        return backend

    backend = asyncio.run(work())

    assert backend.in_flight == 0
    assert len(backend.cancelled) == len(backend.requests) - 4 > 0


def test_a_prompt_cache_is_warmed_once() -> None:
    async def work() -> Record:
        backend = Scripted(a=["1", "2", "1", "2", *together(6, "1")])
        stage = panel(fixed(PanelOptions(**OFTEN, prompt_cache=True)))  # type: ignore[arg-type]
        caching = Endpoint("there", "https://there.example/v1", api="anthropic")
        return await asyncio.wait_for(stage(question(), Runtime(open_door(backend, endpoint=caching))), 20)  # type: ignore[arg-type]

    assert len(asyncio.run(work())["panel"]) >= 10


# --- The tool ---


def test_a_replay_asks_the_same_and_buys_nothing(run: Run, upstream: Upstream) -> None:
    words = "fuse-panel -m 'fake/a+text=4' -m fake/b+text=5 --until 0.9 --max-samples 9 --journal j.db -q"
    first = run(words, "2+2?")
    bought = upstream.stats()["requests"]

    again = run(f"{words} --offline", "2+2?")
    longer = run(f"{words.replace('-samples 9', '-samples 11')} --replay", "2+2?")

    assert bought == len(first.records[0]["panel"]) == 9
    assert again.records[0]["panel"] == first.records[0]["panel"]
    assert again.records[0]["degraded"] == first.records[0]["degraded"]
    assert upstream.stats()["requests"] == len(longer.records[0]["panel"]) == 11


def test_what_is_spared_shows_in_the_costs(run: Run) -> None:
    result = run("fuse-panel -m fake/a+text=4 --until 0.95 --max-samples 24 | fuse-vote | fuse-cost", "2+2?")

    assert "20 calls spared" in result.err


@pytest.mark.parametrize(
    ("words", "calls"),
    [("--max-samples 24", 24), ("--samples 6", 6), ("--max-samples 24 --baseline fake/b", 25)],
)
def test_an_estimate_says_the_most(words: str, calls: int, run: Run, upstream: Upstream) -> None:
    result = run(f"fuse-cost --estimate --chain 'panel -m fake/a --until 0.95 {words} | vote' -o json", "2+2?")

    assert json.loads(result.out)["total"]["calls"] == calls
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--max-samples 5", "--max-samples goes with --until"),
        ("--at-once 5", "--at-once goes with --until"),
        (
            "--until 0.95",
            "--until 0.95 takes at least 4 responses, and this panel has 1: allow more with --max-samples",
        ),
        ("--until 0.95 --max-samples 9 --samples 2", "--samples contradicts --max-samples"),
        ("--until 0.95 --quorum 2", "--until contradicts --quorum"),
        ("--until 0.95 --stop-when-agreed", "--until contradicts --stop-when-agreed"),
        ("--until 0.95 --revise", "--until contradicts --revise"),
        ("--until 0.95 --max-samples 9 --agree-model fake/j", "--agree judge contradicts --until"),
        ("--until 0.4", "0.4"),
        ("--until 1", "1"),
    ],
)
def test_options_that_say_nothing_together_are_refused(options: str, said: str, run: Run, upstream: Upstream) -> None:
    result = run(f"fuse-panel -m fake/a {options}", "2+2?")

    assert (result.status, result.out) == (2, b"")
    assert said in result.err
    assert upstream.stats()["requests"] == 0
