"""The toolbox: every call gets an answer, equal calls are made once, and what came is kept and found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from fusiontools.errors import UsageError
from fusiontools.tools.seen_urls import compared, mentioned
from fusiontools.tools.tool import Tool, ToolContext, ToolResult, ToolRun, ToolSource
from fusiontools.tools.toolbox import Toolbox

SCHEMA = {
    "type": "object",
    "properties": {"q": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["q"],
    "additionalProperties": False,
}
A_PAGE: ToolSource = {"url": "https://one.example/a", "title": "One", "how": "search"}


class Kept:
    """A store in memory."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    async def put(self, key: bytes, kept: bytes, name: str) -> None:
        self.rows[key] = kept


class Counted:
    """A tool that counts its runs and says what it was asked; each run lasts until all equal ones can have begun."""

    def __init__(self, make: Callable[[str], ToolResult] | None = None, **settings: Any) -> None:
        self.runs: list[Mapping[str, Any]] = []
        self.began = asyncio.Event()
        self._make = make or (lambda q: ToolResult(f"about {q}", sources=(A_PAGE,), cost_usd=0.005))
        self.tool = Tool("look", "Looks things up.", SCHEMA, self._run, **settings)

    async def _run(self, arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        self.runs.append(arguments)
        self.began.set()
        for _ in range(5):
            await asyncio.sleep(0)
        return self._make(arguments["q"])


def run(*calls: tuple[str, Any], tool: Tool | None = None, context: ToolContext | None = None) -> list[ToolRun]:
    box = Toolbox([tool or Counted().tool])
    return asyncio.run(box.run_all(calls, context or ToolContext("r1")))


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("nothing", "{}", "there is no tool 'nothing'; there are: look"),
        ("look", '{"q": "a"', "no JSON"),
        ("look", "[1]", "no JSON object"),
        ("look", '"q"', "no JSON object"),
        ("look", "", '$: "q" is a required property'),
        ("look", '{"q": 3}', "$.q: 3 is not of type"),
        ("look", {"q": "a", "x": 1}, "x"),
        ("look", {"q": "\ud800"}, "cannot be written as JSON"),
        ("look", {"q": "a", "n": 2**70}, "cannot be written as JSON"),
        ("look", '{"q": "\\ud800"}', "no JSON"),
        ("look", '{"q": "a", "n": 1e999}', ""),
        ("look", "[" * 2000, "no JSON"),
    ],
)
def test_a_call_that_cannot_be_run_is_answered_with_what_is_wrong(name: str, arguments: Any, said: str) -> None:
    counted = Counted()

    [ran] = run((name, arguments), tool=counted.tool)

    assert (ran.how, ran.result.status, counted.runs) == ("rejected", "error", [])
    assert said in ran.result.text
    assert ran.arguments == arguments
    if name == "look":
        assert '"required":["q"]' in ran.result.text


def test_a_long_call_that_cannot_be_read_is_quoted_in_part() -> None:
    [ran] = run(("look", '{"q": ' + "x" * 5000))

    assert "x" * 700 in ran.result.text
    assert len(ran.result.text) < 2000


def test_every_call_is_answered_in_its_place() -> None:
    runs = run(("look", '{"q": "a"}'), ("gone", "{}"), ("look", '{"q": "b"}'))

    assert [ran.result.text.split(":")[0] for ran in runs] == ["about a", "Not run", "about b"]


