"""One examination by `fuse-doctor`: what is there, what is not, and what to do; apart from `doctor.py`, whose `--help`
needs nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.cli.command import complain, leave
from fusiontools.cli.io import is_colour_welcome, write_or_leave
from fusiontools.cli.log import size_text
from fusiontools.cli.table import Cell, Styled, screen_width, table_text
from fusiontools.cli.text import money
from fusiontools.config.api_keys import kept_names, keyring_name, place_of_key
from fusiontools.config.chain_syntax import parse
from fusiontools.config.models import ENDPOINTS, Endpoint, Model, environment_endpoints, require_ready
from fusiontools.config.readiness import lacks, served_models, unused_keys
from fusiontools.config.recipe import Recipe
from fusiontools.config.recipe_yaml import default_choice, load_recipe
from fusiontools.config.resolve import merge, models_of, read_typed
from fusiontools.errors import (
    EXIT_BUDGET,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    CallFailed,
    UsageError,
    install_line,
)
from fusiontools.llm import prices
from fusiontools.llm.client import Client
from fusiontools.llm.journal import default_path
from fusiontools.llm.weights import DOWNLOAD_MB, cache_dir, weights_at_hand
from fusiontools.record import jsonl
from fusiontools.runs.kept import what_is_kept

_TOOL = "fuse-doctor"
#: What each model is asked with `--live`, and how long its answer may be: models that think first say nothing in it.
_MESSAGES: Any = [{"role": "user", "content": "Answer with the word ready."}]
_MAX_TOKENS = 16
_LIVE_TIMEOUT_S = 60.0
#: Failures of a call after which the model is known to be there.
_THERE = ("truncated", "empty", "refused")
_LIMITS = ("budget", "record_budget", "price_unknown")
#: Each extra: a package that comes with it, and what it is for.
EXTRAS = {
    "local": ("xllamacpp", "the embedded model"),
    "prices": ("genai_prices", "prices that an endpoint does not say"),
    "serve": ("starlette", "fuse-serve"),
    "eval": ("numpy", "fuse-report, downloaded benchmarks"),
    "tools": ("trafilatura", "web search and pages for members"),
    "chat": ("prompt_toolkit", "fuse-chat, fuse-code"),
    "mcp": ("mcp", "MCP servers, fuse-mcp"),
    "redis": ("redis", "state that machines share, in Redis or Valkey"),
    "postgres": ("psycopg", "state that machines share, in PostgreSQL"),
    "keyring": ("keyring", "keys in the system's keyring"),
    "otel": ("opentelemetry", "traces"),
    "ray": ("ray", "fuse-ray"),
}


class ModelCheck(Struct):
    """A model of the recipe, with the stages that ask it.

    Args:
        lacks: what a person has to do before it can be asked; None where it is ready.
        live: how the call went, in words, with `--live`.
        refused: whether a cost limit kept it from being asked.
    """

    model: Model
    endpoint: Endpoint
    stages: list[str] = []
    lacks: str | None = None
    live: str | None = None
    refused: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether it can be asked, as far as is known."""
        return self.lacks is None and not self.refused

    @property
    def todo(self) -> str | None:
        """What a person can do before it is asked; None where it is ready."""
        if self.is_ready or self.lacks is None:
            return None if self.is_ready else self.live
        keeping = f", or fuse-doctor --set-key {self.endpoint.name}"
        return self.lacks + (keeping if self.endpoint.api_key_env and _place(self.endpoint) is None else "")


class Findings(Struct):
    """All that was found.

    Args:
        tools: the recipe's tools of members, each with what it lacks.
        problems: of the whole installation, in words.
        state: what is shared with other processes: where it is, and what answers there, or None; None where nothing is.
    """

    recipe: Recipe
    checks: list[ModelCheck]
    tools: dict[str, str | None]
    problems: list[str]
    state: tuple[str, str | None] | None = None

    @property
    def status(self) -> int:
        """The exit status."""
        members = [check for check in self.checks if "panel" in check.stages]
        if any(check.refused for check in self.checks):
            return EXIT_BUDGET
        if members and not any(check.is_ready for check in members):
            return EXIT_NOTHING_USABLE
        ready = all(check.is_ready for check in self.checks) and not any(self.tools.values()) and not self.problems
        return EXIT_OK if ready else EXIT_SOME_FAILED


