"""Tool calls through a fusion: members propose, the judge compares, native calls go out; and the other manners."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import CHAT, Server, Streamed, asking, start_server
from workdir import Serve, Upstream, hermetic

LOOK = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds numbers.",
        "parameters": {"type": "object", "properties": {"of": {"type": "integer"}}, "required": ["of"]},
    },
}
TOOLS = [LOOK, ADD]
PROPOSING = ["fake/a+tool", "fake/b+tool", "fake/c+tool"]
RECIPE = f"""
panel: [{", ".join(PROPOSING)}]
judge: fake/judge
synth: fake/synth+tool
"""
EACH = {**dict.fromkeys(PROPOSING, 1), "fake/judge": 1, "fake/synth+tool": 1}


@pytest.fixture(scope="module")
def tools_process(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("tools")
    options = ("--allow-model", "fake/*", "--retries", "0")
    with start_server(folder, hermetic(upstream_process, folder), *options, recipe=RECIPE) as server:
        yield server


@pytest.fixture
def caller(upstream: Upstream, tools_process: Server) -> Server:
    """A server whose members and synthesizer call a tool where there is one."""
    return tools_process


def ask(server: Server, text: str = "crdt", **more: Any) -> dict[str, Any]:
    reply = server.chat(text, **{"tools": TOOLS, **more})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def listen(server: Server, text: str = "crdt", **more: Any) -> Streamed:
    stream = server.chat_stream(text, **{"tools": TOOLS, **more})
    assert stream.status == 200
    assert stream.done
    return stream


def calls_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the calls of an answer, which says nothing else."""
    [choice] = body["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    calls: list[dict[str, Any]] = choice["message"]["tool_calls"]
    return calls


def pieces_of(stream: Streamed) -> list[dict[str, Any]]:
    deltas = [choice["delta"] for chunk in stream.events for choice in chunk["choices"]]
    return [piece for delta in deltas for piece in delta.get("tool_calls", [])]


def put_together(stream: Streamed) -> list[dict[str, Any]]:
    """Put calls together as clients do: what begins a call has its id and name, what goes on only arguments."""
    calls: list[dict[str, Any]] = []
    for piece in pieces_of(stream):
        if piece["index"] == len(calls):
            assert piece["type"] == "function"
            calls.append({"id": piece["id"], "type": "function", "function": dict(piece["function"])})
        else:
            assert piece["index"] == len(calls) - 1
            assert piece.keys() == {"index", "function"}
            assert piece["function"].keys() == {"arguments"}
            calls[-1]["function"]["arguments"] += piece["function"]["arguments"]
    return calls


def finish_of(stream: Streamed) -> str:
    [reason] = [c["finish_reason"] for chunk in stream.events for c in chunk["choices"] if c["finish_reason"]]
    return str(reason)


def text_of(body: dict[str, Any]) -> str:
    return json.dumps(body["messages"], ensure_ascii=False)


# --- Fused ---


def test_a_question_with_tools_is_fused_and_not_bypassed(caller: Server, upstream: Upstream) -> None:
    body = ask(caller)

    assert upstream.stats()["per_model"] == EACH
    assert (body["fusion"]["chain"], body["fusion"]["by"]) == ("panel | judge | synth", "synth")


def test_every_member_gets_the_tools_and_the_question(caller: Server, upstream: Upstream) -> None:
    ask(caller)

    for member in PROPOSING:
        [body] = upstream.bodies(member)
        assert body["tools"] == TOOLS
        assert body["messages"] == [{"role": "user", "content": "crdt"}]


def test_the_judge_reads_the_tools_and_the_proposals_and_no_models_name(caller: Server, upstream: Upstream) -> None:
    ask(caller)

    [body] = upstream.bodies("fake/judge")
    said = "".join(message["content"] for message in body["messages"])
    assert "tools" not in body
    assert '"name":"look_up"' in said
    assert '"description":"Adds numbers."' in said
    assert said.count('look_up({"word":"crdt"})') == 3
    assert "fake/" not in said


def test_the_synthesizer_gets_the_same_tools_and_messages_and_the_proposals(caller: Server, upstream: Upstream) -> None:
    ask(caller, tool_choice="auto")

    [body] = upstream.bodies("fake/synth+tool")
    assert body["tools"] == TOOLS
    assert body["tool_choice"] == "auto"
    assert body["messages"][1] == {"role": "user", "content": "crdt"}
    assert body["messages"][-1]["content"].count('look_up({"word":"crdt"})') == 3
    assert "fake/" not in text_of(body)


def test_a_native_call_goes_out(caller: Server) -> None:
    [call] = calls_of(ask(caller))

    assert call["id"].startswith("call_")
    assert (call["type"], call["function"]["name"]) == ("function", "look_up")
    assert json.loads(call["function"]["arguments"]).keys() == {"word"}


def test_the_call_is_the_one_that_the_synthesizer_made(caller: Server) -> None:
    body = ask(caller, fusion={"include": ["record"]})

    record = body["fusion"]["record"]
    assert calls_of(body) == record["answer"]["tool_calls"]
    assert calls_of(body)[0]["id"] not in [response["tool_calls"][0]["id"] for response in record["panel"]]


def test_a_stream_says_a_call_in_pieces_its_id_and_name_first(caller: Server) -> None:
    stream = listen(caller)

    first, *later = pieces_of(stream)
    assert first == {
        "index": 0,
        "id": first["id"],
        "type": "function",
        "function": {"name": "look_up", "arguments": ""},
    }
    assert len(later) == 2
    assert put_together(stream) == calls_of(ask(caller))
    assert finish_of(stream) == "tool_calls"
    assert stream.text == ""


def test_a_synthesizer_may_answer_in_text_whatever_the_members_propose(caller: Server) -> None:
    body = ask(caller, fusion={"synth": "fake/writer"})

    [choice] = body["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"].startswith("fake/writer says ")
    assert "tool_calls" not in choice["message"]


def test_a_synthesizer_may_call_where_no_member_did(caller: Server) -> None:
    body = ask(caller, fusion={"panel": ["fake/a", "fake/b"]})

    assert [call["function"]["name"] for call in calls_of(body)] == ["look_up"]


def test_a_tool_that_must_be_called_is_called(caller: Server, upstream: Upstream) -> None:
    forced = {"type": "function", "function": {"name": "add"}}

    [call] = calls_of(ask(caller, tool_choice=forced))

    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("add", {"of": 1})
    choices = [body.get("tool_choice") for body in upstream.bodies() if body["model"] != "fake/judge"]
    assert choices == [forced] * 4


@pytest.mark.parametrize("style", ["fuse", "first", "pick", "pass"])
def test_where_no_tool_may_be_called_the_question_is_fused_as_any_other(
    caller: Server, upstream: Upstream, style: str
) -> None:
    body = ask(caller, tool_choice="none", fusion={"tool_fusion": style})

    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["message"]["content"].startswith("fake/synth says ")
    assert upstream.stats()["per_model"] == EACH
    assert {body.get("tool_choice") for body in upstream.bodies() if body["model"] != "fake/judge"} == {"none"}


@pytest.mark.parametrize("style", ["first", "pick", "pass"])
def test_a_question_without_tools_is_fused_as_any_other(caller: Server, upstream: Upstream, style: str) -> None:
    body = ask(caller, tools=None, fusion={"tool_fusion": style})

    assert body["choices"][0]["message"]["content"].startswith("fake/synth says ")
    assert upstream.stats()["per_model"] == EACH


def test_one_member_alone_answers_with_its_own_call(caller: Server, upstream: Upstream) -> None:
    stream = listen(caller, fusion={"panel": ["fake/a+tool"]})

    assert [call["function"]["arguments"] for call in put_together(stream)] == ['{"word":"crdt"}']
    assert upstream.stats()["per_model"] == {"fake/a+tool": 1}


# --- Several calls at once ---

CLAUDE = """
endpoints:
  claude: {{base_url: "{url}", api_key_env: CLAUDE_KEY, api: anthropic}}
endpoint: claude
panel: [claude-a+tool, claude-b+tool]
judge: {{method: lexical}}
synth: {{model: claude-w+tool+twice, max_tokens: 500}}
"""


def test_several_calls_go_out_at_once_each_with_its_own_index_and_id(serve: Serve, claude: str) -> None:
    env = {"FUSION_BASE_URL": "", "CLAUDE_KEY": "key-of-claude"}
    server = serve("--recipe", "local", recipe=CLAUDE.format(url=claude), env=env)

    whole = calls_of(ask(server))
    stream = listen(server)

    assert [call["function"]["name"] for call in whole] == ["look_up", "look_up"]
    assert len({call["id"] for call in whole}) == 2
    assert put_together(stream) == whole
    assert finish_of(stream) == "tool_calls"


# --- The next turn ---

TURN: list[dict[str, Any]] = [
    {"role": "user", "content": "What is a crdt?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"word":"crdt"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "add", "arguments": '{"of":2}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "A replicated data type."},
    {"role": "tool", "tool_call_id": "call_2", "content": "4"},
]


def test_what_the_tools_gave_reaches_everybody_as_it_came(caller: Server, upstream: Upstream) -> None:
    reply = caller.post(CHAT, asking(messages=TURN, tools=TOOLS, fusion={"synth": "fake/writer"}))

    assert reply.json()["choices"][0]["message"]["content"].startswith("fake/writer says ")
    for member in PROPOSING:
        assert upstream.bodies(member)[0]["messages"] == TURN
    assert upstream.bodies("fake/writer")[0]["messages"][1:-1] == TURN
    judged = "".join(message["content"] for message in upstream.bodies("fake/judge")[0]["messages"])
    assert "A replicated data type." in judged
    assert 'look_up({"word":"crdt"})' in judged
    assert 'add({"of":2})' in judged


def test_a_call_and_its_result_make_a_conversation(caller: Server) -> None:
    [choice] = ask(caller, "What is a crdt?")["choices"]
    call = choice["message"]["tool_calls"][0]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "A replicated data type."}
    turn = [{"role": "user", "content": "What is a crdt?"}, choice["message"], result]

    reply = caller.post(CHAT, asking(messages=turn, tools=TOOLS, fusion={"synth": "fake/writer"}))

    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["finish_reason"] == "stop"


# --- The other manners ---


def test_the_first_proposal_that_comes_may_be_the_answer(caller: Server, upstream: Upstream) -> None:
    fusion = {"tool_fusion": "first", "panel": ["fake/a+hang", "fake/b+tool", "fake/c+hang"]}

    body = ask(caller, fusion=fusion)

    [call] = calls_of(body)
    assert call["function"]["arguments"] == '{"word":"crdt"}'
    assert body["fusion"]["model"] == "fake/b+tool"
    assert [(seat["member"], seat["status"]) for seat in body["fusion"]["panel"]] == [("fake/b+tool", "ok")]
    assert upstream.stats()["per_model"] == {"fake/a+hang": 1, "fake/b+tool": 1, "fake/c+hang": 1}


def test_a_response_without_a_call_is_no_proposal_and_who_was_cut_off_has_not_failed(caller: Server) -> None:
    panel = ["fake/a", "fake/b+tool+slow=0.05", "fake/c+hang"]

    body = ask(caller, fusion={"tool_fusion": "first", "panel": panel, "include": ["record"]})

    assert [call["function"]["arguments"] for call in calls_of(body)] == ['{"word":"crdt"}']
    record = body["fusion"]["record"]
    assert [response["member"] for response in record["panel"]] == panel[:2]
    assert [(seat["member"], seat["why"]) for seat in record["spared"]] == [("fake/c+hang", "call")]
    assert "degraded" not in record
    assert body["fusion"]["chain"] == "panel -m fake/a -m fake/b+tool+slow=0.05 -m fake/c+hang --first-call | " \
        "synth --method call"  # fmt: skip


def test_where_nobody_proposes_a_call_the_first_style_answers_with_the_best_response(caller: Server) -> None:
    body = ask(caller, fusion={"tool_fusion": "first", "panel": ["fake/a", "fake/b"]})

    assert body["choices"][0]["message"]["content"].startswith("fake/")


def test_the_first_proposal_is_not_kept_waiting_by_further_layers_or_by_a_judge(
    caller: Server, upstream: Upstream
) -> None:
    fusion = {"tool_fusion": "first", "layers": 3, "judge": "fake/judge", "refine": True}

    calls_of(ask(caller, fusion=fusion))

    assert upstream.stats()["per_model"] == dict.fromkeys(PROPOSING, 1)


def test_the_best_proposal_may_be_the_answer_word_for_word(caller: Server, upstream: Upstream) -> None:
    body = ask(caller, fusion={"tool_fusion": "pick", "include": ["record"]})

    record = body["fusion"]["record"]
    best = record["panel"][record["analysis"]["ranking"][0]]
    assert calls_of(body) == best["tool_calls"]
    assert (body["fusion"]["by"], body["fusion"]["model"]) == ("pick", best["member"])
    assert upstream.stats()["per_model"] == {**dict.fromkeys(PROPOSING, 1), "fake/judge": 1}


def test_a_chain_without_a_judge_gets_one_to_pick(caller: Server, upstream: Upstream) -> None:
    body = ask(caller, fusion={"tool_fusion": "pick", "chain": "panel | synth"})

    assert body["fusion"]["chain"] == "panel | judge | pick"
    assert upstream.stats()["per_model"] == {**dict.fromkeys(PROPOSING, 1), "fake/judge": 1}


@pytest.mark.parametrize("style", ["first", "pick"])
def test_a_proposal_that_is_taken_word_for_word_streams_as_a_whole_call(caller: Server, style: str) -> None:
    stream = listen(caller, fusion={"tool_fusion": style})

    [call] = put_together(stream)
    assert (call["function"]["name"], call["function"]["arguments"]) == ("look_up", '{"word":"crdt"}')
    assert finish_of(stream) == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_one_model_alone_may_be_asked_and_its_answer_comes_back_byte_for_byte(
    caller: Server, upstream: Upstream, stream: bool
) -> None:
    sent = asking("crdt", tools=TOOLS, stream=stream)

    reply = caller.post(CHAT, {**sent, "fusion": {"tool_fusion": "pass"}})

    usage: Any = {"stream_options": {"include_usage": True}} if stream else {}
    assert upstream.bodies() == [{**sent, "model": "fake/synth+tool", **usage}]
    with httpx.Client(trust_env=False, timeout=60) as client:
        itself = client.post(f"{upstream.url}/chat/completions", json={**sent, "model": "fake/synth+tool"})
    assert reply.content == itself.content


def test_who_is_asked_alone_is_who_would_write(caller: Server, upstream: Upstream) -> None:
    calls_of(ask(caller, fusion={"tool_fusion": "pass", "synth": "fake/other+tool"}))

    assert upstream.stats()["per_model"] == {"fake/other+tool": 1}


def test_where_nobody_writes_the_first_member_is_asked_alone(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe="\npanel: [fake/a+tool*3, fake/b+tool]\ntool_fusion: pass\nchain: panel | vote\n")

    calls_of(ask(server))

    assert upstream.stats()["per_model"] == {"fake/a+tool": 1}


def test_a_stranger_is_not_asked_alone_either(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=RECIPE)

    reply = server.chat(tools=TOOLS, fusion={"tool_fusion": "pass", "synth": "gpt-17"})

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "fusion.synth")
    assert upstream.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("style", "per_model"),
    [
        ("fuse", EACH),
        ("first", dict.fromkeys(PROPOSING, 1)),
        ("pick", {**dict.fromkeys(PROPOSING, 1), "fake/judge": 1}),
        ("pass", {"fake/synth+tool": 1}),
    ],
)
def test_a_recipe_has_a_manner_and_a_request_may_have_another(
    serve: Serve, upstream: Upstream, style: str, per_model: dict[str, int]
) -> None:
    server = serve(recipe=f"{RECIPE}tool_fusion: {style}\n")

    calls_of(ask(server))
    of_the_recipe = upstream.stats()["per_model"]
    upstream.reset()
    calls_of(ask(server, fusion={"tool_fusion": "pass" if style == "fuse" else "fuse"}))

    assert of_the_recipe == per_model
    assert upstream.stats()["per_model"] == ({"fake/synth+tool": 1} if style == "fuse" else EACH)


