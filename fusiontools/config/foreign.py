"""Configuration files of fusionHarness, openfusion and Fusion Engine: what their keys are called here, and the recipe
that such a file comes to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from fusiontools.config.models import ENDPOINTS
from fusiontools.errors import UsageError
from fusiontools.record.schemas import data_dir

#: The sections of recipes by name.
Presets = Mapping[str, Mapping[str, Any]]
#: What openfusion ships under names that we ship, too.
PRESETS = ("quality", "budget")
#: Of each of their keys, what it is here; beginning with `(`, why there is none.
_HARNESS = {
    "panel": "panel.members",
    "judge": "judge",
    "synthesizer": "synth",
    "temperature": "panel.temperature",
    "max_tokens": "panel.max_tokens",
    "refine": "synth.refine",
    "layers": "chain, with `panel --revise`",
    "samples": "panel.samples",
    "diversity": "panel.diversity",
    "diversity_jitter": "panel.jitter",
    "max_retries": "limits.retries",
    "retry_backoff": "limits.backoff_s",
    "max_concurrency": "limits.max_concurrency",
    "tools_enabled": "(members' tools are not taken over)",
}
_OPENFUSION = {
    "preset": "panel, judge and synth of the recipe of that name",
    "strategy": "chain",
    "aggregator": "chain",
    "panel": "panel.members, with `endpoints`",
    "judge": "judge and synth",
    "self_fusion": "panel.samples, temperature, jitter",
    "debate": "chain, with `panel --debate`",
    "pipeline": "(a chain has no steps with prompts of their own)",
    "router": "route, and `route` in chain",
    "timeouts": "limits.timeout_s and deadline_s",
    "cost_controls": "panel.max_tokens, judge.max_tokens, synth.max_tokens",
    "cache": "panel.prompt_cache",
    "limits": "(fuse-serve --max-in-flight, --rate-limit)",
    "response_cache": "(fuse-serve --cache, --cache-entries)",
    "gateway": "(FUSION_SERVER_API_KEYS)",
    "tools": "(members' tools are not taken over)",
    "pass_through": "(fuse-serve --allow-model)",
    "allow_request_overrides": "(fuse-serve --overrides)",
    "analysis": "(always in the record)",
    "fusion_model_name": "(the model is called `fusion`)",
    "allow_ui_api_key": "(keys come from the environment)",
    "expose_panel": "(always in the record)",
}
_ENGINE = {
    "schema_version": "(not needed)",
    "name": "name",
    "description": "description",
    "models": "panel.members",
    "judge_model": "judge and synth",
    "judge_template": "judge.template and synth.template",
    "estimated_cost_per_query": "(fuse-cost --estimate)",
}
_TABLES = {"fusionHarness": _HARNESS, "openfusion": _OPENFUSION, "Fusion Engine": _ENGINE}
#: Keys that no recipe has and that name the program of a file.
_MARKS = {
    "fusionHarness": {"synthesizer", "tools_enabled", "diversity_jitter", "max_retries", "retry_backoff"},
    "openfusion": {"strategy", "aggregator", "self_fusion", "router", "cost_controls", "preset", "pass_through"},
    "Fusion Engine": {"judge_model", "judge_template", "schema_version"},
}
_TIERS = ("fast", "balanced", "strong")
_CHAINS = {"judge": "judge | synth", "vote": "vote", "ranked": "judge | pick"}
_TEMPLATES = {"tool_synthesis": "tool_calls"}


def source_of(data: Any) -> str | None:
    """Return which other program's file this is; None where it is none that we know."""
    if not isinstance(data, Mapping):
        return None
    for program, marks in _MARKS.items():
        if marks & data.keys():
            return program
    panel = data.get("panel")
    is_theirs = isinstance(panel, list) and any(isinstance(m, Mapping) and "api_key" in m for m in panel)
    return "openfusion" if is_theirs else None


def explain(data: Mapping[str, Any], program: str, where: str) -> str:
    """Return in a line what the keys of another program's file are called here, and how to get the recipe."""
    said = "; ".join(f"{key} → {ours}" for key, ours in _TABLES[program].items() if key in data)
    how = f"`fuse-ask --import {where} > mine.yaml` makes a recipe of it"
    return f"{where}: a file of {program}; {how} ({said})"


