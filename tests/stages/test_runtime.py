"""What every stage does with a record: how it gives a section, and which records it passes on."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from strategies import RECORDS

from fusiontools.config.stage_table import STAGES
from fusiontools.record.sections import DERIVED
from fusiontools.record.types import Record
from fusiontools.stages.runtime import with_section


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
