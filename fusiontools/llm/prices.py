"""What a call costs where its endpoint does not say so: the recipe's price, else a public price list, else unknown.

Prices come from `genai-prices` (extra `prices`), which carries them in the package, so nothing is looked up online.
An unknown price is None and never 0. Before a call its tokens are estimated, because nobody has counted them yet.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fusiontools.record import jsonl
from fusiontools.record.sections import text_of

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint, Model
    from fusiontools.record.types import Message, Usage

#: What an image takes at most in Anthropic's models, and about what it takes in others. A file counts as one image:
#: nobody here opens it.
SEEN_TOKENS = 1600
_SEEN_KINDS = ("image_url", "file", "input_audio")
#: What the model is told beside the messages.
_BESIDE = ("tools", "response_format")
_TOKEN_NAMES = ("max_tokens", "max_completion_tokens")
#: Completion tokens assumed where nobody bounds them.
ASSUMED_COMPLETION_TOKENS = 4096
#: What Anthropic's API, which wants a bound, is given where nobody else bounds them: a long answer with its thoughts.
ANTHROPIC_MAX_TOKENS = 16_384


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Return about how many tokens the messages have; errs upwards (English +13 %, Chinese +38 %; code −19 %)."""
    text = "".join(text_of(message) for message in messages)
    ascii_chars = len(text) if text.isascii() else sum(1 for char in text if char.isascii())
    return math.ceil(ascii_chars / 3.5 + (len(text) - ascii_chars)) + 4 * len(messages)


def prompt_tokens(messages: Sequence[Message], params: Mapping[str, Any]) -> int:
    """Return about how many tokens a prompt has: text, calls, tools and the wanted form at one rate, images flat."""
    beside: list[Any] = [message["tool_calls"] for message in messages if message.get("tool_calls")]
    beside += [params[name] for name in _BESIDE if params.get(name)]
    texts: list[Message] = [{"role": "system", "content": jsonl.dumps(value).decode()} for value in beside]
    return estimate_tokens([*messages, *texts]) + SEEN_TOKENS * sum(map(_count_seen, messages))


def listed_usd(endpoint: Endpoint, model: Model, usage: Usage) -> float | None:
    """Return the list price of this many tokens, or None where no list knows the model."""
    if model.price_usd_per_mtok:
        price = model.price_usd_per_mtok
        return (usage["prompt_tokens"] * price["prompt"] + usage["completion_tokens"] * price["completion"]) / 1e6
    written: Any = usage.get("cache_write_tokens", 0)
    counts = (usage["prompt_tokens"], usage["completion_tokens"], usage["cached_tokens"], written)
    return _list_price_usd(endpoint.listed_at, model.model, *counts)


def upper_bound_usd(
    endpoint: Endpoint, model: Model, messages: Sequence[Message], params: Mapping[str, Any]
) -> float | None:
    """Return what a call may cost at most, for a reservation; None where no price is known."""
    if endpoint.free:
        return 0.0
    usage: Usage = {
        "prompt_tokens": prompt_tokens(messages, params) + endpoint.own_prompt_tokens,
        "completion_tokens": _bound(endpoint, params) * (_count(params.get("n")) or 1),
        "cached_tokens": 0,
        "reasoning_tokens": 0,
    }
    return listed_usd(endpoint, model, usage)


def with_bound(endpoint: Endpoint, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters of a call whose price is bounded: where nobody bounds its tokens, what is reserved does."""
    if any(_count(params.get(name)) for name in _TOKEN_NAMES):
        return params
    said = {name: value for name, value in params.items() if name not in _TOKEN_NAMES}
    return {**said, "max_tokens": _bound(endpoint, params)}


def _bound(endpoint: Endpoint, params: Mapping[str, Any]) -> int:
    """Return how many tokens an answer may have, at most."""
    long = endpoint.api == "anthropic" or endpoint.own_prompt_tokens
    unbounded = ANTHROPIC_MAX_TOKENS if long else ASSUMED_COMPLETION_TOKENS
    return max(_count(params.get(name)) for name in _TOKEN_NAMES) or unbounded


def _count(said: Any) -> int:
    """Return a positive count; 0 for what is none."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not 1 <= said < math.inf:
        return 0
    return math.ceil(said)


def per_token_usd(endpoint: Endpoint, model: Model) -> dict[str, float] | None:
    """Return what a token of the prompt and one of the completion cost; None where nobody knows."""
    if endpoint.free:
        return {"prompt": 0.0, "completion": 0.0}
    if model.price_usd_per_mtok:
        return {kind: model.price_usd_per_mtok[kind] / 1e6 for kind in ("prompt", "completion")}
    # Of a thousand tokens, for lists that charge more for long prompts.
    listed = {
        "prompt": _list_price_usd(endpoint.listed_at, model.model, 1000, 0, 0, 0),
        "completion": _list_price_usd(endpoint.listed_at, model.model, 0, 1000, 0, 0),
    }
    known = {kind: usd / 1000 for kind, usd in listed.items() if usd is not None}
    return known if len(known) == len(listed) else None


def context_tokens(endpoint: Endpoint, model: Model) -> int | None:
    """Return how long a prompt the model can read, in tokens; None where no list says it."""
    return endpoint.context_tokens if endpoint.embedded else _listed_context(endpoint.listed_at, model.model)


def price_list_available() -> bool:
    """Return whether the price list is installed."""
    from importlib.util import find_spec

    return find_spec("genai_prices") is not None


def _count_seen(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    return sum(part.get("type") in _SEEN_KINDS for part in content) if isinstance(content, list) else 0


@functools.lru_cache(maxsize=1024)
def _listed_context(base_url: str, model: str) -> int | None:
    try:
        from genai_prices import Usage as ListedUsage
        from genai_prices import calc_price
    except ImportError:
        return None
    for ref in (model, f"{model}-preview"):
        try:
            found = calc_price(ListedUsage(input_tokens=1, output_tokens=1), model_ref=ref, provider_api_url=base_url)
        except LookupError:
            continue
        window: int | None = found.model.context_window
        return window
    return None


@functools.lru_cache(maxsize=4096)
def _list_price_usd(
    base_url: str, model: str, prompt_tokens: int, completion_tokens: int, cached_tokens: int, written_tokens: int
) -> float | None:
    try:
        from genai_prices import Usage as ListedUsage
        from genai_prices import calc_price
    except ImportError:
        return None
    usage = ListedUsage(
        input_tokens=prompt_tokens,
        output_tokens=completion_tokens,
        cache_read_tokens=cached_tokens or None,
        cache_write_tokens=written_tokens or None,
    )
    # OpenRouter serves some models under a `-preview` name; the listed price is the same.
    for ref in (model, f"{model}-preview"):
        try:
            return float(calc_price(usage, model_ref=ref, provider_api_url=base_url).total_price)
        except LookupError:
            continue
    return None
