"""What a request may change of a fusion: each override by whom it lets be asked how often; what is refused, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import CHAT, Server, asking, start_server
from workdir import Run, Serve, Upstream, hermetic

from fusiontools.record import schemas

PANEL = ["fake/a", "fake/b", "fake/c"]
ONCE = dict.fromkeys([*PANEL, "fake/judge", "fake/synth"], 1)
OTHERS = """
name: main
models:
  cheap: {model: fake/a}
panel: [cheap, fake/b, fake/c]
judge: fake/judge
synth: fake/synth
"""
PAIR = """
name: pair
panel: [fake/x, fake/y]
judge: fake/judge-of-pair
synth: fake/synth-of-pair
"""
DEBATE = """
panel: [fake/a, fake/b]
synth: fake/synth
chain: panel | panel --debate | synth
"""


@pytest.fixture(scope="module")
def open_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("open")
    (folder / "pair.yaml").write_text(PAIR)
    options = ("--allow-model", "fake/*", "--retries", "0", "--recipe", "pair.yaml", "--recipe", "quality")
    with start_server(folder, hermetic(upstream_process, folder), *options) as server:
        yield server


@pytest.fixture
def open_server(upstream: Upstream, open_process: Server) -> Server:
    """A server whose clients may name any fake model; it offers its own recipe, `pair` and `quality`."""
    return open_process


def asked(server: Server, upstream: Upstream, **more: Any) -> dict[str, int]:
    """Ask, and return who was asked how often."""
    reply = server.chat(**more)
    assert reply.status_code == 200, reply.text
    per_model: dict[str, int] = upstream.stats()["per_model"]
    return per_model


def fusion_of(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 200, reply.text
    block: dict[str, Any] = reply.json()["fusion"]
    return block


def refusal_of(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    return error


# --- Who is asked ---


def test_a_request_without_overrides_is_the_recipe(open_server: Server, upstream: Upstream) -> None:
    assert asked(open_server, upstream, fusion={}) == ONCE


def test_the_members_may_be_named(open_server: Server, upstream: Upstream) -> None:
    per_model = asked(open_server, upstream, fusion={"panel": ["fake/b", "fake/d"]})

    assert per_model == {"fake/b": 1, "fake/d": 1, "fake/judge": 1, "fake/synth": 1}


def test_a_member_may_sit_on_several_seats(open_server: Server, upstream: Upstream) -> None:
    per_model = asked(open_server, upstream, fusion={"panel": ["fake/a*3"]})

    assert per_model == {"fake/a": 3, "fake/judge": 1, "fake/synth": 1}


def test_a_member_of_the_recipe_keeps_its_settings(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=OTHERS)

    per_model = asked(server, upstream, fusion={"panel": ["cheap", "fake/b"]})

    assert per_model == {"fake/a": 1, "fake/b": 1, "fake/judge": 1, "fake/synth": 1}


def test_every_member_may_be_asked_several_times(open_server: Server, upstream: Upstream) -> None:
    assert asked(open_server, upstream, fusion={"samples": 2}) == ONCE | dict.fromkeys(PANEL, 2)


def test_a_request_may_be_asked_on_until_it_is_sure(open_server: Server, upstream: Upstream) -> None:
    fusion = {"panel": ["fake/a+text=4"], "chain": "panel | vote", "until": 0.95, "max_samples": 24.0}

    reply = open_server.chat(fusion=fusion)

    assert fusion_of(reply)["chain"] == "panel -m fake/a+text=4 --until 0.95 --max-samples 24 | vote"
    assert upstream.stats()["requests"] == 4


def test_another_judge_may_be_named(open_server: Server, upstream: Upstream) -> None:
    per_model = asked(open_server, upstream, fusion={"judge": "fake/judge2"})

    assert per_model == {**dict.fromkeys(PANEL, 1), "fake/judge2": 1, "fake/synth": 1}


def test_several_judges_make_a_panel_of_judges(open_server: Server, upstream: Upstream) -> None:
    block = fusion_of(open_server.chat(fusion={"judge": ["fake/judge", "fake/judge2"], "include": ["analysis"]}))

    assert block["analysis"]["judges"] == ["fake/judge", "fake/judge2"]
    assert upstream.stats()["per_model"] == ONCE | {"fake/judge2": 1}


def test_a_judge_that_is_named_is_asked_also_where_the_recipe_compares_by_code(
    serve: Serve, upstream: Upstream
) -> None:
    recipe = "\npanel: [fake/a, fake/b]\njudge: {method: lexical}\nsynth: fake/synth\n"
    server = serve("--allow-model", "fake/*", recipe=recipe)

    per_model = asked(server, upstream, fusion={"judge": "fake/judge"})

    assert per_model == {"fake/a": 1, "fake/b": 1, "fake/judge": 1, "fake/synth": 1}


def test_another_synthesizer_may_be_named(open_server: Server, upstream: Upstream) -> None:
    block = fusion_of(open_server.chat(fusion={"synth": "fake/d"}))

    assert (block["by"], block["model"]) == ("synth", "fake/d")
    assert upstream.stats()["per_model"] == {**dict.fromkeys([*PANEL, "fake/judge"], 1), "fake/d": 1}


def test_who_writes_writes_every_pass(serve: Serve, upstream: Upstream) -> None:
    server = serve("--allow-model", "fake/*", "--chain", "panel | synth | synth --refine")

    assert asked(server, upstream, fusion={"synth": "fake/d"}) == {**dict.fromkeys(PANEL, 1), "fake/d": 2}


def test_a_model_may_have_several_parts(open_server: Server, upstream: Upstream) -> None:
    per_model = asked(
        open_server, upstream, fusion={"panel": ["fake/a", "fake/b"], "judge": "fake/judge", "synth": "fake/a"}
    )

    assert per_model == {"fake/a": 2, "fake/b": 1, "fake/judge": 1}


# --- What is done ---


def test_another_recipe_may_be_chosen_by_name(open_server: Server, upstream: Upstream) -> None:
    block = fusion_of(open_server.chat(fusion={"recipe": "pair"}))

    assert block["recipe"] == "pair"
    assert upstream.stats()["per_model"] == dict.fromkeys(
        ["fake/x", "fake/y", "fake/judge-of-pair", "fake/synth-of-pair"], 1
    )


def test_a_recipe_that_is_chosen_wins_over_the_models_name(open_server: Server) -> None:
    block = fusion_of(open_server.chat(model="fusion/recipe", fusion={"recipe": "pair"}))

    assert block["recipe"] == "pair"


def test_a_recipe_may_be_chosen_and_changed_at_once(open_server: Server, upstream: Upstream) -> None:
    per_model = asked(open_server, upstream, model="fusion/pair", fusion={"panel": ["fake/a", "fake/b"]})

    assert per_model == dict.fromkeys(["fake/a", "fake/b", "fake/judge-of-pair", "fake/synth-of-pair"], 1)


@pytest.mark.parametrize(
    ("chain", "extra", "by"),
    [
        ("panel | vote", {}, "vote"),
        ("panel | judge | pick", {"fake/judge": 1}, "pick"),
        ("panel | pick", {"fake/judge": 1}, "pick"),
        ("panel | synth", {"fake/synth": 1}, "synth"),
        ("panel | judge | synth --refine", {"fake/judge": 1, "fake/synth": 2}, "synth"),
        ("panel | panel --revise | synth --method copy", {"fake/a": 2, "fake/b": 2, "fake/c": 2}, "panel"),
        ("panel --samples 2 | vote", {"fake/a": 2, "fake/b": 2, "fake/c": 2}, "vote"),
        ("fuse-panel -m fake/a -m fake/b | fuse-synth -m fake/d", {"fake/c": 0, "fake/d": 1}, "synth"),
    ],
)
def test_the_chain_may_be_written_anew(
    open_server: Server, upstream: Upstream, chain: str, extra: dict[str, int], by: str
) -> None:
    block = fusion_of(open_server.chat(fusion={"chain": chain}))

    assert block["chain"] == chain.replace("fuse-", "")
    assert block["by"] == by
    expected = {model: count for model, count in (dict.fromkeys(PANEL, 1) | extra).items() if count}
    assert upstream.stats()["per_model"] == expected


def test_other_overrides_hold_in_a_chain_that_is_written_anew(open_server: Server, upstream: Upstream) -> None:
    block = fusion_of(open_server.chat(fusion={"chain": "panel -m fake/x | vote", "panel": ["fake/a", "fake/b"]}))

    assert block["chain"] == "panel -m fake/a -m fake/b | vote"
    assert upstream.stats()["per_model"] == {"fake/a": 1, "fake/b": 1}


@pytest.mark.parametrize(
    ("fusion", "ran"),
    [
        ({"layers": 2, "samples": 2}, "panel --samples 2 | panel --revise | judge | synth"),
        ({"refine": True, "guard": False}, "panel | judge | synth --refine --no-guard"),
        ({"judge": ["fake/x", "fake/y"], "guard": True}, "panel | judge -m fake/x -m fake/y | synth --guard"),
        ({"claims": True, "min_support": 2}, "panel | judge --claims | synth --min-support 2"),
        ({"panel": ["fake/a*2"], "synth": "fake/z"}, "panel -m fake/a*2 | judge | synth -m fake/z"),
    ],
)
def test_the_chain_that_is_said_is_the_one_that_ran_and_may_be_written_as_one(
    open_server: Server, upstream: Upstream, fusion: dict[str, Any], ran: str
) -> None:
    first = fusion_of(open_server.chat(fusion=fusion))
    asked_first = upstream.stats()["per_model"]
    upstream.reset()
    second = fusion_of(open_server.chat(fusion={"chain": first["chain"]}))

    assert (first["chain"], second["chain"]) == (ran, ran)
    assert upstream.stats()["per_model"] == asked_first


def test_one_model_asked_by_name_says_its_chain_too(open_server: Server) -> None:
    body = open_server.post("/fuse", {"prompt": "Why?", "model": "fake/a"}).json()
    shown = fusion_of(open_server.post("/v1/responses", {"model": "fake/a", "input": "Why?"}))

    assert (len(body["panel"]), shown["chain"]) == (1, "panel -m fake/a | synth --method copy")


@pytest.mark.parametrize(("layers", "times"), [(1, 1), (2, 2), (3, 3)])
def test_every_member_answers_in_every_layer(open_server: Server, upstream: Upstream, layers: int, times: int) -> None:
    block = fusion_of(open_server.chat(fusion={"layers": layers, "panel": ["fake/a", "fake/b"]}))

    assert {seat["layer"] for seat in block["panel"]} == {layers}
    assert upstream.stats()["per_model"] == {"fake/a": times, "fake/b": times, "fake/judge": 1, "fake/synth": 1}


def test_a_debate_stays_a_debate_with_more_layers(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=DEBATE)

    server.chat(fusion={"layers": 3})

    later = [str(body["messages"]) for body in upstream.bodies("fake/a")[1:]]
    assert len(later) == 2
    assert all("YOUR RESPONSE" in said for said in later)


def test_a_panel_may_have_fewer_layers_than_the_recipes(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=DEBATE)

    assert asked(server, upstream, fusion={"layers": 1}) == {"fake/a": 1, "fake/b": 1, "fake/synth": 1}


def test_the_answer_may_be_refined(open_server: Server, upstream: Upstream) -> None:
    assert asked(open_server, upstream, fusion={"refine": True}) == ONCE | {"fake/synth": 2}


def test_the_answer_may_be_guarded(open_server: Server, upstream: Upstream) -> None:
    assert asked(open_server, upstream, fusion={"guard": True}) == ONCE | {"fake/judge": 3}


@pytest.mark.parametrize("name", ["refine", "guard"])
def test_what_the_recipe_does_may_be_left_out(serve: Serve, upstream: Upstream, name: str) -> None:
    server = serve("--chain", f"panel | judge | synth --{name}")

    assert asked(server, upstream, fusion={name: False}) == ONCE


def test_false_is_harmless_where_nothing_is_written(open_server: Server, upstream: Upstream) -> None:
    per_model = asked(open_server, upstream, fusion={"chain": "panel | vote", "refine": False, "guard": False})

    assert per_model == dict.fromkeys(PANEL, 1)


def test_null_says_nothing(open_server: Server, upstream: Upstream) -> None:
    everything = dict.fromkeys(schemas.load("fusion")["properties"])

    assert asked(open_server, upstream, fusion=everything, plugins=None) == ONCE


# --- Money ---

PRICED = """
models:
  a: {model: fake/a, price_usd_per_mtok: {prompt: 1, completion: 1}}
  b: {model: fake/b, price_usd_per_mtok: {prompt: 1, completion: 1}}
  w: {model: fake/synth, price_usd_per_mtok: {prompt: 1, completion: 1}}