# --- Other chains ---


def test_equal_calls_are_one_vote(caller: Server, upstream: Upstream) -> None:
    panel = ["fake/a", "fake/b+tool", "fake/c+tool"]

    body = ask(caller, fusion={"chain": "panel | vote", "panel": panel, "include": ["record"]})

    [call] = calls_of(body)
    assert call["function"]["arguments"] == '{"word":"crdt"}'
    vote = body["fusion"]["record"]["answer"]["vote"]
    assert (vote["votes"], vote["of"]) == (2, 3)
    assert upstream.stats()["per_model"] == dict.fromkeys(panel, 1)


def test_a_vote_on_calls_streams_the_call_that_won(caller: Server) -> None:
    stream = listen(caller, fusion={"chain": "panel | vote"})

    assert [call["function"]["name"] for call in put_together(stream)] == ["look_up"]
    assert finish_of(stream) == "tool_calls"


def test_a_chain_that_picks_gives_the_best_ranked_call(caller: Server, upstream: Upstream) -> None:
    fusion = {"chain": "panel | judge | pick", "include": ["record"]}

    body = ask(caller, fusion=fusion)
    stream = listen(caller, fusion=fusion)

    record = body["fusion"]["record"]
    best = record["panel"][record["analysis"]["ranking"][0]]
    assert calls_of(body) == put_together(stream) == best["tool_calls"]
    assert "fake/synth+tool" not in upstream.stats()["per_model"]