async def examine(config: str | None, limit: Mapping[str, Any], *, live: bool, as_json: bool) -> int:
    """Look at everything, print it, and return the exit status."""
    import signal

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, leave, EXIT_INTERRUPTED)
    recipe = load_recipe(config)
    checks = _checks(recipe)
    for check in checks:
        check.lacks = await asyncio.to_thread(_lack_of, check)
    found = Findings(recipe, checks, await asyncio.to_thread(_lacks_of_tools, recipe), _problems())
    found.state = await _shared_state(found.problems)
    if live:
        await _ask_all(found, limit)
    text = jsonl.dumps(_as_data(found)).decode() + "\n" if as_json else _as_text(found, live=live)
    write_or_leave(_TOOL, text.encode("utf-8", "replace"))
    return found.status


def _checks(recipe: Recipe) -> list[ModelCheck]:
    """Return the models that the recipe's chain asks, each once for each place where it is asked."""
    checks: dict[tuple[str, str], ModelCheck] = {}
    for step in parse(recipe.chain):
        options = merge(step.name, recipe.stages[step.name], read_typed(step.name, step.given, recipe))
        for model in models_of({each.name: getattr(options, each.name) for each in fields(options)}):
            key = (model.model, model.endpoint)
            check = checks.setdefault(key, ModelCheck(model, recipe.endpoints[model.endpoint]))
            check.stages += [] if step.name in check.stages else [step.name]
    return list(checks.values())


def _lack_of(check: ModelCheck) -> str | None:
    """Return what a person has to do before a model can be asked; its key is really fetched."""
    endpoint = check.endpoint
    if lack := lacks(endpoint):
        return lack
    try:
        require_ready(endpoint)
    except UsageError as error:
        return error.message
    if endpoint.embedded and endpoint.path and not weights_at_hand(endpoint.path):
        return f"there are no weights at {endpoint.path}"
    here = served_models(endpoint)
    if here and not {check.model.model, f"{check.model.model}:latest"} & {*here}:
        pull = f"ollama pull {check.model.model}" if endpoint.name == "ollama" else "load it there"
        return f"the server does not list it: {pull}"
    return None


def _place(endpoint: Endpoint) -> str | None:
    """Return where an endpoint's key would come from; None where it has none, or that cannot be read."""
    try:
        return endpoint.key_place()
    except UsageError:
        return None


def _lacks_of_tools(recipe: Recipe) -> dict[str, str | None]:
    """Return the tools that the recipe lets its members use, each with what it lacks."""
    from fusiontools.tools.opening import require_tools

    named = [*recipe.panel.tools, *(tool for member in recipe.panel.members for tool in member.tools or ())]
    found: dict[str, str | None] = {}
    for name in dict.fromkeys(named):
        try:
            require_tools([name], recipe.tools)
            found[name] = None
        except UsageError as error:
            found[name] = error.message
    return found


async def _shared_state(problems: list[str]) -> tuple[str, str | None] | None:
    """Return where the state is that `FUSION_STATE` names, and what answers there; what is wrong is a problem."""
    from fusiontools.llm.state.address import VARIABLE, masked
    from fusiontools.llm.state.shared import chosen_state, open_state
    from fusiontools.llm.state.store import StateAway

    url = chosen_state(None)
    if url is None:
        return None
    try:
        state = open_state(url, problems.append, keeps=False)
    except UsageError as error:
        problems.append(error.message)
        return masked(url), None
    try:
        return state.place, await state.store.check()
    except StateAway as away:
        problems.append(f"the state {away}; mend it, or unset {VARIABLE}: until then no budget is spent")
        return state.place, None
    finally:
        await state.aclose()


