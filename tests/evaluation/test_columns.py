"""What the columns of a batch hold, and that a record is told the same whatever stands beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from graded import World, analysis, answer, call, grade, record, run_of, scored
from reporting import MIXED, read

from fusiontools.evaluation.report.columns import Batch
from fusiontools.evaluation.report.graded import Graded
from fusiontools.evaluation.report.systems import Outcome, tell

LAYERED = {"member": "a", "sample": 0, "layer": 1, "content": "x", "finish_reason": "stop", "tool_calls": []}


def batch_of(*records: Any) -> Batch:
    batch = Batch()
    for each in records:
        batch.add(Graded.of(each))
    return batch


def test_the_panel_stands_in_its_order_and_is_padded_to_the_largest() -> None:
    small = record("q", [grade("panel", "b", 1)])
    large = record("r", [grade("answer", "j", 1), grade("panel", "a", 0), grade("panel", "b", 0.5)])

    panel = batch_of(small, large).panel

    assert panel.there.tolist() == [[True, False], [True, True]]
    assert panel.score[panel.there].tolist() == [1, 0, 0.5]
    assert math.isnan(panel.score[0, 1])
    assert panel.failed.tolist() == [[False, True], [False, False]]


def test_a_seat_has_one_column_whichever_record_it_is_in_also_where_it_has_calls_alone() -> None:
    first = record("q", [grade("panel", "a", 1), grade("panel", "a", 0.5, sample=1)])
    second = record("r", [grade("panel", "a", 0.25, sample=1)], [call("panel", "c"), call("judge", "j")])

    batch = batch_of(first, second)

    assert batch.seats == {("a", 0): 0, ("a", 1): 1, ("c", 0): 2}
    assert batch.members.there.tolist() == [[True, True, False], [False, True, False]]
    assert batch.members.score[:, 1].tolist() == [0.5, 0.25]
    assert batch.add_up().members.calls.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_who_stands_twice_in_a_panel_counts_twice_for_its_model() -> None:
    twice = record("q", [grade("panel", "a", 1), grade("panel", "a", 0), grade("panel", "a", 0.5, sample=1)])

    batch = batch_of(twice)

    assert batch.seats == {("a", 0): 0, ("a", 1): 1, ("a", 2): 2}
    assert batch.members.score.tolist() == [[1, 0, 0.5]]


def test_texts_that_vote_for_the_same_have_one_number_within_their_record() -> None:
    grades = [grade("panel", name, 0, key) for name, key in (("a", "x"), ("b", "y"), ("c", "x"))]
    silent = {**grade("panel", "d", 0), "key": None}

    batch = batch_of(record("q", [*grades, silent, grade("baseline", "m", 0, "y")]))

    assert batch.panel.key.tolist() == [[0, 1, 0, -1]]
    assert batch.baselines.key[0, batch.seats["m", 0]] == 1


def test_members_alone_are_of_the_earlier_layer_in_those_records_that_have_one() -> None:
    layered = record("q", [grade("panel", "a", 1, layer=2), grade("layer", "a", 0), grade("layer", "b", 0, layer=2)])
    plain, later = record("r", [grade("panel", "a", 0.5)]), record("s", [grade("panel", "a", 1, layer=2)])

    members = batch_of(layered, plain, later).members

    assert members.there.tolist() == [[True, False], [True, False], [False, False]]
    assert members.score[:2, 0].tolist() == [0, 0.5]


def test_the_ranking_comes_first_and_the_rest_of_the_panel_as_it_stands() -> None:
    grades = [grade("panel", name, 0) for name in "abc"]

    batch = batch_of(record("q", grades, analysis=analysis([2, 7, 0, 2])), record("r", grades))

    assert batch.order.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert batch.facts.ranked.tolist() == [2, 0]


def test_how_sure_a_response_was_is_that_of_its_own_section() -> None:
    def response(logprob: float | None) -> dict[str, Any]:
        return {"member": "a", "sample": 0, "layer": 1} | ({} if logprob is None else {"mean_logprob": logprob})

    grades = [grade("panel", "a", 1), grade("baseline", "a", 1)]
    batch = batch_of(
        record("q", grades, panel=[response(-1.0)], baselines=[response(-2.0)]),
        record("r", grades, panel=[response(None)]),
    )

    assert batch.panel.sure.tolist() == [[-1.0], [-math.inf]]
    assert batch.baselines.sure.tolist() == [[-2.0], [-math.inf]]


def test_what_the_answer_copies_is_what_its_stage_chose() -> None:
    grades = [grade("answer", "b", 0.5), grade("panel", "a", 0, "a"), grade("panel", "b", 0.5, "b")]

    chosen = batch_of(
        record("q", grades, answer={**answer("pick"), "response": 1}), record("r", grades, answer=answer("synth"))
    ).chosen

    assert chosen["pick"][0] == 0.5
    assert math.isnan(chosen["pick"][1])
    assert np.isnan(chosen["vote"]).all()


def some_of_everything() -> list[Any]:
    """Records that differ in all that is told apart by rows: sizes, rounds, layers, failures, calls."""
    grades = [grade("panel", "a", float(n > 2), "t" if n > 2 else f"w{n}", sample=n) for n in range(8)]
    calls = [call("panel", "a", sample=n, latency_s=1.0 + n) for n in range(8)]
    late = {**grade("panel", "b", 0), "key": None, "error": {"code": "timeout", "message": "late"}}
    return [
        *run_of(World(), 3),
        record("until", grades, calls, recipe={"name": "x", "panel": {"until": 0.8}}),
        record("samples", grades[2:], [*calls[2:], call("synth", "s", None)]),
        record("layers", [grade("panel", "a", 1, layer=2), grade("layer", "a", 0)], calls[:1], layers=[[LAYERED]]),
        record("failed", [late], [call("panel", "b", replayed=True, saved_usd=None), call("route", "r")]),
        record("error", [], [call("panel", "c", 0.1)], error={"stage": "panel", "code": "budget", "message": "spent"}),
        *MIXED[-4:],
    ]


def numbers_of(outcome: Outcome, row: int) -> list[float]:
    """Return all that is told of a system on one record."""
    score, failed, took, samples = outcome
    every = (score, failed, np.broadcast_to(samples, len(score)), *took)
    return [float(each[row]) for each in every]


def test_a_record_is_told_the_same_whatever_stands_beside_it() -> None:
    records = some_of_everything()
    together = tell(batch_of(*records))

    for row, each in enumerate(records):
        alone = tell(batch_of(each)).outcomes
        for system, outcome in together.outcomes.items():
            if system in alone:
                assert np.array_equal(numbers_of(outcome, row), numbers_of(alone[system], 0), equal_nan=True), system
            else:
                assert math.isnan(outcome.score[row]), system


def test_a_run_that_is_told_in_pieces_is_told_the_same() -> None:
    records = [*some_of_everything(), scored("last", 1, a=0, d=1)]

    whole, pieces = read(records), read(records, at_a_time=4)

    assert whole.columns.keys() == pieces.columns.keys()
    for system, column in whole.columns.items():
        for name in ("scores", "latencies", "calls", "usd", "unknown", "tokens", "failed"):
            assert np.array_equal(getattr(column, name), getattr(pieces.columns[system], name), equal_nan=True)
    assert whole.agreements == pieces.agreements
    assert whole.panel == pieces.panel
    assert (whole.judges, whole.writers, whole.models) == (pieces.judges, pieces.writers, pieces.models)