def test_a_later_layer_sees_what_was_proposed(caller: Server, upstream: Upstream) -> None:
    ask(caller, fusion={"chain": "panel | panel --revise | judge | pick"})

    [_, later] = upstream.bodies("fake/a+tool")
    assert later["tools"] == TOOLS
    assert later["messages"][-1]["content"].count('look_up({"word":"crdt"})') == 3


# --- What fails ---


def test_where_the_synthesizer_fails_before_a_word_the_best_proposal_goes_out(caller: Server) -> None:
    fusion = {"synth": "fake/synth+status=400", "include": ["record"]}

    body = ask(caller, fusion=fusion)
    stream = listen(caller, fusion=fusion)

    record = body["fusion"]["record"]
    best = record["panel"][record["analysis"]["ranking"][0]]
    assert calls_of(body) == put_together(stream) == best["tool_calls"]
    assert [note["code"] for note in body["fusion"]["degraded"]] == ["synth_failed"]


@pytest.mark.parametrize("panel", [PROPOSING, ["fake/a", "fake/b"]])
@pytest.mark.parametrize("how", ["midfail", "closehalf"])
def test_a_call_that_breaks_off_is_never_finished_with_the_words_of_another(
    caller: Server, how: str, panel: list[str]
) -> None:
    stream = listen(caller, fusion={"synth": f"fake/synth+tool+{how}", "panel": panel})

    assert pieces_of(stream), "the call had begun"
    assert finish_of(stream) == "error"
    assert stream.events[-1]["error"]["code"] == "broken_off"
    assert "answer" in stream.events[-1]["fusion"]


