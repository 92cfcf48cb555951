"""Recipes: YAML in, frozen dataclasses out.

Unknown keys are refused with the nearest known one, names that nobody defined too, and so is any credential.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.config import foreign
from fusiontools.config.api_keys import kept_names
from fusiontools.config.chain_syntax import parse
from fusiontools.config.models import (
    ENDPOINTS,
    Endpoint,
    Model,
    endpoint_from,
    environment_endpoints,
    merge_members,
    split_spelling,
)
from fusiontools.config.readiness import served_models
from fusiontools.config.recipe import CHAIN, TOOL_FUSIONS, Compact, Recipe, Redact, few_shot_from, redact_from
from fusiontools.config.stage_table import STAGES, LimitOptions, StageOptions
from fusiontools.config.tool_options import ToolOptions, read_tool_options, require_tool
from fusiontools.errors import UsageError, nearest
from fusiontools.record.schemas import data_dir

NAME = re.compile(r"[A-Za-z0-9._-]+")
#: Which shipped recipe is taken where nobody names one: that of the first variable that is set.
BY_KEY: Mapping[str, str] = {
    "FUSION_BASE_URL": "budget",
    "FUSION_API_KEY": "budget",
    "OPENROUTER_API_KEY": "budget",
    "OPENAI_API_KEY": "openai",
    "ANTHROPIC_API_KEY": "anthropic",
    "GEMINI_API_KEY": "gemini",
}
#: As `--recipe`: every one that has its keys.
ALL = "all"
#: The one whose models are those that the server on this machine has.
_OLLAMA = "ollama"
#: So many of them sit on its panel.
_PULLED_MEMBERS = 3
_INT = re.compile(r"[-+]?(?:0|[1-9]\d*)$")
_FLOAT = re.compile(
    r"(?:[-+]?(?:(?:0|[1-9]\d*)\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in data_dir("configs").glob("*.yaml"))


def own_folder() -> Path:
    """Return where a person keeps recipes that every tool finds by name."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fusiontools" / "recipes"


def own_recipe_names() -> list[str]:
    """Return the names of the recipes in that folder."""
    return sorted(path.stem for path in own_folder().glob("*.yaml") if NAME.fullmatch(path.stem))


def chosen_by_person() -> bool:
    """Return whether the environment or the working directory names a recipe."""
    return bool(os.environ.get("FUSION_CONFIG")) or Path("fusion.yaml").is_file()


def default_choice() -> str:
    """Return what `-c` means when it is not given; see docs/recipes.md."""
    if chosen := os.environ.get("FUSION_CONFIG"):
        return chosen
    if Path("fusion.yaml").is_file():
        return "./fusion.yaml"
    there = [variable for variable in BY_KEY if os.environ.get(variable, "").strip()]
    if there := there or [variable for variable in BY_KEY if variable in kept_names()]:
        return BY_KEY[there[0]]
    return _OLLAMA if served_models(ENDPOINTS[_OLLAMA]) else "local"


def load_recipe(choice: str | None = None) -> Recipe:
    """Load a recipe by name or path.

    Raises:
        UsageError: no such recipe, unreadable YAML, an unknown key, a model alias nobody defined, a key in the file.
    """
    path = _locate(choice or default_choice())
    data = read_yaml(path)
    if path == data_dir("configs") / f"{_OLLAMA}.yaml":
        _name_what_is_pulled(data)
    return build_recipe(data, str(path), path.stem)


def load_offered(config: str | None, choices: Sequence[str]) -> dict[str, Recipe]:
    """Return the chosen recipe and those named beside it, by their names; `all` names none.

    Raises:
        UsageError: one that cannot be loaded, or has the name of another.
    """
    first = load_recipe(config)
    found = {first.name: first}
    for choice in choices:
        recipe = first if choice == ALL else load_recipe(choice)
        if found.setdefault(recipe.name, recipe) != recipe:
            raise UsageError(
                f"--recipe {choice}: two recipes are called {recipe.name!r}; give one a `name:` of its own"
            )
    return found


