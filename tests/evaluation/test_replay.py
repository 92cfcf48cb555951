"""What a sub-panel would have answered is what the stages themselves answer on it."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from graded import call
from grading import run_grade
from scripted import Scripted, model
from simulated import panels_of
from stage_runs import run_stage

from fusiontools.answers.tally import count_votes
from fusiontools.config.options import fixed
from fusiontools.config.stage_table import PanelOptions, PickOptions, VoteOptions
from fusiontools.errors import CallFailed
from fusiontools.evaluation.tune.panels import Panels
from fusiontools.evaluation.tune.replay import Replay, Way
from fusiontools.stages.panel import panel
from fusiontools.stages.pick import pick
from fusiontools.stages.vote import vote

MEMBERS = ("a", "b", "c", "d")
TEXTS = ("391", "Answer: 391", "It is 392.", "400", "I don't know.", "Answer: 17")
WEIGHTS = {"a": 1.5, "b": 0.7, "c": 0.8, "d": 1.5}


def graded_panels(count: int, *, sure: bool, ranked: bool = False) -> list[Any]:
    """Return graded records of four members: some fail, some abstain, some are cut short."""
    source = random.Random(count)
    records = []
    for i in range(count):
        panel = []
        for member in MEMBERS:
            head = {"member": member, "sample": 0, "layer": 1}
            if source.random() < 0.15:
                panel.append({**head, "error": {"code": "timeout", "message": "late"}})
                continue
            said = {"content": source.choice(TEXTS), "finish_reason": source.choice(("stop", "stop", "length"))}
            more = {"mean_logprob": -round(source.random(), 2)} if sure and source.random() < 0.9 else {}
            panel.append({**head, **said, "tool_calls": [], **more})
        calls = [call("panel", member, 0.001 * (n + 1), latency_s=1.0 + n) for n, member in enumerate(MEMBERS)]
        asked = [{"role": "user", "content": f"What is 17 * 23? Puzzle {source.getrandbits(40)}."}]
        record = {"id": f"q{i}", "messages": asked, "meta": {"target": 391}, "panel": panel, "calls": calls}
        if ranked:
            five = ("consensus", "contradictions", "partial_coverage", "unique_insights", "blind_spots")
            order = [n for n, each in enumerate(panel) if "error" not in each]
            source.shuffle(order)
            record["analysis"] = {**{key: [] for key in five}, "ranking": order}
            record["calls"] = [*calls, call("judge", "j", 0.01, latency_s=2.0)]
        records.append(run_grade(record))
    return records


def subpanel(record: Any, members: tuple[str, ...]) -> Any:
    """Return a record as it would be if these members alone had been asked, in this order."""
    places = [[each["member"] for each in record["panel"]].index(member) for member in members]
    cut = {key: value for key, value in record.items() if key not in ("grades", "analysis")}
    return {**cut, "panel": [record["panel"][place] for place in places]}


def answered(record: Any, members: tuple[str, ...], stage: Any) -> float:
    """Return the score of what a stage answers on a sub-panel; 0 where nobody does."""
    result = run_stage(stage, subpanel(record, members))
    if "error" in result:
        return 0.0
    place = [each["member"] for each in record["panel"]].index(members[result["answer"]["response"]])
    return float([grade for grade in record["grades"] if grade["of"] == "panel"][place]["score"])


def in_order(panels: Panels, records: list[Any]) -> list[Any]:
    by_id = {record["id"]: record for record in records}
    return [by_id[name] for name in panels.ids]


@pytest.mark.parametrize("sure", [False, True])
def test_every_vote_is_what_fuse_vote_answers(sure: bool) -> None:
    panels = panels_of(records := graded_panels(40, sure=sure))
    subpanels = [each for size in (2, 3, 4) for each in itertools.combinations(MEMBERS, size)]

    replay = Replay(panels)
    plain = replay.columns([Way("vote", each) for each in subpanels]).score
    weighted = replay.columns([Way("weighted", each) for each in subpanels], [WEIGHTS] * len(subpanels)).score

    for i, each in enumerate(subpanels):
        rows = in_order(panels, records)
        assert [answered(row, each, vote(fixed(VoteOptions()))) for row in rows] == plain[:, i].tolist()
        own = {member: WEIGHTS[member] for member in each}
        options = VoteOptions(weighing="learned", learned=own)
        assert [answered(row, each, vote(fixed(options))) for row in rows] == weighted[:, i].tolist()


def test_a_pick_is_what_fuse_pick_takes_by_the_ranking_and_pays_its_judge() -> None:
    panels = panels_of(records := graded_panels(30, sure=False, ranked=True))

    columns = Replay(panels).columns([Way("pick", MEMBERS)])

    picking = pick(fixed(PickOptions(models=(model("j"),))))
    rows = in_order(panels, records)
    scores = []
    for row in rows:
        chosen = run_stage(picking, {key: value for key, value in row.items() if key != "grades"})
        usable = "answer" in chosen
        panel = [grade for grade in row["grades"] if grade["of"] == "panel"]
        scores.append(panel[chosen["answer"]["response"]]["score"] if usable else 0.0)
    assert columns.score[:, 0].tolist() == scores
    assert columns.cost[:, 0] == pytest.approx(0.01 + 0.001 + 0.002 + 0.003 + 0.004)
    assert columns.latency[:, 0] == pytest.approx(4 + 2)


def test_scouts_that_agree_spare_the_others_and_those_that_do_not_cost_a_second_round() -> None:
    panels = panels_of(records := graded_panels(40, sure=False))

    columns = Replay(panels).columns([Way("scouts", MEMBERS, 1, 2), Way("vote", MEMBERS)])

    for row, record in enumerate(in_order(panels, records)):
        first, second = (grade for grade in record["grades"][:2])
        agree = first["key"] is not None and first["key"] == second["key"]
        assert columns.cost[row, 0] == pytest.approx(0.003 if agree else 0.01)
        assert columns.latency[row, 0] == pytest.approx(2 if agree else 2 + 4)
        assert columns.score[row, 0] == (first["score"] if agree else columns.score[row, 1])


@pytest.mark.parametrize(("until", "samples"), [(0.8, 2), (0.95, 3)])
def test_a_vote_until_it_is_sure_is_what_the_panel_asks_and_fuse_vote_answers(until: float, samples: int) -> None:
    panels = panels_of(records := sampled_panels(30, samples))
    members = ("a", "b")

    columns = Replay(panels).columns([Way("until", members, samples, until=until)])

    for row, record in enumerate(in_order(panels, records)):
        by_seat = {(each["member"], each["sample"]): each for each in record["panel"]}
        backend = Scripted(**{name: [_step(by_seat[name, n]) for n in range(samples)] for name in members})
        asked = PanelOptions(members=tuple(model(name) for name in members), samples=samples, until=until)
        question = {key: record[key] for key in ("id", "messages", "meta")}
        result = run_stage(vote(fixed(VoteOptions())), run_stage(panel(fixed(asked)), question, backend))
        grades = {(each["member"], each["sample"]): each["score"] for each in record["grades"] if each["of"] == "panel"}
        taken = result["panel"][result["answer"]["response"]] if "answer" in result else None
        assert columns.score[row, 0] == (grades[taken["member"], taken["sample"]] if taken else 0)
        assert columns.cost[row, 0] == pytest.approx(0.001 * len(result["panel"]))
        assert columns.latency[row, 0] >= (2 if len(result["panel"]) > 4 else 1)


def sampled_panels(count: int, samples: int) -> list[Any]:
    """Return graded records of two members that were asked so often, turn by turn; some responses fail or abstain."""
    source = random.Random(count)
    records = []
    for i in range(count):
        likely = source.choice(TEXTS[:4])
        responses, calls = [], []
        for member in ("a", "b"):
            for n in range(samples):
                head = {"member": member, "sample": n, "layer": 1}
                text = likely if source.random() < 0.6 else source.choice(TEXTS)
                said = {"content": text, "finish_reason": "stop", "tool_calls": []}
                failed = {"error": {"code": "empty", "message": "the reply is empty"}}
                responses.append({**head, **(failed if source.random() < 0.1 else said)})
                calls.append(call("panel", member, 0.001, sample=n, latency_s=1.0))
        asked = [{"role": "user", "content": f"What is 17 * 23? Puzzle {source.getrandbits(40)}."}]
        record = {"id": f"q{i}", "messages": asked, "meta": {"target": 391}, "panel": responses, "calls": calls}
        records.append(run_grade(record))
    return records


def _step(response: Any) -> Any:
    return response["content"] if "content" in response else CallFailed("empty", "the reply is empty")


def test_the_first_that_answers_is_as_quick_as_the_quickest_that_does() -> None:
    panels = panels_of(records := graded_panels(40, sure=False))

    columns = Replay(panels).columns([Way("first", ("c", "d"))])

    for row, record in enumerate(in_order(panels, records)):
        third, fourth = record["grades"][2:4]
        came = [(3.0, third["score"])] * ("error" not in third) + [(4.0, fourth["score"])] * ("error" not in fourth)
        seconds, score = min(came, default=(4.0, 0.0), key=lambda each: each[0])
        assert (columns.latency[row, 0], columns.score[row, 0]) == (seconds, score)


def test_ties_and_weights_go_as_count_votes_says_on_any_keys() -> None:
    source = random.Random(5)
    for _ in range(60):
        size = source.randint(3, 6)
        names = [f"m{i}" for i in range(size)]
        keys = [source.choice(["x", "y", "z", None]) for _ in names]
        sure = [source.choice([-0.1, -0.2, -0.3]) for _ in names] if source.random() < 0.5 else None
        weights = {name: source.choice([1.0, 0.3, 0.35, 0.7]) for name in names}
        panels = panels_of([written(names, keys, sure)])

        elected = Replay(panels).elect([range(size)], [weights])[0].tolist()

        tally = count_votes(keys, [weights[name] for name in names], sure)
        if tally is None:
            continue
        assert keys[elected[0]] == tally.key
        if sure is not None:
            assert elected[0] == tally.winner


def written(names: list[str], keys: list[str | None], sure: list[float] | None) -> Any:
    """Return a graded record whose responses vote so."""
    panel = [
        {"member": name, "sample": 0, "layer": 1, "content": key or "", "finish_reason": "stop"}
        | ({"mean_logprob": sure[i]} if sure else {})
        for i, (name, key) in enumerate(zip(names, keys, strict=True))
    ]
    grades = [
        {
            "of": "panel",
            "member": name,
            "sample": 0,
            "layer": 1,
            "grader": "exact",
            "score": float(key == "x"),
            "key": key,
        }
        for name, key in zip(names, keys, strict=True)
    ]
    return {"id": "q", "messages": [{"role": "user", "content": "Which?"}], "panel": panel, "grades": grades}


def test_samples_of_one_member_vote_and_one_of_them_is_worth_their_mean() -> None:
    grades = [
        {
            "of": "panel",
            "member": "a",
            "sample": n,
            "layer": 1,
            "grader": "exact",
            "score": float(key == "x"),
            "key": key,
        }
        for n, key in enumerate("xyx")
    ]
    record = {"id": "q", "messages": [{"role": "user", "content": "Which?"}], "grades": grades}

    columns = Replay(panels_of([record])).columns([Way("solo", ("a",)), Way("vote", ("a",), 3)])

    assert columns.score[0].tolist() == pytest.approx([2 / 3, 1])
    assert columns.cost[0].tolist() == [1, 3]


def test_beyond_twelve_members_the_best_are_grown_and_nobody_is_left_out() -> None:
    source = random.Random(3)
    names = [f"m{i:02}" for i in range(14)]
    rows = [written(names, [source.choice("xyz") for _ in names], None) | {"id": f"q{i}"} for i in range(40)]
    for i, row in enumerate(rows):
        row["messages"] = [{"role": "user", "content": f"Which {i * 7919} of {source.getrandbits(60)}?"}]
    replay = Replay(panels := panels_of(rows))

    import numpy as np

    found = replay.subpanels(np.ones(panels.groups, dtype=bool))

    assert tuple(names) in found
    assert {(name,) for name in names} <= set(found)
    assert len(found) < 14 * 12 + 2
