"""A model at an endpoint, and how a person spells one: `MODEL[*N][@ENDPOINT]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fusiontools.endpoints import Endpoint
from fusiontools.errors import UsageError, nearest
from fusiontools.options import given_only


@dataclass(frozen=True, slots=True)
class Model:
    """A model at an endpoint, with what is asked of it differently from the others.

    Args:
        name: what the record calls it: its alias, else the model's own name.
        price_usd_per_mtok: `{prompt: …, completion: …}`, where no price list knows it.
        fallbacks: models of the same endpoint to ask when this one fails.
    """

    name: str
    model: str
    endpoint: str
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    system: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    fallbacks: tuple[str, ...] = ()
    price_usd_per_mtok: Mapping[str, float] | None = None


def spelled(text: str, endpoints: Mapping[str, Endpoint], where: str) -> tuple[str, int | None, str | None]:
    """Take `MODEL[*N][@ENDPOINT]` apart into the name, and the count and the endpoint where they are given.

    `*N` counts and `:N` does not, because model names hold colons (`llama3:8b`, `x/y:free`).
    """
    name, samples, endpoint = text.strip(), None, None
    if counted := re.fullmatch(r"(.*?)\*(\d{1,6})(@.+)?", name):
        name, samples = counted[1] + (counted[3] or ""), int(counted[2])
    if "@" in name and name.rpartition("@")[2] in endpoints:
        name, _, endpoint = name.rpartition("@")
    elif typo := re.search(r"@([A-Za-z-]+)$", name):
        raise UsageError(f"{where}{text!r}: no endpoint is called {typo[1]!r}{nearest(typo[1], list(endpoints))}")
    if not name or samples == 0 or "*" in name:
        raise UsageError(f"{where}{text!r}: write MODEL, MODEL*3 or MODEL@ENDPOINT")
    return name, samples, endpoint


def merge_members(models: tuple[Model, ...]) -> tuple[Model, ...]:
    """Return members with unique names: the same model named twice is asked twice."""
    merged: dict[str, Model] = {}
    for model in models:
        seen = merged.get(model.name)
        if seen is None:
            merged[model.name] = model
        elif replace(seen, samples=model.samples) == model:
            merged[model.name] = replace(seen, samples=seen.samples + model.samples)
        else:
            raise UsageError(
                f"two panel members are called {model.name!r} but differ; give them names of their own under `models:`"
            )
    return tuple(merged.values())


def plain_model(model: Model) -> dict[str, Any]:
    """Return a model as a record keeps it: names and settings, no URL and no key."""
    named = {"name": model.name, "model": model.model, "endpoint": model.endpoint}
    return named | {key: value for key, value in given_only(model).items() if key not in named}


def model_from(data: Mapping[str, Any]) -> Model:
    """Read a model that a record kept; keys of a newer version are ignored."""
    known = {f.name for f in fields(Model)}
    kept = {key: value for key, value in data.items() if key in known}
    return Model(**{**kept, "fallbacks": tuple(kept.get("fallbacks", ()))})