def read_yaml(path: Path) -> Any:
    """Return what stands in a file of YAML, or of JSON.

    Raises:
        UsageError: it cannot be read.
    """
    import yaml

    try:
        return yaml.load(path.read_bytes(), Loader=_make_loader())  # noqa: S506 - it is a safe one
    except OSError as error:
        raise UsageError(f"{path}: cannot read the recipe: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML: {_one_line(error)}") from error


def imported_recipe(path: str) -> str:
    """Return the recipe that a file of another program comes to, as YAML; comments say what is not taken over.

    Raises:
        UsageError: the file cannot be read, is no such file, or makes no recipe.
    """
    data, where = read_yaml(Path(path)), f"--import {path}"
    if (program := foreign.source_of(data)) is None:
        raise UsageError(
            f"{where}: no file of fusionHarness, openfusion or Fusion Engine; a recipe goes with -c {path}"
        )
    shipped = {name: read_yaml(data_dir("configs") / f"{name}.yaml") for name in foreign.PRESETS}
    presets = {name: {key: data[key] for key in ("panel", "judge", "synth")} for name, data in shipped.items()}
    try:
        recipe, notes = foreign.convert(data, program, presets)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}") from error
    build_recipe(recipe, where, Path(path).stem)
    return recipe_text(recipe, [f"From {Path(path).name}, a file of {program}.", *notes])


def recipe_data(choice: str) -> dict[str, Any]:
    """Return what a recipe says, by name or path.

    Raises:
        UsageError: as `load_recipe`.
    """
    load_recipe(choice)
    data: dict[str, Any] = read_yaml(_locate(choice))
    return data


def recipe_text(recipe: Mapping[str, Any], comments: Sequence[str]) -> str:
    """Return a recipe as YAML, its keys in their order, below lines of comment."""
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    written: str = yaml.dump(recipe, Dumper=Plain, sort_keys=False, allow_unicode=True, width=100)
    return "".join(f"# {_one_line(comment)}\n" for comment in comments) + written


def _name_what_is_pulled(data: dict[str, Any]) -> None:
    """Put the models that Ollama has here in the place of those of its shipped recipe, where it answers."""
    if not (pulled := served_models(environment_endpoints(ENDPOINTS)[_OLLAMA])):
        return
    members = pulled[:_PULLED_MEMBERS]
    writer = pulled[len(members)] if len(pulled) > len(members) else members[0]
    data["route"]["fast"] = members[0]
    data["panel"] |= {"members": [*members], "samples": _PULLED_MEMBERS if len(members) == 1 else 1}
    data["judge"] = writer if writer not in members else {"method": "lexical"}
    data["synth"] = writer


def _make_loader() -> Any:
    """Return YAML's safe loader, to which `12:30`, `0777` and a date are the text that they look like."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    replaced = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp")}
    kept = {
        first: [(tag, pattern) for tag, pattern in known if tag not in replaced]
        for first, known in base.yaml_implicit_resolvers.items()
    }
    loader: Any = type("RecipeLoader", (base,), {"yaml_implicit_resolvers": kept})
    loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    return loader


def build_recipe(data: Any, where: str, name: str) -> Recipe:
    """Turn a recipe's data into a `Recipe`; `where` names its source in errors."""
    from fusiontools.record.schemas import validate_recipe

    if (program := foreign.source_of(data)) is not None:
        raise UsageError(foreign.explain(data, program, where))
    if isinstance(data, dict):
        try:
            _refuse(data, where, "$")
        except RecursionError:
            raise UsageError(f"{where}: nested too deep, or an alias that holds itself") from None
    validate_recipe(data, where)
    endpoint = data.get("endpoint", "openrouter")
    endpoints = environment_endpoints({**ENDPOINTS, **_own_endpoints(data.get("endpoints", {}), where)})
    maker = _ModelMaker(where, endpoint, endpoints, data.get("models", {}))
    if "chain" in data:
        try:
            parse(data["chain"])
        except UsageError as error:
            raise UsageError(f"{where}: $.chain: {error.message}") from None
    stages = {name: _section(name, data.get(name, {}), maker, where) for name in STAGES}
    return Recipe(
        name=data.get("name", name),
        description=data.get("description", ""),
        chain=data.get("chain", CHAIN),
        tool_fusion=data.get("tool_fusion", TOOL_FUSIONS[0]),
        stages=stages,
        limits=LimitOptions(**data.get("limits", {})),
        tools=_tools(data, stages, where),
        endpoint=endpoint,
        aliases=maker.aliases(),
        endpoints=endpoints,
        redact=_redact(data.get("redact", []), where),
        compact=_compact(data.get("compact"), maker),
        log=data.get("log", False),
    )


