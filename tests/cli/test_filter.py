"""The loop of every filter: which line is at fault and why, what an endpoint may do, and nothing lost."""

from __future__ import annotations

import copy
import json
import random
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mistakes import JUDGE, PANEL, SECRET, SYNTH, clear, needs_dev_full, panel
from samples import judged, lines, panelled, question, response
from workdir import Result, Run, Upstream

#: (line, what is said of it)
BAD_LINES = [
    (b"{", "not JSON: unexpected end of data (column 2): '{'"),
    (b"{'id': 1}", "not JSON: unexpected character, expected a string key (column 2): \"{'id': 1}\""),
    (b'{"prompt": "x"} trailing', "not JSON: "),
    (b'{"prompt": NaN}', "not JSON: "),
    (b'{"prompt": "x", "n": 1e999}', "not JSON: number is infinity"),
    (b"17", "$: a record is a JSON object, this is a number"),
    (b'"text"', "$: a record is a JSON object, this is a string"),
    (b"null", "$: a record is a JSON object, this is null"),
    (b'[{"prompt": "x"}]', "$: a record is a JSON object, this is an array"),
    (b"{}", "$: no `messages` and no `prompt`: not a question"),
    (b'{"prompt": 5}', "$.prompt: a prompt is text, this is a number"),
    (b'{"prompt": ""}', "$.messages: no message has any content: the question is empty"),
    (b'{"id": 5, "prompt": "x"}', "$.id: 5 is not of type 'string'"),
    (b'{"id": "", "prompt": "x"}', "$.id: '' should be non-empty"),
    (b'{"messages": "x"}', "$.messages: 'x' is not of type 'array'"),
    (b'{"messages": []}', "$.messages: [] should be non-empty"),
    (b'{"messages": [{"role": "king", "content": "x"}]}', "$.messages[0].role: 'king' is not one of ['system', "),
    (b'{"messages": [{"role": "user", "content": 5}]}', "$.messages[0].content: 5 is not of type 'string', 'array'"),
    (
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}',
        "$.messages[0].content[0].text: 5 is not of type 'string'",
    ),
    (b'{"prompt": "x", "max_tokens": "many"}', "$.params.max_tokens: 'many' is not of type 'integer'"),
    (b'{"prompt": "x", "meta": 5}', "$.meta: 5 is not of type 'object'"),
    (b'{"prompt": "x", "calls": {}}', "$.calls: {} is not of type 'array'"),
    (b'{"prompt": "x", "meta": {"n": 123456789012345678901}}', "$: the integer 123456789012345678901 has more than 64"),
    (b'{"prompt": "x", "meta": {"n": ' + b"[" * 300 + b"]" * 300 + b"}}", "$: nested too deeply to be passed on"),
    (b'{"prompt": "' + b"[" * 2000 + b'", "meta": {"n": ' + b"[" * 2000 + b"]" * 2000 + b"}}", "not JSON: "),
    (b'{"prompt": "\xff"}', "not UTF-8: byte 0xff at offset 12"),
    (b'{"prompt": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at offset 12"),
    (b'{"prompt": "\\ud800"}', "not JSON: "),
    (b'{"prompt": "a\0b"}', "not JSON: NUL byte at offset 13"),
    (b"\0\0\0", "not JSON: NUL byte at offset 0"),
]


def test_each_bad_line_is_named_with_its_cause_and_the_rest_goes_on(run: Run, tmp_path: Path) -> None:
    good = lines([question("first")])
    stdin = good + b"".join(line + b"\n" for line, _ in BAD_LINES) + lines([question("last")])

    result = run([*PANEL, "--rejects", "rejected"], stdin)

    said = clear(result).splitlines()
    assert result.status == 1
    assert [r["id"] for r in result.records] == ["first", "last"]
    assert (tmp_path / "rejected").read_bytes() == b"".join(line + b"\n" for line, _ in BAD_LINES)
    assert len(said) == len(BAD_LINES)
    for number, (line, (_, reason)) in enumerate(zip(said, BAD_LINES, strict=True), start=2):
        assert line.startswith(f"fuse-panel: stdin:{number}: {reason}")
        assert len(line) < 500


@pytest.mark.parametrize("tool", [JUDGE, SYNTH], ids=lambda tool: tool[0])
def test_a_record_without_a_panel_is_told_who_makes_one(tool: list[str], run: Run) -> None:
    result = run(tool, lines([question("q1")]))

    assert result.status == 3
    assert clear(result) == f"{tool[0]}: stdin:1: $: no `panel` in this record; fuse-panel makes it\n"


