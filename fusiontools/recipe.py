"""What a recipe says, as frozen dataclasses: the panel, the judge, the synthesizer and the limits.

The fields are the options of the command line too (see `options.py`); `recipe_file.py` reads them from YAML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fusiontools.endpoints import ENDPOINTS, Endpoint
from fusiontools.errors import UsageError, nearest
from fusiontools.options import given_only, option


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


@dataclass(frozen=True, slots=True)
class FewShot:
    """Worked turns put before a short question: what makes a very small model answer in the wanted form."""

    turns: tuple[tuple[str, str], ...]
    system: str | None = None
    max_chars: int = 160
    unless: tuple[str, ...] = ()
    max_tokens: int | None = None
    samples: int | None = None
    temperature: float | None = None
    jitter: float | None = None


@dataclass(frozen=True, slots=True)
class PanelOptions:
    """What `fuse-panel` can be told."""

    members: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, metavar="MODEL[*N][@ENDPOINT]",
        help="A panel member; repeat for more. MODEL*3 asks it three times.",
    )  # fmt: skip
    samples: int = option(1, "--samples", minimum=1, metavar="N", help="Ask every member N times.")
    temperature: float = option(0.7, "--temperature", minimum=0, metavar="T", help="The middle of the spread.")
    diversity: bool = option(
        True, "--diversity/--no-diversity", help="Spread the temperatures, so that the drafts differ."
    )
    jitter: float = option(0.3, "--jitter", minimum=0, metavar="T", help="How far the spread reaches to each side.")
    max_tokens: int | None = option(
        None, "--max-tokens", minimum=1, metavar="N", help="Longest response of a member, in tokens."
    )
    system: str | None = option(None, "--system", metavar="TEXT", help="A system prompt for every member.")
    quorum: int | None = option(
        None, "--quorum", minimum=1, metavar="K", help="Once K responses are in, wait only --grace longer."
    )
    grace_s: float = option(
        2.0, "--grace", minimum=0, metavar="S", help="Seconds that stragglers get after the quorum."
    )
    few_shot: FewShot | None = option(None)
    extra: Mapping[str, Any] = option(None)


TEMPLATE_HELP = "The prompts: default, deep_research, code_review, creative, tool_calls, or a file of your own."


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What `fuse-judge` can be told."""

    models: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, metavar="MODEL[@ENDPOINT]",
        help="The judge; repeat for a panel of judges, whose analyses are merged.",
    )  # fmt: skip
    method: str = option(
        "model", "--method", choices=("model", "lexical"), help="Compare by a model, or by code without any call."
    )
    template: str = option("default", "--template", metavar="NAME|PATH", help=TEMPLATE_HELP)
    temperature: float = option(0.0, "--temperature", minimum=0, metavar="T", help="The judge's temperature.")
    max_tokens: int | None = option(None, "--max-tokens", minimum=1, metavar="N", help="Longest analysis, in tokens.")


@dataclass(frozen=True, slots=True)
class SynthOptions:
    """What `fuse-synth` can be told."""

    models: tuple[Model, ...] = option(
        (), "-m", "--model", multiple=True, metavar="MODEL[@ENDPOINT]", help="The synthesizer."
    )  # fmt: skip
    method: str = option(
        "model", "--method", choices=("model", "copy", "auto"),
        help="Write with the model, copy the best response, or copy short responses and write long ones.",
    )  # fmt: skip
    template: str = option("default", "--template", metavar="NAME|PATH", help=TEMPLATE_HELP)
    temperature: float | None = option(
        None, "--temperature", minimum=0, metavar="T", help="The synthesizer's temperature."
    )
    max_tokens: int | None = option(None, "--max-tokens", minimum=1, metavar="N", help="Longest answer, in tokens.")
    extra: Mapping[str, Any] = option(None)


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """What bounds every call and every run."""

    timeout_s: float = option(120.0, "--timeout", minimum=0.001, metavar="S", help="Longest wait for one call.")
    deadline_s: float = option(600.0, "--deadline", minimum=0.001, metavar="S", help="Longest time for one record.")
    retries: int = option(2, "--retries", minimum=0, metavar="N", help="Tries after the first, where a retry can help.")
    backoff_s: float = option(0.5, "--backoff", minimum=0, metavar="S", help="First wait between tries; it doubles.")
    max_concurrency: int = option(
        256, "--max-concurrency", minimum=1, metavar="N", help="Calls in flight at once, over all records."
    )
    max_cost_usd: float | None = option(
        None, "--max-cost-usd", minimum=0, metavar="USD", help="Stop the run before it costs more (exit 4)."
    )
    max_record_cost_usd: float | None = option(
        None, "--max-record-cost-usd", minimum=0, metavar="USD", help="Refuse calls past this cost for one record."
    )


