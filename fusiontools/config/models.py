"""Models and the endpoints that answer for them: how a person spells one (`MODEL[*N][@ENDPOINT]`), and what the
environment says of endpoints.

Keys come from the environment only, are read when a call is made, and never enter any object or its `repr`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fusiontools.config.options import drop_unsaid
from fusiontools.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A place that answers requests; the key is read from the environment when a call is made, and never kept.

    Args:
        base_url: up to and including the version (`https://…/v1`); empty for the embedded engine.
        api_key_env: the environment variable that holds the key; None for servers without one.
        free: calls cost nothing (a server of your own).
        headers: extra headers; never credentials.
        path: a GGUF file, for the embedded engine only.
        context_tokens: context per request, for the embedded engine only.
        api: what it speaks: OpenAI chat completions, or Anthropic's Messages API.
    """

    name: str
    base_url: str = ""
    api_key_env: str | None = None
    free: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str | None = None
    context_tokens: int = 4096
    api: str = "openai"

    @property
    def embedded(self) -> bool:
        """Whether this is the engine in our own process."""
        return not self.base_url

    @property
    def identity(self) -> str:
        """What tells this endpoint's answers apart in the journal: where it is, not what it is called."""
        if self.base_url:
            return self.base_url
        if not self.path:
            return "local:"
        try:
            weights = Path(self.path).stat()
        except OSError:
            return f"local:{self.path}"
        # Other weights at the same place give other answers.
        return f"local:{self.path}:{weights.st_size}:{weights.st_mtime_ns}"

    def caches_prompts(self, model: str) -> bool:
        """Return whether a marked prefix of the prompt is kept for the next request to this model.

        Other endpoints cache by themselves or not at all; a mark would be refused or ignored.
        """
        if self.api == "anthropic":
            return True
        return "//openrouter.ai/" in self.base_url and model.startswith(("anthropic/", "google/gemini"))

    def key(self) -> str | None:
        """Return the key from the environment, or None where none is needed or set."""
        return os.environ.get(self.api_key_env, "").strip() or None if self.api_key_env else None


LOCAL = "local"
ENDPOINTS: dict[str, Endpoint] = {
    e.name: e
    for e in (
        Endpoint("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        Endpoint("openai", "https://api.openai.com/v1", "OPENAI_API_KEY"),
        Endpoint("anthropic", "https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", api="anthropic"),
        Endpoint("gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY"),
        Endpoint("ollama", "http://127.0.0.1:11434/v1", free=True),
        Endpoint("lmstudio", "http://127.0.0.1:1234/v1", free=True),
        Endpoint("llama-server", "http://127.0.0.1:8080/v1", free=True),
        Endpoint("vllm", "http://127.0.0.1:8000/v1", free=True),
        Endpoint(LOCAL, free=True),
    )
}


def unnamed_endpoint(name: str) -> Endpoint | None:
    """Return an endpoint that no recipe here defines: `FUSION_BASE_URL` stands in for every one, else there is none."""
    if not os.environ.get("FUSION_BASE_URL"):
        return None
    return environment_endpoints({**ENDPOINTS, name: Endpoint(name, "https://unknown.invalid")})[name]


def environment_endpoints(endpoints: Mapping[str, Endpoint]) -> dict[str, Endpoint]:
    """Return the endpoints as the environment wants them.

    `FUSION_BASE_URL` takes every endpoint but the embedded engine to one server, with `FUSION_API_KEY`, else with the
    key that belongs to that server: a key is never sent to a host it was not made for. It speaks OpenAI's chat
    completions, whatever an endpoint spoke before. Without it `FUSION_API_KEY` stands in for OpenRouter's key, at
    OpenRouter only. `FUSION_LOCAL_MODEL` names the embedded engine's weights.
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
        elif url:
            changed[name] = replace(
                endpoint,
                base_url=url,
                api="openai",
                api_key_env=own_key or (known[0] if known else None),
                free=endpoint.free and _origin(endpoint.base_url) == _origin(url),
            )
        elif own_key and name == "openrouter" and _origin(endpoint.base_url) == _origin(ENDPOINTS[name].base_url):
            changed[name] = replace(endpoint, api_key_env=own_key)
        else:
            changed[name] = endpoint
    return changed


def _origin(url: str) -> str:
    """Return scheme, host and port: what a key is made for."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}".lower()


@dataclass(frozen=True, slots=True)
class Model:
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
    extra: Mapping[str, Any] = field(default_factory=dict)
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
    named = {"name": model.name, "model": model.model, "endpoint": model.endpoint}
    return named | {key: value for key, value in drop_unsaid(model).items() if key not in named}


def model_from(data: Mapping[str, Any]) -> Model:
    """Read a model that a record kept; keys of a newer version are ignored."""
    known = {f.name for f in fields(Model)}
    kept = {key: value for key, value in data.items() if key in known}
    # A record turns no tool on: it may come from anywhere.
    return Model(**{**kept, "fallbacks": tuple(kept.get("fallbacks", ())), "tools": None})


def _what_is_ready() -> str:
    """Return what can be asked instead of an endpoint whose key is missing."""
    keyed = [endpoint for endpoint in ENDPOINTS.values() if endpoint.key()]
    if not keyed:
        return "`-c local`, which needs none"
    there = ", ".join(f"@{endpoint.name} ({endpoint.api_key_env} is set)" for endpoint in keyed)
    return f"what has its key: {there}; `fuse-ask --list` shows recipes and models"


def require_key(endpoint: Endpoint) -> None:
    """Raise `UsageError` where an endpoint wants a key that the environment lacks, before anything is spent."""
    if endpoint.api_key_env and not endpoint.key():
        raise UsageError(
            f"endpoint {endpoint.name} needs a key: export {endpoint.api_key_env}=…, or put it into .env, "
            f"or use {_what_is_ready()}"
        )
    if not ((key := endpoint.key() or "").isascii() and key.isprintable()):
        raise UsageError(f"endpoint {endpoint.name}: {endpoint.api_key_env} holds characters that no key has")
