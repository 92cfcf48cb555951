"""The table of stages: what else lists them is held to it here."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from scripted import model

import fusiontools
from fusiontools.config.recipe import Recipe
from fusiontools.config.stage_table import STAGES, FewShot, JudgeOptions, PanelOptions, StageSpec
from fusiontools.record.sections import DERIVED
from fusiontools.record.types import Record

EACH = pytest.mark.parametrize(("name", "spec"), STAGES.items())


@EACH
def test_a_stage_has_a_module_a_tool_and_options_of_its_own(name: str, spec: StageSpec) -> None:
    pyproject = Path(fusiontools.__file__).parents[1] / "pyproject.toml"
    scripts = tomllib.loads(pyproject.read_text())["project"]["scripts"]

    assert callable(getattr(import_module(f"fusiontools.stages.{name}"), name))
    assert scripts[f"fuse-{name}"] == f"fusiontools.cli.{name}:main"
    assert type(Recipe("r").stages[name]) is spec.options
    assert Recipe("r").options(spec.options) == spec.options()


@EACH
def test_a_stage_reads_and_makes_sections_of_a_record(name: str, spec: StageSpec) -> None:
    assert spec.adds in DERIVED
    if spec.needs is not None:
        section, tool = spec.needs
        assert section in Record.__annotations__
        assert STAGES[tool.removeprefix("fuse-")].adds == section


@EACH
def test_a_tool_has_limits_and_a_journal_where_its_stage_asks_models(name: str, spec: StageSpec) -> None:
    command = import_module(f"fusiontools.cli.{name}").main.command

    options = {word for param in command.params for word in param.opts}
    assert {"--timeout", "--offline"} & options == ({"--timeout", "--offline"} if spec.calls_models else set())


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (PanelOptions(), 0),
        (PanelOptions((model("a", samples=2), model("b"))), 3),
        (PanelOptions((model("a", samples=2), model("b")), samples=4), 12),
        (PanelOptions((model("a"),), baselines=(model("x", samples=5),), samples=2), 12),
        (PanelOptions((model("a"),), few_shot=FewShot((("q", "a"),), samples=30)), 30),
        (PanelOptions((model("a"),), samples=40, few_shot=FewShot((("q", "a"),), samples=30)), 40),
        (JudgeOptions((model("a"), model("b"))), 2),
        (JudgeOptions((model("a"), model("b")), swap=True), 4),
    ],
)
def test_options_know_how_many_calls_they_come_to(options: PanelOptions | JudgeOptions, calls: int) -> None:
    assert options.most_calls == calls