@dataclass(frozen=True, slots=True)
class Recipe:
    """A resolved recipe: every model is known, every endpoint has a URL."""

    name: str
    description: str = ""
    panel: PanelOptions = PanelOptions()
    judge: JudgeOptions = JudgeOptions()
    synth: SynthOptions = SynthOptions()
    limits: LimitOptions = LimitOptions()
    endpoint: str = "openrouter"
    aliases: Mapping[str, Model] = field(default_factory=dict)
    endpoints: Mapping[str, Endpoint] = field(default_factory=lambda: ENDPOINTS)


def parse_model(text: str, recipe: Recipe) -> Model:
    """Read `MODEL[*N][@ENDPOINT]` as typed on a command line; an alias of the recipe keeps its settings."""
    name, samples, endpoint = spelled(text, recipe.endpoints, "--model ")
    if name in recipe.aliases and endpoint is None:
        alias = recipe.aliases[name]
        return replace(alias, samples=samples) if samples else alias
    if endpoint is None and recipe.endpoints[recipe.endpoint].embedded:
        raise UsageError(
            f"--model {name!r}: the recipe {recipe.name!r} runs the embedded model only; "
            f"say where: {name}@openrouter, or choose another recipe with -c"
        )
    return Model(name=name, model=name, endpoint=endpoint or recipe.endpoint, samples=samples or 1)


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


def panel_with(panel: PanelOptions, typed: Mapping[str, Any]) -> PanelOptions:
    """Return the panel with what was typed put over it, also over what its worked turns would set."""
    few_shot = panel.few_shot
    if few_shot is not None:
        hidden: dict[str, Any] = {f.name: None for f in fields(FewShot) if f.name in typed}
        few_shot = replace(few_shot, **hidden)
    return replace(panel, **{"few_shot": few_shot, **typed})


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


def summary(recipe: Recipe) -> dict[str, Any]:
    """Return what a record keeps of its recipe: enough to judge and synthesize it again, no URL and no key."""
    return {"name": recipe.name, "judge": _plain(recipe.judge), "synth": _plain(recipe.synth)}


def from_summary(cls: type, data: Mapping[str, Any]) -> Any:
    """Read a section of a record's `recipe` back into its options class; keys of a newer version are ignored."""
    known = {f.name for f in fields(cls)}
    model_keys = {f.name for f in fields(Model)}
    kept = {key: value for key, value in data.items() if key in known}
    if "models" in kept:
        models: list[dict[str, Any]] = [{k: v for k, v in m.items() if k in model_keys} for m in kept["models"]]
        kept["models"] = tuple(Model(**{**m, "fallbacks": tuple(m.get("fallbacks", ()))}) for m in models)
    return cls(**kept)


def _plain(options: object) -> dict[str, Any]:
    data = given_only(options)
    if models := data.get("models"):
        data["models"] = [
            {"name": m.name, "model": m.model, "endpoint": m.endpoint}
            | {k: v for k, v in given_only(m).items() if k not in ("name", "model", "endpoint")}
            for m in models
        ]
    return data
