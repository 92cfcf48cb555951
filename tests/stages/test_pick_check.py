"""`fuse-pick --check`: which response passes, what a check can see and do, and who is asked again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bench.checked import measure
from boxes import boxed_only
from samples import judged, panelled, response
from scripted import Scripted, model
from stage_runs import run_stage
from workdir import ROOT, Run, Upstream

from fusiontools.config.options import fixed
from fusiontools.config.recipe import from_summary
from fusiontools.config.stage_table import PickOptions
from fusiontools.errors import CallFailed, UsageError
from fusiontools.stages.pick import pick
from fusiontools.stages.pick_check import program_in

EXAMPLES = str(ROOT / "examples" / "check_examples.py")
WRONG, RIGHT = "Sure:\n```python\ndef f(x):\n    return x\n```\n", "```python\ndef f(x):\n    return x + 1\n```"

pytestmark = boxed_only


def says(*texts: str, **more: Any) -> Any:
    """Return a record whose members `a`, `b`, … have said these texts."""
    return panelled("q1", [response(chr(97 + i), text) for i, text in enumerate(texts)], **more)


def check(command: str, record: Any, backend: Scripted | None = None, **options: Any) -> Any:
    members = tuple(model(name) for name in "abc")
    chosen = PickOptions(**{"check": command, "panellists": members, "check_s": 20.0, **options})
    return run_stage(pick(fixed(chosen)), record, backend)


def test_the_best_ranked_of_those_that_pass_is_the_answer() -> None:
    ranked = says("one", "two", "three", analysis=judged(ranking=(0, 2, 1))["analysis"])

    made = check("grep -q t", ranked)

    assert (made["answer"]["content"], made["answer"]["response"]) == ("three", 2)
    assert made["answer"]["pick"] == {"method": "check", "checked": 3, "passed": [1, 2]}
    assert "degraded" not in made
    assert "calls" not in made


def test_a_program_is_the_input_and_else_the_whole_text() -> None:
    files = 'test "$(cat)" = "$(cat response)" && test ! -e program'

    assert check(files, says("plain"))["answer"]["pick"]["passed"] == [0]
    program = 'test "$(cat)" = "$(cat program)" && grep -q Sure response && ! grep -q Sure program'
    assert check(program, says(WRONG))["answer"]["pick"]["passed"] == [0]


def test_a_check_sees_the_record_and_the_files_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    seen = "grep -q 'What is q1' record.json && grep -q target record.json && ! grep -q panel record.json"

    made = check(
        f"test $({seen} && cat folder/a.txt b.txt) = ab",
        says("x", meta={"target": 1}),
        check_files=(str(tmp_path / "folder"), str(tmp_path / "b.txt")),
    )

    assert made["answer"]["pick"]["passed"] == [0]


@pytest.mark.parametrize(
    "harm",
    [
        "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9), 1)'; test $? = 99",
        'test -n "$FUSION_FENCE_SECRET"',
        f"test -e {ROOT}/pyproject.toml",
        "touch /usr/made",
        "cat /dev/zero",
    ],
)
def test_a_check_reaches_nothing_but_its_folder(harm: str) -> None:
    assert check(harm, says("x"))["degraded"][0]["code"] == "check_failed"


def test_a_check_that_takes_too_long_fails() -> None:
    made = check("sleep 60", says("x", "y"), check_s=0.2)

    assert "not through after 0.2 s" in made["degraded"][0]["detail"]


def test_where_none_passes_the_best_stands_in_and_that_is_said() -> None:
    made = check("echo no such luck; exit 3", says("short", "longer"))

    assert made["answer"]["content"] == "longer"
    assert made["degraded"] == [
        {
            "stage": "pick", "code": "check_failed",
            "detail": "none of 2 responses passes; the longest finished one stands in, of which the check said: "
            "exit 3 no such luck",
        }
    ]  # fmt: skip


def test_members_read_what_the_check_said_of_their_own_response_and_answer_again() -> None:
    backend = Scripted(a=["still no", "no again"], b=["not yet", "yes"])

    made = check('echo "LINE $(cat)"; grep -q yes response', says("first", "second"), backend, check_retries=3)

    assert made["answer"] == {
        "content": "yes", "by": "pick", "model": "b", "finish_reason": "stop", "tool_calls": [],
        "pick": {"method": "check", "checked": 2, "passed": [1], "retry": 2},
    }  # fmt: skip
    assert sorted((call["member"], call["step"]) for call in made["calls"]) == [(name, "retry") for name in "aabb"]
    [asked] = [r for r in backend.requests if r.model == "b" and len(r.messages) == 3]
    assert asked.messages[1] == {"role": "assistant", "content": "second"}
    told = str(asked.messages[2]["content"])
    assert "LINE second" in told.partition("<<<CHECK ")[2].partition("<<<END CHECK ")[0]
    [last] = [r for r in backend.requests if r.model == "b" and len(r.messages) == 5]
    assert "LINE not yet" in str(last.messages[4]["content"])


def test_who_fails_when_asked_again_is_noted_and_the_others_go_on() -> None:
    backend = Scripted(a=CallFailed("auth", "HTTP 401", status=401), b=["no", "yes"])

    made = check("grep -q yes", says("first", "second"), backend, check_retries=2)

    assert made["answer"]["content"] == "yes"
    assert [note["code"] for note in made["degraded"]] == ["member_failed"]
    assert backend.asked.count("a") == 1


def test_who_is_on_no_panel_here_is_noted_and_not_asked_again() -> None:
    backend = Scripted()

    made = check("false", says("first", "second"), backend, check_retries=2, panellists=(model("b"),))

    assert {request.model for request in backend.requests} == {"b"}
    assert made["degraded"][0]["detail"] == "a: is on no panel that is known here, and cannot be asked again"


def test_a_check_passes_no_key_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "key-of-somebody")
    backend = Scripted(a="yes")

    check("echo key-of-somebody; grep -q yes response", says("first"), backend, check_retries=1)

    assert "key-of-somebody" not in str(backend.requests[0].messages)


def test_equal_responses_are_checked_once() -> None:
    lot = "exit $(( $(od -An -N1 -tu1 /dev/urandom) % 2 ))"

    made = check(lot, says(*["same"] * 12), check_retries=0)

    # Each by itself, they would hardly all have the same luck.
    assert made["answer"].get("pick", {"passed": []})["passed"] in ([], [*range(12)])


def test_a_strangers_record_names_no_command() -> None:
    assert from_summary(PickOptions, {"check": "touch here", "pairwise": True}) == PickOptions(pairwise=True)


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(UsageError, match=r"--check-with none\.py: there is no such file or folder"):
        check("true", says("x"), check_files=("none.py",))


def test_the_longest_block_is_the_program_and_thoughts_hold_none() -> None:
    assert program_in("<think>\n```\nlong, long thoughts\n```\n</think>\nno code") is None
    assert (
        program_in("```sh\npip install x\n```\nthen\n```python\nimport x\nx.run(1, 2, 3)\n```")
        == "import x\nx.run(1, 2, 3)\n"
    )


#: Three tasks in the manner of HumanEval, each with examples in the question, and checks that nobody is shown.
TASKS = [
    ("add", "Return a + b.\n>>> add(1, 2)\n3", "assert candidate(2, 2) == 4", ["return a * b", "return a + b"]),
    ("last", "Return the last.\n>>> last([1, 2])\n2", "assert candidate([7]) == 7", ["return a[-1]", "return a[0]"]),
    ("even", "Say whether a is even.\n>>> even(3)\nFalse", "assert candidate(2)", ["return a % 2", "return not a"]),
]  # fmt: skip


def tasks() -> str:
    lines = []
    for name, asked, test, bodies in TASKS:
        wanted = "a, b" if name == "add" else "a"
        texts = [f"```python\ndef {name}({wanted}):\n    {body}\n```" for body in bodies]
        hidden = {"grader": "code", "tests": f"def check(candidate):\n    {test}\n", "entry_point": name}
        record = panelled(name, [response(who, text) for who, text in zip("ab", texts, strict=True)])
        record |= {"messages": [{"role": "user", "content": asked}], "meta": hidden}
        lines.append(json.dumps(record))
    return "\n".join(lines)


@pytest.mark.slow
def test_picking_by_the_examples_in_a_question_reaches_the_oracle_of_the_panel(run: Run) -> None:
    command = f"fuse-pick -q --check 'python3 check_examples.py' --check-with {EXAMPLES}"

    graded = run(f"{command} | fuse-grade -q", tasks()).records

    scores = [{(g["of"], g["member"]): g["score"] for g in record["grades"]} for record in graded]
    answers = [next(s for (of, _), s in each.items() if of == "answer") for each in scores]
    oracle = [max(s for (of, _), s in each.items() if of == "panel") for each in scores]
    assert answers[:2] == oracle[:2] == [1, 1]
    # No program of the last task passes its hidden check: no check can pick what nobody wrote.
    assert (answers[2], oracle[2]) == (0, 0)


@pytest.mark.slow
def test_from_a_panel_that_was_asked_over_http_the_pick_reaches_the_oracle_where_the_examples_tell(
    upstream: Upstream, tmp_path: Path
) -> None:
    found = measure(6, 0.0, upstream, tmp_path)

    assert found.checked == found.oracle
    assert found.checked[0] > found.best_member[0]
