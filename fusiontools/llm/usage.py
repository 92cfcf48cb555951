"""What an answer says of its tokens and its cost; what cannot be is unknown, and never 0.

Source: OpenRouter "Usage Accounting" (`is_byok`, `cost_details`), xAI "Cost Tracking" (`cost_in_usd_ticks`), Perplexity
(a cost in parts), DeepSeek (`prompt_cache_hit_tokens`), Moonshot (usage in a choice), Groq (`x_groq`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fusiontools.record.types import Usage

#: No answer has more tokens; a number beyond is no count.
_MOST_TOKENS = 2**40
_MOST_NUMBER = 2.0**63
#: No call costs more; a number beyond is no price.
_MOST_USD = 1000.0
#: What xAI counts in.
_TICKS_PER_USD = 1e10
_DEEPEST = 8
_TOTALS = ("total_cost", "total")


def usage_of(data: Mapping[str, Any]) -> tuple[Usage | None, float | None]:
    """Return the tokens and the cost that an answer reports; tokens written to a cache only where there are any."""
    said = find_usage(data)
    if said is None:
        return None, None
    tokens = _tokens(said)
    if tokens is None:
        return None, _cost_usd(said)
    prompt, completion = said.get("prompt_tokens_details"), said.get("completion_tokens_details")
    cached = (_count(prompt, "cached_tokens"), _count(said, "prompt_cache_hit_tokens"), _count(said, "cached_tokens"))
    usage: Usage = {
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "cached_tokens": max(cached),
        "reasoning_tokens": _count(completion, "reasoning_tokens"),
    }
    if written := _count(prompt, "cache_write_tokens"):
        usage["cache_write_tokens"] = written
    return usage, _cost_usd(said)


def _tokens(said: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the tokens of the prompt and of the answer; None where one of them is not said, or is no count."""
    asked, written = said.get("prompt_tokens"), said.get("completion_tokens")
    if type(asked) is int and type(written) is int and 0 < asked < _MOST_TOKENS and 0 <= written < _MOST_TOKENS:
        return asked, written  # what most say
    prompt = _number(asked or said.get("input_tokens"))
    completion = _number(said.get("output_tokens") if written is None else written)
    if completion is None and written is None and prompt is not None:
        # Who has written nothing may say the sum alone.
        total = _number(said.get("total_tokens"))
        completion = total - prompt if total is not None and "output_tokens" not in said else None
    if prompt is None or completion is None:
        return None
    if not (0 <= prompt < _MOST_TOKENS and 0 <= completion < _MOST_TOKENS):
        return None
    return int(prompt), int(completion)


def find_usage(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an answer, or a piece of one, says of its usage, wherever it says it."""
    if isinstance(said := data.get("usage"), dict):
        return said
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for holder in (first, data.get("x_groq")):
        if isinstance(holder, dict) and isinstance(said := holder.get("usage"), dict):
            return said
    return None


def _cost_usd(said: Mapping[str, Any]) -> float | None:
    """Return what a call cost; with the caller's own key the endpoint's fee and what the provider takes."""
    if "cost" not in said and "cost_in_usd_ticks" in said:
        ticks = _number(said["cost_in_usd_ticks"])
        return None if ticks is None else _bounded(ticks / _TICKS_PER_USD)
    told = said.get("cost")
    cost = told if type(told) is float and 0 <= told <= _MOST_USD else _sum_parts(told)
    if said.get("is_byok") is not True:
        return cost
    provider = _provider_usd(said.get("cost_details"))
    return None if cost is None or provider is None else _bounded(cost + provider)


def _provider_usd(details: Any) -> float | None:
    if not isinstance(details, dict):
        return None
    if details.get("upstream_inference_cost") is not None:
        return _bounded(details["upstream_inference_cost"])
    parts = ("upstream_inference_prompt_cost", "upstream_inference_completions_cost")
    return _sum(details.get(name) for name in parts)


def _sum_parts(cost: Any, depth: int = 0) -> float | None:
    """Return a cost that is a number, or that comes in parts: its total where one is among them."""
    if not isinstance(cost, dict) or depth == _DEEPEST:
        return _bounded(cost)
    for name in _TOTALS:
        if name in cost:
            return _bounded(cost[name])
    # What a part says in words (a currency, the size of a search) is no part of the sum.
    return _sum((part for part in cost.values() if not isinstance(part, str)), depth + 1) if cost else None


def _sum(parts: Iterable[Any], depth: int = 0) -> float | None:
    known = [_sum_parts(part, depth) for part in parts]
    return None if None in known or not known else _bounded(sum(part for part in known if part is not None))


def _bounded(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= _MOST_USD else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_MOST_NUMBER < value < _MOST_NUMBER else None


def _count(said: Any, name: str) -> int:
    value = said.get(name) if isinstance(said, dict) else None
    if value is None or value == 0:
        return 0
    return int(value) if (number := _number(value)) is not None and 0 <= number < _MOST_TOKENS else 0
