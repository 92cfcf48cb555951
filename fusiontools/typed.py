"""Options as a person typed them: names turned into models, what they imply filled in, what cannot be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from fusiontools.chain_text import LAYER_STEPS
from fusiontools.errors import UsageError
from fusiontools.model import Model, merge_members
from fusiontools.options import flags_of, merged
from fusiontools.recipe import Recipe, panel_with, parse_model
from fusiontools.stage_options import STAGES

#: Options that exclude each other: typed together they are an error, one typed replaces one from a recipe.
EXCLUSIVE = {
    "panel": (("debate", "sequential"), *((layer, "scout") for layer in LAYER_STEPS), ("sequential", "quorum")),
    "pick": (("pairwise", "consistent"),),
    "synth": (),
}
_MOST_WEIGHT = 1_000_000
#: Options that say nothing without another one.
NEEDS = {"panel": {"window": "sequential"}}
#: Options that mean another one, too: whoever names a model wants it asked, whatever the recipe would do without it.
IMPLIES: dict[str, dict[str, dict[str, Any]]] = {
    "route": {"models": {"method": "model"}, "command": {"method": "command"}},
    "panel": {"agree_models": {"agree": "judge"}},
    "judge": {"models": {"method": "model"}},
    "synth": {"models": {"method": "model"}, "guard_models": {"guard": True}},
}


def read_typed(section: str, given: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return typed options with names turned into models, `A=1` into weights, and what they imply filled in.

    Raises:
        UsageError: a model or a key that cannot be, options that contradict each other.
    """
    typed = dict(given)
    for name, flag in flags_of(STAGES[section]).items():
        if not flag.model or name not in typed:
            continue
        if not flag.multiple:
            typed[name] = _asked_once(parse_model(typed[name], recipe), flag.names[-1])
            continue
        typed[name] = merge_members(tuple(parse_model(text, recipe) for text in typed[name]))
        if name != "members":
            for model in typed[name]:
                _asked_once(model, flag.names[-1])
    _refuse_contradictions(section, typed)
    for name, implied in IMPLIES.get(section, {}).items():
        if name in typed:
            typed = {**implied, **typed}
    if "weights" in typed and not isinstance(typed["weights"], Mapping):
        typed["weights"] = dict(_weight(text) for text in typed["weights"])
    check_keys(typed)
    return typed


def check_keys(options: Mapping[str, Any]) -> None:
    """Raise `UsageError` where answers could not be made comparable."""
    for key in (options.get("key"), options.get("agree")):
        if key not in (None, "auto", "judge"):
            from fusiontools import ballot

            ballot.check_key(key)


def merge(section: str, options: Any, typed: Mapping[str, Any]) -> Any:
    """Return a section's options with what was typed put over them.

    A later layer is asked for by what is typed alone: that the first one had scouts says nothing about it.
    """
    gone = {other for pair in EXCLUSIVE.get(section, ()) for other in pair if any(typed.get(name) for name in pair)}
    if adds_layer(section, typed):
        gone |= {"scout", "stop_when_agreed", "quorum"}
    if gone:
        options = replace(options, **{f.name: f.default for f in fields(options) if f.name in gone})
    return panel_with(options, typed) if section == "panel" else merged(options, typed)


def adds_layer(section: str, typed: Mapping[str, Any]) -> bool:
    """Return whether a step goes on from the panel that stands."""
    return section == "panel" and any(typed.get(name) for name in LAYER_STEPS)


def models_of(typed: Mapping[str, Any]) -> list[Model]:
    """Return every model that typed options name."""
    found: list[Model] = []
    for value in typed.values():
        found += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, Model)]
    return found


def _refuse_contradictions(section: str, typed: Mapping[str, Any]) -> None:
    def spelled(name: str) -> str:
        return flags_of(STAGES[section])[name].names[-1]

    for one, other in EXCLUSIVE.get(section, ()):
        if typed.get(one) and typed.get(other):
            raise UsageError(f"{spelled(one)} contradicts {spelled(other)}")
    for name, needed in NEEDS.get(section, {}).items():
        if name in typed and not typed.get(needed):
            raise UsageError(f"{spelled(name)} goes with {spelled(needed)}")
    if adds_layer(section, typed) and "samples" in typed and "members" not in typed:
        raise UsageError("--samples: in a later layer every response is revised once; it goes with -m there")


def _asked_once(model: Model, flag: str) -> Model:
    if model.samples > 1:
        raise UsageError(f"{flag} {model.name!r}: only panel members are asked more than once: leave *N out")
    return model


def _weight(text: str) -> tuple[str, float]:
    member, _, weight = text.rpartition("=")
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not member or not 0 <= value <= _MOST_WEIGHT:
        raise UsageError(f"--weight {text!r}: write MEMBER=W, where W is a number from 0 to {_MOST_WEIGHT:,}")
    return member, value