def convert(data: Mapping[str, Any], program: str, presets: Presets) -> tuple[Any, list[str]]:
    """Return the recipe that another program's file comes to, and what a person should know of it.

    Args:
        presets: our recipes that stand for theirs of the same name.

    Raises:
        UsageError: it cannot be read as such a file.
    """
    table = _TABLES[program]
    try:
        made = _MAKERS[program](data, presets)
    except KeyError as error:
        raise UsageError(f"cannot be read as a file of {program}: it lacks `{error.args[0]}`") from error
    except (TypeError, AttributeError, ValueError, IndexError) as error:
        raise UsageError(f"cannot be read as a file of {program}: {error}") from error
    left = [f"{key}: {table[key][1:-1]}" for key in data if table.get(key, "").startswith("(")]
    left += [f"{key}: unknown" for key in data if key not in table]
    return made.recipe, [*(f"Not taken over: {note}." for note in left), *made.notes]


class _Made(Struct):
    """A recipe in the making, and what a person should know of it."""

    recipe: dict[str, Any]
    notes: list[str] = []


def _from_harness(data: Mapping[str, Any], _: Presets) -> _Made:
    members, notes = [], []
    for spec in data.get("panel", []):
        if isinstance(spec, Mapping):
            if "tools" in spec:
                notes.append(f"Not taken over: the tools of {spec['model']}.")
            spec = {key: spec[key] for key in ("model", "temperature", "max_tokens") if key in spec}
        members.append(spec)
    panel = {"members": members} | _taken(
        data, temperature="temperature", max_tokens="max_tokens", samples="samples", diversity="diversity",
        diversity_jitter="jitter",
    )  # fmt: skip
    limits = _taken(data, max_retries="retries", retry_backoff="backoff_s", max_concurrency="max_concurrency")
    if limits.get("max_concurrency") == 0:
        del limits["max_concurrency"]  # theirs for "no limit"
    layers = " | panel --revise" * (int(data.get("layers", 1)) - 1)
    writer = data.get("synthesizer", data.get("judge"))
    recipe = {
        "endpoint": "openrouter",
        "chain": f"panel{layers} | judge | synth" if layers else None,
        "panel": panel,
        "judge": data.get("judge"),
        "synth": {"model": writer, "refine": True} if data.get("refine") else writer,
        "limits": limits,
    }
    return _Made(_without_nothing(recipe), notes)


def _from_engine(data: Mapping[str, Any], _: Presets) -> _Made:
    members = [_engine_member(spec) for spec in data["models"]]
    template = _TEMPLATES.get(data.get("judge_template", "default"), data.get("judge_template", "default"))
    notes = []
    if not (data_dir("configs") / "prompts" / f"{template}.md").is_file():
        notes.append(f"Not taken over: judge_template {template}; write one of your own and name its file.")
        template = "default"
    judged = {"model": data["judge_model"], **({"template": template} if template != "default" else {})}
    recipe = {
        "name": data.get("name"),
        "description": data.get("description"),
        "endpoint": "openrouter",
        "panel": {"members": members},
        "judge": judged,
        "synth": judged.copy(),
    }
    return _Made(_without_nothing(recipe), notes)


def _engine_member(spec: Any) -> Any:
    if isinstance(spec, str):
        return spec
    return {"model": spec["slug"], "max_tokens": spec["max_tokens"]} if spec.get("max_tokens") else spec["slug"]