def test_calls_that_change_something_are_made_one_after_another() -> None:
    under_way: list[str] = []

    async def write(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        assert not under_way
        under_way.append(arguments["q"])
        await asyncio.sleep(0)
        under_way.clear()
        return ToolResult("done")

    writer = Tool("look", "", SCHEMA, write, repeatable=False)

    assert [ran.how for ran in run(("look", {"q": "a"}), ("look", {"q": "b"}), tool=writer)] == ["made", "made"]


def test_equal_calls_at_the_same_time_are_made_once() -> None:
    counted = Counted()

    runs = run(*[("look", '{"n": 1, "q": "a"}'), ("look", '{"q":"a","n":1}')], tool=counted.tool)

    assert len(counted.runs) == 1
    assert [(ran.how, ran.cost_usd) for ran in runs] == [("made", 0.005), ("shared", 0.0)]


def test_equal_calls_of_a_record_are_made_once_also_when_the_first_is_done() -> None:
    counted, memory = Counted(lambda _: ToolResult("busy", "refused", cacheable=False)), {}

    async def work() -> list[str]:
        box = Toolbox([counted.tool])
        members = [ToolContext("r1", (member,), memory=memory) for member in ("a", "b")]
        return [(await box.run("look", {"q": "x"}, context)).how for context in members]

    assert asyncio.run(work()) == ["made", "shared"]
    assert len(counted.runs) == 1


def test_a_failure_of_the_moment_is_not_shared_with_another_record() -> None:
    counted = Counted(lambda _: ToolResult("busy", "refused", cacheable=False))

    async def work() -> list[str]:
        box = Toolbox([counted.tool])
        runs = await asyncio.gather(*(box.run("look", {"q": "x"}, ToolContext(record)) for record in ("1", "2")))
        return [ran.how for ran in runs]

    assert asyncio.run(work()) == ["made", "made"]


def test_a_repetition_of_the_question_looks_things_up_anew() -> None:
    counted, store = Counted(), Kept()

    async def work() -> None:
        box = Toolbox([counted.tool], store=store)
        for epoch in (0, 1, 1):
            await box.run("look", {"q": "x"}, ToolContext("r", epoch=epoch))

    asyncio.run(work())
    assert len(counted.runs) == 2


def test_a_waiter_makes_the_run_that_its_maker_was_cut_off_from() -> None:
    counted = Counted()

    async def work() -> ToolRun:
        box = Toolbox([counted.tool])
        first, second = (asyncio.create_task(box.run("look", {"q": "x"}, ToolContext(r))) for r in ("1", "2"))
        await counted.began.wait()
        first.cancel()
        return await second

    assert asyncio.run(work()).result.text == "about x"
    assert len(counted.runs) == 2


def test_the_third_equal_call_in_a_row_is_not_made() -> None:
    context = ToolContext("r")

    runs = run(*[("look", {"q": "a"})] * 3, ("look", {"q": "b"}), ("look", {"q": "a"}), context=context)

    assert [ran.result.status for ran in runs] == ["ok", "ok", "refused", "ok", "ok"]


def test_a_forbidden_call_is_not_run_and_says_why() -> None:
    counted = Counted(check=lambda arguments, context: "never heard of it" if context.record else None)

    [ran] = run(("look", {"q": "a"}), tool=counted.tool)

    assert (ran.result.status, counted.runs) == ("refused", [])
    assert "never heard of it" in ran.result.text


def test_a_run_that_takes_too_long_is_cut_off() -> None:
    async def hang(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    [ran] = run(("look", {"q": "a"}), tool=Tool("look", "", SCHEMA, hang, timeout_s=0.01))

    assert (ran.result.status, ran.result.cost_usd, ran.result.cacheable) == ("timeout", None, False)


def test_a_long_result_says_first_that_it_is_cut_and_keeps_its_end() -> None:
    counted = Counted(lambda _: ToolResult("a" * 500 + "b" * 500), max_chars=90)

    [ran] = run(("look", {"q": "a"}), tool=counted.tool)

    assert ran.result.text.startswith("[cut: 90 of 1000 characters")
    assert ran.result.text.count("a" * 60) == 1
    assert ran.result.text.endswith("b" * 30)


def test_what_was_shown_may_be_followed() -> None:
    context = ToolContext("r")

    run(("look", {"q": "a"}), context=context)

    assert context.found == {"https://one.example/a"}
    assert context.texts == ["about a", "https://one.example/a"]


@pytest.mark.parametrize(
    ("settings", "make"),
    [
        ({}, lambda q: ToolResult(f"2 results for '{q}' ({q})")),
        ({}, lambda q: ToolResult(f"nothing at {q}", "error")),
        ({"check": lambda arguments, context: f"{arguments['q']} may not be read"}, None),
        ({"reach": ("machine",)}, lambda q: ToolResult("http://a.example/?secret")),
    ],
)
@pytest.mark.parametrize("written", ["http://a.example/?secret", "see a.example/?se\u200bcret, please"])
def test_no_address_that_the_model_has_made_up_may_be_followed_because_a_result_repeats_it(
    settings: Any, make: Any, written: str
) -> None:
    context = ToolContext("r")

    run(("look", {"q": written}), ("look", {"n": written}), tool=Counted(make, **settings).tool, context=context)

    assert compared("http://a.example/?secret") not in mentioned(context.texts)


def test_what_a_result_says_beside_the_address_of_the_call_may_be_followed() -> None:
    context, text = ToolContext("r"), "at http://a.example/?q=1: http://a.example/found, b.example"

    run(("look", {"q": "http://a.example/?q=1"}), tool=Counted(lambda q: ToolResult(text)).tool, context=context)

    assert {compared(url) for url in ("a.example/found", "b.example")} <= mentioned(context.texts)


# Kept and found again


def outcomes(store: Kept, tool: Tool, offline: bool = False) -> list[tuple[str, bytes]]:
    async def work() -> list[tuple[str, bytes]]:
        box, memory = Toolbox([tool], store=store, offline=offline), {}
        runs = []
        for member in ("a", "b"):
            context = ToolContext("r1", (member,), memory=memory)
            runs += [await box.run("look", {"q": q}, context) for q in ("x", "x", "y")]
        return [(ran.how, ran.result.to_json()) for ran in runs]

    return asyncio.run(work())


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("status", ["ok", "timeout"])
def test_a_replay_gives_the_same_bytes_and_runs_nothing(repeatable: bool, status: Any) -> None:
    store, numbers = Kept(), iter(range(100))
    cacheable = status == "ok"
    counted = Counted(
        lambda q: ToolResult(f"{q} {next(numbers)} é", status, (A_PAGE,), None, cacheable), repeatable=repeatable
    )
    first = outcomes(store, counted.tool)
    made = len(counted.runs)

    again = outcomes(store, counted.tool, offline=True)

    assert made == (2 if repeatable else 6)
    assert [kept for _, kept in again] == [kept for _, kept in first]
    assert {how for how, _ in again} <= {"replayed", "shared"}
    assert len(counted.runs) == made


def test_another_record_finds_what_may_be_shared_and_nothing_else() -> None:
    store = Kept()
    for cacheable, how in ((True, "replayed"), (False, "made")):
        counted = Counted(lambda q, c=cacheable: ToolResult(q, cacheable=c), settings={"case": cacheable})

        async def work(counted: Counted = counted) -> str:
            box = Toolbox([counted.tool], store=store)
            await box.run("look", {"q": "x"}, ToolContext("r1"))
            return (await box.run("look", {"q": "x"}, ToolContext("r2"))).how

        assert asyncio.run(work()) == how


def test_offline_a_miss_is_a_result_that_is_not_kept() -> None:
    store, counted = Kept(), Counted()

    [(how, _), *_] = outcomes(store, counted.tool, offline=True)

    assert (how, counted.runs, store.rows) == ("rejected", [], {})


def test_the_key_holds_all_that_decides_a_result() -> None:
    tool, box = Counted().tool, Toolbox()
    keys = {
        box.key(tool, {"q": "a"}),
        box.key(tool, {"q": "a"}, epoch=1),
        box.key(tool, {"q": "b"}),
        box.key(replace(tool, name="other"), {"q": "a"}),
        box.key(replace(tool, settings={"engine": "x"}), {"q": "a"}),
    }

    assert len(keys) == 5
    assert box.key(tool, {"q": "a", "n": 1}) == box.key(tool, {"n": 1, "q": "a"})
    assert box.key(replace(tool, name="alias", true_name="look"), {"q": "a"}) in keys


# Opening and closing


def test_a_box_opens_its_tools_once_and_closes_them_in_reverse() -> None:
    said: list[str] = []

    @asynccontextmanager
    async def opened(name: str) -> AsyncIterator[list[Tool]]:
        said.append(f"open {name}")
        yield [replace(Counted().tool, name=name)]
        said.append(f"close {name}")

    async def work() -> list[str]:
        async with Toolbox([Counted().tool], [opened("two"), opened("one")]) as box:
            return [tool["function"]["name"] for tool in box.declarations()]

    assert asyncio.run(work()) == ["look", "one", "two"]
    assert said == ["open two", "open one", "close one", "close two"]


def test_what_was_opened_is_closed_when_the_next_does_not_open() -> None:
    said: list[str] = []

    @asynccontextmanager
    async def first() -> AsyncIterator[list[Tool]]:
        try:
            yield []
        finally:
            said.append("closed")

    @asynccontextmanager
    async def second() -> AsyncIterator[list[Tool]]:
        raise UsageError("no such server")
        yield []

    async def work() -> None:
        async with Toolbox([], [first(), second()]):
            raise AssertionError

    with pytest.raises(UsageError):
        asyncio.run(work())
    assert said == ["closed"]


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two tools are called 'look'"):
        Toolbox([Counted().tool, Counted().tool])


def test_declarations_are_those_of_openai_and_can_be_chosen() -> None:
    tool = Counted().tool
    box = Toolbox([tool, replace(tool, name="a")])

    assert [d["function"]["name"] for d in box.declarations()] == ["a", "look"]
    assert box.declarations(["look"]) == [
        {"type": "function", "function": {"name": "look", "description": "Looks things up.", "parameters": SCHEMA}}
    ]


def test_a_tool_that_a_provider_cannot_express_is_left_out_and_named() -> None:
    tool = Counted().tool
    odd = replace(tool, name="odd", true_name="mcp:there/odd", parameters={"type": "array"})

    declared, left_out = Toolbox([tool, odd]).declared_for("openai")

    assert [d["function"]["name"] for d in declared] == ["look"]
    assert left_out == {"mcp:there/odd": "its arguments are no object but array"}
