"""Models and the endpoints that answer for them: how a person spells one (`MODEL[*N][@ENDPOINT]`), and what the
environment says of endpoints.

Keys are read when a call is made (`api_keys.py` says where from), and never enter any object or its `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, force_setattr, replace

from fusiontools.config.api_keys import command_words, find_key, is_key, place_of_key
from fusiontools.errors import UsageError, nearest


class CommandOutput(Struct, frozen=True):
    """Where in the JSON that a program prints its answer stands; paths are names between dots, and positions.

    Args:
        text: the answer.
        where: which object it is, of one, of a list or of lines: the last one with these fields.
        failed: what is true, or a text, where the program failed.
    """

    text: str
    where: Mapping[str, Any] = {}
    failed: str | None = None
    cost_usd: str | None = None
    prompt_tokens: str | None = None
    completion_tokens: str | None = None
    cached_tokens: str | None = None


class BatchTerms(Struct, frozen=True):
    """How an endpoint takes calls as jobs that may take a day, and for what price.

    Args:
        api: whose batch API it has (`openai`, `anthropic`, `openrouter`, `mistral`, `gemini`), or `none`; None is that
            of its host, else of what it speaks.
        url: where that API is; None is where its provider has it, seen from the base URL.
        price_factor: what a call costs in a job, as a share of what it costs otherwise.
        max_calls: of one job; None is what the provider allows, as for the next two.
        max_bytes: of one job.
        max_tokens: of prompts to one model that may wait in its jobs; None is no limit until one is met.
        poll_s: how often a job is looked at.
    """

    api: str | None = None
    url: str | None = None
    price_factor: float = 0.5
    max_calls: int | None = None
    max_bytes: int | None = None
    max_tokens: int | None = None
    poll_s: float = 30.0


class Endpoint(Struct, frozen=True):
    """A place that answers requests; the key is read when a call is made, and never kept here.

    Args:
        base_url: up to and including the version (`https://…/v1`); empty for the embedded engine.
        api_key_env: the environment variable that holds the key, and the name of a kept one; None for servers without.
        api_key_command: prints the key, where the environment has none.
        free: calls cost nothing (a server of your own).
        headers: extra headers; never credentials.
        path: a GGUF file, for the embedded engine only.
        context_tokens: context per request, for the embedded engine only.
        api: what it speaks: OpenAI chat completions, Anthropic's Messages API, or `command`: a program is run.
        max_concurrency: calls in flight at once; None leaves it to the run's limit, and a program at one.
        rpm: requests that begin within a minute.
        tpm: tokens within a minute.
        one_model: calls for one model at a time, for a server that would load each model that it is asked for.
        trusted: what `redact` hides is sent as it is.
        program: a known program: `claude`, `codex`, `llm`; with `api: command` only, as all that follows.
        command: the program and its arguments; `{model}` and others in it are filled in.
        args: arguments behind those of a known program.
        env: variables of the environment that the program gets beside the harmless ones.
        output: where in the JSON that the program prints its answer stands; None where it prints text.
        batch: how it takes batch jobs, where that is not what is known of its host.
        embedded: this is the engine in our own process; follows from the others, whatever is given.
    """

    name: str
    base_url: str = ""
    api_key_env: str | None = None
    free: bool = False
    headers: Mapping[str, str] = {}
    path: str | None = None
    context_tokens: int = 4096
    api: str = "openai"
    max_concurrency: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    one_model: bool = False
    trusted: bool = False
    program: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    output: CommandOutput | None = None
    api_key_command: tuple[str, ...] = ()
    batch: BatchTerms | None = None
    embedded: bool = False

    def __post_init__(self) -> None:
        force_setattr(self, "embedded", not self.base_url and not self.runs_program)

    @property
    def runs_program(self) -> bool:
        """Whether a program answers."""
        return self.api == "command"

    @property
    def listed_at(self) -> str:
        """The address under which price lists know its models."""
        return ENDPOINTS[_LISTED[self.program]].base_url if self.program in _LISTED else self.base_url

    @property
    def called(self) -> tuple[str, ...]:
        """How its program is called: by its name, or as the recipe says."""
        return self.command or (self.program or "",)

    @property
    def own_prompt_tokens(self) -> int:
        """About how many tokens a known agent puts before every prompt: 21,294 were seen with Codex."""
        return 25_000 if self.program in _LISTED else 0

    @property
    def identity(self) -> str:
        """What tells this endpoint's answers apart in the journal: where it is, not what it is called."""
        if self.base_url:
            return self.base_url
        if self.runs_program:
            return f"command:{[self.program, *self.command, *self.args]}{self.output or ''}"
        if not self.path:
            return "local:"
        try:
            weights = Path(self.path).stat()
        except OSError:
            return f"local:{self.path}"
        # Other weights at the same place give other answers.
        return f"local:{self.path}:{weights.st_size}:{weights.st_mtime_ns}"

    @property
    def batch_terms(self) -> BatchTerms | None:
        """How it takes batch jobs; None where it takes none."""
        known = _BATCH_APIS.get(_origin(self.base_url))
        if not self.base_url or (self.batch is None and known is None):
            return None
        terms = self.batch or BatchTerms()
        terms = replace(terms, api=terms.api or known or self.api)
        return None if terms.api == "none" else terms

    def caches_prompts(self, model: str) -> bool:
        """Return whether a marked prefix of the prompt is kept for the next request to this model.

        Other endpoints cache by themselves or not at all; a mark would be refused or ignored.
        """
        if self.api == "anthropic":
            return True
        return "//openrouter.ai/" in self.base_url and model.startswith(("anthropic/", "google/gemini"))

    @property
    def wants_key(self) -> bool:
        """Whether it is asked with a key."""
        return bool(self.api_key_env or self.api_key_command)

    def key(self) -> str | None:
        """Return the key, or None where none is needed or there is none; a key command may take its time.

        Raises:
            UsageError: the key is somewhere and cannot be had.
        """
        return find_key(self.api_key_env, self.api_key_command)

    def key_place(self) -> str | None:
        """Return in words where the key would come from, or None; nothing is run or opened for it.

        Raises:
            UsageError: the file of keys cannot be read.
        """
        return place_of_key(self.api_key_env, self.api_key_command)