def _tools(data: Mapping[str, Any], stages: Mapping[str, Any], where: str) -> ToolOptions:
    """Return what the recipe's tools go by; every tool that a stage or a model names must be there."""
    options = read_tool_options(data)
    for name, stage in stages.items():
        models = (*getattr(stage, "members", ()), *getattr(stage, "models", ()))
        for spelled in (*getattr(stage, "tools", ()), *(tool for model in models for tool in model.tools or ())):
            try:
                require_tool(spelled, options.mcp)
            except UsageError as error:
                raise UsageError(f"{where}: $.{name}: {error.message.removeprefix('--tools: ')}") from None
    return options


def _redact(said: Any, where: str) -> Redact:
    try:
        return redact_from(said)
    except UsageError as error:
        raise UsageError(f"{where}: $.{error.message}") from None


def _compact(said: Any, maker: _ModelMaker) -> Compact | None:
    """Return who summarises long conversations; in its short form a recipe names the model and no more."""
    if said is None:
        return None
    given = said if isinstance(said, dict) and "over_tokens" in said else {"model": said}
    return Compact(maker.one(given["model"], "$.compact"), given.get("over_tokens"))


def _own_endpoints(said: Mapping[str, Any], where: str) -> dict[str, Endpoint]:
    made = {}
    for name, spec in said.items():
        try:
            made[name] = endpoint_from(name, spec)
        except UsageError as error:
            raise UsageError(f"{where}: $.endpoints.{name}: {error.message}") from None
    return made


def _section(name: str, data: Any, maker: _ModelMaker, where: str) -> StageOptions:
    """Return a stage's options as a recipe spells them."""
    cls = STAGES[name].options
    declared = {f.name: f.metadata["flag"] for f in fields(cls)}
    several = "members" if "members" in declared else "models"
    given = _mapping(data, several, f"{where}: $.{name}")
    for key, flag in declared.items():
        if not flag.model or key not in given:
            continue
        if flag.multiple:
            given[key] = maker.all(given[key], f"$.{name}" if key == several else f"$.{name}.{key}")
        else:
            given[key] = maker.one(given[key], f"$.{name}.{key}")
    if "members" in given:
        given["members"] = merge_members(given["members"])
    if "tools" in given:
        given["tools"] = tuple(given["tools"])
    if given.get("few_shot") is not None:
        given["few_shot"] = few_shot_from(given["few_shot"])
    return cls(**given)


def _locate(choice: str) -> Path:
    """Return the file of a recipe: by name one's own, then a shipped one; else by path."""
    named = (own_folder() / f"{choice}.yaml", data_dir("configs") / f"{choice}.yaml")
    if NAME.fullmatch(choice) and (found := next((path for path in named if path.is_file()), None)):
        return found
    path = Path(choice)
    if path.is_file():
        return path
    names = sorted({*own_recipe_names(), *recipe_names()})
    if NAME.fullmatch(choice) and not choice.endswith((".yaml", ".yml")):
        raise UsageError(f"no recipe is called {choice!r}{nearest(choice, names)} (`fuse-ask --list` shows all)")
    raise UsageError(f"{choice}: no such recipe file; known by name: {', '.join(names)} (see `fuse-ask --list`)")