#: (what stands for a panel, what is said of it)
NO_PANELS: list[tuple[Any, str]] = [
    ([], "$.panel: [] should be non-empty"),
    ([{}], "$.panel[0]: "),
    ([{"member": "a", "sample": 0, "layer": 1}], "$.panel[0]: has neither 'content' nor 'error'"),
    ([{"member": "a", "sample": -1, "layer": 1, "content": "x"}], "$.panel[0].sample: -1 is less than the minimum"),
    ([{"member": "a", "sample": 0, "layer": 1, "content": None}], "$.panel[0].content: None is not of type"),
]


@pytest.mark.parametrize("tool", [JUDGE, SYNTH], ids=lambda tool: tool[0])
def test_a_panel_that_is_none_is_named_by_its_path(tool: list[str], run: Run) -> None:
    stdin = [{**question(f"q{i}"), "panel": given} for i, (given, _) in enumerate(NO_PANELS)]

    result = run(tool, lines([*stdin, judged("fine")]))

    said = clear(result).splitlines()
    assert result.status == 1
    assert [r["id"] for r in result.records] == ["fine"]
    for i, (line, (_, reason)) in enumerate(zip(said, NO_PANELS, strict=True), start=1):
        assert line.startswith(f"{tool[0]}: stdin:{i}: {reason}")


#: (what a record's own recipe says of the judge, what is said of it)
BAD_JUDGES: list[tuple[Any, str]] = [
    (5, "$.recipe.judge: cannot be read ("),
    ({"models": [5]}, "$.recipe.judge: cannot be read ("),
    ({"models": [{"name": "a"}]}, "$.recipe.judge: cannot be read ("),
    ({"models": [{"name": 5, "model": {}, "endpoint": []}]}, "$.recipe.judge.models[0]"),
    ({"method": "coin"}, "$.recipe.judge.method: 'coin' is not one of ['model', 'lexical']"),
    ({"temperature": "hot"}, "$.recipe.judge.temperature: 'hot' is not of type 'number'"),
    ({"template": "hymn"}, "$.recipe.judge.template: no prompt template is called 'hymn'"),
]


def test_an_unusable_recipe_of_its_own_is_that_record_s_fault_alone(run: Run) -> None:
    usable = {"models": [{"name": "j", "model": "fake/judge", "endpoint": "openrouter"}]}
    bad = [panelled(f"q{i}", recipe={"judge": own}) for i, (own, _) in enumerate(BAD_JUDGES)]
    fine = [panelled(name, recipe={"judge": usable}) for name in ("first", "last")]

    result = run(["fuse-judge"], lines([fine[0], *bad, fine[1]]))

    said = clear(result).splitlines()
    assert result.status == 1
    assert [r["id"] for r in result.records] == ["first", "last"]
    for i, (line, (_, reason)) in enumerate(zip(said, BAD_JUDGES, strict=True), start=2):
        assert line.startswith(f"fuse-judge: stdin:{i}: {reason}")


