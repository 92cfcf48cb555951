"""`fuse-calibrate`: graded panels in, a threshold out, which `fuse-vote` keeps to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graded import lines
from workdir import Run


def panels(count: int) -> list[Any]:
    """Return panels of three: on every second question all agree and are right, on the others two are wrong alike."""
    found = []
    for i in range(count):
        right = i % 2 == 0
        texts = ["42", "42", "42"] if right else ["41", "41", "42"]
        panel = [
            {"member": "abc"[n], "sample": 0, "layer": 1, "content": text, "finish_reason": "stop"}
            for n, text in enumerate(texts)
        ]
        asked = [{"role": "user", "content": f"What is 6*7, number {i} of {i * 7919}?"}]
        found.append({"id": f"q{i}", "messages": asked, "meta": {"target": 42}, "panel": panel})
    return found


@pytest.fixture
def graded(run: Run, tmp_path: Path) -> str:
    (tmp_path / "panel.jsonl").write_text(lines(panels(60)))
    return run("fuse-vote -q panel.jsonl | fuse-grade -q").text


def test_a_vote_answers_what_the_threshold_lets_it_and_the_report_tells_both(run: Run, graded: str) -> None:
    fitted = run(["fuse-calibrate", "--json", "--risk", "0.05", "-o", "t.json"], graded)
    report = run("fuse-vote -q --threshold t.json panel.jsonl | fuse-grade -q | fuse-report -o json")

    found = json.loads(fitted.text)
    assert (fitted.status, found["agreement"], found["answered"], found["wrong"]) == (0, 1, 0.5, 0)
    rows = {row["system"]: row for row in report.records[0]["systems"]}
    assert (rows["fusion"]["score"], rows["answered"]["score"], rows["vote"]["score"]) == (0.5, 1, 0.5)
    assert (rows["answered"]["tasks"], rows["fusion"]["tasks"]) == (30, 60)
    assert [part["score"] for part in report.records[0]["panel"]["votes_by_agreement"]] == [0, 1]


def test_an_abstention_is_no_failure_and_is_summed_up(run: Run, graded: str) -> None:
    run(["fuse-calibrate", "-o", "t.json"], graded)

    result = run(["fuse-vote", "--threshold", "t.json", "panel.jsonl"])
    strict = run(["fuse-vote", "-q", "--strict", "--threshold", "t.json", "panel.jsonl"])

    assert (result.status, strict.status) == (0, 1)
    assert "30 of 60 records: abstained" in result.err


def test_a_risk_that_nothing_keeps_to_exits_5_and_says_what_it_takes(run: Run, graded: str) -> None:
    few = "".join(graded.splitlines(keepends=True)[:10])

    result = run(["fuse-calibrate", "--risk", "0.05"], few)

    assert result.status == 5
    assert "takes 19 questions at least" in result.err


def test_what_another_file_was_tuned_on_is_left_out(run: Run, graded: str, tmp_path: Path) -> None:
    (tmp_path / "tuned.jsonl").write_text("".join(graded.splitlines(keepends=True)[:20]))

    found = json.loads(run(["fuse-calibrate", "--json", "--apart-from", "tuned.jsonl"], graded).text)

    assert (found["questions"], found["apart"]) == (40, 20)


def test_without_graded_panels_there_is_nothing_to_fit_on(run: Run) -> None:
    result = run(["fuse-calibrate"], lines(panels(3)))

    assert (result.status, result.text) == (3, "")
    assert "no record has a graded panel" in result.err
