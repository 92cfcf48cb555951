"""The tools of `fuse-mcp`, asked by the official client over a connection in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from mcp import Client as McpClient
from scripted import ENDPOINT, HANG, Scripted, model, open_door
from stage_runs import DOWN, verdict

from fusiontools.cli import mcp
from fusiontools.config.recipe import Recipe
from fusiontools.config.stage_table import JudgeOptions, PanelOptions, SynthOptions
from fusiontools.llm.client import Client
from fusiontools.record import schemas
from fusiontools.runs.mcp_cards import RESULT_SCHEMA
from fusiontools.runs.mcp_server import OwnModels, PanelTools, result_text

Work = Callable[[McpClient, "Asked"], Coroutine[Any, Any, Any]]
FILES = [{"name": "a.py", "text": "x = 1"}]
ANSWERS = [{"name": "mine", "text": "Because."}, {"name": "yours", "text": "No."}]


def recipe(name: str = "usual", **more: Any) -> Recipe:
    stages = {
        "panel": PanelOptions(members=(model("a"), model("b"), model("c"))),
        "judge": JudgeOptions(models=(model("j"),)),
        "synth": SynthOptions(models=(model("s"),)),
    }
    return Recipe(name, stages=stages, endpoint="there", endpoints={"there": ENDPOINT}, **more)


class Asked:
    """What stands behind the tools: the scripted models, and what was reported."""

    def __init__(self, backend: Scripted, *, promises: bool = True) -> None:
        self.backend = backend
        self.reported: list[Exception] = []
        recipes = {"usual": recipe(description="The usual one."), "other": recipe("other")}
        self.models = OwnModels(recipes, lambda _: open_door(backend))
        self.tools = PanelTools(self.models, self.reported.append, promises=promises)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, for a second at most."""
        async with asyncio.timeout(1):
            while not holds():  # noqa: ASYNC110 - bounded
                await asyncio.sleep(0.005)


def with_tools(work: Work, backend: Scripted | None = None, **settings: Any) -> Any:
    """Return what work gives that is done with a client of the tools."""

    async def run() -> Any:
        asked = Asked(backend or Scripted(j=json.dumps(verdict()), s="So it is."), **settings)
        async with McpClient(asked.tools.server()) as client:
            try:
                return await work(client, asked)
            finally:
                await asked.tools.aclose()

    return asyncio.run(run())


def call(name: str, arguments: dict[str, Any], backend: Scripted | None = None) -> Any:
    async def work(client: McpClient, _: Asked) -> Any:
        return await client.call_tool(name, arguments)

    return with_tools(work, backend)


def text(result: Any) -> str:
    [block] = result.content
    return str(block.text)


def test_the_panel_answers_with_its_analysis_in_a_structure_and_in_words() -> None:
    result = call("fuse", {"question": "Why?"})

    said = result.structured_content
    assert not result.is_error
    assert (said["status"], said["answer"], said["recipe"]) == ("done", "So it is.", "usual")
    assert said["panel"] == [{"member": name, "status": "ok"} for name in "abc"]
    assert said["blind_spots"] == ["nothing on cost"]
    assert said["cost_usd"] == 0.005
    assert schemas.why_not(RESULT_SCHEMA, said) is None
    assert text(result) == result_text(said)
    assert text(result).startswith("So it is.\n---\nPanel (usual): a, b, c; ")
    assert "They contradict each other on size: " in text(result)


def test_files_come_as_texts_between_fences() -> None:
    backend = Scripted(j=json.dumps(verdict()))

    call("fuse", {"question": "Why?", "context": FILES}, backend)

    [asked] = [str(r.messages[-1]["content"]) for r in backend.requests if r.model == "a"]
    assert asked.startswith("Why?\n\n")
    assert "evidence:1 a.py\nx = 1\n<<<END EVIDENCE 1 " in asked


@pytest.mark.parametrize(
    ("name", "more", "first"),
    [
        ("second_opinion", {"answer": "Because."}, "the answer\nBecause."),
        ("compare", {"answers": ANSWERS}, "mine\nBecause."),
    ],
)
def test_answers_that_there_are_stand_before_other_texts(name: str, more: dict[str, Any], first: str) -> None:
    backend = Scripted(j=json.dumps(verdict()))

    call(name, {"question": "Why?", "context": FILES, **more}, backend)

    [asked] = [str(r.messages[-1]["content"]) for r in backend.requests if r.model == "b"]
    assert "Work the question out for yourself" in asked
    assert f"evidence:1 {first}" in asked
    assert asked.index(first) < asked.index("a.py\nx = 1")