def _problems() -> list[str]:
    """Return what is wrong with the installation as a whole."""
    problems = []
    try:
        kept_names()
    except UsageError as error:
        problems.append(error.message)
    for what, place, variable in (
        ("the journal is not kept", default_path().parent, "XDG_STATE_HOME"),
        ("weights are fetched in vain", cache_dir(), "XDG_CACHE_HOME"),
    ):
        folder = next(path for path in (place, *place.parents) if path.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            problems.append(f"{folder} cannot be written, so {what}; mend it, or set {variable}")
    return problems


# --- Live ---


async def _ask_all(found: Findings, limit: Mapping[str, Any]) -> None:
    """Ask each model that is ready for a word; what that costs at most is said first."""
    limits = found.recipe.limits.replace(**{"timeout_s": _LIVE_TIMEOUT_S, "retries": 1, **limit})
    ready = [check for check in found.checks if check.lacks is None]
    costs = [prices.upper_bound_usd(check.endpoint, check.model, _MESSAGES, _params(check.model)) for check in ready]
    known, unknown = sum(cost for cost in costs if cost is not None), costs.count(None)
    calls = f"{len(ready)} call{'' if len(ready) == 1 else 's'}"
    beside = f", and {unknown} of unknown price" if unknown else ""
    complain(_TOOL, f"--live: {calls}, at most {money(known) if known else '$0'}{beside}")
    client = Client(found.recipe.endpoints, limits, shares=False)
    try:
        await asyncio.gather(*(_ask(check, client) for check in ready))
    finally:
        await client.aclose()


def _params(model: Model) -> dict[str, Any]:
    return {**model.extra, "max_tokens": _MAX_TOKENS}


async def _ask(check: ModelCheck, client: Client) -> None:
    """Make the one call, and say in the check how it went."""
    started = time.monotonic()
    model = replace(check.model, fallbacks=())
    ledger = client.ledger("doctor", "live")
    try:
        await client.complete(client.request(model, _MESSAGES, _params(model)), model, ledger)
    except CallFailed as failure:
        if failure.code in _LIMITS:
            check.refused, check.live = True, f"not asked: {failure.message}"
            return
        if failure.code not in _THERE:
            key = f" (the key: {_place(check.endpoint)})" if failure.code == "auth" and check.endpoint.wants_key else ""
            check.lacks = check.live = f"{failure.code}: {failure.message}{key}"
            return
    costs = [call["cost_usd"] for call in ledger.calls]
    known = sum(cost for cost in costs if cost is not None)
    cost = "cost unknown" if None in costs else money(known) if known else "$0"
    check.live = f"answered in {time.monotonic() - started:.1f} s, {cost}"


# --- Printing ---


def _as_text(found: Findings, *, live: bool) -> str:
    recipe = found.recipe
    about = f": {recipe.description}" if recipe.description else ""
    parts = [
        _folded(f"recipe {recipe.name}{about}") + f"{recipe.chain}\n",
        _table(["model", "at", "asked by", ""], [_check_row(check, live) for check in found.checks]),
        _table(["tool of members", ""], [[name, _state(lack)] for name, lack in found.tools.items()]),
        _table(["endpoint", "key", ""], _endpoint_rows(recipe)),
        _table(["extra", "for", ""], [[name, what, _state(lack)] for name, what, lack in _extras()]),
        _table(["kept", "size", "where"], [[k.kind, size_text(k.size_bytes), str(k.path)] for k in what_is_kept()]),
        _table(["state", ""], [] if found.state is None else [[found.state[0], _answers(found.state[1])]]),
        _notes(),
        _verdict(found),
    ]
    return "\n".join(part for part in parts if part)


def _folded(line: str) -> str:
    """Return a line as several, where a screen is too narrow for it."""
    width = screen_width() or len(line) + 1
    return textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    if not rows:
        return ""
    return table_text(
        head, rows, left=range(len(head)), folding=len(head) - 1, colour=is_colour_welcome(), width=screen_width()
    )


def _state(lack: str | None) -> Cell:
    return Styled("ready", "green") if lack is None else Styled(lack, "yellow")


def _answers(what: str | None) -> Cell:
    return Styled("cannot be reached", "yellow") if what is None else Styled(what, "green")


def _check_row(check: ModelCheck, live: bool) -> list[Cell]:
    state = _state(check.lacks)
    if live and check.live:
        state = Styled(check.live, "green" if check.is_ready else "red")
    return [check.model.model, check.endpoint.name, ", ".join(check.stages), state]


def _endpoint_rows(recipe: Recipe) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for name, endpoint in {**environment_endpoints(ENDPOINTS), **recipe.endpoints}.items():
        rows.append([name, (_place(endpoint) or "none") if endpoint.wants_key else "-", _state(lacks(endpoint))])
    return rows


def _extras() -> list[tuple[str, str, str | None]]:
    """Return extras and programs: name, what for, and what is to be done for it."""
    found = [(name, what, None if find_spec(home) else install_line(name)) for name, (home, what) in EXTRAS.items()]
    if keyring_name() is None and find_spec("keyring"):
        found[-1] = ("keyring", EXTRAS["keyring"][1], "the system has none here: keys are kept in a file")
    sandbox = ("bubblewrap", "bash for members, graded code", _lack_of_sandbox())
    return [*found, ("weights", "the embedded model", _lack_of_weights()), sandbox]


def _lack_of_weights() -> str | None:
    if weights_at_hand():
        return None
    return f"fetched when first needed ({DOWNLOAD_MB} MB): python -m fusiontools.llm.weights"


def _lack_of_sandbox() -> str | None:
    from fusiontools.tools.sandbox import find_sandbox

    try:
        find_sandbox()
    except UsageError as error:
        return error.message
    return None


def _notes() -> str:
    """Return what else there is to say of keys."""
    notes = []
    known = {endpoint.api_key_env for endpoint in ENDPOINTS.values()}
    if url := os.environ.get("FUSION_BASE_URL"):
        notes.append(f"FUSION_BASE_URL takes every endpoint to {url}\n")
    with contextlib.suppress(UsageError):  # it is one of the problems
        notes += [f"{name}: kept, {place_of_key(name)}\n" for name in kept_names() if name not in known]
    if keys := unused_keys():
        notes.append(f"{', '.join(keys)}: no endpoint reads it; a recipe can: `api_key_env: {keys[0]}`.\n")
    return "".join(notes)


def _verdict(found: Findings) -> str:
    """Return what it comes to, and what to do."""
    alike: dict[tuple[str, str], list[str]] = {}
    for check in found.checks:
        if not check.is_ready:
            alike.setdefault((check.endpoint.name, check.todo or ""), []).append(check.model.model)
    todo = [
        f"{models[0] if len(models) == 1 else f'{len(models)} models'} at {endpoint}: {why}"
        for (endpoint, why), models in alike.items()
    ]
    todo += [f"{name}: {lack}" for name, lack in found.tools.items() if lack]
    todo += found.problems
    if not todo:
        return f"{found.recipe.name} is ready\n"
    can = "cannot be used" if found.status == EXIT_NOTHING_USABLE else "is not all ready"
    return f"{found.recipe.name} {can}:\n" + "".join(_folded(f"  {line}") for line in todo)


def _as_data(found: Findings) -> dict[str, Any]:
    """Return all that was found, for programs."""
    return {
        "recipe": found.recipe.name,
        "chosen": default_choice(),
        "status": found.status,
        "ready": found.status == EXIT_OK,
        "models": [
            {
                "model": check.model.model,
                "endpoint": check.endpoint.name,
                "stages": check.stages,
                "ready": check.is_ready,
                "todo": check.todo,
                "live": check.live,
            }
            for check in found.checks
        ],
        "tools": [{"tool": name, "ready": lack is None, "todo": lack} for name, lack in found.tools.items()],
        "endpoints": [
            {
                "endpoint": name,
                "url": endpoint.base_url or None,
                "key": _place(endpoint),
                "todo": lacks(endpoint),
            }
            for name, endpoint in {**environment_endpoints(ENDPOINTS), **found.recipe.endpoints}.items()
        ],
        "extras": [{"extra": name, "for": what, "todo": lack} for name, what, lack in _extras()],
        "kept": [{"kind": k.kind, "path": str(k.path), "size_bytes": k.size_bytes} for k in what_is_kept()],
        "state": None if found.state is None else {"place": found.state[0], "answers": found.state[1]},
        "problems": found.problems,
    }
