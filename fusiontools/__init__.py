"""Fuse the answers of many language models: the stages of the command line, from Python.

The names below are loaded when they are first used, so that a tool's `--help` costs what its own imports cost.
"""

# Nothing is imported here, not even `typing`: until a tool has heard of Ctrl-C, every file read is one in which it is a
# traceback.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from fusiontools.config.models import Model
    from fusiontools.config.options import fixed
    from fusiontools.config.recipe import Recipe
    from fusiontools.config.recipe_yaml import load_recipe
    from fusiontools.config.stage_table import (
        JudgeOptions,
        LimitOptions,
        PanelOptions,
        PickOptions,
        RouteOptions,
        SynthOptions,
        VoteOptions,
    )
    from fusiontools.errors import CallFailed, FusionError, InputError, UsageError, __version__
    from fusiontools.llm.client import Client
    from fusiontools.llm.journal import Journal
    from fusiontools.record.types import Analysis, Answer, Call, Message, Record, Response
    from fusiontools.runs.chain import Chain, chain_of, compose, fuse, fuse_sync, open_runtime, over, question
    from fusiontools.stages.judge import judge
    from fusiontools.stages.panel import panel
    from fusiontools.stages.runtime import Runtime, Stage
    from fusiontools.stages.synth import synth

_HOMES = {
    "fusiontools.runs.chain": ("Chain", "chain_of", "compose", "fuse", "fuse_sync", "open_runtime", "over", "question"),
    "fusiontools.config.models": ("Model",),
    "fusiontools.config.options": ("fixed",),
    "fusiontools.config.recipe": ("Recipe",),
    "fusiontools.config.recipe_yaml": ("load_recipe",),
    "fusiontools.config.stage_table": (
        "JudgeOptions",
        "LimitOptions",
        "PanelOptions",
        "PickOptions",
        "RouteOptions",
        "SynthOptions",
        "VoteOptions",
    ),
    "fusiontools.errors": ("CallFailed", "FusionError", "InputError", "UsageError", "__version__"),
    "fusiontools.llm.client": ("Client",),
    "fusiontools.llm.journal": ("Journal",),
    "fusiontools.record.types": ("Analysis", "Answer", "Call", "Message", "Record", "Response"),
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
    "Client",
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
    "fuse_sync",
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


def __getattr__(name: str) -> object:
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'fusiontools' has no attribute {name!r}")
