"""What is hidden reaches nobody who is not trusted, and comes back: in every field, in streams, over a whole chain."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scripted import Scripted, model, open_door, said
from serving import Server
from workdir import Run, Serve, Upstream

from fusiontools.config.models import Endpoint
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import Completion, CompletionRequest, Delta
from fusiontools.llm.journal import Journal
from fusiontools.llm.ledger import Slot
from fusiontools.llm.redact import Hidden, Marks, Restorer, hide_request
from fusiontools.llm.sensitive import finder_for

ALL = (("email", ""), ("phone", ""), ("keys", ""), ("employee", r"EMP-\d+"))
ADDRESS = "ann.lee@example.com"
OTHER = "bob@example.org"
THERE = Endpoint("there", "https://there.example/v1")


def called(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


FORM = {"type": "object", "description": ADDRESS, "properties": {"to": {"enum": [ADDRESS], "default": ADDRESS}}}
#: A request in which every field that there is holds the address.
EVERYWHERE: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": f"You write for {ADDRESS}.", "name": ADDRESS},
        {"role": "user", "name": ADDRESS, "content": [
            {"type": "text", "text": ADDRESS},
            {"type": "image_url", "image_url": {"url": f"https://example.com/?of={ADDRESS}"}},
            {"type": "file", "file": {"filename": f"{ADDRESS}.pdf", "file_data": "data:text/plain;base64,aGk="}},
        ]},
        {"role": "assistant", "content": f"I asked {ADDRESS}", "reasoning_content": ADDRESS, "tool_calls": [
            called("mail", json.dumps({"to": ADDRESS, ADDRESS: [ADDRESS]})),
            called(ADDRESS, '{"to": "ann.lee\\u0040example.com"}'),
            called("mail", f"not JSON {ADDRESS}"),
        ]},
        {"role": "tool", "tool_call_id": ADDRESS, "content": f'{{"found": "{ADDRESS}"}}'},
    ],
    "params": {
        "user": ADDRESS,
        "stop": [ADDRESS],
        "metadata": {ADDRESS: ADDRESS},
        "tools": [{"type": "function", "function": {"name": "mail", "description": ADDRESS, "parameters": FORM}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"title": ADDRESS}}},
        "data": ADDRESS,
        "temperature": 0.5,
    },
}  # fmt: skip


def hide(value: Any) -> tuple[Any, Hidden]:
    hidden = Hidden(Marks(finder_for(ALL)))
    return hidden.hide(value), hidden


async def ask(backend: Scripted, text: str, on_delta: Any = None, **settings: Any) -> Completion:
    client = open_door(backend, **{"redact": ALL, **settings})
    asked = model()
    request = client.request(asked, [{"role": "user", "content": text}], {})
    return await client.complete(request, asked, client.ledger("panel", "1"), Slot("m"), on_delta)


def echo(request: CompletionRequest) -> str:
    return f"You said: {request.messages[-1]['content']}"


# Hiding


def test_no_field_of_a_request_keeps_an_address() -> None:
    written, _ = hide(EVERYWHERE)

    text = json.dumps(written, ensure_ascii=False)
    assert ADDRESS not in text
    assert "0040" not in text
    assert text.count("[EMAIL_1]") >= 24


@pytest.mark.parametrize("key", sorted(EVERYWHERE["params"]))
def test_each_parameter_is_looked_at_alone(key: str) -> None:
    assert ADDRESS not in json.dumps(hide({key: EVERYWHERE["params"][key]})[0])


def test_one_text_has_one_mark_and_each_text_its_own() -> None:
    marks = Marks(finder_for(ALL))
    first, second = (Hidden(marks) for _ in range(2))

    assert first.hide(f"{ADDRESS} and {OTHER} and {ADDRESS}") == "[EMAIL_1] and [EMAIL_2] and [EMAIL_1]"
    assert second.hide(f"{OTHER}, EMP-7, +1 555 010 9999") == "[EMAIL_2], [EMPLOYEE_1], [PHONE_1]"


def test_everything_else_stays_as_it_is() -> None:
    plain = {"a": ["b", 1, None, True, 2.5], "c": {"d": "data:image/png;base64,+1555010AAAA"}}

    assert hide(plain)[0] is plain
    spaced = '{"to":  "ann.lee@example.com" ,"n": 1.0}'
    assert hide({"arguments": "{ \n}"})[0] == {"arguments": "{ \n}"}
    assert json.loads(hide({"arguments": spaced})[0]["arguments"]) == {"to": "[EMAIL_1]", "n": 1.0}


#: What a text may be made of that makes trouble.
PIECES = [ADDRESS, OTHER, "[EMAIL_1]", "[EMAIL_2]", "[MARK_1]", "EMP-1", " ", "é", '"', "\\", "[", "[E", "[EMAIL_"]


@given(st.lists(st.sampled_from(PIECES)))
def test_a_round_trip_gives_the_text_back(pieces: list[str]) -> None:
    text = "".join(pieces)
    written, hidden = hide(text)

    assert hidden.restore_text(written) == text


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.integers())
def test_a_stream_gives_the_text_back_however_it_is_cut(pieces: list[str], seed: int) -> None:
    text = "".join(pieces)
    written, hidden = hide(text)
    restorer, rng, shown, at = Restorer(hidden), random.Random(seed), "", 0
    while at < len(written):
        size = rng.randint(1, 4)
        shown += restorer.take(written[at : at + size])
        at += size

    assert shown + restorer.finish() == text


def test_no_more_of_a_stream_is_kept_than_may_become_a_mark() -> None:
    restorer = Restorer(hide(ADDRESS)[1])

    assert [restorer.take(piece) for piece in ("a [", "EMA", "IL_1", "] b", "[x", "[EMAIL_1] c")] == [
        "a ", "", "", f"{ADDRESS} b", "[x", f"{ADDRESS} c",
    ]  # fmt: skip


# Through the client


def test_an_endpoint_that_is_not_trusted_sees_marks_and_the_asker_originals() -> None:
    backend = Scripted(m=echo)

    completion = asyncio.run(ask(backend, f"Mail {ADDRESS}"))

    assert backend.requests[0].messages[0]["content"] == "Mail [EMAIL_1]"
    assert completion.content == f"You said: Mail {ADDRESS}"


@pytest.mark.parametrize("endpoint", [replace(THERE, trusted=True), Endpoint("there", free=True)])
def test_an_endpoint_that_is_trusted_and_the_embedded_engine_see_originals(endpoint: Endpoint, tmp_path: Path) -> None:
    backend, shown = Scripted(m=echo), list[Delta]()
    journal = Journal(tmp_path / "j.db")

    completion = asyncio.run(ask(backend, f"Mail {ADDRESS}", shown.append, endpoint=endpoint, journal=journal))
    journal.close()

    assert backend.requests[0].messages[0]["content"] == f"Mail {ADDRESS}"
    assert completion.content == "".join(map(str, shown)) == f"You said: Mail {ADDRESS}"
    assert not any(ADDRESS.encode() in file.read_bytes() for file in tmp_path.glob("j.db*"))


def test_the_journal_holds_marks_and_gives_originals_back(tmp_path: Path) -> None:
    for backend, replay in ((Scripted(m=echo), False), (Scripted(), True)):
        journal = Journal(tmp_path / "j.db")
        completion = asyncio.run(ask(backend, f"Mail {ADDRESS}", journal=journal, replay=replay))
        journal.close()

        assert completion.content == f"You said: Mail {ADDRESS}"
        assert len(backend.requests) == (not replay)
    assert not any(ADDRESS.encode() in file.read_bytes() for file in tmp_path.glob("j.db*"))


def test_an_answer_in_marks_serves_another_address_too(tmp_path: Path) -> None:
    """What the journal holds is about marks: an equal question about somebody else has been answered."""
    for text, backend in ((ADDRESS, Scripted(m=echo)), (OTHER, Scripted())):
        journal = Journal(tmp_path / "j.db")
        completion = asyncio.run(ask(backend, text, journal=journal, replay=True))
        journal.close()
        assert completion.content == f"You said: {text}"


def test_calls_of_tools_come_back_with_originals_written_as_json() -> None:
    odd = 'say "EMP-1"\n'

    def call(request: CompletionRequest) -> Completion:
        return said("", tool_calls=[called("mail", json.dumps({"to": request.messages[0]["content"]}))])

    completion = asyncio.run(ask(Scripted(m=call), odd, redact=(("all", r'(?s).*"\n'),)))

    assert json.loads(completion.tool_calls[0]["function"]["arguments"]) == {"to": odd}


def test_pieces_of_a_call_are_put_together_before_a_mark_is_read() -> None:
    class Streaming(Scripted):
        async def complete(self, request: CompletionRequest, on_delta: Any = None) -> Completion:
            on_delta("Calling [EM")
            on_delta([{"index": 0, "id": "1", "function": {"name": "mail", "arguments": '{"to": "[EMA'}}])
            on_delta([{"index": 0, "function": {"arguments": 'IL_1]"}'}}])
            return said("Calling [EM")

    shown: list[Any] = []
    asyncio.run(ask(Streaming(), ADDRESS, shown.append))

    assert "".join(piece for piece in shown if isinstance(piece, str)) == "Calling [EM"
    calls = [piece for piece in shown if not isinstance(piece, str)]
    arguments = "".join(each["function"].get("arguments", "") for piece in calls for each in piece)
    assert json.loads(arguments) == {"to": ADDRESS}


@pytest.mark.parametrize("trusted", [False, True])
def test_what_an_answer_says_beside_its_text_comes_back_too(trusted: bool) -> None:
    def beside(request: CompletionRequest) -> Completion:
        text = request.messages[0]["content"]
        source: Any = {"url": f"https://example.com/{text}", "title": text, "how": "claimed"}
        return said("Yes.", reasoning=text, sources=[source], native=[{"type": "text", "text": text}])

    endpoint = replace(THERE, trusted=trusted)
    completion = asyncio.run(ask(Scripted(m=beside), ADDRESS, endpoint=endpoint))

    assert completion.reasoning == ADDRESS
    assert completion.sources[0]["url"] == f"https://example.com/{ADDRESS}"
    assert completion.native == [{"type": "text", "text": ADDRESS}]


def test_a_failure_says_marks_and_no_originals() -> None:
    backend = Scripted(m=lambda request: CallFailed("bad_request", f"no: {request.messages[0]['content']}"))

    with pytest.raises(CallFailed, match=r"no: \[EMAIL_1\]"):
        asyncio.run(ask(backend, ADDRESS))


def test_a_request_that_hides_nothing_is_sent_as_it_is() -> None:
    request = CompletionRequest("there", "m", [{"role": "user", "content": "Why?"}], {"temperature": 1})

    hidden = hide_request(request, Marks(finder_for(ALL)))

    assert hidden.messages is request.messages
    assert hidden.params is request.params


# Whole chains


RECIPE = """
redact: [email, phone, keys, {employee: 'EMP-\\d+'}]
panel: {members: [fake/a+echo, fake/b+echo], system: "Ask boss@example.com"}
judge: fake/judge
synth: fake/synth+echo
"""
SECRETS = ("ann.lee@example.com", "boss@example.com", "EMP-4711", "+1 555 010 9999", "sk-proj-abcdefghijklmnopqrstuv")
QUESTION = "Write to ann.lee@example.com or +1 555 010 9999 about EMP-4711, key sk-proj-abcdefghijklmnopqrstuv."


def sent_by(upstream: Upstream) -> str:
    return json.dumps(upstream.requests(), ensure_ascii=False)


@pytest.mark.parametrize("stages", [["fuse-ask --json"], ["fuse-panel", "fuse-judge", "fuse-synth"]])
def test_nobody_of_a_chain_sees_an_original_and_the_record_has_them_all(
    stages: list[str], run: Run, upstream: Upstream, tmp_path: Path, env: dict[str, str]
) -> None:
    """Also where the later tools are told nothing of the recipe: the record carries what is to be hidden."""
    (tmp_path / "r.yaml").write_text(RECIPE)
    first, *later = stages

    done = run(" | ".join([f"{first} -c r.yaml", *later]), QUESTION, cwd=tmp_path)

    [record] = done.records
    assert [response["content"] for response in record["panel"]] == [QUESTION, QUESTION]
    assert record["analysis"]["ranking"]
    sent = sent_by(upstream)
    assert len(upstream.bodies()) >= 4
    assert not [secret for secret in SECRETS if secret in sent]
    for body in upstream.bodies():
        text = json.dumps(body["messages"])
        assert "[EMPLOYEE_1]" in text
        assert "EMPLOYEE_2" not in text
    kept = b"".join(file.read_bytes() for file in (tmp_path / "home" / "state").rglob("*") if file.is_file())
    assert b"EMPLOYEE_1" in kept
    assert not [secret for secret in SECRETS if secret.encode() in kept]
    assert not [secret for secret in SECRETS if secret in done.err]


def test_a_replay_gives_the_same_record_and_asks_nobody(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    once = run(["fuse-ask", "--json", "-c", "r.yaml"], QUESTION, cwd=tmp_path)
    asked = len(upstream.bodies())

    again = run(["fuse-ask", "--json", "-c", "r.yaml", "--replay"], QUESTION, cwd=tmp_path)

    assert len(upstream.bodies()) == asked
    assert [{**record, "calls": []} for record in again.records] == [{**record, "calls": []} for record in once.records]


@pytest.mark.parametrize("said_in", ["x", {"a": 1}, [{"email": "x"}], [{"own": "(?=x)"}], [["x"]], [{"BAD NAME": "x"}]])
def test_a_record_that_wants_something_unreadable_hidden_is_not_sent(
    said_in: Any, run: Run, upstream: Upstream, tmp_path: Path
) -> None:
    record = {"id": "1", "messages": [{"role": "user", "content": QUESTION}], "recipe": {"redact": said_in}}

    done = run(["fuse-panel", "-m", "fake/a"], json.dumps(record), cwd=tmp_path)

    assert "$.recipe.redact" in done.err
    assert upstream.bodies() == []


# Through a server


def answer_of(server: Server, body: dict[str, Any]) -> str:
    """Return what is written in an answer, or the arguments of its call, streamed or whole."""
    if body.get("stream"):
        events = server.stream("/v1/chat/completions", body).events
        parts = [choice["delta"] for event in events for choice in event.get("choices", ())]
    else:
        parts = [server.post("/v1/chat/completions", body).json()["choices"][0]["message"]]
    calls = [call["function"].get("arguments") or "" for part in parts for call in part.get("tool_calls") or ()]
    return "".join(calls or [part.get("content") or "" for part in parts])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["fusion", "fake/a+echo"])
def test_a_server_hides_too_for_a_fusion_and_for_a_model_by_its_name(
    name: str, stream: bool, serve: Serve, upstream: Upstream
) -> None:
    server = serve(recipe=RECIPE.replace("members: [", "members: [fake/c+tool, "))
    upstream.reset()
    body = {"model": name, "stream": stream, "user": ADDRESS, "messages": [{"role": "user", "content": QUESTION}]}

    text = answer_of(server, body)

    assert "ann.lee@example.com" in text
    assert "EMP-4711" in text
    assert upstream.bodies()
    assert not [secret for secret in SECRETS if secret in sent_by(upstream)]


def test_the_arguments_of_a_call_come_back_through_a_server(serve: Serve, upstream: Upstream) -> None:
    server = serve(recipe=RECIPE.replace("members: [", "members: [fake/c+tool, "))
    parameters = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    function = {"name": "find", "description": "Of boss@example.com", "parameters": parameters}
    tool = {"type": "function", "function": function}
    body = {"model": "fake/c+tool", "messages": [{"role": "user", "content": QUESTION}], "tools": [tool]}

    for stream in (False, True):
        assert json.loads(answer_of(server, body | {"stream": stream})) == {"q": QUESTION}
    assert not [secret for secret in SECRETS if secret in sent_by(upstream)]
