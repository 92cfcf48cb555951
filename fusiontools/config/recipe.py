"""A recipe: the options of every stage, the chain they stand in, the models and endpoints they name; and what a record
keeps of it.

A record's recipe is written by its panel, read by the stages after it, and never trusted: the record may come from
anywhere. It names no file and no command, asks for a bounded number of calls, and says nothing about prices where a
cost limit holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from msgspec import Struct, field
from msgspec.structs import force_setattr, replace

from fusiontools.config.models import ENDPOINTS, Endpoint, Model, model_from, plain_model, split_spelling
from fusiontools.config.options import drop_unsaid
from fusiontools.config.stage_table import (
    STAGES,
    FewShot,
    JudgeOptions,
    LimitOptions,
    PanelOptions,
    PickOptions,
    RouteOptions,
    StageOptions,
    SynthOptions,
    VoteOptions,
)
from fusiontools.config.templates import is_template_name, load_template
from fusiontools.config.tool_options import ToolOptions
from fusiontools.errors import InputError, UsageError, nearest
from fusiontools.record import jsonl, schemas

#: Where models are asked when nothing is said; a record says it only of another place.
_DEFAULT_HOMES = ("openrouter", "local")
#: What becomes of a question with tools, where one is served: members propose and the synthesizer decides; the first
#: proposal that comes; the best one as it is; or one model alone is asked.
TOOL_FUSIONS = ("fuse", "first", "pick", "pass")
#: What a recipe without `chain:` does.
CHAIN = "panel | judge | synth"
#: The most that the recipe in a record may ask of one stage.
_MOST_CALLS = 1_000
#: What is hidden: a known kind and nothing, or a name and a pattern of one's own.
Redact = tuple[tuple[str, str], ...]
#: The kinds that are known.
REDACTED = ("email", "phone", "keys")
_REDACT_NAME = re.compile(r"[a-z](?:[a-z_]{0,18}[a-z])?")
#: Settings of a model that its recipe's author may have written for nobody else.
PRIVATE_OF_MODEL = ("system", "extra")
Kind = TypeVar("Kind", bound=StageOptions)


class Compact(Struct, frozen=True):
    """How long conversations are made shorter before they are sent.

    Args:
        model: who summarises earlier turns.
        over_tokens: how long a conversation may be; None is half of the smallest window of who reads it.
    """

    model: Model
    over_tokens: int | None = None


class Recipe(Struct, frozen=True):
    """A resolved recipe: every model is known, every endpoint has a URL, every stage has its options.

    Args:
        stages: the options of each stage by its name; a stage that is left out has its defaults.
        log: whether runs with it are kept, texts and all (`fuse-log`).
    """

    name: str
    description: str = ""
    chain: str = CHAIN
    tool_fusion: str = "fuse"
    stages: Mapping[str, StageOptions] = {}
    limits: LimitOptions = LimitOptions()
    tools: ToolOptions = ToolOptions()
    endpoint: str = "openrouter"
    aliases: Mapping[str, Model] = {}
    endpoints: Mapping[str, Endpoint] = field(default_factory=lambda: ENDPOINTS)
    redact: Redact = ()
    compact: Compact | None = None
    log: bool = False

    def __post_init__(self) -> None:
        """Give every stage its options."""
        for name in self.stages:
            if name not in STAGES:
                raise UsageError(f"no stage is called {name!r}{nearest(name, list(STAGES))}")
        filled: dict[str, Any] = {name: self.stages.get(name) or spec.options() for name, spec in STAGES.items()}
        if filled["vote"].wants_logprobs and not filled["panel"].logprobs:
            filled["panel"] = filled["panel"].replace(logprobs=True)
        force_setattr(self, "stages", filled)

    def options(self, kind: type[Kind]) -> Kind:
        """Return the options of the stage that has this kind of them."""
        [found] = [options for options in self.stages.values() if isinstance(options, kind)]
        return found

    @property
    def route(self) -> RouteOptions:
        """The router's options."""
        return self.options(RouteOptions)

    @property
    def panel(self) -> PanelOptions:
        """The panel's options."""
        return self.options(PanelOptions)

    @property
    def judge(self) -> JudgeOptions:
        """The judge's options."""
        return self.options(JudgeOptions)

    @property
    def synth(self) -> SynthOptions:
        """The synthesizer's options."""
        return self.options(SynthOptions)

    @property
    def vote(self) -> VoteOptions:
        """The vote's options."""
        return self.options(VoteOptions)

    @property
    def pick(self) -> PickOptions:
        """The options of picking."""
        return self.options(PickOptions)


