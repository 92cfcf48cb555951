"""What calls took: as an endpoint says it, written down attempt by attempt, and added up by the one adder.

What cannot be is unknown, and never 0. A cost is the endpoint's word, else a list's price.

Source: OpenRouter "Usage Accounting" (`is_byok`, `cost_details`), xAI "Cost Tracking" (`cost_in_usd_ticks`), Perplexity
(a cost in parts), DeepSeek (`prompt_cache_hit_tokens`), Moonshot (usage in a choice), Groq (`x_groq`).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.errors import CallFailed, CallStatus
from fusiontools.llm.completion import TRACED

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint, Model
    from fusiontools.config.recipe import Redact
    from fusiontools.config.stage_table import LimitOptions
    from fusiontools.llm.budget import RecordBudget
    from fusiontools.llm.completion import Completion
    from fusiontools.llm.purses import Budget
    from fusiontools.record.types import Call, Usage

#: No answer has more tokens; a number beyond is no count.
MOST_TOKENS = 2**40
_MOST_NUMBER = 2.0**63
#: No call costs more; a number beyond is no price.
MOST_USD = 1000.0
#: What xAI counts in.
_TICKS_PER_USD = 1e10
_DEEPEST = 8
#: How some servers count, beside the details, what came from a cache.
_CACHED = ("prompt_cache_hit_tokens", "cached_tokens")
_TOTALS = ("total_cost", "total")


class Slot(Struct, frozen=True):
    """Whose call it is: the labels by which a response finds its calls."""

    member: str | None = None
    sample: int | None = None
    layer: int | None = None
    #: What a person is shown; the member's or model's name by default.
    label: str | None = None
    #: What the call is for, where a stage makes calls for more than one purpose.
    step: str | None = None


class Event(Struct, frozen=True):
    """One call has begun or settled: what a person wants to know of it."""

    stage: str
    record_id: str
    label: str
    latency_s: float
    cost_usd: float | None
    replayed: bool
    failure: CallFailed | None = None
    began: bool = False
    #: What the call is for, where a stage makes several kinds: a later layer, a revision.
    purpose: str = ""
    #: What its answer is long, where the endpoint says so.
    completion_tokens: int | None = None


class Ledger(Struct):
    """The attempts that one stage makes for one record.

    Args:
        deadline: monotonic time after which no call of this record may run.
    """

    stage: str
    record_id: str
    deadline: float
    calls: list[Call] = []
    #: What pays for its calls, each with a limit to hold.
    budgets: tuple[Budget | RecordBudget, ...] = ()
    #: What was asked for and is not in an answer, for a person.
    unmet: list[str] = []
    #: What bounds its calls, where that is not what bounds all of the client's.
    limits: LimitOptions | None = None
    #: What no endpoint that is not trusted may see of its calls.
    redact: Redact = ()
    #: Which repetition of the same question this is.
    epoch: int = 0
    #: Told of every attempt, where somebody counts them.
    on_call: Callable[[Call], None] | None = None
    #: Told of every call that begins or settles, where somebody watches this record.
    notify: Callable[[Event], None] | None = None

    def enter(
        self,
        slot: Slot,
        *,
        attempt: int,
        model: str,
        endpoint: str,
        status: CallStatus = "ok",
        usage: Usage | None = None,
        cost_usd: float | None = None,
        cost_source: str | None = None,
        latency_s: float = 0.0,
        ttft_s: float | None = None,
        replayed: bool = False,
        saved_usd: float | None = None,
    ) -> Call:
        """Write down one attempt."""
        call: Any = {
            "stage": self.stage,
            **_labels_of(slot),
            "attempt": attempt,
            "model": model,
            "endpoint": endpoint,
            "usage": usage,
            "cost_usd": cost_usd,
            "cost_source": cost_source,
        }
        if replayed:
            call["saved_usd"] = saved_usd
        call |= {"latency_s": round(latency_s, 4), "ttft_s": ttft_s, "status": status, "replayed": replayed}
        self.calls.append(call)
        if (traced := TRACED.get()) is not None:
            traced.note(call)
        if self.on_call is not None:
            self.on_call(call)
        return call  # type: ignore[no-any-return]

    def enter_replayed(self, slot: Slot, endpoint: str, completion: Completion, saved_usd: float | None) -> None:
        """Write down an answer that somebody else has paid for, or that was paid for before.

        Args:
            saved_usd: what it cost then; None where nobody knows.
        """
        self.enter(
            slot,
            attempt=1,
            model=completion.model,
            endpoint=endpoint,
            usage=completion.usage,
            cost_usd=0.0,
            cost_source="free",
            replayed=True,
            saved_usd=saved_usd,
        )

    def remaining_s(self) -> float:
        """Return the seconds left until the deadline."""
        return self.deadline - time.monotonic()


@functools.lru_cache(1024)
def _labels_of(slot: Slot) -> dict[str, Any]:
    """Return the labels of a slot as its calls have them; the same for all records of a recipe."""
    labels = {"layer": slot.layer, "member": slot.member, "sample": slot.sample, "step": slot.step}
    return {name: label for name, label in labels.items() if label is not None}


class Spending(Struct):
    """The sum of some lines of a ledger.

    What nobody said of a call's cost is counted and never taken as 0: `unknown` counts the calls that were made now and
    whose cost nobody knows, and `known_usd` adds up the others. A replayed call, answered from the journal or by an
    identical one under way, was not made now: it costs nothing, `saved_usd` adds up what such calls cost when they were
    bought, and `saved_unknown` counts those of which nobody knows that. Tokens and time are those of all calls.
    """

    calls: int = 0
    failed: int = 0
    replayed: int = 0
    unknown: int = 0
    known_usd: float = 0.0
    saved_unknown: int = 0
    saved_usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    time_s: float = 0.0

    @classmethod
    def of(cls, calls: Iterable[Mapping[str, Any]]) -> Spending:
        """Return what these calls come to."""
        spending = cls()
        for call in calls:
            spending.add(call)
        return spending

    def add(self, call: Mapping[str, Any]) -> None:
        """Add one call."""
        told = call.get
        self.calls += 1
        if told("status", "ok") != "ok":
            self.failed += 1
        self.time_s += told("latency_s") or 0.0
        if usage := told("usage"):
            self.prompt_tokens += usage.get("prompt_tokens", 0)
            self.completion_tokens += usage.get("completion_tokens", 0)
            if cached := usage.get("cached_tokens"):
                self.cached_tokens += cached
            if written := usage.get("cache_write_tokens"):
                self.cache_write_tokens += written
            if thought := usage.get("reasoning_tokens"):
                self.reasoning_tokens += thought
        if told("replayed"):
            self.replayed += 1
            if (saved_usd := told("saved_usd")) is None:
                self.saved_unknown += 1
            else:
                self.saved_usd += saved_usd
        elif (cost_usd := told("cost_usd")) is None:
            self.unknown += 1
        else:
            self.known_usd += cost_usd

    def __add__(self, other: Spending) -> Spending:
        return Spending(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def cost_usd(self) -> float | None:
        """What was paid now, without the dust of adding floats; None where nobody knows it of a call."""
        return None if self.unknown else round(self.known_usd, 10)

    @property
    def worth_usd(self) -> float:
        """What the calls cost when they were bought, now or before, as far as anybody knows."""
        return self.known_usd + self.saved_usd

    @property
    def worth_unknown(self) -> int:
        """How many calls nobody knows that of."""
        return self.unknown + self.saved_unknown

    @property
    def bought(self) -> int:
        """How many calls were made now."""
        return self.calls - self.replayed

    @property
    def nothing_known(self) -> bool:
        """Whether calls were made now and nobody knows the cost of any."""
        return self.unknown > 0 and self.unknown == self.bought


_NAMES = Spending.__struct_fields__


def paid(
    endpoint: Endpoint, model: Model, usage: Usage | None, said_usd: float | None
) -> tuple[float | None, str | None]:
    """Return what an attempt cost and how that is known: `upstream`, `table`, `free`, or (None, None)."""
    if said_usd is not None:
        return said_usd, "upstream"
    if endpoint.free:
        return 0.0, "free"
    if usage is None or not usage["prompt_tokens"]:
        # Every call has a prompt: what counts none has counted nothing, and a price of nothing would be 0.
        return None, None
    from fusiontools.llm import prices  # only here: most endpoints say what a call cost

    listed = prices.listed_usd(endpoint, model, usage)
    return (listed, "table") if listed is not None else (None, None)


def deadline_failure(limits: LimitOptions) -> CallFailed:
    """Return the failure of a call that has no more time."""
    return CallFailed("deadline", f"the record's {limits.deadline_s:g} s were over (--deadline)")


def paid_for(endpoint: Endpoint, model: Model, completion: Completion) -> tuple[float | None, str | None]:
    """Return what a completion cost and how that is known."""
    usage = completion.usage
    if usage is not None and not usage["completion_tokens"] and (completion.content or completion.tool_calls):
        usage = None  # something was written, and nobody has counted it
    return paid(endpoint, model, usage, completion.cost_usd)


def usage_of(data: Mapping[str, Any]) -> tuple[Usage | None, float | None]:
    """Return the tokens and the cost that an answer reports; tokens written to a cache only where there are any."""
    said = find_usage(data)
    if said is None:
        return None, None
    tokens = _tokens(said)
    if tokens is None:
        return None, _cost_usd(said)
    prompt, completion = said.get("prompt_tokens_details"), said.get("completion_tokens_details")
    cached = _count(prompt, "cached_tokens") if prompt else 0
    for name in _CACHED:
        if name in said:
            cached = max(cached, _count(said, name))
    usage: Usage = {
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "cached_tokens": cached,
        "reasoning_tokens": _count(completion, "reasoning_tokens") if completion else 0,
    }
    if prompt and (written := _count(prompt, "cache_write_tokens")):
        usage["cache_write_tokens"] = written
    return usage, _cost_usd(said)


def _tokens(said: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the tokens of the prompt and of the answer; None where one of them is not said, or is no count."""
    asked, written = said.get("prompt_tokens"), said.get("completion_tokens")
    prompt = _number(asked or said.get("input_tokens"))
    completion = _number(said.get("output_tokens") if written is None else written)
    if completion is None and written is None and prompt is not None:
        # Who has written nothing may say the sum alone.
        total = _number(said.get("total_tokens"))
        completion = total - prompt if total is not None and "output_tokens" not in said else None
    if prompt is None or completion is None:
        return None
    if not (0 <= prompt < MOST_TOKENS and 0 <= completion < MOST_TOKENS):
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
    cost = _sum_parts(said.get("cost"))
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
    return number if number is not None and 0 <= number <= MOST_USD else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_MOST_NUMBER < value < _MOST_NUMBER else None


def _count(said: Any, name: str) -> int:
    value = said.get(name) if isinstance(said, dict) else None
    if value is None or value == 0:
        return 0
    return int(value) if (number := _number(value)) is not None and 0 <= number < MOST_TOKENS else 0