panel: {members: [a, b], max_tokens: 100}
synth: {model: w, max_tokens: 100}
chain: panel | synth
"""


def test_a_request_may_bound_what_it_costs(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=PRICED)

    error = refusal_of(server.chat(fusion={"max_cost_usd": 0.00001}), 402)

    assert (error["type"], error["code"]) == ("insufficient_quota", "budget")
    assert upstream.stats()["requests"] == 0


def test_a_request_that_is_bounded_loosely_is_answered(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=PRICED)

    assert asked(server, upstream, fusion={"max_cost_usd": 1}) == {"fake/a": 1, "fake/b": 1, "fake/synth": 1}


def test_a_request_that_runs_out_of_money_is_answered_with_what_was_bought(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=PRICED)

    block = fusion_of(server.chat("Why?" * 20, fusion={"max_cost_usd": 0.0025}))

    assert block["by"] == "panel"
    assert [note["code"] for note in block["degraded"]] == ["synth_failed"]
    assert "fake/synth" not in upstream.stats()["per_model"]


def test_a_client_may_not_lift_the_servers_own_bound(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-request-cost-usd", "0.00001", recipe=PRICED)

    refusal_of(server.chat(fusion={"max_cost_usd": 100}), 402)

    assert upstream.stats()["requests"] == 0


def test_a_request_for_one_model_alone_may_bound_what_it_costs_too(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=PRICED)

    error = refusal_of(server.chat(model="a", fusion={"max_cost_usd": 0.00001}), 402)

    assert error["code"] == "budget"
    assert upstream.stats()["requests"] == 0


def test_a_price_that_nobody_knows_cannot_be_bounded(open_server: Server, upstream: Upstream) -> None:
    error = refusal_of(open_server.chat(fusion={"max_cost_usd": 1}), 402)

    assert error["code"] == "price_unknown"
    assert upstream.stats()["requests"] == 0


# --- What is said besides the answer ---


def test_events_are_chunks_for_who_asked_for_them(open_server: Server) -> None:
    stream = open_server.chat_stream(fusion={"events": True})

    told = [chunk["fusion"] for chunk in stream.events[:-1] if "fusion" in chunk]
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in stream.events)
    assert all(chunk["choices"][0]["delta"] == {} for chunk in stream.events[:-1] if "fusion" in chunk)
    begun = [(event["stage"], event["model"]) for event in told if event["type"] == "call.began"]
    done = [(event["stage"], event["model"]) for event in told if event["type"] == "call.done"]
    seats = [*(("panel", member) for member in PANEL), ("judge", "fake/judge"), ("synth", "fake/synth")]
    assert sorted(begun) == sorted(done) == sorted(seats)
    assert all(event["cost_usd"] == 0.001 for event in told if event["type"] == "call.done")


def test_an_event_says_why_a_call_failed(open_server: Server) -> None:
    stream = open_server.chat_stream(fusion={"events": True, "panel": ["fake/a", "fake/b", "fake/c+empty"]})

    [failed] = [c["fusion"] for c in stream.events if c.get("fusion", {}).get("type") == "call.failed"]
    assert (failed["stage"], failed["model"], failed["error"]) == ("panel", "fake/c+empty", "empty")


@pytest.mark.parametrize("fusion", [{}, {"events": False}])
def test_nobody_else_hears_of_events(open_server: Server, fusion: dict[str, Any]) -> None:
    stream = open_server.chat_stream(fusion=fusion)

    assert not [chunk for chunk in stream.events[:-1] if "fusion" in chunk]


def test_an_answer_may_be_asked_for_anew(serve: Serve, upstream: Upstream) -> None:
    server = serve("--cache", "600")

    blocks = [fusion_of(server.chat(fusion=fusion)) for fusion in ({}, {}, {"cache": False})]

    assert [block["cached"] for block in blocks] == [False, True, False]
    assert upstream.stats()["per_model"] == {model: 2 * times for model, times in ONCE.items()}


# --- OpenRouter's spelling ---


def test_a_plugin_names_the_panel(open_server: Server, upstream: Upstream) -> None:
    plugins = [{"id": "fusion", "analysis_models": ["fake/d", "fake/e"]}]

    per_model = asked(open_server, upstream, model="openrouter/fusion", plugins=plugins)

    assert per_model == {"fake/d": 1, "fake/e": 1, "fake/judge": 1, "fake/synth": 1}


@pytest.mark.parametrize("name", ["model", "judge_model"])
def test_a_plugins_model_judges_and_writes(open_server: Server, upstream: Upstream, name: str) -> None:
    plugins = [{"id": "fusion", name: "fake/d+judge"}]

    assert asked(open_server, upstream, plugins=plugins) == {**dict.fromkeys(PANEL, 1), "fake/d+judge": 2}


def test_a_plugins_preset_is_a_recipe(open_server: Server, upstream: Upstream) -> None:
    plugins = [{"id": "fusion", "preset": "pair"}]

    assert fusion_of(open_server.chat(plugins=plugins))["recipe"] == "pair"


def test_openrouters_own_presets_stand_for_recipes_that_are_shipped(open_server: Server) -> None:
    plugins = [{"id": "fusion", "preset": "general-high", "analysis_models": ["fake/a", "fake/b"], "model": "fake/d"}]

    reply = open_server.post("/v1/estimate", asking(plugins=plugins))

    assert reply.json()["recipe"] == "quality"


def test_what_is_said_in_our_words_wins_over_a_plugin(open_server: Server, upstream: Upstream) -> None:
    plugins = [{"id": "fusion", "analysis_models": ["fake/d"], "model": "fake/e+judge"}]

    per_model = asked(open_server, upstream, plugins=plugins, fusion={"panel": ["fake/a", "fake/b"], "synth": "fake/f"})

    assert per_model == {"fake/a": 1, "fake/b": 1, "fake/e+judge": 1, "fake/f": 1}


@pytest.mark.parametrize(
    "plugins",
    [
        [],
        [{"id": "web", "max_results": 3}],
        [{"id": "fusion"}],
        [{"id": "fusion", "enabled": False, "analysis_models": ["fake/d"]}],
        [{"id": "fusion", "enabled": True, "max_tool_calls": 4, "tools": []}],
    ],
)
def test_a_plugin_that_says_nothing_of_a_fusion_changes_nothing(
    open_server: Server, upstream: Upstream, plugins: list[Any]
) -> None:
    assert asked(open_server, upstream, plugins=plugins) == ONCE


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"plugins": [{"id": "fusion", "analysis_model": ["fake/a"]}]}, "did you mean 'analysis_models'?"),
        ({"plugins": [{"id": "fusion", "preset": []}]}, "is not of type 'string'"),
        ({"plugins": [{"id": "fusion", "preset": 5}]}, "is not of type 'string'"),
        ({"plugins": [{"id": "fusion", "analysis_models": "fake/a"}]}, "is not of type 'array'"),
        ({"plugins": [{"id": "fusion", "model": {}}]}, "fusion"),
        ({"plugins": [5]}, 'is not of type "object"'),
        ({"fusion": {"plugins": 5}}, "not a list of objects"),
        ({"fusion": {"plugins": [5]}}, "not a list of objects"),
        ({"fusion": {"plugins": {"id": "fusion"}}}, "not a list of objects"),
    ],
)
def test_a_plugin_that_cannot_be_is_refused(
    open_server: Server, upstream: Upstream, said: dict[str, Any], words: str
) -> None:
    error = refusal_of(open_server.chat(**said))

    assert words in error["message"]
    assert upstream.stats()["requests"] == 0


# --- What is refused ---


@pytest.mark.parametrize(
    ("fusion", "words"),
    [
        ({"panle": ["fake/a"]}, "unknown key 'panle'; did you mean 'panel'?"),
        ({"sample": 2}, "unknown key 'sample'; did you mean 'samples'?"),
        ({"zzz": 1}, "unknown key 'zzz'; known: recipe, chain, panel"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(
    open_server: Server, upstream: Upstream, fusion: dict[str, Any], words: str
) -> None:
    error = refusal_of(open_server.chat(fusion=fusion))

    assert words in error["message"]
    assert (error["code"], error["param"]) == ("invalid_override", "fusion")
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("fusion", "where"),
    [
        ({"panel": []}, "fusion.panel"),
        ({"panel": "fake/a"}, "fusion.panel"),
        ({"panel": ["fake/a", 5]}, "fusion.panel[1]"),
        ({"panel": ["fake/a"] * 65}, "fusion.panel"),
        ({"judge": []}, "fusion.judge"),
        ({"synth": ["fake/a"]}, "fusion.synth"),
        ({"samples": 0}, "fusion.samples"),
        ({"samples": "2"}, "fusion.samples"),
        ({"layers": 9}, "fusion.layers"),
        ({"until": 1}, "fusion.until"),
        ({"max_samples": 65}, "fusion.max_samples"),
        ({"until": 0.95}, "fusion"),
        ({"max_samples": 24}, "fusion"),
        ({"refine": "yes"}, "fusion.refine"),
        ({"max_cost_usd": -1}, "fusion.max_cost_usd"),
        ({"tool_fusion": "fused"}, "fusion.tool_fusion"),
        ({"include": ["everything"]}, "fusion.include[0]"),
        ({"include": 5}, "fusion.include"),
        ({"chain": ""}, "fusion.chain"),
        ({"recipe": "../../etc/passwd"}, "fusion.recipe"),
        ({"recipe": "a/b"}, "fusion.recipe"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_place(
    open_server: Server, upstream: Upstream, fusion: dict[str, Any], where: str
) -> None:
    error = refusal_of(open_server.chat(fusion=fusion))

    assert (error["code"], error["param"]) == ("invalid_override", where)
    assert error["message"].startswith(f"{where}: ")
    assert upstream.stats()["requests"] == 0


def test_an_unknown_recipe_is_not_found_and_what_there_is_is_named(open_server: Server) -> None:
    by_key = refusal_of(open_server.chat(fusion={"recipe": "nope"}), 404)
    by_model = refusal_of(open_server.chat(model="fusion/nope"), 404)

    for error in (by_key, by_model):
        assert error["code"] == "model_not_found"
        assert "'nope'" in error["message"]
        assert "recipe, pair, quality" in error["message"]


@pytest.mark.parametrize("key", ["panel", "judge", "synth"])
def test_a_model_that_is_not_offered_is_refused_with_what_there_is(
    server: Server, upstream: Upstream, key: str
) -> None:
    said: Any = {key: ["gpt-17"] if key == "panel" else "gpt-17"}

    error = refusal_of(server.chat(fusion=said))

    assert (error["code"], error["param"]) == ("override_not_allowed", f"fusion.{key}")
    assert "'gpt-17'" in error["message"]
    assert "fake/a, fake/b, fake/c, fake/judge, fake/synth" in error["message"]
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    "fusion",
    [
        {"panel": ["fake/a@openai"]},
        {"judge": "fake/judge@anthropic"},
        {"panel": ["http://127.0.0.1:1/v1"]},
        {"chain": "panel -m gpt-17 | vote"},
        {"chain": "panel -m fake/a@openai | vote"},
        {"chain": "panel | judge -m gpt-17 | pick"},
        {"chain": "panel | synth -m gpt-17"},
        {"chain": "panel | synth --guard --guard-model gpt-17"},
        {"chain": "panel --agree-model gpt-17 --stop-when-agreed | vote"},
        {"chain": "route --fast gpt-17 | panel | vote"},
        {"chain": "route --command 'touch here' | panel | vote"},
        {"chain": "panel | pick --check 'touch here'"},
        {"chain": "route --method command | panel | vote"},
        {"chain": "panel | judge --template /etc/passwd | pick"},
        {"chain": "panel | judge --template ../default | pick"},
        {"chain": "panel | synth --template nope"},
    ],
)
def test_a_request_names_no_place_no_command_no_file_and_no_stranger(
    server: Server, upstream: Upstream, fusion: dict[str, Any]
) -> None:
    error = refusal_of(server.chat(fusion=fusion))

    assert error["code"] in ("override_not_allowed", "invalid_override")
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("panel", "answers no question"),
        ("judge | synth", "answers no question"),
        ("panel --revise | synth", "answers no question"),
        ("panel | sinth", "did you mean 'synth'?"),
        ("panel | judge |", "a stage is missing here"),
        ("panel --sample 2 | vote", "--samples"),
        ("panel | vote --key 'regex:('", "regex"),
        ("panel | panel | vote", "throws the first away"),
        ("panel -j 4 | vote", "belongs to the run"),
        ("panel 'x | vote", "has no other half"),
        ("panel | judge -m fake/a*2 | pick", "leave *N out"),
    ],
)
def test_a_chain_that_cannot_be_is_refused_with_the_reason(
    server: Server, upstream: Upstream, chain: str, words: str
) -> None:
    error = refusal_of(server.chat(fusion={"chain": chain}))

    assert error["code"] == "invalid_override"
    assert words in error["message"]
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("fusion", "words"),
    [
        ({"chain": "panel | vote", "judge": "fake/judge"}, "has no `judge`"),
        ({"chain": "panel | vote", "synth": "fake/synth"}, "has no `synth`"),
        ({"chain": "panel | judge | pick", "refine": True}, "has no `synth`"),
        ({"chain": "panel | judge | pick", "guard": True}, "has no `synth`"),
    ],
)
def test_an_override_of_a_stage_that_the_chain_has_not_is_refused(
    server: Server, fusion: dict[str, Any], words: str
) -> None:
    assert words in refusal_of(server.chat(fusion=fusion))["message"]


def test_overrides_are_checked_also_where_a_request_passes_through(server: Server, upstream: Upstream) -> None:
    error = refusal_of(server.chat(model="fake/a", fusion={"panle": []}))

    assert "did you mean 'panel'?" in error["message"]
    assert upstream.stats()["requests"] == 0


# --- What the operator allows ---


def test_an_operator_may_allow_no_override(serve: Serve, upstream: Upstream) -> None:
    server = serve("--overrides", "none")

    errors = [refusal_of(server.chat(fusion={key: value})) for key, value in (("samples", 2), ("events", True))]
    by_plugin = refusal_of(server.chat(plugins=[{"id": "fusion", "analysis_models": ["fake/a"]}]))

    assert [error["code"] for error in (*errors, by_plugin)] == ["override_not_allowed"] * 3
    assert "fusion.samples" in errors[0]["message"]
    assert "fusion.panel" in by_plugin["message"]
    assert upstream.stats()["requests"] == 0
    assert asked(server, upstream, fusion={}) == ONCE


@pytest.mark.parametrize("said", ["samples,include", "samples, include"])
def test_an_operator_may_allow_some_overrides(serve: Serve, upstream: Upstream, said: str) -> None:
    server = serve("--overrides", said)

    error = refusal_of(server.chat(fusion={"samples": 2, "layers": 2}))

    assert "fusion.layers" in error["message"]
    assert asked(server, upstream, fusion={"samples": 2, "include": ["panel"]}) == ONCE | dict.fromkeys(PANEL, 2)


def test_an_override_that_does_not_exist_cannot_be_allowed(run: Run) -> None:
    result = run(["fuse-serve", "-c", "budget", "--overrides", "panel,sample", "--port", "0"])

    assert result.status == 2
    assert "--overrides: no key of `fusion` is called 'sample'; did you mean 'samples'?" in result.err
    assert "Traceback" not in result.err


def test_models_that_are_allowed_by_a_pattern_may_be_named_anywhere(serve: Serve, upstream: Upstream) -> None:
    server = serve("--allow-model", "fake/new-*")

    per_model = asked(server, upstream, fusion={"panel": ["fake/new-a", "fake/a"], "synth": "fake/new-b"})
    alone = asked(server, upstream, model="fake/new-c")

    assert per_model == {"fake/new-a": 1, "fake/a": 1, "fake/judge": 1, "fake/new-b": 1}
    assert alone == {**per_model, "fake/new-c": 1}
    refusal_of(server.chat(fusion={"panel": ["fake/other"]}))
    refusal_of(server.chat(model="fake/other"), 404)


@pytest.mark.parametrize(
    "fusion",
    [
        {"panel": ["fake/a*5"]},
        {"samples": 2},
        {"layers": 2},
        {"panel": ["fake/a", "fake/b"], "samples": 3},
        {"chain": "panel --samples 2 | vote"},
        {"chain": "panel -m fake/a*5 | vote"},
        {"chain": "panel -m fake/a | panel --revise -m fake/b*4 | vote"},
        {"chain": "panel -m fake/a*2 | panel --revise | panel --revise | vote"},
    ],
)
def test_a_request_may_not_ask_a_panel_more_often_than_the_operator_allows(
    serve_of_four: Server, upstream: Upstream, fusion: dict[str, Any]
) -> None:
    error = refusal_of(serve_of_four.chat(fusion=fusion))

    assert error["code"] == "too_many_calls"
    assert "--max-calls" in error["message"]
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize("fusion", [{"panel": ["fake/a*4"]}, {"panel": ["fake/a", "fake/b"], "layers": 2}, {}])
def test_a_request_may_ask_a_panel_as_often_as_the_operator_allows(
    serve_of_four: Server, fusion: dict[str, Any]
) -> None:
    assert serve_of_four.chat(fusion=fusion).status_code == 200


@pytest.fixture(scope="module")
def four_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("four")
    with start_server(folder, hermetic(upstream_process, folder), "--max-calls", "4") as server:
        yield server


@pytest.fixture
def serve_of_four(upstream: Upstream, four_process: Server) -> Server:
    """A server where a request's panel is asked four times at most."""
    return four_process