_SECRET_KEY = re.compile(
    r"((api|access|secret|private|subscription)[-_]?key|(?<!max_)token|secret|password|authorization|cookie)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\s*((Bearer|Basic)\s+\S{8,}\s*$|(sk-|sk_|xai-|gsk_|AIza|hf_)[A-Za-z0-9_-]{8,}|https?://[^/\s]*@)"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _refuse(data: Any, where: str, path: str) -> None:
    """Refuse a credential wherever it stands in a recipe, without repeating it; and what YAML says and JSON cannot."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        if isinstance(data, dict) and not isinstance(key, str):
            raise UsageError(f"{where}: {path}: the key {key!r} is not text; put it in quotes")
        at = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}"
        if _is_secret(key, value):
            raise UsageError(
                f"{where}: {at}: a key must not stand in a recipe; export it and name the variable: `api_key_env: NAME`"
            )
        if isinstance(value, dict | list):
            _refuse(value, where, at)
        elif isinstance(value, int | float):
            if not math.isfinite(value) or abs(value) >= 2**63:
                raise UsageError(f"{where}: {at}: {value} is no number that can be used")
        elif value is not None and not isinstance(value, str):
            raise UsageError(f"{where}: {at}: {value} is not text; put it in quotes")


def _is_secret(key: str | int, value: Any) -> bool:
    if isinstance(key, str) and _SECRET_KEY.search(key):
        return True
    if not isinstance(value, str):
        return False
    return bool(_SECRET_VALUE.match(value)) or (key == "api_key_env" and not _VARIABLE.fullmatch(value))


def _mapping(section: str | list[Any] | dict[str, Any], list_key: str, place: str) -> dict[str, Any]:
    """Return a section written in its short forms (a name, a list of names) as a mapping."""
    if isinstance(section, str):
        return {list_key: [section]}
    if isinstance(section, list):
        return {list_key: section}
    section = {**section}
    if "model" in section:
        if list_key in section:
            raise UsageError(f"{place}: give `model` or `{list_key}`, not both")
        section[list_key] = [section.pop("model")]
    return section


def _one_line(said: object) -> str:
    return " ".join(str(said).split())


class _ModelMaker(Struct, frozen=True):
    """Turns a recipe's spellings of a model into `Model`s, and refuses names that nobody defined."""

    where: str
    endpoint: str
    endpoints: Mapping[str, Endpoint]
    table: Mapping[str, Any]

    def all(self, specs: list[Any], path: str) -> tuple[Model, ...]:
        return tuple(self.one(spec, f"{path}[{i}]") for i, spec in enumerate(specs))

    def aliases(self) -> dict[str, Model]:
        return {alias: self._built(spec, alias, f"$.models.{alias}") for alias, spec in self.table.items()}

    def one(self, spec: Any, path: str) -> Model:
        if isinstance(spec, dict):
            return self._built(spec, spec.get("name") or spec["model"], path)
        name, samples, endpoint = split_spelling(spec, self.endpoints, f"{self.where}: {path}: ")
        if name in self.table and endpoint is None:
            alias = self._built(self.table[name], name, f"$.models.{name}")
            return replace(alias, samples=samples) if samples else alias
        if self.table and "/" not in name and endpoint is None:
            raise UsageError(
                f"{self.where}: {path}: no model is called {name!r} under `models:`{nearest(name, list(self.table))}"
            )
        return self._built({"model": name, "samples": samples or 1, "endpoint": endpoint or self.endpoint}, name, path)

    def _built(self, spec: Any, name: str, path: str) -> Model:
        given: dict[str, Any] = {"model": spec} if isinstance(spec, str) else spec
        fallbacks = tuple(given.get("fallbacks", ()))
        tools = None if given.get("tools") is None else tuple(given["tools"])
        kept = {"name": name, "fallbacks": fallbacks, "tools": tools}
        model = Model(**{"endpoint": self.endpoint, **given, **kept})
        if model.endpoint not in self.endpoints:
            raise UsageError(
                f"{self.where}: {path}: no endpoint is called {model.endpoint!r}"
                f"{nearest(model.endpoint, list(self.endpoints))}"
            )
        endpoint = self.endpoints[model.endpoint]
        if endpoint.embedded and endpoint.path:
            # The weights are this file's, whatever the recipe called them.
            weights = Path(endpoint.path).stem
            return replace(model, name=weights, model=weights)
        return model