def test_a_list_may_come_as_its_json() -> None:
    result = call("compare", {"question": "Why?", "answers": json.dumps(ANSWERS)})

    assert not result.is_error


def test_what_takes_long_gives_a_handle_by_which_it_is_collected() -> None:
    gate = asyncio.Event()

    async def work(client: McpClient, asked: Asked) -> Any:
        begun = await client.call_tool("fuse", {"question": "Why?", "wait_s": 0})
        handle = begun.structured_content["handle"]
        still = await client.call_tool("fuse_result", {"handle": handle, "wait_s": 0.01})
        gate.set()
        return begun, still, await client.call_tool("fuse_result", {"handle": handle})

    begun, still, done = with_tools(work, Scripted(a=[gate, "Late."], s="So it is."))

    assert begun.structured_content["status"] == still.structured_content["status"] == "running"
    assert begun.structured_content["handle"] in text(begun)
    assert done.structured_content["answer"] == "So it is."


def test_each_model_that_is_done_is_told_as_progress_to_who_asked_for_it() -> None:
    gate = asyncio.Event()
    heard: list[tuple[float, str | None]] = []

    async def hear(number: float, total: float | None, words: str | None) -> None:
        heard.append((number, words))
        if len(heard) == 2:
            gate.set()

    async def work(client: McpClient, asked: Asked) -> Any:
        return await client.call_tool("fuse", {"question": "Why?"}, progress_callback=hear)

    done = with_tools(work, Scripted(a=[gate, "A."], c=[DOWN], s="So it is."))

    assert done.structured_content["status"] == "done"
    assert sorted(heard[:2]) == [(1.0, "panel: b"), (2.0, "panel: c (auth)")]


def test_asking_again_leads_to_the_same_run_and_costs_nothing() -> None:
    async def work(client: McpClient, asked: Asked) -> Any:
        results = [await client.call_tool("fuse", {"question": "Why?"}) for _ in range(2)]
        return [r.structured_content for r in results], asked.backend.asked

    (first, second), asked = with_tools(work)

    assert sorted(asked) == ["a", "b", "c", "j", "s"]
    assert second == {**first, "cost_usd": 0.0}


def test_asking_anew_is_another_run() -> None:
    async def work(client: McpClient, asked: Asked) -> Any:
        await client.call_tool("fuse", {"question": "Why?"})
        await client.call_tool("fuse", {"question": "Why?", "fresh": True})
        return asked.backend.asked

    assert with_tools(work).count("a") == 2


def test_the_recipe_is_one_that_is_offered() -> None:
    named = call("fuse", {"question": "Why?", "recipe": "other"})
    strange = call("fuse", {"question": "Why?", "recipe": "/etc/passwd"})

    assert named.structured_content["recipe"] == "other"
    assert strange.is_error
    assert text(strange).startswith("$.recipe: ")


def test_a_call_that_is_taken_back_stops_the_members() -> None:
    backend = Scripted(a=HANG(), b=HANG(), c=HANG())

    async def work(client: McpClient, asked: Asked) -> Any:
        call = asyncio.create_task(client.call_tool("fuse", {"question": "Why?"}))
        await asked.until(lambda: backend.in_flight == 3)
        call.cancel()
        await asked.until(lambda: backend.in_flight == 0)
        return sorted(backend.cancelled)

    assert with_tools(work, backend) == ["a", "b", "c"]


def test_what_was_promised_by_a_handle_goes_on_when_a_call_is_taken_back() -> None:
    gate = asyncio.Event()

    async def work(client: McpClient, asked: Asked) -> Any:
        begun = await client.call_tool("fuse", {"question": "Why?", "wait_s": 0})
        arguments = {"handle": begun.structured_content["handle"]}
        call = asyncio.create_task(client.call_tool("fuse_result", arguments))
        await asked.until(lambda: asked.backend.in_flight == 3)
        call.cancel()
        gate.set()
        return await client.call_tool("fuse_result", arguments)

    assert (
        with_tools(work, Scripted(a=[gate, "A."], b=[gate, "B."], c=[gate, "C."])).structured_content["status"]
        == "done"
    )


