"""`fuse-cost`: what a run cost, and that what it foresees is what then happens."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from samples import ASKED, LONG, ledger_call
from workdir import Run


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FUSION_API_KEY", "FUSION_BASE_URL", "FUSION_CONFIG", "FUSION_LOCAL_MODEL"):
        monkeypatch.delenv(name, raising=False)


def line(*calls: Any, **more: Any) -> str:
    return json.dumps({**ASKED, "calls": calls, **more}) + "\n"


SPENT = line(ledger_call(), ledger_call(model="n", cost=0.5), ledger_call("judge", "j", None)) + line(
    ledger_call(cost=0.0, replayed=True, saved_usd=0.25),
    ledger_call("judge", "j", 0.0, status="timeout", usage=None),
    id="q2",
)


# What a run cost


def test_costs_are_added_up_by_stage_and_model_with_a_total(run: Run) -> None:
    result = run(["fuse-cost"], SPENT)

    assert result.status == 0
    assert result.text.splitlines() == [
        "stage  model  calls  failed  replayed  tokens in  tokens out       cost    saved   time",
        "panel  n          1       0         0         10           4    $0.5000        -  0.5 s",
        "panel  m          2       0         1         20           8    $0.2500  $0.2500  1.0 s",
        "judge  j          2       1         0         10           4  ≥ $0.0000        -  1.0 s",
        "total             5       1         1         40          16  ≥ $0.7500  $0.2500  2.5 s",
    ]
    assert result.err == "fuse-cost: the cost of 1 call is unknown; give `price_usd_per_mtok` in the recipe\n"


def test_a_cost_that_nobody_said_is_unknown_and_not_nothing(run: Run) -> None:
    table = run(["fuse-cost"], line(ledger_call(cost=None)))
    data = json.loads(run(["fuse-cost", "-o", "json"], line(ledger_call(cost=None))).out)

    assert "unknown" in table.text
    assert "$0" not in table.text
    assert data["total"]["cost_usd"] is None
    assert data["total"]["unknown"] == 1


def test_a_part_of_the_cost_is_known_as_a_part(run: Run) -> None:
    data = json.loads(run(["fuse-cost", "-o", "json", "--by", "stage"], SPENT).out)

    assert data["records"] == 2
    assert [(row["stage"], row["cost_usd"], row["unknown"]) for row in data["rows"]] == [
        ("panel", 0.75, 0),
        ("judge", 0.0, 1),
    ]
    assert data["total"] == {
        "calls": 5, "failed": 1, "replayed": 1, "prompt_tokens": 40, "completion_tokens": 16, "cost_usd": 0.75,
        "unknown": 1, "saved_usd": 0.25, "latency_s": 2.5,
    }  # fmt: skip


def test_a_spreadsheet_reads_the_same_figures(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run(["fuse-cost", "-o", "csv"], SPENT).text)))

    assert [(row["stage"], row["model"], row["calls"], row["cost_usd"]) for row in rows] == [
        ("panel", "n", "1", "0.5"),
        ("panel", "m", "2", "0.25"),
        ("judge", "j", "2", "0.0"),
    ]
    assert list(rows[0])[2:] == [
        "calls", "failed", "replayed", "prompt_tokens", "completion_tokens", "cost_usd", "unknown",
        "saved_usd", "latency_s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("record", {("q1",): 0.75, ("q2",): 0.0}),
        ("endpoint", {("e",): 0.75}),
        ("record, stage", {("q1", "panel"): 0.75, ("q1", "judge"): None, ("q2", "panel"): 0.0, ("q2", "judge"): 0.0}),
        ("", {(): 0.75}),
    ],
)
def test_costs_are_grouped_as_asked(run: Run, by: str, keys: Any) -> None:
    data = json.loads(run(["fuse-cost", "-o", "json", "--by", by], SPENT).out)

    groups = [group.strip() for group in by.split(",") if group.strip()]
    assert {tuple(row[group] for group in groups): row["cost_usd"] for row in data["rows"]} == keys


def test_a_group_that_does_not_exist_is_refused(run: Run) -> None:
    result = run(["fuse-cost", "--by", "stag"], SPENT)

    assert (result.status, result.out) == (2, b"")
    assert result.err == "fuse-cost: --by 'stag': no such group; did you mean 'stage'?\n"


def test_in_the_middle_of_a_pipeline_records_pass_as_they_are(run: Run) -> None:
    odd = '{ "id":"q3",  "messages":[{"role":"user","content":"x"}], "theirs": 1.50 }\n'

    result = run(["fuse-cost", "--tee", "-o", "json"], SPENT + odd)

    assert result.text == SPENT + odd
    assert json.loads(result.err)["records"] == 3


def test_a_bad_line_is_reported_and_the_rest_is_counted(run: Run) -> None:
    result = run(["fuse-cost", "--by", "stage"], "{broken\n" + line(ledger_call()))

    assert result.status == 1
    assert result.err.startswith("fuse-cost: stdin:1: not JSON: ")
    assert "$0.2500" in result.text


def test_nothing_at_all_is_nothing_usable(run: Run) -> None:
    assert run(["fuse-cost"]).status == 3


def test_a_record_without_a_ledger_cost_nothing(run: Run) -> None:
    data = json.loads(run(["fuse-cost", "-o", "json"], json.dumps(ASKED)).out)

    assert (data["records"], data["rows"], data["total"]["cost_usd"]) == (1, [], 0)


# Real runs


def figures(result: Any, *names: str) -> Any:
    total = json.loads(result.out)["total"]
    return tuple(total[name] for name in names)


def test_a_run_costs_what_the_endpoint_says_failures_and_retries_included(run: Run) -> None:
    run("fuse-panel -m fake/a+cost=0.25 -m fake/b+status=500,1 --backoff 0 > panel.jsonl", "Why?")

    total = figures(run("fuse-cost -o json panel.jsonl"), "calls", "failed", "cost_usd", "unknown")

    assert total == (3, 1, 0.251, 0)


def test_a_replayed_run_costs_nothing_and_says_what_it_saved(run: Run) -> None:
    run("fuse-panel -m fake/a+cost=0.25 -m fake/b+nocost > bought.jsonl", "Why?")
    run("fuse-panel -m fake/a+cost=0.25 -m fake/b+nocost --replay > replayed.jsonl", "Why?")
    names = ("calls", "replayed", "cost_usd", "unknown", "saved_usd")

    assert figures(run("fuse-cost -o json bought.jsonl"), *names) == (2, 0, 0.25, 1, 0)
    assert figures(run("fuse-cost -o json replayed.jsonl"), *names) == (2, 2, 0, 0, 0.25)


# Estimates


def counted(data: bytes) -> dict[tuple[str, str], int]:
    return {(row["stage"], row["model"]): row["calls"] for row in json.loads(data)["rows"]}


# Of every recipe by `tests/runs/test_estimate.py`; here, that a person gets the same figures.
@pytest.mark.parametrize("name", ["cascade", "guarded", "vote"])
def test_what_is_foreseen_is_what_happens(run: Run, name: str) -> None:
    foreseen = run(["fuse-cost", "--estimate", "-c", name, "-o", "json"], LONG)
    executed = run(f"fuse-ask -c {name} --json - | fuse-cost -o json", LONG)

    assert (foreseen.status, executed.status) == (0, 0)
    assert counted(foreseen.out) == counted(executed.out)


@pytest.mark.parametrize(("name", "calls"), [("cascade", 7), ("debate", 9), ("guarded", 7), ("moa", 7), ("vote", 5)])
def test_an_estimate_is_the_dearest_case(run: Run, name: str, calls: int) -> None:
    result = run(["fuse-cost", "--estimate", "-c", name, "-o", "json"], LONG)

    assert figures(result, "calls") == (calls,)


@pytest.mark.parametrize(("name", "least"), [("budget", 5), ("cascade", 3), ("debate", 6), ("vote", 3)])
def test_an_estimate_says_how_far_below_it_a_run_may_stay(run: Run, name: str, least: int) -> None:
    data = json.loads(run(["fuse-cost", "--estimate", "-c", name, "-o", "json"], LONG).out)

    said = run(["fuse-cost", "--estimate", "-c", name], LONG).err
    assert data["least"]["calls"] == least
    assert (f"this is the most: responses are taken to differ; the least is {least} calls" in said) == (
        least < data["total"]["calls"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "question", ["What is the capital of Australia?", "Explain why the sky is blue."], ids=["short", "long"]
)
def test_the_embedded_model_is_asked_as_often_as_its_estimate_says(run: Run, question: str) -> None:
    foreseen = json.loads(run(["fuse-cost", "--estimate", "-c", "local", "-o", "json"], question).out)
    executed = run("fuse-ask -c local -t 16 --json - | fuse-cost -o json", question)

    assert executed.status == 0
    assert foreseen["least"]["calls"] <= figures(executed, "calls")[0] <= foreseen["total"]["calls"]


def test_an_estimate_is_of_all_runs_of_tools_and_starts_none(run: Run, tmp_path: Path) -> None:
    recipe = {
        "mcp": {"gone": {"command": ["no-such-program"]}},
        "panel": {"members": ["fake/a"], "tools": ["web_search", "mcp:gone"], "max_tool_calls": 3},
        "judge": {"model": "fake/j", "tools": ["bash"], "max_tool_calls": 1},
        "chain": "panel | judge | vote",
    }
    (tmp_path / "r.yaml").write_text(json.dumps({**recipe, "panel": {**recipe["panel"], "samples": 2}}))

    result = run(["fuse-cost", "--estimate", "-c", "r.yaml", "-o", "json", "--by", "stage,endpoint"], "Why?")

    calls = {(row["stage"], row["endpoint"] == "tools"): row["calls"] for row in json.loads(result.out)["rows"]}
    assert calls == {("panel", True): 6, ("panel", False): 8, ("judge", True): 1, ("judge", False): 2}
    assert "this is the most" in run(["fuse-cost", "--estimate", "-c", "r.yaml"], "Why?").err


def test_an_estimate_of_batch_jobs_has_their_price_where_an_endpoint_takes_them(run: Run, tmp_path: Path) -> None:
    price = {"price_usd_per_mtok": {"prompt": 100, "completion": 100}}
    there = {"base_url": "http://127.0.0.1:1/v1", "api_key_env": "KEY"}
    recipe = {
        "endpoints": {"jobs": {**there, "batch": {"api": "openai", "price_factor": 0.4}}, "none": there},
        "panel": [{"model": "a", "endpoint": "jobs", **price}, {"model": "b", "endpoint": "none", **price}],
        "chain": "panel",
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    command = ["fuse-cost", "--estimate", "-c", "r.yaml", "--by", "model"]

    full, jobs = (json.loads(run([*command, *more, "-o", "json"], "Why?").out) for more in ([], ["--batch"]))
    said = run([*command, "--batch"], "Why?").err

    costs = [{row["model"]: row["cost_usd"] for row in data["rows"]} for data in (full, jobs)]
    assert costs[1] == {"a": pytest.approx(0.4 * costs[0]["a"]), "b": costs[0]["b"]}
    assert jobs["at_once"]["cost_usd"] == full["total"]["cost_usd"]
    assert "at_once" not in full
    assert f"made at once, the same calls are ${full['total']['cost_usd']:.4f}" in said
    assert "1 call goes to endpoints without batch jobs, at its full price" in said


def test_an_estimate_needs_no_key_and_makes_no_call(run: Run, env: dict[str, str]) -> None:
    del env["FUSION_API_KEY"]
    env["FUSION_BASE_URL"] = "http://127.0.0.1:9/v1"

    result = run(["fuse-cost", "--estimate", "-c", "budget", "--lines", "-o", "json"], "one\ntwo\n")

    assert result.status == 0
    assert figures(result, "calls") == (10,)
    assert json.loads(result.out)["records"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--estimate --tokens 99999999999999999999999", "no answer is longer than 1,000,000 tokens"),
        ("--estimate --chain 'panel --samples 9999 -m a*999999 | vote'", "calls for one record, more than 10,000"),
        ("--chain 'panel | vote'", "--chain goes with --estimate"),
        ("--batch", "--batch goes with --estimate"),
    ],
)
def test_what_would_never_end_or_says_nothing_is_refused(options: str, said: str, run: Run) -> None:
    result = run(f"fuse-cost {options}", LONG)

    assert (result.status, result.out) == (2, b"")
    assert said in result.err


def test_what_replayed_calls_of_unknown_cost_saved_is_unknown(run: Run) -> None:
    unknown = ledger_call(cost=0.0, replayed=True, saved_usd=None)
    known = ledger_call("judge", "j", 0.0, replayed=True, saved_usd=0.25)

    table = run(["fuse-cost", "--by", "stage"], line(unknown, known)).text
    rows = json.loads(run(["fuse-cost", "--by", "stage", "-o", "json"], line(unknown, known)).text)["rows"]

    assert "  unknown  " in table
    assert "≥ $0.2500" in table  # the total
    assert {row["stage"]: row["saved_usd"] for row in rows} == {"panel": None, "judge": 0.25}