LOCAL = "local"
#: Whose batch API a host has.
_BATCH_APIS = {
    "https://api.openai.com": "openai",
    "https://api.anthropic.com": "anthropic",
    "https://openrouter.ai": "openrouter",
    "https://api.mistral.ai": "mistral",
    "https://generativelanguage.googleapis.com": "gemini",
}
#: Whose models a known program asks.
_LISTED = {"claude": "anthropic", "codex": "openai"}
#: What an entry of a recipe says that makes an endpoint another one, and not a known one with other limits.
_ELSEWHERE = {"base_url", "path", "api"}
ENDPOINTS: dict[str, Endpoint] = {
    e.name: e
    for e in (
        Endpoint("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        Endpoint("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        Endpoint("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", api="anthropic"),
        Endpoint("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
        # As many calls as the server answers at once, or one more: a timeout must not run while a call waits there.
        Endpoint("ollama", "http://127.0.0.1:11434/v1", free=True, max_concurrency=2, one_model=True),
        Endpoint("lmstudio", "http://127.0.0.1:1234/v1", free=True, max_concurrency=4, one_model=True),
        Endpoint("llama-server", "http://127.0.0.1:8080/v1", free=True, max_concurrency=4, one_model=True),
        Endpoint("vllm", "http://127.0.0.1:8000/v1", free=True),
        Endpoint(LOCAL, free=True),
    )
}


def unnamed_endpoint(name: str) -> Endpoint | None:
    """Return an endpoint that no recipe here defines: `FUSION_BASE_URL` stands in for every one, else there is none."""
    if not os.environ.get("FUSION_BASE_URL"):
        return None
    return environment_endpoints({**ENDPOINTS, name: Endpoint(name, "https://unknown.invalid")})[name]


def endpoint_from(name: str, said: Mapping[str, Any] | None) -> Endpoint:
    """Return the endpoint of a recipe's entry; what a known one is said to be differently changes it.

    Raises:
        UsageError: what it says is for a program, and it runs none; or the other way round.
    """
    plain = (said or {}).items()
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain}
    if "output" in given:
        given["output"] = CommandOutput(**given["output"])
    if "batch" in given:
        given["batch"] = BatchTerms(**given["batch"])
    if "api_key_command" in given:
        given["api_key_command"] = command_words(given["api_key_command"])
    known = ENDPOINTS.get(name)
    endpoint = replace(known, **given) if known and not _ELSEWHERE & given.keys() else Endpoint(name, **given)
    ours = {"program", "command", "args", "env", "output"} & given.keys()
    theirs = {"base_url", "headers", "path", "context_tokens", "batch"} & given.keys()
    if not endpoint.runs_program and ours:
        raise UsageError(f"`{min(ours)}` is for a program: say `api: command` too")
    if endpoint.runs_program and theirs:
        raise UsageError(f"`{min(theirs)}` means nothing to a program (`api: command`)")
    if endpoint.runs_program and endpoint.api_key_command and not endpoint.api_key_env:
        raise UsageError("`api_key_command` needs `api_key_env`, the variable in which the program is given the key")
    if endpoint.runs_program and not (endpoint.program or endpoint.command):
        raise UsageError("`api: command` needs a `program` (claude, codex, llm) or a `command`")
    return endpoint


def environment_endpoints(endpoints: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """Return the endpoints as the environment wants them.

    `FUSION_BASE_URL` takes every endpoint but the embedded engine and programs to one server, with `FUSION_API_KEY`,
    else with the key that belongs to that server: a key is never sent to a host it was not made for. It speaks
    OpenAI's chat completions, whatever an endpoint spoke before. Without it `FUSION_API_KEY` stands in for
    OpenRouter's key, at OpenRouter only. `FUSION_LOCAL_MODEL` names the embedded engine's weights.
    """
    url = os.environ.get("FUSION_BASE_URL", "").rstrip("/")
    if url and not url.startswith(("http://", "https://")):
        raise UsageError(f"FUSION_BASE_URL={url!r}: write the whole URL with its version: http://127.0.0.1:8000/v1")
    if "@" in _origin(url):
        raise UsageError("FUSION_BASE_URL: no user and no password may stand in it; a key goes into FUSION_API_KEY")
    own_key = "FUSION_API_KEY" if os.environ.get("FUSION_API_KEY") else None
    weights = os.environ.get("FUSION_LOCAL_MODEL") or None
    known = [e.api_key_env for e in endpoints.values() if e.base_url and _origin(e.base_url) == _origin(url)]
    changed: dict[str, Endpoint] = {}
    for name, endpoint in endpoints.items():
        if endpoint.embedded:
            changed[name] = replace(endpoint, path=weights or endpoint.path, free=True)
        elif endpoint.runs_program:
            changed[name] = endpoint
        elif url:
            changed[name] = _moved(endpoint, url, own_key or (known[0] if known else None))
        elif own_key and name == "openrouter" and _origin(endpoint.base_url) == _origin(ENDPOINTS[name].base_url):
            changed[name] = replace(endpoint, api_key_env=own_key)
        else:
            changed[name] = endpoint
    return changed


def _moved(endpoint: Endpoint, url: str, key_env: str | None) -> Endpoint:
    """Return the endpoint at another address: what is known of its server does not hold there."""
    at_home = _origin(endpoint.base_url) == _origin(url)
    moved = replace(
        endpoint,
        base_url=url,
        api="openai",
        api_key_env=key_env,
        api_key_command=endpoint.api_key_command if at_home else (),
        free=endpoint.free and at_home,
        trusted=endpoint.trusted and at_home,
    )
    standing = ENDPOINTS.get(endpoint.name)
    if at_home or standing is None or not standing.one_model:
        return moved
    own_limit = endpoint.max_concurrency if endpoint.max_concurrency != standing.max_concurrency else None
    return replace(moved, one_model=False, max_concurrency=own_limit)


def _origin(url: str) -> str:
    """Return scheme, host and port: what a key is made for."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}".lower()


class Model(Struct, frozen=True):
    """A model at an endpoint, with what is asked of it differently from the others.

    Args:
        name: what the record calls it: its alias, else the model's own name.
        price_usd_per_mtok: `{prompt: …, completion: …}`, where no price list knows it.
        fallbacks: models of the same endpoint to ask when this one fails.
        tools: what it may use as a member, where that is not what the panel may.
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
    extra: Mapping[str, Any] = {}
    fallbacks: tuple[str, ...] = ()
    price_usd_per_mtok: Mapping[str, float] | None = None
    tools: tuple[str, ...] | None = None


def split_spelling(text: str, endpoints: Mapping[str, Endpoint], where: str) -> tuple[str, int | None, str | None]:
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
    plain = Model(model.name, model.model, model.endpoint)
    said = {key: value for key, value in asdict(model).items() if value != getattr(plain, key)}
    return {"name": model.name, "model": model.model, "endpoint": model.endpoint, **said}


def model_from(data: Mapping[str, Any]) -> Model:
    """Read a model that a record kept; keys of a newer version are ignored."""
    known = set(Model.__struct_fields__)
    kept = {key: value for key, value in data.items() if key in known}
    # A record turns no tool on: it may come from anywhere.
    return Model(**{**kept, "fallbacks": tuple(kept.get("fallbacks", ())), "tools": None})


def _what_is_ready() -> str:
    """Return what can be asked instead of an endpoint whose key is missing."""
    there = [f"@{e.name} ({place})" for e in ENDPOINTS.values() if (place := e.key_place())]
    if not there:
        return "`-c local`, which needs none"
    return f"what has its key: {', '.join(there)}; `fuse-ask --list` shows recipes and models"


def require_key(endpoint: Endpoint) -> None:
    """Raise `UsageError` where an endpoint wants a key and there is none, before anything is spent."""
    if not endpoint.wants_key:
        return
    try:
        key = endpoint.key()
    except UsageError as error:
        raise UsageError(f"endpoint {endpoint.name}: {error.message}") from None
    if not key:
        raise UsageError(
            f"endpoint {endpoint.name} needs a key: export {endpoint.api_key_env}=…, or put it into .env, "
            f"or keep it (fuse-doctor --set-key {endpoint.api_key_env}), or use {_what_is_ready()}"
        )
    if not is_key(key):
        raise UsageError(f"endpoint {endpoint.name}: {endpoint.api_key_env} holds characters that no key has")


def require_ready(endpoint: Endpoint) -> None:
    """Raise `UsageError` where an endpoint's key, or its program, is missing, before anything is spent."""
    require_key(endpoint)
    if not endpoint.runs_program:
        return
    from shutil import which

    called = endpoint.called[0]
    if "{" not in called and which(called) is None:
        raise UsageError(
            f"endpoint {endpoint.name}: there is no program {called!r} on the PATH; install it, "
            "or say with `command: [/path/to/it]` where it is"
        )