def test_one_that_joined_is_served_when_the_other_call_is_taken_back() -> None:
    gate = asyncio.Event()

    async def work(client: McpClient, asked: Asked) -> Any:
        first, second = (asyncio.create_task(client.call_tool("fuse", {"question": "Why?"})) for _ in range(2))
        await asked.until(lambda: asked.backend.in_flight == 1)
        first.cancel()
        gate.set()
        return await second, asked.backend.asked.count("a")

    result, asked = with_tools(work, Scripted(a=[gate, "A."]))

    assert (result.structured_content["status"], asked) == ("done", 1)


def test_no_answer_is_an_error_in_words_and_is_tried_again() -> None:
    backend = Scripted(a=[DOWN, "A."], b=[DOWN, "B."], c=[DOWN, "C."])

    async def work(client: McpClient, asked: Asked) -> Any:
        return [await client.call_tool("fuse", {"question": "Why?"}) for _ in range(2)]

    failed, done = with_tools(work, backend)

    assert (failed.is_error, failed.structured_content) == (True, None)
    assert "all_failed" in text(failed)
    assert "HTTP 401: bad key" in text(failed)
    assert not done.is_error


def test_a_cost_limit_holds_for_all_recipes_together() -> None:
    priced = model("a", price_usd_per_mtok={"prompt": 1, "completion": 1})
    stages = {"panel": PanelOptions(members=(priced,), max_tokens=10), "synth": SynthOptions(method="copy")}
    endpoints = {ENDPOINT.name: ENDPOINT}
    recipes = {name: Recipe(name, chain="panel | synth", stages=stages, endpoints=endpoints) for name in ("one", "two")}
    opener = mcp._opener({}, {"max_cost_usd": 0.001}, {"no_journal": True})

    def opened(recipe: Recipe) -> Client:
        client: Client = opener(recipe)
        client.backends[ENDPOINT.name] = Scripted()
        return client

    tools = PanelTools(OwnModels(recipes, opened), print)

    async def work() -> Any:
        return [await tools.call("fuse", {"question": "Why?", "recipe": name}) for name in recipes]

    first, second = asyncio.run(work())

    assert not first.is_error
    assert second.is_error
    assert "budget" in text(second)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("fuse", {}, '"question" is a required property'),
        ("fuse", {"question": ""}, "$.question: "),
        ("fuse", {"question": " "}, "empty"),
        ("fuse", {"question": "Why?", "files": []}, "files"),
        ("fuse", {"question": "Why?", "context": [{"name": "a"}]}, "$.context[0]: "),
        ("fuse", {"question": "Why?", "wait_s": 1000}, "$.wait_s: "),
        ("fuse", {"question": "x" * 4_200_000}, "more than 4,194,304 characters"),
        ("compare", {"question": "Why?", "answers": ANSWERS[:1]}, "$.answers: "),
        ("fuse_result", {"handle": "0123"}, "no run '0123' is known"),
        ("fusee", {}, "did you mean 'fuse'?"),
    ],
)
def test_what_cannot_be_asked_is_said(name: str, arguments: dict[str, Any], says: str) -> None:
    result = call(name, arguments)

    assert (result.is_error, result.structured_content) == (True, None)
    assert says in text(result)


def test_a_bug_is_reported_here_and_not_told_there() -> None:
    async def work(client: McpClient, asked: Asked) -> Any:
        asked.models.recipes["usual"].stages["judge"] = None  # type: ignore[index]
        return await client.call_tool("fuse", {"question": "Why?"}), asked.reported

    result, reported = with_tools(work)

    assert len(reported) == 1
    assert text(result) == "a bug in fusiontools; the server's standard error says where"


def test_who_cannot_be_found_again_gives_no_handles() -> None:
    async def work(client: McpClient, asked: Asked) -> Any:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        return tools, await client.call_tool("fuse", {"question": "Why?"})

    tools, result = with_tools(work, promises=False)

    assert set(tools) == {"fuse", "second_opinion", "compare"}
    assert "wait_s" not in tools["fuse"].input_schema["properties"]
    assert "handle" not in result.structured_content


def test_the_tools_say_what_they_take() -> None:
    async def work(client: McpClient, asked: Asked) -> Any:
        return (await client.list_tools()).tools

    tools = with_tools(work)

    assert [tool.name for tool in tools] == ["fuse", "second_opinion", "compare", "fuse_result"]
    for tool in tools:
        assert tool.output_schema == RESULT_SCHEMA
        assert tool.input_schema["type"] == "object"
        assert tool.annotations is not None
    assert tools[0].input_schema["properties"]["recipe"]["enum"] == ["usual", "other"]
    assert "usual: The usual one." in tools[0].input_schema["properties"]["recipe"]["description"]
