"""What holds for every tool of the suite, whichever it is."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forking import Forked, start
from samples import judged, lines, panelled, poll, question, without_calls
from workdir import TOOLS, Run, Upstream

from fusiontools.errors import __version__
from fusiontools.record.schemas import check_record


@dataclass(frozen=True)
class Tool:
    """A filter: how it is called, what it reads, and the section it adds."""

    name: str
    models: tuple[str, ...]
    record: Any
    adds: str
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def args(self) -> list[str]:
        return self.calling(*self.models)

    def calling(self, *models: str) -> list[str]:
        return [self.name, *self.options, *(word for model in models for word in ("-m", model))]


CALLERS = [
    Tool("fuse-route", ("fake/router+text=fuse",), question, "route", ("--method", "model")),
    Tool("fuse-panel", ("fake/a", "fake/b"), question, "panel"),
    Tool("fuse-judge", ("fake/judge",), panelled, "analysis"),
    Tool("fuse-synth", ("fake/s",), judged, "answer"),
    Tool("fuse-pick", ("fake/judge+text=A",), panelled, "answer"),
]
FILTERS = [
    *CALLERS,
    Tool("fuse-vote", (), panelled, "answer"),
    Tool("fuse-grade", (), lambda name="q1", **more: panelled(name, **{"meta": {"target": "42"}, **more}), "grades"),
]
READERS = [*(tool.name for tool in FILTERS), "fuse-cost"]
#: What reads something else than one stream of records, and has tests of its own.
OTHERS = [
    "fuse-ask",
    "fuse-chat",
    "fuse-code",
    "fuse-diff",
    "fuse-mcp",
    "fuse-ray",
    "fuse-serve",
    "fuse-tasks",
    "fuse-report",
    "fuse-tune",
    "fuse-calibrate",
    "fuse-log",
    "fuse-doctor",
]
#: How each tool passes records on.
PASSING = [*(tool.args for tool in FILTERS), ["fuse-cost", "--tee"]]

every_filter = pytest.mark.parametrize("tool", FILTERS, ids=str)
every_caller = pytest.mark.parametrize("tool", CALLERS, ids=str)
every_tool = pytest.mark.parametrize("name", TOOLS)
every_reader = pytest.mark.parametrize("name", READERS)
every_passage = pytest.mark.parametrize("args", PASSING, ids=lambda args: args[0])


@contextmanager
def started(args: Sequence[str], env: Mapping[str, str], cwd: Path) -> Iterator[Forked]:
    """Run a tool whose standard input stays open; it is killed where the block leaves it running."""
    with tempfile.TemporaryFile() as err:
        process = start(args, env, cwd, err.fileno())
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            try:
                yield process
                err.seek(0)
                assert err.read() == b""
            finally:
                process.kill()


def read_line(process: Forked) -> bytes:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 20)
    assert ready, "nothing came out"
    return process.stdout.readline()


def feed(process: Forked | subprocess.Popen[bytes], *records: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(lines(records))
    process.stdin.flush()


def test_no_tool_escapes() -> None:
    assert {*READERS, *OTHERS} == set(TOOLS)


# --- What a person asks for ---


@every_tool
def test_help_opens_with_two_worked_examples(name: str, run: Run) -> None:
    result = run([name, "--help"])

    usage, blank, first, second, end, *_ = result.text.splitlines()
    assert (result.status, result.err) == (0, "")
    assert usage.startswith(f"Usage: {name} ")
    assert (blank, end) == ("", "")
    assert name in first
    assert name in second


@every_tool
def test_version_is_the_package_s(name: str, run: Run) -> None:
    result = run([name, "--version"])

    assert (result.status, result.text, result.err) == (0, f"{name} {__version__}\n", "")


@every_tool
def test_an_unknown_option_is_named_and_ends_with_2(name: str, run: Run) -> None:
    result = run([name, "--no-such-option"])

    assert (result.status, result.out) == (2, b"")
    assert result.err.startswith(f"{name}: ")
    assert "--no-such-option" in result.err


@every_reader
def test_a_file_that_is_not_there_is_named_and_ends_with_2(name: str, run: Run) -> None:
    result = run([name, "nowhere.jsonl"])

    assert (result.status, result.out) == (2, b"")
    assert result.err == f"{name}: nowhere.jsonl: cannot be read: No such file or directory\n"


# --- What comes in ---


#: Every tool with an empty input; whichever reads it, blank lines and a BOM are as little.
NOTHING = [*((name, b"") for name in READERS), ("fuse-judge", b"\n \n\n"), ("fuse-cost", b"\xef\xbb\xbf")]


@pytest.mark.parametrize(("name", "nothing"), NOTHING)
def test_nothing_in_is_said_and_ends_with_3(name: str, nothing: bytes, run: Run) -> None:
    result = run([name], nothing)

    assert (result.status, result.out) == (3, b"")
    assert result.err.count("\n") == 1
    assert result.err.startswith((f"{name}: nothing came in: no ", f"{name}: stdin: the question is empty"))


@every_filter
def test_a_bad_line_is_reported_with_its_number_and_set_aside(tool: Tool, run: Run, tmp_path: Path) -> None:
    bad = b'{"id": "q2", "messages": \r\n'
    stdin = lines([tool.record("q1")]) + bad + b"\n" + b"[]\n" + lines([tool.record("q5")])

    result = run([*tool.args, "--rejects", "rejected.jsonl"], stdin)

    assert result.status == 1
    assert [r["id"] for r in result.records] == ["q1", "q5"]
    first, second = result.err.splitlines()
    assert first.startswith(f"{tool}: stdin:2: not JSON: ")
    assert second == f"{tool}: stdin:4: $: a record is a JSON object, this is an array"
    assert (tmp_path / "rejected.jsonl").read_bytes() == bad + b"[]\n"


def test_a_bad_line_is_reported_by_cost_with_its_number(run: Run) -> None:
    result = run(["fuse-cost", "--tee"], lines([question("q1")]) + b"?\n" + lines([question("q3")]))

    assert result.status == 1
    assert [r["id"] for r in result.records] == ["q1", "q3"]
    assert result.err.startswith("fuse-cost: stdin:2: not JSON: ")


@every_filter
def test_a_bad_first_line_does_not_make_text_of_the_rest(tool: Tool, run: Run) -> None:
    stdin = b'{"prompt"\n' + lines([tool.record("q2")])

    result = run(tool.args, stdin)

    assert result.status == 1
    assert [r["id"] for r in result.records] == ["q2"]
    assert result.err.startswith(f"{tool}: stdin:1: ")


@every_filter
def test_records_of_several_files_are_one_stream(tool: Tool, run: Run, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(lines([tool.record(name)]).removesuffix(b"\n"))

    result = run([*tool.args, "one", "-", "two"], lines([tool.record("stdin")]))

    assert (result.status, result.err) == (0, "")
    assert [r["id"] for r in result.records] == ["one", "stdin", "two"]


@every_filter
def test_the_place_of_a_bad_line_names_its_file(tool: Tool, run: Run, tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_bytes(lines([tool.record("q1")]) + b"{\n")

    result = run([*tool.args, "some.jsonl"])

    assert result.status == 1
    assert result.err.startswith(f"{tool}: some.jsonl:2: not JSON: ")


# --- What goes through ---


@every_filter
def test_what_a_tool_does_not_own_survives(tool: Tool, run: Run) -> None:
    theirs = {"meta": {"target": "42", "n": [1, 2.50, None]}, "mine": {"deep": ["ü", "\u2028"]}, "zero": 0}
    record = {**tool.record("q1"), **theirs, "route": {"to": "fuse"}, "params": {"max_tokens": 99}}

    result = run(tool.args, lines([record]))

    kept = {key: value for key, value in result.records[0].items() if key in record and key != tool.adds}
    assert result.status == 0
    assert kept == {key: value for key, value in record.items() if key != tool.adds}


@every_filter
def test_keys_stand_in_the_order_in_which_they_were_added(tool: Tool, run: Run) -> None:
    record = {"first": 1, **tool.record("q1", zulu=1, alpha=2)}

    result = run(tool.args, lines([record]))

    recipe = ["recipe"] if tool.name == "fuse-panel" else []
    calls = ["calls"] if tool.models else []
    assert list(result.records[0]) == [*record, *recipe, tool.adds, *calls]


@every_caller
def test_records_leave_in_the_order_they_came_and_none_is_lost(tool: Tool, run: Run, upstream: Upstream) -> None:
    upstream.script(tool.models[0], "slow=0.3")
    names = [f"q{i}" for i in range(30)]

    result = run([*tool.args, "-j", "8"], lines(map(tool.record, names)))

    assert (result.status, result.err) == (0, "")
    assert [r["id"] for r in result.records] == names


@every_caller
def test_unordered_records_leave_as_they_finish(tool: Tool, run: Run, upstream: Upstream) -> None:
    upstream.script(tool.models[0], "slow=0.3")
    names = [f"q{i}" for i in range(9)]

    result = run([*tool.args, "--unordered", "-j", "3"], lines(map(tool.record, names)))

    left = [r["id"] for r in result.records]
    assert sorted(left) == names
    assert left != names


@every_passage
def test_a_failed_record_passes_byte_for_byte(args: list[str], run: Run, upstream: Upstream) -> None:
    asked = rb'{"id" : "q1",  "messages":[{"role":"user","content":"\u0041\/"}], "n": 1.50, '
    failed = asked + b'"error":{"stage":"panel","code":"all_failed","message":"no"} }\n'

    result = run(args, failed)

    assert result.out == failed
    assert upstream.stats()["requests"] == 0


@every_filter
def test_only_failed_records_end_with_3_and_some_with_1(tool: Tool, run: Run) -> None:
    failed = question("q1", error={"stage": "panel", "code": "all_failed", "message": "no"})

    alone = run(tool.args, lines([failed]))
    beside = run(tool.args, lines([failed, tool.record("q2")]))

    assert alone.status == 3
    assert beside.status == 1


@every_caller
def test_what_comes_out_fits_the_schema(tool: Tool, run: Run) -> None:
    failing = tool.calling(*(f"{model}+status=400" for model in tool.models))
    record = tool.record("q1", params={"max_tokens": 50, "stop": ["x"]}, meta={"a": 1})

    results = [run(args, lines([record])) for args in (tool.args, failing)]

    for result in results:
        (written,) = result.records
        check_record(written)
        assert written["calls"]


@every_filter
def test_stdout_is_records_only(tool: Tool, run: Run) -> None:
    stdin = lines([tool.record("q1"), tool.record("q1")]) + b"not a record\n"

    result = run([*tool.args, "--verbose"], stdin)

    assert [r["id"] for r in result.records] == ["q1", "q1"]
    assert all(line.startswith(f"{tool}: stdin:") for line in result.err.splitlines())


@every_filter
def test_text_is_what_a_person_reads(tool: Tool, run: Run) -> None:
    failed = question("q2", error={"code": "all_failed", "message": "nobody came"})

    result = run([*tool.args, "-o", "text"], lines([tool.record("q1"), failed]))

    assert result.status == 1
    assert not result.out.startswith(b"{")
    assert result.text.strip()
    assert result.err == f"{tool}: q2: no answer: nobody came\n"


@every_caller
def test_a_replay_is_the_same_but_for_its_calls(tool: Tool, run: Run, upstream: Upstream) -> None:
    stdin = lines(map(tool.record, ("q1", "q2", "q3")))
    bought = run(tool.args, stdin)
    requests = upstream.stats()["requests"]

    replayed = run([*tool.args, "--replay"], stdin)

    assert (replayed.status, replayed.err) == (0, "")
    assert without_calls(replayed.out) == without_calls(bought.out)
    assert upstream.stats()["requests"] == requests
    assert all(call["replayed"] and call["cost_usd"] == 0 for r in replayed.records for call in r["calls"])


# --- How it ends ---


@every_passage
def test_a_reader_that_has_enough_is_no_error(args: list[str], run: Run) -> None:
    padding = "x" * 4000
    make = next((tool.record for tool in FILTERS if tool.name == args[0]), judged)
    (tool, *rest) = args

    result = run(
        f"{tool} {' '.join(rest)} | head -1", lines(make(f"q{i}", pad=padding) for i in range(100)), pipefail=True
    )

    assert (result.status, result.err) == (0, "")
    assert [r["id"] for r in result.records] == ["q0"]


@every_passage
def test_the_first_record_is_out_before_stdin_closes(args: list[str], env: dict[str, str], tmp_path: Path) -> None:
    make = next((tool.record for tool in FILTERS if tool.name == args[0]), judged)

    with started(args, env, tmp_path) as process:
        feed(process, make("q1"))
        first = read_line(process)
        feed(process, make("q2"))
        second = read_line(process)
        process.send_signal(signal.SIGINT)
        process.wait(60)

    assert [json.loads(line)["id"] for line in (first, second)] == ["q1", "q2"]


@every_caller
def test_ctrl_c_returns_at_once_while_a_call_hangs(
    tool: Tool, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    hanging = tool.calling(*(f"{model}+hang" for model in tool.models))

    with started(hanging, env, tmp_path) as process:
        feed(process, tool.record("q1"))
        poll(upstream, lambda stats: stats["in_flight"] == len(tool.models))
        process.send_signal(signal.SIGINT)
        status = process.wait(60)

    assert status == 130
    poll(upstream, lambda stats: stats["in_flight"] == 0)


@every_caller
def test_what_was_ready_is_out_when_ctrl_c_comes(
    tool: Tool, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(tool.models[0], "", "hang")

    with started([*tool.args, "-j", "1"], env, tmp_path) as process:
        feed(process, tool.record("q1"), tool.record("q2"))
        poll(upstream, lambda stats: stats["per_model"].get(tool.models[0]) == 2)
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
        assert process.stdout is not None
        out = process.stdout.read()

    assert status == 130
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["q1"]


@every_passage
def test_ctrl_c_returns_at_once_while_nothing_comes_in(args: list[str], env: dict[str, str], tmp_path: Path) -> None:
    make = next((tool.record for tool in FILTERS if tool.name == args[0]), judged)

    with started(args, env, tmp_path) as process:
        feed(process, make("q1"))
        read_line(process)
        process.send_signal(signal.SIGINT)
        status = process.wait(60)

    assert status == 130


def test_ctrl_c_ends_a_whole_pipeline_quietly(env: dict[str, str], upstream: Upstream, tmp_path: Path) -> None:
    line = "fuse-panel -m fake/a+hang | fuse-judge -m fake/judge | fuse-synth -m fake/s; exit ${PIPESTATUS[0]}"
    with subprocess.Popen(
        ["bash", "-c", line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        feed(process, question())
        poll(upstream, lambda stats: stats["in_flight"] == 1)
        # As a terminal does it: to everybody in the foreground.
        subprocess.run(["kill", "-INT", "--", f"-{process.pid}"], check=True)
        out, err = process.communicate(timeout=60)

    assert (out, err) == (b"", b"")
