"""A learned table of routes, and what becomes of a record that it sends to a vote, or that a vote has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from samples import lines, question
from scripted import Scripted, model
from stage_runs import ask_judge, ask_panel, ask_synth, run_stage
from workdir import Run

from fusiontools.config.options import fixed
from fusiontools.config.stage_table import JudgeOptions, PanelOptions, RouteOptions, SynthOptions
from fusiontools.errors import InputError
from fusiontools.stages.route import route
from fusiontools.stages.route_table import RouteTable, Treatment, load_route_table, question_features, write_route_table

SUMS, NOVELS = "Please add up 17 and 23 for me.", "Who wrote the novel that is called Middlemarch?"
STRONG = {"name": "strong", "model": "x/strong", "endpoint": "openrouter"}
TABLE = RouteTable(
    [question_features(SUMS), question_features(NOVELS), question_features("Compare and weigh two plans.")],
    [Treatment("vote", "sums"), Treatment("solo", "novels", STRONG), Treatment("fuse", "plans")],
)


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "routes.json"
    path.write_bytes(write_route_table(TABLE))
    return str(path)


def routed(table: str, text: str) -> Any:
    asked: Any = {"id": "q1", "messages": [{"role": "user", "content": text}]}
    return run_stage(route(fixed(RouteOptions(method="learned", table=table))), asked)


def test_a_question_goes_where_the_nearest_kind_goes(table: str) -> None:
    added = routed(table, "Please add up 4 and 5 for me.")["route"]
    novel = routed(table, "who wrote the novel called Emma")["route"]

    assert added == {"to": "vote", "reason": "sums", "method": "learned"}
    assert (novel["to"], novel["model"]["model"]) == ("solo", "x/strong")
    assert routed(table, "Weigh two plans and compare.")["route"]["to"] == "fuse"


def test_a_table_is_the_same_after_it_was_written_and_read(table: str) -> None:
    read = load_route_table(table)

    assert read.treatments == TABLE.treatments
    assert [read.treat(text).to for text in (SUMS, NOVELS)] == ["vote", "solo"]


def test_what_is_seen_of_a_question_has_the_length_of_one_and_nothing_of_its_case() -> None:
    assert sum(weight * weight for weight in question_features(SUMS).values()) == pytest.approx(1)
    assert question_features("ADD UP!") == question_features("add, up")
    assert question_features("…") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "not JSON"), ("[]", "no table of routes"), ('{"kind": "fusiontools route table", "version": 9}', "version")],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, run: Run, text: str, why: str) -> None:
    (tmp_path / "t.json").write_text(text)

    result = run(["fuse-route", "--table", "t.json"], lines([question()]))

    assert result.status == 2
    assert why in result.err


def test_a_record_routed_to_the_vote_is_counted_and_nobody_judges_or_writes(table: str) -> None:
    backend = Scripted()
    said = [
        {"member": name, "sample": 0, "layer": 1, "content": text, "finish_reason": "stop"}
        for name, text in (("a", "40"), ("b", "41"), ("c", "It is 40."))
    ]
    record = {**routed(table, SUMS), "panel": said}

    judged = ask_judge(JudgeOptions(models=(model("j"),)), record, backend)
    answer = ask_synth(SynthOptions(models=(model("s"),)), judged, backend)["answer"]

    assert (answer["by"], answer["content"], answer["vote"]["votes"]) == ("vote", "40", 2)
    assert backend.requests == []


def answered(**answer: Any) -> Any:
    said = [{"member": "a", "sample": 0, "layer": 1, "content": "42", "finish_reason": "stop"}]
    return {**question(), "panel": said, "answer": {"content": "42", "by": "vote", "model": "a", **answer}}


def escalate(record: Any, **options: Any) -> Any:
    return run_stage(route(fixed(RouteOptions(method="abstained", **options))), record)


def test_what_a_vote_has_answered_is_kept_by_every_later_stage() -> None:
    backend = Scripted()

    kept = escalate(answered())

    assert kept["route"]["to"] == "keep"
    assert kept["answer"] == answered()["answer"]
    assert ask_panel(PanelOptions(members=(model("b"),)), backend, kept) == kept
    assert ask_judge(JudgeOptions(models=(model("j"),)), kept, backend) == kept
    assert ask_synth(SynthOptions(models=(model("s"),)), kept, backend) == kept
    assert backend.requests == []


def test_what_it_has_not_goes_to_the_strong_model_or_to_a_panel() -> None:
    abstained = answered(content="", abstained={"agreement": 0.3, "threshold": 0.6, "risk": 0.05})

    alone, panel = escalate(abstained, strong=model("big")), escalate(abstained)

    assert (alone["route"]["to"], alone["route"]["model"]["name"]) == ("solo", "big")
    assert panel["route"] == {"to": "fuse", "reason": "the vote abstained", "method": "abstained"}
    assert not {"answer", "panel"} & (alone.keys() | panel.keys())


def test_without_an_answer_there_is_nothing_to_escalate() -> None:
    with pytest.raises(InputError, match="no `answer`"):
        escalate(question())