def _from_openfusion(data: Mapping[str, Any], presets: Presets) -> _Made:
    maker = _OpenFusion()
    strategy = data.get("strategy", "panel" if "preset" in data else "self_fusion")
    made = _Made({}, maker.notes)
    recipe: dict[str, Any] = {**presets[data["preset"]]} if "preset" in data and not data.get("panel") else {}
    members = [maker.model(spec) for spec in data.get("panel", [])]
    panel = recipe.get("panel", {}) | ({"members": members} if members else {})
    if strategy == "self_fusion":
        panel |= _self_fusion(data.get("self_fusion", {}), members)
    judge = maker.model(data["judge"]) if data.get("judge") else None
    bounds = data.get("cost_controls", {})
    panel |= _taken(bounds, panel_max_tokens="max_tokens")
    if data.get("cache", {}).get("enabled"):
        panel["prompt_cache"] = True
    route = _openfusion_route(data.get("router", {}), maker)
    judged = {"judge": judge, "synth": judge} if judge else {k: recipe[k] for k in ("judge", "synth") if k in recipe}
    bound = _taken(bounds, judge_max_tokens="max_tokens")
    judged = {name: {"model": model} | bound if bound else model for name, model in judged.items()}
    rounds = " | panel --debate" * int(data.get("debate", {}).get("rounds", 1)) if strategy == "debate" else ""
    if strategy == "pipeline":
        maker.notes.append("Not taken over: strategy pipeline; the panel is fused instead.")
    answering = _CHAINS[data.get("aggregator", "judge")]
    chain = f"{'route | ' if route else ''}panel{rounds} | {answering}"
    made.recipe = _without_nothing({
        "endpoint": "openrouter",
        "endpoints": maker.endpoints,
        "chain": chain if chain != "panel | judge | synth" else None,
        "route": route,
        "panel": panel,
        **judged,
        "limits": _taken(data.get("timeouts", {}), member_seconds="timeout_s", total_seconds="deadline_s"),
    })  # fmt: skip
    return made


class _OpenFusion:
    """Makes models and endpoints of `{base_url, api_key, model}`."""

    def __init__(self) -> None:
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []

    def model(self, spec: Mapping[str, Any]) -> Any:
        """Return a member as a recipe names it."""
        endpoint = self._endpoint(spec)
        named = {"name": spec["label"]} if spec.get("label") else {}
        made = named | {"model": spec["model"]} | ({"endpoint": endpoint} if endpoint != "openrouter" else {})
        return made if len(made) > 1 else spec["model"]

    def _endpoint(self, spec: Mapping[str, Any]) -> str:
        url = str(spec.get("base_url") or ENDPOINTS["openrouter"].base_url).rstrip("/")
        for known in ENDPOINTS.values():
            if known.base_url == url:
                return known.name
        host = urlsplit(url).hostname or "server"
        name = re.sub(r"[^a-z0-9]+", "-", host.removeprefix("api.").lower()).strip("-")
        if name not in self.endpoints:
            self.endpoints[name] = {"base_url": url} | self._key(spec.get("api_key"), name)
            if spec.get("provider") == "anthropic":
                self.endpoints[name]["api"] = "anthropic"
        return name

    def _key(self, key: Any, name: str) -> dict[str, str]:
        """Return the variable that holds the key; the key itself is never repeated."""
        if not key:
            return {}
        if found := re.fullmatch(r"\$\{([A-Z_][A-Z0-9_]*)\}", str(key)):
            return {"api_key_env": found[1]}
        variable = "SERVER_" * name[0].isdigit() + f"{re.sub(r'[^A-Z0-9]+', '_', name.upper())}_API_KEY"
        self.notes.append(f"The key of {name} stood in that file: export {variable}=…")
        return {"api_key_env": variable}


def _self_fusion(said: Mapping[str, Any], members: list[Any]) -> dict[str, Any]:
    """Return the panel of one model sampled, with the middle and the reach of its temperatures."""
    spread = said.get("temperature_spread") or [0.3, 0.7, 1.0]
    low, high = min(spread), max(spread)
    return {
        "members": members[:1],
        "samples": said.get("n", 3),
        "temperature": round((low + high) / 2, 3),
        "jitter": round((high - low) / 2, 3),
    }


def _openfusion_route(router: Mapping[str, Any], maker: _OpenFusion) -> dict[str, Any]:
    if not router.get("enabled"):
        return {}
    route: dict[str, Any] = _taken(router, mode="method", min_chars="min_chars")
    for spec in router.get("route_models", []):
        if (tier := spec.get("tier", "balanced")) in _TIERS:
            route.setdefault(tier, maker.model(spec))
    if router.get("classifier"):
        route["model"] = maker.model(router["classifier"])
    if "fuse_keywords" in router:
        maker.notes.append("Not taken over: router.fuse_keywords; the rules look at a question's shape.")
    return route


def _taken(data: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """Return what is said under their names, under ours."""
    return {ours: data[theirs] for theirs, ours in names.items() if data.get(theirs) is not None}


def _without_nothing(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if value not in (None, {}, [])}


_MAKERS = {"fusionHarness": _from_harness, "openfusion": _from_openfusion, "Fusion Engine": _from_engine}