def parse_model(text: str, recipe: Recipe) -> Model:
    """Read `MODEL[*N][@ENDPOINT]` as typed on a command line; an alias of the recipe keeps its settings."""
    name, samples, endpoint = split_spelling(text, recipe.endpoints, "--model ")
    if name in recipe.aliases and endpoint is None:
        alias = recipe.aliases[name]
        return replace(alias, samples=samples) if samples else alias
    if endpoint is None and recipe.endpoints[recipe.endpoint].embedded:
        raise UsageError(
            f"--model {name!r}: the recipe {recipe.name!r} runs the embedded model only; "
            f"say where: {name}@openrouter, or choose another recipe with -c"
        )
    return Model(name=name, model=name, endpoint=endpoint or recipe.endpoint, samples=samples or 1)


def summary(recipe: Recipe) -> dict[str, Any]:
    """Return what a record keeps of its recipe: enough to run any later stage again, no URL and no key."""
    plain = {name: _plain(recipe.stages[name]) for name, spec in STAGES.items() if spec.kept != "never"}
    home = {"endpoint": recipe.endpoint} if recipe.endpoint not in _DEFAULT_HOMES else {}
    said = {name: data for name, data in plain.items() if data or STAGES[name].kept == "always"}
    hidden = {"redact": plain_redact(recipe.redact)} if recipe.redact else {}
    return {"name": recipe.name} | home | hidden | said


def redact_from(said: Any) -> Redact:
    """Read what is to be hidden, as a recipe and a record say it.

    Raises:
        UsageError: it cannot be read.
    """
    if not isinstance(said, list):
        raise UsageError(f"redact: write a list of {', '.join(REDACTED)} and of names with a pattern")
    found: dict[str, str] = {}
    for item in said:
        for name, pattern in item.items() if isinstance(item, dict) else [(item, "")]:
            known = name in REDACTED
            if known == isinstance(item, dict) or not isinstance(pattern, str):
                raise UsageError(f"redact: {name!r}: write {', '.join(REDACTED)}, or `NAME: PATTERN` with another name")
            if not known and (not pattern or not _REDACT_NAME.fullmatch(name) or name in ("key", "mark")):
                raise UsageError(f"redact: {name!r}: a name is short, of small letters, and has a pattern")
            found[name] = pattern
    return tuple(found.items())


def plain_redact(redact: Redact) -> list[Any]:
    """Return what is hidden as a recipe says it."""
    return [{name: pattern} if pattern else name for name, pattern in redact]


