"""What options classes promise: each is a frozen dataclass, compared by its values."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace

import pytest

from fusiontools.config.click_options import kinds_of
from fusiontools.config.stage_table import FewShot, PanelOptions, VoteOptions
from fusiontools.config.tool_options import ToolOptions

TURNS = (("1+1", "2"),)


def test_options_with_equal_values_are_equal_and_have_one_hash() -> None:
    assert PanelOptions(samples=2) == PanelOptions((), 2)
    assert hash(PanelOptions(samples=2)) == hash(PanelOptions(samples=2))
    assert PanelOptions(samples=2) != PanelOptions(samples=3)
    assert PanelOptions() != VoteOptions()


def test_options_do_not_change() -> None:
    options = PanelOptions()

    with pytest.raises(FrozenInstanceError):
        options.samples = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del options.samples
    assert replace(options, samples=2).samples == 2
    assert options.samples == 1


def test_what_options_do_not_have_and_what_they_lack_is_refused() -> None:
    with pytest.raises(TypeError, match="PanelOptions has no sample"):
        PanelOptions(sample=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="FewShot needs turns"):
        FewShot(samples=2)
    with pytest.raises(TypeError, match="VoteOptions has no so many fields"):
        VoteOptions("auto", None, "given", None, 0.0, None, 1)  # type: ignore[call-arg]


def test_each_has_its_own_of_what_is_made_for_it() -> None:
    assert ToolOptions().mcp == {}
    assert ToolOptions().mcp is not ToolOptions().mcp


def test_options_are_shown_whole_and_come_back_from_a_copy() -> None:
    options = FewShot(TURNS, samples=3)

    assert "turns=(('1+1', '2'),), system=None" in repr(options)
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == options  # noqa: S301 - our own


def test_an_annotation_says_whether_an_option_is_a_number_a_switch_or_text() -> None:
    kinds = kinds_of(PanelOptions)

    assert (kinds["samples"], kinds["quorum"], kinds["jitter"], kinds["revise"]) == (int, int, float, bool)
    assert {kinds["members"], kinds["system"], kinds["agree"]} == {str}
