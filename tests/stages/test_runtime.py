"""What every stage does with a record: how it gives a section, and which records it passes on."""

from __future__ import annotations

import copy
import json
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import Scripted, model
from stage_runs import (
    ASKED,
    THREE,
    A,
    answered,
    failed,
    run_stage,
    verdict,
)
from strategies import RECORDS

from fusiontools.config.options import fixed
from fusiontools.config.stage_table import STAGES, JudgeOptions, SynthOptions
from fusiontools.record.sections import DERIVED
from fusiontools.record.types import Record
from fusiontools.runs.chain import compose
from fusiontools.stages.judge import judge
from fusiontools.stages.panel import panel
from fusiontools.stages.runtime import Stage, with_section
from fusiontools.stages.synth import synth

JUDGE, SYNTH = JudgeOptions((model("j"),)), SynthOptions((model("s"),))


@given(RECORDS, st.sampled_from(sorted(DERIVED)))
def test_a_new_section_drops_what_is_derived_and_nothing_else(whole: Any, section: str) -> None:
    before = copy.deepcopy(whole)
    value: Any = {"new": True}
    call: Any = {"stage": "s", "model": "m", "endpoint": "e", "status": "ok"}

    after = with_section(whole, section, value, [call])

    gone = {section, *DERIVED[section]}
    owners = {name for name, spec in STAGES.items() if spec.adds in gone}
    kept = {key: value for key, value in before.items() if key not in {*gone, "calls", "degraded"}}
    noted = [note for note in before.get("degraded", []) if note["stage"] not in owners]
    assert whole == before
    assert after[section] is value  # type: ignore[literal-required]
    assert after["calls"] == [*before.get("calls", []), call]
    assert after.get("degraded", []) == noted
    assert {k: v for k, v in after.items() if k not in (section, "calls", "degraded")} == kept


@given(RECORDS)
def test_a_stage_without_a_result_leaves_no_section_behind(whole: Any) -> None:
    after = with_section(whole, "analysis", None)

    assert not {"analysis", "answer", "grades"} & after.keys()


def test_a_second_panel_drops_the_notes_of_all_that_followed_the_first() -> None:
    notes: Any = [{"stage": stage, "code": "c", "detail": ""} for stage in ("panel", "judge", "synth", "route")]
    old: Record = {"id": "1", "messages": [], "degraded": notes}

    assert with_section(old, "panel", [])["degraded"] == [notes[3]]
    assert with_section(old, "analysis", None)["degraded"] == [notes[0], notes[3]]
    assert with_section(old, "answer", {})["degraded"] == [notes[0], notes[1], notes[3]]


def stage_called(name: str) -> Stage:
    made: Stage = getattr(import_module(f"fusiontools.stages.{name}"), name)(fixed(STAGES[name].options()))
    return made


MADE = [panel(fixed(THREE)), judge(fixed(JudgeOptions((A,)))), synth(fixed(SynthOptions((A,))))]


@pytest.mark.parametrize("name", STAGES)
def test_a_failed_record_passes_every_stage_untouched(name: str) -> None:
    record = {**ASKED, "error": {"stage": "panel", "code": "all_failed", "message": "x"}, "theirs": 1}
    backend = Scripted()

    assert run_stage(stage_called(name), record, backend) == record
    assert backend.requests == []


@pytest.mark.parametrize("made", MADE)
def test_what_a_stage_does_not_own_it_passes_on(made: Stage) -> None:
    record = answered(meta={"target": "42"}, theirs=[1], params={"stop": "x"}, route={"to": "fuse"})

    result = run_stage(made, record, Scripted())

    assert {key: result[key] for key in ("id", "messages", "meta", "theirs", "params", "route")} == {
        key: record[key] for key in ("id", "messages", "meta", "theirs", "params", "route")
    }


@pytest.mark.parametrize("name", [name for name, spec in STAGES.items() if spec.needs])
def test_a_panel_without_an_answer_fails_in_every_stage_that_reads_one(name: str) -> None:
    record = answered(failed("a"), failed("b"))

    error = {"stage": name, "code": "all_failed", "message": "no response in this panel is usable"}
    assert run_stage(stage_called(name), record) == {**record, "error": error}


def test_a_chain_is_its_stages_one_after_the_other() -> None:
    backend = Scripted(j=json.dumps(verdict()), s="Because.")

    result = run_stage(compose(panel(fixed(THREE)), judge(fixed(JUDGE)), synth(fixed(SYNTH))), ASKED, backend)

    assert list(result) == ["id", "messages", "panel", "calls", "analysis", "answer"]
    assert [call["stage"] for call in result["calls"]] == ["panel"] * 3 + ["judge", "synth"]
    assert result["answer"]["content"] == "Because."