def test_an_alias_counts_as_often_as_it_is_asked(serve: Serve, upstream: Upstream) -> None:
    recipe = "\nmodels:\n  many: {model: fake/a, samples: 5}\npanel: [fake/b, many*1]\nsynth: fake/synth\n"
    server = serve("--max-calls", "4", recipe=recipe)

    error = refusal_of(server.chat(fusion={"panel": ["many"]}))

    assert error["code"] == "too_many_calls"


def test_the_operators_own_recipe_may_ask_as_often_as_it_wants(serve: Serve, upstream: Upstream) -> None:
    server = serve("--max-calls", "2")

    assert asked(server, upstream, fusion={"refine": True}) == ONCE | {"fake/synth": 2}


# --- Anything at all ---

ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 70) | st.text(max_size=5) | st.sampled_from(["fake/a", "fake/b*2"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
KEYS = st.sampled_from([*schemas.load("fusion")["properties"], "plugins", "panle"])
PLUGIN = st.fixed_dictionaries(
    {"id": st.just("fusion")},
    optional=dict.fromkeys(("enabled", "analysis_models", "model", "judge_model", "preset", "tools"), ANY),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fusion=st.dictionaries(KEYS, ANY, max_size=3), plugins=st.lists(PLUGIN | ANY, max_size=2))
def test_whatever_is_said_is_estimated_or_refused_and_never_a_bug(
    server: Server, upstream: Upstream, fusion: dict[str, Any], plugins: list[Any]
) -> None:
    reply = server.post("/v1/estimate", asking(fusion=fusion, plugins=plugins))

    assert reply.status_code in (200, 400, 404), reply.text
    assert upstream.stats()["requests"] == 0


def test_overrides_do_not_stay_for_the_next_request(open_server: Server, upstream: Upstream) -> None:
    open_server.post(CHAT, asking(fusion={"panel": ["fake/d", "fake/e"], "synth": "fake/f"}))
    upstream.reset()

    assert asked(open_server, upstream) == ONCE


def test_openrouters_plugin_beside_a_models_name_has_that_model_write(server: Server, upstream: Upstream) -> None:
    reply = server.chat(model="fake/a", plugins=[{"id": "fusion", "analysis_models": ["fake/b", "fake/c"]}])

    assert reply.json()["choices"][0]["message"]["content"].startswith("fake/a says ")
    assert set(upstream.stats()["per_model"]) == {"fake/a", "fake/b", "fake/c", "fake/judge"}


def test_other_plugins_go_to_the_endpoint_where_every_model_may_be_named(serve: Serve, upstream: Upstream) -> None:
    serve("--allow-model", "*").chat(model="fake/a", plugins=[{"id": "fusion", "enabled": False}, {"id": "web"}])

    [body] = upstream.bodies()
    assert body["plugins"] == [{"id": "web"}]


def test_a_chain_has_a_bounded_number_of_steps(server: Server) -> None:
    reply = server.chat(fusion={"chain": "panel | synth" + " | synth --refine" * 12})

    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "too_many_calls")


def test_one_thing_to_include_needs_no_list(server: Server) -> None:
    reply = server.chat(fusion={"include": "analysis"})

    assert "analysis" in reply.json()["fusion"]


def test_a_recipe_may_be_named_as_the_models_are(server: Server, upstream: Upstream) -> None:
    reply = server.chat(fusion={"recipe": "fusion/vote"})

    assert reply.json()["fusion"]["recipe"] == "vote"