def test_proposals_that_stand_in_for_a_call_that_broke_off_are_shown(caller: Server) -> None:
    stream = listen(caller, fusion={"synth": "fake/synth+tool+midfail", "include": ["record"]})

    last = stream.events[-1]["fusion"]
    assert last["tool_calls"] == last["record"]["answer"]["tool_calls"] != []


# --- What travels with a call ---


@pytest.mark.parametrize("style", ["fuse", "pass"])
def test_a_thought_signature_goes_out_with_its_call_and_comes_back_with_it(
    caller: Server, upstream: Upstream, style: str
) -> None:
    fusion = {"panel": ["fake/a+tool+signed"], "synth": "fake/synth+tool+signed", "tool_fusion": style}

    [whole] = calls_of(ask(caller, fusion=fusion))
    signed = [piece["extra_content"] for piece in pieces_of(listen(caller, fusion=fusion)) if "extra_content" in piece]
    assert signed == [whole["extra_content"]]

    told = [{"role": "assistant", "content": None, "tool_calls": [whole]}]
    told.append({"role": "tool", "tool_call_id": whole["id"], "content": "a type"})
    upstream.reset()
    ask(caller, fusion=fusion, messages=[{"role": "user", "content": "crdt"}, *told])

    sent = [message for body in upstream.bodies() for message in body["messages"] if message["role"] == "assistant"]
    assert sent
    assert all(message["tool_calls"] == [whole] for message in sent)


