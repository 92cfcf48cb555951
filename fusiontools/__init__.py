"""Fuse the answers of many language models: the stages of the command line, from Python.

The names below are loaded when they are first used, so that a tool's `--help` costs what its own imports cost.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusiontools.api import chain_of, fuse, open_runtime, question
    from fusiontools.chain import Chain, compose, over
    from fusiontools.errors import CallFailed, FusionError, InputError, UsageError
    from fusiontools.model import Model
    from fusiontools.models.door import Door
    from fusiontools.models.journal import Journal
    from fusiontools.options import fixed
    from fusiontools.recipe import Recipe
    from fusiontools.recipe_file import load_recipe
    from fusiontools.record import Analysis, Answer, Call, Message, Record, Response
    from fusiontools.stage_options import (
        JudgeOptions,
        LimitOptions,
        PanelOptions,
        PickOptions,
        RouteOptions,
        SynthOptions,
        VoteOptions,
    )
    from fusiontools.stages.judge import judge
    from fusiontools.stages.panel import panel
    from fusiontools.stages.runtime import Runtime, Stage
    from fusiontools.stages.synth import synth

__version__ = "0.1.0"

_HOMES = {
    "fusiontools.chain": ("Chain", "compose", "over"),
    "fusiontools.errors": ("CallFailed", "FusionError", "InputError", "UsageError"),
    "fusiontools.api": ("chain_of", "fuse", "open_runtime", "question"),
    "fusiontools.models.door": ("Door",),
    "fusiontools.models.journal": ("Journal",),
    "fusiontools.options": ("fixed",),
    "fusiontools.model": ("Model",),
    "fusiontools.recipe": ("Recipe",),
    "fusiontools.stage_options": (
        "JudgeOptions",
        "LimitOptions",
        "PanelOptions",
        "PickOptions",
        "RouteOptions",
        "SynthOptions",
        "VoteOptions",
    ),
    "fusiontools.recipe_file": ("load_recipe",),
    "fusiontools.record": ("Analysis", "Answer", "Call", "Message", "Record", "Response"),
    "fusiontools.stages.judge": ("judge",),
    "fusiontools.stages.panel": ("panel",),
    "fusiontools.stages.runtime": ("Runtime", "Stage"),
    "fusiontools.stages.synth": ("synth",),
}

__all__ = [
    "Analysis",
    "Answer",
    "Call",
    "CallFailed",
    "Chain",
    "Door",
    "FusionError",
    "InputError",
    "Journal",
    "JudgeOptions",
    "LimitOptions",
    "Message",
    "Model",
    "PanelOptions",
    "PickOptions",
    "Recipe",
    "Record",
    "Response",
    "RouteOptions",
    "Runtime",
    "Stage",
    "SynthOptions",
    "UsageError",
    "VoteOptions",
    "__version__",
    "chain_of",
    "compose",
    "fixed",
    "fuse",
    "judge",
    "load_recipe",
    "open_runtime",
    "over",
    "panel",
    "question",
    "synth",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'fusiontools' has no attribute {name!r}")
