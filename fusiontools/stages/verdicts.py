"""How a judge is asked for a verdict: JSON under a strict schema, cool, with the model's own settings over ours.

What comes back is read by `replies`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from fusiontools.config.models import Model
from fusiontools.errors import CallFailed
from fusiontools.llm.completion import CompletionRequest
from fusiontools.llm.ledger import Ledger, Slot
from fusiontools.record.types import Degraded, Record
from fusiontools.stages.analysis import strict_object
from fusiontools.stages.prompts import Prompt, with_system
from fusiontools.stages.runtime import Runtime


def form(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `response_format` of a reply that must hold to a schema."""
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": dict(schema)}}


def verdict_form(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `response_format` of a small verdict: one object with these properties, in this order."""
    return form("verdict", strict_object(**properties))


def with_settings(model: Model, temperature: float, max_tokens: int | None) -> Model:
    """Return the model with a stage's settings where it has none of its own."""
    if model.temperature is not None and (model.max_tokens or max_tokens is None):
        return model
    own = model.temperature if model.temperature is not None else temperature
    return replace(model, temperature=own, max_tokens=model.max_tokens or max_tokens)


def on_panel(record: Record, stage: str, judges: Sequence[Model]) -> list[Degraded]:
    """Say of each judge that sits on the panel, too."""
    members = {response["member"] for response in record["panel"]}
    return [
        {"stage": stage, "code": "judge_on_panel", "detail": f"{judge.name} judges its own response"}
        for judge in judges
        if judge.name in members
    ]


async def ask(
    params: Mapping[str, Any],
    prompt: Prompt,
    model: Model,
    runtime: Runtime,
    ledger: Ledger,
    slot: Slot,
) -> str | CallFailed:
    """Return a judge's reply as it stands; a failed call is data, so that several can be asked at once."""
    try:
        completion = await runtime.client.complete(verdict_request(params, prompt, model, runtime), model, ledger, slot)
    except CallFailed as failure:
        return failure
    return completion.content


def verdict_request(params: Mapping[str, Any], prompt: Prompt, model: Model, runtime: Runtime) -> CompletionRequest:
    """Return what a judge is sent, with what `verdict_params` says of it."""
    return runtime.client.request(model, with_system(prompt.messages, model.system), params, marks=prompt.marks)


def verdict_params(model: Model, response_format: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the parameters of a judge's call: cool, with its own settings over ours."""
    params: dict[str, Any] = {
        "temperature": model.temperature if model.temperature is not None else 0.0,
        "top_p": model.top_p,
        "max_tokens": model.max_tokens,
        "reasoning_effort": model.reasoning_effort,
        "response_format": response_format,
        **model.extra,
    }
    return {name: value for name, value in params.items() if value is not None}