@pytest.mark.parametrize("finish", ["length", "MAX_TOKENS", "model_length", "tomorrow"])
def test_calls_that_were_cut_are_not_whole(caller: Server, finish: str) -> None:
    fusion = {"synth": f"fake/synth+tool+finish={finish}"}

    assert ask(caller, fusion=fusion)["choices"][0]["finish_reason"] == "length"
    assert finish_of(listen(caller, fusion=fusion)) == "length"


# --- Tools that nobody here runs ---

#: By what is asked for in which protocol: the body, and what of it nobody here does.
HOSTED: dict[str, tuple[dict[str, Any], str]] = {
    CHAT: (asking(web_search_options={}), "web_search_options"),
    f"{CHAT} tools": (asking(tools=[{"type": "web_search"}], tool_choice="auto"), "tools[0]"),
    f"{CHAT} of Moonshot": (
        asking(tools=[{"type": "builtin_function", "function": {"name": "$web_search"}}]),
        "tools[0]",
    ),
    "/v1/responses": ({"input": "Why?", "tools": [{"type": "web_search"}]}, "tools[0]"),
    "/v1/messages": (
        {**asking(), "max_tokens": 9, "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        "tools[0]",
    ),
}


@pytest.mark.parametrize("path", HOSTED)
def test_an_answer_says_which_tools_were_left_out(server: Server, path: str) -> None:
    body, param = HOSTED[path]
    path = path.partition(" ")[0]

    whole = server.post(path, body).json()["fusion"]
    stream = server.stream(path, {**body, "stream": True}).events

    fusions = [event.get("fusion") or event.get("response", {}).get("fusion") for event in stream]
    assert [part["param"] for part in whole["ignored"]] == [param]
    assert [fusion["ignored"] for fusion in fusions if fusion] == [whole["ignored"]]
    [note] = whole["degraded"]
    assert (note["code"], note["detail"].partition(":")[0]) == ("tool_ignored", param)
    assert [fusion["degraded"] for fusion in fusions if fusion] == [[note]]


OWN: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
FORCED: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"tool_choice": "required", "tools": [], **asking(web_search_options={})}),
    "chat, of its tools": (CHAT, asking(tools=[{"type": "web_search"}], tool_choice="required")),
    "chat, by kind": (CHAT, asking(tools=[{"type": "web_search"}, OWN], tool_choice={"type": "web_search"})),
    "responses": ("/v1/responses", {**HOSTED["/v1/responses"][0], "tool_choice": "required"}),
    "responses, by kind": ("/v1/responses", {**HOSTED["/v1/responses"][0], "tool_choice": {"type": "web_search"}}),
    "messages": ("/v1/messages", {**HOSTED["/v1/messages"][0], "tool_choice": {"type": "any"}}),
    "messages, by name": (
        "/v1/messages",
        {**HOSTED["/v1/messages"][0], "tool_choice": {"type": "tool", "name": "web_search"}},
    ),
}