def odd_records(count: int) -> Iterator[dict[str, Any]]:
    """Yield a whole record with one to three of its values gone or replaced by something odd, at every depth."""
    parts = [{"type": "text", "text": "Why?"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    model = {"name": "m", "model": "fake/judge", "endpoint": "openrouter"}
    whole = judged(
        params={"max_tokens": 50, "stop": ["x"], "tools": [{"type": "function", "function": {"name": "f"}}]},
        recipe={"name": "r", "judge": {"models": [model]}, "synth": {"models": [model]}},
        calls=[{"stage": "panel", "model": "m", "endpoint": "e", "status": "ok", "usage": None, "cost_usd": None}],
        degraded=[{"stage": "panel", "code": "x", "detail": "y"}],
        error={"code": "x", "message": "y"},
    )
    whole["messages"] += [{"role": "user", "content": parts}, {"role": "assistant", "tool_calls": [call]}]
    whole["panel"].append(response("fake/c", error={"code": "timeout", "message": "no"}))
    odd = [None, True, 0, -1, 1.5, 2**64 - 1, "", "x", "\0", [], {}, [[]], [{}], [None], {"a": None}, ["x"], {"x": 5}]
    dice = random.Random(7)

    def places(value: Any) -> Iterator[tuple[Any, Any]]:
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield value, key
            yield from places(value[key])

    for i in range(count):
        record = copy.deepcopy(whole)
        if i % 4:
            del record["error"]
        for _ in range(dice.choice((1, 1, 2, 3))):
            holder, key = dice.choice(list(places(record)))
            if dice.random() < 0.2:
                del holder[key]
            else:
                holder[key] = dice.choice(odd)
        yield record


@pytest.mark.parametrize(
    "tool",
    [PANEL, ["fuse-judge"], JUDGE, ["fuse-synth"], SYNTH, [*SYNTH, "-o", "text", "-v"]],
    ids=["panel", "judge-own", "judge", "synth-own", "synth", "synth-text"],
)
def test_no_line_however_odd_ends_the_run(tool: list[str], run: Run, tmp_path: Path) -> None:
    count = 200

    result = run([*tool, "--rejects", "rejected"], lines(odd_records(count)))

    clear(result)
    rejected = (tmp_path / "rejected").read_bytes().count(b"\n")
    assert result.status == 1
    assert rejected
    if "text" not in tool:
        assert len(result.records) + rejected == count


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--by", "record,stage,model"], ["--estimate", "-c", "frontier"]], ids=str)
def test_no_line_however_odd_ends_the_sums(options: list[str], run: Run) -> None:
    result = run(["fuse-cost", *options, "-o", "json"], lines(odd_records(300)))

    said = clear(result).splitlines()
    assert result.status == 1
    alike = sum(int(found[1]) for line in said if (found := re.search(r": and (\d+) more like it", line)))
    assert json.loads(result.out)["records"] + sum("stdin:" in line for line in said) + alike == 300


@needs_dev_full
def test_a_full_disk_under_the_rejects_is_said_once_and_the_rest_goes_on(run: Run) -> None:
    stdin = lines([question("q1")]) + b"bad\nworse\n" + lines([question("q4")])

    result = run([*PANEL, "--rejects", "/dev/full"], stdin)

    assert result.status == 1
    assert [r["id"] for r in result.records] == ["q1", "q4"]
    first, full, second = clear(result).splitlines()
    assert first.startswith("fuse-panel: stdin:2: ")
    assert full == "fuse-panel: --rejects /dev/full: No space left on device; no more are kept"
    assert second.startswith("fuse-panel: stdin:3: ")


def test_rejects_that_cannot_be_written_are_refused_before_anything_is_bought(run: Run, upstream: Upstream) -> None:
    result = run([*PANEL, "--rejects", "no/such/folder"], "Why?")

    assert (result.status, result.out) == (2, b"")
    assert clear(result) == "fuse-panel: --rejects no/such/folder: cannot be written: No such file or directory\n"
    assert upstream.stats()["requests"] == 0


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def asked(run: Run, env: Mapping[str, str] | None = None, *models: str, options: str = "") -> Result:
    return run(panel(*models, options=options), lines([question("q1")]), env=env)


def test_a_dead_endpoint_is_named_and_ends_with_3(run: Run, env: dict[str, str]) -> None:
    url = f"http://127.0.0.1:{closed_port()}/v1"

    result = asked(run, {**env, "FUSION_BASE_URL": url}, "fake/a")

    assert result.status == 3
    assert clear(result).startswith(f"fuse-panel: q1: all_failed: fake/a: cannot reach {url}: ")
    assert [r["error"]["code"] for r in result.records[0]["panel"]] == ["connect"]
    assert [call["status"] for call in result.records[0]["calls"]] == ["connect"] * 3


@pytest.mark.parametrize("url", ["localhost:1", "http://", "http://x:y"])
def test_an_address_that_is_none_is_named(url: str, run: Run, env: dict[str, str], upstream: Upstream) -> None:
    result = asked(run, {**env, "FUSION_BASE_URL": url}, "fake/a")

    assert (result.status, result.out) == (2, b"")
    assert f"'{url.rstrip('/')}" in clear(result)


@pytest.mark.parametrize("tool", ["panel", "judge", "synth"])
def test_an_endpoint_that_drips_is_cut_by_the_timeout(tool: str, run: Run, upstream: Upstream) -> None:
    dripping = [f"fuse-{tool}", "-m", "fake/a+drip=1", "--timeout", "0.3", "--retries", "0"]

    result = run(dripping, lines([judged("q1")]), timeout=60)

    (record,) = result.records
    assert "no answer within 0.3 s (--timeout)" in json.dumps(record)
    assert record["calls"][-1]["status"] == "timeout"
    assert upstream.stats()["aborted"] == 1
    clear(result)


def test_a_slow_record_is_cut_by_its_deadline(run: Run, upstream: Upstream) -> None:
    result = asked(run, None, "fake/a+hang", "fake/b", options="--deadline 2")

    (record,) = result.records
    assert result.status == 0
    assert record["panel"][0]["error"] == {"code": "deadline", "message": "the record's 2 s were over (--deadline)"}
    assert "error" not in record["panel"][1]
    assert upstream.stats()["aborted"] == 1


#: What a member does: the code in the record, and words of its message.
FAILURES = {
    "html": ("bad_response", "did not answer JSON: Welcome"),
    "html502": ("upstream", "HTTP 502: Bad Gateway"),
    "garbage": ("bad_response", "did not answer JSON"),
    "err200": ("upstream", "upstream says error for fake/a+err200"),
    "empty": ("empty", "answered nothing"),
    "nochoices": ("empty", "no choices"),
    "nullcontent": ("empty", "answered nothing"),
    "refuse": ("refused", "I cannot help with that."),
    "status=401": ("auth", "upstream says 401"),
    "status=500": ("upstream", "upstream says 500"),
    "nosuchmodel": ("not_found", "does not exist"),
}


def test_an_answer_that_is_none_is_a_failure_with_a_name(run: Run) -> None:
    models = [f"fake/a+{behaviour}" for behaviour in FAILURES]

    result = run(panel(*models, "fake/b"), lines([question("q1")]))

    (record,) = result.records
    *failed, fine = record["panel"]
    assert result.status == 0
    assert "member_failed" in clear(result)
    assert [r["error"]["code"] for r in failed] == [code for code, _ in FAILURES.values()]
    assert [
        words for r, (_, words) in zip(failed, FAILURES.values(), strict=True) if words not in r["error"]["message"]
    ] == []
    assert all("content" not in r for r in failed)
    assert [d["code"] for d in record["degraded"]] == ["member_failed"] * len(models)
    assert all(c["status"] == r["error"]["code"] for r in failed for c in record["calls"] if c["member"] == r["member"])
    assert "content" in fine


def test_an_endpoint_that_closes_before_the_end_is_named(run: Run, upstream: Upstream) -> None:
    result = run(panel("fake/a+closehalf", "fake/a+closeearly", "fake/b"), lines([question("q1")]))

    (record,) = result.records
    assert result.status == 0
    assert "member_failed" in clear(result)
    for cut in record["panel"][:2]:
        assert cut["error"]["code"] == "connection"
        assert cut["error"]["message"].startswith(f"{upstream.url} closed the connection: ")
        # What it wrote until then may have to be paid for: nobody knows how much.
        assert {c["cost_usd"] for c in record["calls"] if c["member"] == cut["member"]} == {None}


def test_all_members_failing_is_an_error_that_names_each(run: Run) -> None:
    stdin = lines([question("q1"), question("q2")])

    result = run(
        "fuse-panel -m fake/a+status=400 -m fake/b+empty | fuse-judge -m fake/judge | fuse-synth -m fake/s", stdin
    )

    assert result.status == 3
    for record in result.records:
        assert record["error"]["stage"] == "panel"
        assert record["error"]["code"] == "all_failed"
        assert "fake/a+status=400: " in record["error"]["message"]
        assert "fake/b+empty: " in record["error"]["message"]
        assert "analysis" not in record
        assert "answer" not in record
    assert [line.partition(": all_failed: ")[0] for line in clear(result).splitlines()] == [
        "fuse-panel: q1",
        "fuse-panel: q2",
    ]


MORE_FAILED = "fuse-panel: more records failed; each says why in its `error`"


def test_of_a_batch_that_fails_for_one_reason_that_reason_is_said_a_few_times(run: Run) -> None:
    result = run(panel("fake/a+status=400"), lines(question(f"q{i}") for i in range(50)))

    *few, more = clear(result).splitlines()
    assert result.status == 3
    assert len(result.records) == 50
    assert [line.partition(": all_failed: ")[0] for line in few] == [f"fuse-panel: q{i}" for i in range(3)]
    assert more == MORE_FAILED


def test_of_a_batch_that_fails_for_many_reasons_the_first_few_say_it_all(run: Run, upstream: Upstream) -> None:
    upstream.script("fake/a", *(f"wording=400,No.%20{i}" for i in range(50)))

    result = run([*panel("fake/a"), "-j", "1"], lines(question(f"q{i}") for i in range(50)))

    assert clear(result).splitlines()[10:] == [MORE_FAILED]


def test_some_records_failing_ends_with_1_and_loses_none(run: Run, upstream: Upstream) -> None:
    upstream.script("fake/a", "", "status=400", "")

    result = run([*panel("fake/a"), "-j", "1"], lines(map(question, ("q1", "q2", "q3"))))

    assert result.status == 1
    assert ["error" in r for r in result.records] == [False, True, False]
    assert clear(result).startswith("fuse-panel: q2: all_failed: fake/a: ")


def test_a_next_tool_that_closes_the_pipe_stops_the_spending(run: Run, upstream: Upstream) -> None:
    stdin = lines(question(f"q{i}") for i in range(2000))

    result = run("fuse-panel -j 4 -m fake/a | head -1", stdin, pipefail=True)

    assert (result.status, clear(result)) == (0, "")
    assert len(result.records) == 1
    assert upstream.stats()["requests"] < 1500


def test_the_key_goes_to_the_endpoint_and_nowhere_else(run: Run, upstream: Upstream) -> None:
    line = "fuse-panel -m fake/a -m fake/b+status=401 | fuse-judge -m fake/judge | fuse-synth -m fake/s -v"

    result = run(line, "Why?")

    assert (result.status, "member_failed" in clear(result)) == (0, True)
    assert {r["headers"]["authorization"] for r in upstream.requests()} == {f"Bearer {SECRET}"}


# What was degraded is said at the end

MINE = "endpoints: {mine: {base_url: %s, free: true}}\nendpoint: mine\n"
MINE += "panel: [fake/a, fake/b]\njudge: fake/j\nsynth: fake/s\n"


def test_an_endpoint_that_only_the_first_tool_knows_is_a_usage_error_of_the_next(
    run: Run, upstream: Upstream, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(MINE % upstream.url)
    plain = {name: value for name, value in env.items() if name not in ("FUSION_BASE_URL", "FUSION_CONFIG")}
    saved = run("fuse-panel -c mine.yaml", "Why?", cwd=tmp_path, env=plain).out

    for tool in ("fuse-judge", "fuse-synth", "fuse-pick"):
        result = run(tool, saved, cwd=tmp_path, env=plain)

        assert (result.status, result.out) == (2, b"")
        assert "stdin:1: " in result.err
        assert "'mine'" in result.err
        assert "-c FILE" in result.err
    assert run("fuse-judge -c mine.yaml | fuse-synth -c mine.yaml", saved, cwd=tmp_path, env=plain).status == 0
    assert run("fuse-vote", saved, cwd=tmp_path, env=plain).status == 0


def test_a_judge_that_fails_every_time_is_said_and_is_an_error_where_that_is_wanted(run: Run) -> None:
    saved = run("fuse-panel -m fake/a -m fake/b --lines", "Why?\nHow?\n").out
    judge = "fuse-judge -m fake/j+status=400"

    lax, strict, quiet = run(judge, saved), run(f"{judge} --strict", saved), run(f"{judge} -q", saved)

    assert "fuse-judge: 2 of 2 records: judge_failed (" in lax.err
    assert (lax.status, strict.status, quiet.status) == (0, 1, 0)
    assert len(strict.records) == 2
    assert "judge_failed" in quiet.err
    assert run("fuse-judge -m fake/j --strict", saved).status == 0


# --- Bugs ---

#: A filter with a stage that has two bugs, and calls a model before it comes to them.
BUGGY = """
import sys
from fusiontools.cli.filter import FilterPlan, run_filter
from fusiontools.cli.setup import make_client
from fusiontools.config.recipe_yaml import load_recipe

async def stage(record, runtime):
    ledger = runtime.ledger("panel", record)
    member = load_recipe().panel.members[0]
    request = runtime.client.request(member, record["messages"], {})
    await runtime.client.complete(request, member, ledger)
    if record["id"] in ("q1", "q3"):
        raise LookupError(record["id"])
    return {**record, "answer": 2**70} if record["id"] == "q2" else record

client = make_client(load_recipe(), {}, {"replay": True}, "fuse-panel")
run_filter(FilterPlan("fuse-panel", stage, client), sys.argv[1:], {})
"""


def test_a_bug_is_one_failed_record_and_the_run_goes_on(run: Run, upstream: Upstream) -> None:
    names = [f"q{i}" for i in range(6)]

    first, again = (run([sys.executable, "-c", BUGGY], lines(map(question, names))) for _ in range(2))

    for result in (first, again):
        assert result.status == 1
        assert [record["id"] for record in result.records] == names
        failed = {record["id"]: record for record in result.records if "error" in record}
        assert {name: record["error"]["code"] for name, record in failed.items()} == dict.fromkeys(
            ["q1", "q2", "q3"], "bug"
        )
        assert all(record["calls"] for record in failed.values())
        # Each kind is shown once, and no value of it is.
        assert result.err.count("Traceback (most recent call last)") == 2
        assert result.err.count("the run goes on") == 2
    assert {call["replayed"] for record in again.records for call in record.get("calls", [])} == {True}
    assert upstream.stats()["requests"] == 6