def without_private(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as a record keeps it without what its author may have written for nobody else."""
    shown = {key: value for key, value in kept.items() if key != "redact"}
    for section, spec in STAGES.items():
        if isinstance(said := shown.get(section), Mapping):
            private = {f.name for f in fields(spec.options) if f.metadata["flag"].private}
            if is_template_name(str(said.get("template", ""))):
                private.discard("template")
            shown[section] = {key: _without_private_model(value) for key, value in said.items() if key not in private}
    return shown


def public_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model as a record keeps it without its prompt and what is sent along."""
    return {key: value for key, value in model.items() if key not in PRIVATE_OF_MODEL}


def _without_private_model(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_private_model(item) for item in value]
    return public_model(value) if isinstance(value, Mapping) and "model" in value else value


def summary_of(section: str, options: StageOptions) -> dict[str, Any]:
    """Return one section as a summary holds it."""
    return {section: _plain(options)}


def from_summary(cls: type[Kind], data: Mapping[str, Any]) -> Kind:
    """Read a section of a record's `recipe` back into its options class; keys of a newer version are ignored."""
    # What is said in a chain alone was never kept, and a command of a stranger's is none of ours to run.
    known = {f.name for f in fields(cls) if f.metadata["flag"].recipe}
    # A record turns no tool on: it may come from anywhere.
    kept = {key: value for key, value in data.items() if key in known and key != "tools"}
    for key in _model_lists(cls) & kept.keys():
        kept[key] = tuple(model_from(item) for item in kept[key])
    if kept.get("few_shot"):
        kept["few_shot"] = few_shot_from(kept["few_shot"])
    return cls(**kept)


def few_shot_from(data: Mapping[str, Any]) -> FewShot:
    """Read worked turns from plain data."""
    turns = tuple((user, assistant) for user, assistant in data["turns"])
    return FewShot(**{**data, "turns": turns, "unless": tuple(data.get("unless", ()))})


def _plain(options: StageOptions) -> dict[str, Any]:
    chain_only = {f.name for f in fields(options) if not f.metadata["flag"].recipe}
    # As it comes back from a record: what a recipe says itself is known by that.
    said = ((key, value) for key, value in drop_unsaid(options).items() if key not in chain_only)
    data: dict[str, Any] = {key: list(value) if isinstance(value, tuple) else value for key, value in said}
    for key in _model_lists(type(options)) & data.keys():
        data[key] = [plain_model(model) for model in data[key]]
    if "few_shot" in data:
        turns = [list(turn) for turn in data["few_shot"].turns]
        data["few_shot"] = {**drop_unsaid(data["few_shot"]), "turns": turns, "unless": list(data["few_shot"].unless)}
    return data


def _model_lists(cls: type[StageOptions]) -> set[str]:
    return {f.name for f in fields(cls) if f.metadata["flag"].model and f.metadata["flag"].multiple}


def read_section(section: str, own: Any, *, limited: bool) -> StageOptions:
    """Return the options of a stage as the recipe in a record has them; a fault in them is that record's alone.

    Args:
        own: the section as the record has it.
        limited: whether a cost limit holds, which no price from a record may lift.

    Raises:
        InputError: it cannot be read, is no such section, or names what a record may not name.
    """
    where = f"$.recipe.{section}"
    try:
        options = from_summary(STAGES[section].options, own)
        plain = jsonl.loads(jsonl.dumps(summary_of(section, options)))
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        raise InputError(f"cannot be read ({error}); choose a recipe with -c", where) from error
    if not schemas.check_of("recipe")(plain):
        path, reason = schemas.explain("recipe", plain)
        raise InputError(f"{reason}; choose a recipe with -c", f"$.recipe{path[1:]}")
    if (calls := options.most_calls) > _MOST_CALLS:
        raise InputError(f"it asks for {calls:,} calls, more than {_MOST_CALLS:,}; choose a recipe with -c", where)
    template = getattr(options, "template", "default")
    if not is_template_name(template):
        raise InputError("a record names no file; give the recipe that does with -c", f"{where}.template")
    try:
        load_template(template)
    except UsageError as error:
        raise InputError(error.message, f"{where}.template") from error
    return _without_prices(options) if limited else options


def judges_of(carried: Mapping[str, Any], *, limited: bool) -> tuple[Model, ...]:
    """Return the judges that a record's recipe names; what else it says of judging is not needed for them."""
    own = carried.get("judge")
    models = own.get("models") if isinstance(own, Mapping) else None
    judge = read_section("judge", {"models": models or []}, limited=limited)
    return judge.models if isinstance(judge, JudgeOptions) else ()


def _without_prices(options: StageOptions) -> StageOptions:
    changed = {
        name: tuple(replace(model, price_usd_per_mtok=None) for model in getattr(options, name))
        for name in _model_lists(type(options))
    }
    return options.replace(**changed)