@pytest.mark.parametrize("case", FORCED)
def test_who_must_call_what_nobody_here_runs_is_refused_and_buys_nothing(
    server: Server, upstream: Upstream, case: str
) -> None:
    path, body = FORCED[case]

    reply = server.post(path, body)

    assert (reply.status_code, "tool_choice" in reply.text) == (400, True)
    assert upstream.bodies() == []


def test_the_client_s_own_tools_are_shown_beside_what_is_left_out(server: Server, upstream: Upstream) -> None:
    flat = {"type": "function", **OWN["function"]}

    for path, tools in ((CHAT, [{"type": "web_search"}, OWN]), (CHAT, [flat]), ("/v1/responses", [flat])):
        reply = server.post(path, {**asking(), "input": "Why?", "tools": [{"type": "code_interpreter"}, *tools]})

        assert "tools[0]" in [note["param"] for note in reply.json()["fusion"]["ignored"]]
        assert [tool["function"]["name"] for tool in upstream.bodies("fake/a")[-1]["tools"]] == ["look_up"]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "look_up"}}])
@pytest.mark.parametrize("tools", [{}, {"tools": []}], ids=["none", "empty"])
def test_a_chat_that_must_call_what_is_not_there_is_refused(server: Server, tools: dict[str, Any], choice: Any) -> None:
    reply = server.chat(tool_choice=choice, **tools)

    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tool_choice")


def test_an_answer_with_nothing_left_out_does_not_speak_of_it(server: Server) -> None:
    assert "ignored" not in server.chat().json()["fusion"]


# --- Custom tools, which take a text ---


@pytest.mark.parametrize("choice", [None, {"type": "custom", "custom": {"name": "run"}}])
def test_a_custom_tool_is_a_function_to_models_and_itself_to_the_client(
    caller: Server, upstream: Upstream, choice: Any
) -> None:
    asked: dict[str, Any] = {"tools": [{"type": "custom", "custom": {"name": "run"}}, OWN], "tool_choice": choice}

    [call] = calls_of(ask(caller, "ls -l", **asked))
    [piece] = pieces_of(listen(caller, "ls -l", **asked))
    told = [*asking("ls -l")["messages"], {"role": "assistant", "content": None, "tool_calls": [call]}]
    told.append({"role": "tool", "tool_call_id": call["id"], "content": "total 0"})
    reply = caller.post(CHAT, {**asked, "model": "fusion", "messages": told, "tool_choice": None})

    assert (call["type"], call["custom"].keys()) == ("custom", {"name", "input"})
    assert piece.keys() == {"index", *call}
    assert (piece["type"], piece["custom"]["name"]) == ("custom", "run")
    assert reply.status_code == 200
    shown = [m["tool_calls"][0] for m in upstream.bodies()[-1]["messages"] if m.get("tool_calls")]
    assert [json.loads(call["function"]["arguments"]) for call in shown] == [{"input": call["custom"]["input"]}]
