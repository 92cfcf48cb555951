"""`fuse-ask`: one question through a chain in one process, as a person and as a script see it."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from samples import poll
from terminal import everything
from terminal import on_a_terminal as on_any_terminal
from workdir import Run, Upstream

from fusiontools.record.schemas import check_record

#: A pipe that stays open would be read for more to ask about.
on_a_terminal = partial(on_any_terminal, stdin=subprocess.DEVNULL)
CHAIN = "panel -m fake/a+text=One -m fake/b+text=Two | synth -m fake/s+text=Both"


# --- What is asked ---


def test_arguments_are_the_question(run: Run, upstream: Upstream) -> None:
    result = run(["fuse-ask", "--chain", CHAIN, "Why", "is", "that?"])

    assert (result.status, result.text, result.err) == (0, "Both\n", "")
    assert upstream.bodies("fake/a+text=One")[0]["messages"] == [{"role": "user", "content": "Why is that?"}]


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        (["-"], "From stdin."),
        ([], "From stdin."),
        (["Sum up:", "-"], "Sum up: \n\nFrom stdin."),
        (["Before.", "-", "After."], "Before. \n\nFrom stdin.\n\n After."),
    ],
)
def test_a_dash_and_nothing_are_standard_input(args: list[str], asked: str, run: Run, upstream: Upstream) -> None:
    result = run(["fuse-ask", "--chain", CHAIN, *args], "From stdin.")

    assert result.status == 0, result.err
    said = upstream.bodies("fake/a+text=One")[0]["messages"][0]["content"]
    assert re.sub(r"\n\s*\n", "\n\n", said) == asked


@pytest.mark.parametrize(
    ("args", "stdin", "said"),
    [
        (["-", "-"], "x", "`-` may stand once"),
        ([], "", "the question cannot be read: the question is empty"),
        (["-"], b"\xff\xfe", "the question cannot be read: not UTF-8"),
        ([""], "", "the question cannot be read: the question is empty"),
    ],
)
def test_what_is_no_question_ends_with_2(args: list[str], stdin: str | bytes, said: str, run: Run) -> None:
    result = run(["fuse-ask", "--chain", CHAIN, *args], stdin)

    assert (result.status, result.out) == (2, b"")
    assert said in result.err


def test_what_is_piped_stands_below_the_question(run: Run, upstream: Upstream) -> None:
    result = run(["fuse-ask", "--chain", CHAIN, "Sum up:"], "A long text.\n")

    assert result.status == 0, result.err
    assert upstream.bodies("fake/a+text=One")[0]["messages"][0]["content"] == "Sum up: \n\nA long text."


def test_json_on_standard_input_is_a_record(run: Run, upstream: Upstream) -> None:
    asked = {"id": "mine", "messages": [{"role": "user", "content": "Why?"}], "meta": {"target": "x"}}

    result = run(["fuse-ask", "--chain", CHAIN, "-o", "jsonl"], json.dumps(asked, indent=2))

    (record,) = result.records
    assert (record["id"], record["meta"], record["messages"]) == ("mine", {"target": "x"}, asked["messages"])


def test_json_below_a_question_is_text(run: Run, upstream: Upstream) -> None:
    run(["fuse-ask", "--chain", CHAIN, "Explain:"], '{"messages": []}')

    assert upstream.bodies("fake/a+text=One")[0]["messages"][0]["content"].endswith('{"messages": []}')


def test_several_records_are_work_for_the_filters(run: Run) -> None:
    result = run(["fuse-ask", "--chain", CHAIN], '{"prompt": "a"}\n{"prompt": "b"}\n')

    assert (result.status, result.out) == (2, b"")
    assert "fuse-panel | fuse-judge | fuse-synth" in result.err


def test_a_question_that_begins_with_a_dash_is_told_what_to_do(run: Run) -> None:
    result = run(["fuse-ask", "-5 + 3 = ?"])

    assert result.status == 2
    assert "fuse-ask -- '-5 + 3 = ?'" in result.err


def test_short_forms_reach_the_stages_that_they_name(run: Run, upstream: Upstream) -> None:
    args = ["-m", "fake/a", "--panel", "fake/b", "-J", "fake/judge", "-S", "fake/s", "-t", "77", "-s", "Be brief."]

    result = run(["fuse-ask", "-c", "budget", *args, "Why?"])

    assert result.status == 0, result.err
    assert {*upstream.stats()["per_model"]} == {"fake/a", "fake/b", "fake/judge", "fake/s"}
    assert upstream.bodies("fake/s")[0]["max_tokens"] == 77
    assert upstream.bodies("fake/a")[0]["messages"][0] == {"role": "system", "content": "Be brief."}


def test_a_pipe_gets_the_answer_as_it_comes(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    # The second word never comes.
    chain = "panel -m fake/a+text=One -m fake/b+text=Two | synth -m fake/s+itl=1e6+text=both_of_them"
    with subprocess.Popen(
        ["fuse-ask", "--chain", chain, "Why?"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.read(1) == b"b"
        finally:
            process.kill()


def test_a_question_that_looks_like_json_is_text(run: Run, upstream: Upstream) -> None:
    run(["fuse-ask", "--chain", CHAIN, '{"messages": []}'])

    assert upstream.bodies("fake/a+text=One")[0]["messages"][0]["content"] == '{"messages": []}'


def test_members_are_named_as_everywhere(run: Run, upstream: Upstream) -> None:
    result = run(["fuse-ask", "--chain", "panel | vote", "-m", "fake/a+text=4*2", "-m", "fake/b+text=5", "2+2?"])

    assert (result.status, result.text) == (0, "4\n")
    assert upstream.stats()["per_model"] == {"fake/a+text=4": 2, "fake/b+text=5": 1}


# --- What comes out ---


def test_json_is_the_whole_record(run: Run) -> None:
    result = run(["fuse-ask", "--json", "--chain", CHAIN, "Why?"])

    [record] = result.records
    check_record(record)
    assert record["answer"]["content"] == "Both"
    assert len(record["calls"]) == 3


def test_verbose_shows_layers_responses_analysis_and_answer(run: Run) -> None:
    chain = "panel -m fake/a -m fake/b | panel --revise | judge -m fake/judge | synth -m fake/s+text=Both"

    result = run(["fuse-ask", "-v", "--chain", chain, "Why?"])

    order = ["── layer 1, fake/a ", "── layer 1, fake/b ", "── fake/a ", "── fake/b ", "── analysis (by fake/judge)", "── answer (written by"]  # fmt: skip  # noqa: E501
    places = [result.text.index(heading) for heading in order]
    assert places == sorted(places)


def test_a_chain_without_an_answer_shows_what_there_is(run: Run) -> None:
    result = run(["fuse-ask", "--chain", "panel -m fake/a+text=One -m fake/b+text=Two", "Why?"])

    assert "One" in result.text
    assert "Two" in result.text


def test_what_went_otherwise_is_said_and_is_no_failure(run: Run) -> None:
    chain = "panel -m fake/a+text=One -m fake/b+status=400 | synth -m fake/s"

    result = run(["fuse-ask", "--chain", chain, "Why?"])

    assert (result.status, result.text) == (0, "One\n")
    assert "fuse-ask: member_failed: fake/b+status=400: bad_request" in result.err
    assert "fuse-ask: one_survivor: " in result.err


JUDGE_FAILS = "panel -m fake/a+text=One -m fake/b+text=Two | judge -m fake/j+status=400 | synth -m fake/s+status=400"


def test_a_judge_that_fails_is_said_and_with_strict_is_a_failure(run: Run) -> None:
    lax, strict, quiet = (
        run(["fuse-ask", "--chain", JUDGE_FAILS, *more, "Why?"]) for more in ([], ["--strict"], ["--strict", "-q"])
    )

    assert (lax.status, strict.status, quiet.status) == (0, 1, 1)
    assert lax.text == strict.text == quiet.text == "One\n"
    assert lax.err == strict.err
    assert [line.split(": ")[:2] for line in lax.err.splitlines()] == [
        ["fuse-ask", "judge_failed"],
        ["fuse-ask", "synth_failed"],
    ]
    assert quiet.err == ""


def test_strict_finds_no_fault_with_a_whole_answer(run: Run) -> None:
    assert run(["fuse-ask", "--strict", "--chain", CHAIN, "Why?"]).status == 0


def test_no_answer_ends_with_3_and_says_why(run: Run) -> None:
    result = run(["fuse-ask", "--chain", "panel -m fake/a+status=401 | vote", "Why?"])

    assert (result.status, result.out) == (3, b"")
    assert "fuse-ask: no answer: all_failed: fake/a+status=401: " in result.err


def test_each_reason_of_several_has_its_own_line(run: Run) -> None:
    members = "-m fake/a+status=400 -m fake/b+empty -m fake/c+empty"

    said = run(["fuse-ask", "-q", "--retries", "0", "--chain", f"panel {members} | vote", "Why?"]).err.splitlines()

    assert said == [
        "fuse-ask: no answer: all_failed:",
        "fuse-ask:   fake/a+status=400: HTTP 400: upstream says 400 for fake/a+status=400",
        "fuse-ask:   fake/b+empty, fake/c+empty: the model answered nothing",
    ]


def test_a_failed_record_is_still_printed_as_json(run: Run) -> None:
    result = run(["fuse-ask", "--json", "--chain", "panel -m fake/a+status=401 | vote", "Why?"])

    assert result.status == 3
    assert result.records[0]["error"]["code"] == "all_failed"


def test_the_budget_ends_with_4(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "models: {a: {model: fake/a, price_usd_per_mtok: {prompt: 1, completion: 9}}}\npanel: [a]\n"
    )

    result = run(["fuse-ask", "-c", "r.yaml", "--max-cost-usd", "0.000001", "Why?"])

    assert result.status == 4


def test_a_second_time_is_free_with_replay(run: Run, upstream: Upstream) -> None:
    first = run(["fuse-ask", "--chain", CHAIN, "Why?"])
    requests = upstream.stats()["requests"]

    again = run(["fuse-ask", "--replay", "--chain", CHAIN, "Why?"])

    assert again.out == first.out
    assert upstream.stats()["requests"] == requests


def test_a_reader_that_has_gone_is_no_error(run: Run) -> None:
    result = run(f"fuse-ask --json --chain '{CHAIN}' Why | head -c 1", pipefail=True)

    assert (result.status, result.err) == (0, "")


@pytest.mark.parametrize("chain", ["panel | sinth", "synth | panel", "panel -m a --samples x", "panel | judge | judge"])
def test_a_chain_that_cannot_be_is_refused_before_anything_is_asked(chain: str, run: Run, upstream: Upstream) -> None:
    result = run(["fuse-ask", "--chain", chain, "Why?"])

    assert (result.status, result.out) == (2, b"")
    assert result.err.startswith("fuse-ask: --chain: column ")
    assert upstream.stats()["requests"] == 0


# --- On a terminal ---


def test_a_person_sees_who_answered_and_then_the_answer(
    env: dict[str, str], tmp_path: Path, upstream: Upstream
) -> None:
    chain = "panel -m fake/a+text=One -m fake/b+status=400 -m fake/c+text=Two | synth -m fake/s+text=Both"

    with on_a_terminal(["fuse-ask", "--plain", "--chain", chain, "Why?"], env, tmp_path) as (ours, process):
        screen = everything(ours)
        status = process.wait(60)

    assert status == 0
    table, _, rest = screen.rpartition("bad_request")
    assert re.search(r"panel +✓ +fake/a\+text=One +\d+\.\d s +\$0\.0010", table)
    assert "✗  fake/b+status=400" in table
    assert re.search(r"Both\s+synth +✓ +fake/s\+text=Both +\d+\.\d s +\$0\.0010\s", rest)
    assert re.search(r"written by fake/s\+text=Both, 4 calls, \$0\.0030, \d+\.\d s", rest)
    assert re.sub(r"text=Both", "", screen).count("Both") == 1


def test_a_pipe_gets_the_text_alone(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    with on_a_terminal(["fuse-ask", "--chain", CHAIN, "Why?"], env, tmp_path, out=subprocess.PIPE) as (ours, process):
        out, _ = process.communicate(timeout=60)
        screen = everything(ours)

    assert out == b"Both\n"
    assert "✓  fake/a+text=One" in screen


def test_quiet_shows_nothing_but_the_answer(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    with on_a_terminal(["fuse-ask", "-q", "--plain", "--chain", CHAIN, "Why?"], env, tmp_path) as (ours, process):
        screen = everything(ours)
        process.wait(60)

    assert screen.split() == ["Both"]


def test_a_models_words_do_not_steer_the_terminal(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    upstream.script("fake/s", "text=\x1b]0;owned\x07Both\x9b31m")

    with on_a_terminal(
        ["fuse-ask", "-q", "--chain", "panel -m fake/a -m fake/b | synth -m fake/s", "x"], env, tmp_path
    ) as (ours, process):
        screen = everything(ours)
        process.wait(60)

    assert "\x07" not in screen
    assert "\x9b" not in screen
    assert "\x1b]" not in screen


def test_ctrl_c_leaves_at_once_with_130(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    with on_a_terminal(["fuse-ask", "--chain", "panel -m fake/a+hang", "Why?"], env, tmp_path) as (_, process):
        poll(upstream, lambda stats: stats["in_flight"] == 1)
        process.send_signal(signal.SIGINT)
        status = process.wait(60)

    assert status == 130


def test_bare_on_a_terminal_it_says_what_to_type(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(["fuse-ask"], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=tmp_path) as process:
        os.close(theirs)
        screen = everything(ours)
        status = process.wait(60)
    os.close(ours)

    assert status == 2
    assert 'ask something: fuse-ask "What is a CRDT?"' in screen


@pytest.mark.slow
def test_the_embedded_model_answers_for_real(run: Run, env: dict[str, str]) -> None:
    for name in ("FUSION_BASE_URL", "FUSION_API_KEY"):
        del env[name]

    result = run(["fuse-ask", "--json", "-c", "local", "--chain", "panel --samples 3 | vote", "What is 7 times 8?"])

    [record] = result.records
    assert result.status == 0, result.err
    assert record["answer"]["vote"]["of"] == 3
    assert json.dumps(record["answer"]["content"])


def test_a_closed_input_cannot_be_read(run: Run) -> None:
    result = run(f"fuse-ask --chain '{CHAIN}' - <&-")

    assert (result.status, result.out) == (2, b"")
    assert result.err == "fuse-ask: stdin: cannot be read: Bad file descriptor\n"


def test_an_address_without_its_version_is_said_with_what_to_try(
    run: Run, upstream: Upstream, env: dict[str, str]
) -> None:
    base_url = upstream.url.removesuffix("/v1")

    result = run(["fuse-ask", "--chain", "panel -m fake/a", "Why?"], env={**env, "FUSION_BASE_URL": base_url})

    assert result.status == 3
    assert f"{base_url}/chat/completions" in result.err
    assert "/v1" in result.err.replace(base_url, "")


def test_an_interrupted_question_says_how_to_go_on(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    with on_a_terminal(["fuse-ask", "--chain", "panel -m fake/a+hang", "Why?"], env, tmp_path) as (ours, process):
        poll(upstream, lambda stats: stats["in_flight"] == 1)
        process.send_signal(signal.SIGINT)
        screen = everything(ours)

    assert "--replay" in screen


# --- Bugs ---

#: A question that meets a bug after a model was asked.
BUGGY = """
import asyncio, sys
from fusiontools.cli.ask_run import Asking, ask_once
from fusiontools.cli.command import leave
from fusiontools.cli.setup import make_client
from fusiontools.config.recipe_yaml import load_recipe

async def stage(record, runtime):
    ledger = runtime.ledger("panel", record)
    member = load_recipe().panel.members[0]
    await runtime.client.complete(runtime.client.request(member, record["messages"], {}), member, ledger)
    raise LookupError("SECRET")

question = {"id": "q", "messages": [{"role": "user", "content": "Why?"}]}
asking = Asking("fuse-ask", as_record=True, plain=False, verbose=False, quiet=False, strict=False, replayable=True)
leave(asyncio.run(ask_once(question, stage, make_client(load_recipe(), {}, {}, "fuse-ask"), asking)))
"""


def test_a_bug_is_a_failed_record_with_what_was_paid_and_its_traceback_once(run: Run, upstream: Upstream) -> None:
    result = run([sys.executable, "-c", BUGGY])

    assert result.status == 3
    [record] = result.records
    assert record["error"]["code"] == "bug"
    assert [call["status"] for call in record["calls"]] == ["ok"]
    check_record(record)
    assert result.err.count("Traceback (most recent call last)") == 1
    assert "--replay" in result.err
