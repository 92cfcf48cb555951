"""A model that says what it is told to: the `Backend` of tests that need no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from fusiontools.config.models import Endpoint, Model
from fusiontools.config.stage_table import LimitOptions
from fusiontools.llm.client import Client
from fusiontools.llm.completion import Completion, CompletionRequest, OnDelta
from fusiontools.record.types import Message, Usage

USAGE: Usage = {"prompt_tokens": 11, "completion_tokens": 3, "cached_tokens": 0, "reasoning_tokens": 0}
ENDPOINT = Endpoint("there", "https://there.example/v1")
MESSAGES: list[Message] = [{"role": "user", "content": "Why?"}]

#: What is done to one request: text to say, a completion to give, a failure to raise, a gate to wait at, or a function.
Step = str | Completion | Exception | asyncio.Event | Callable[[CompletionRequest], Any]
#: Never answers.
HANG = asyncio.Event


class Scripted:
    """A backend that answers from a script.

    Args:
        script: for each model its steps, one for each request; the last one stays. Other models say their name.

    A gate (`asyncio.Event`) is waited at and then followed by the next step; `HANG()` is one that never opens.
    """

    def __init__(self, **script: Step | Sequence[Step]) -> None:
        self._script: dict[str, list[Step]] = {}
        for model, steps in script.items():
            self.script(model, *(steps if isinstance(steps, list | tuple) else [steps]))
        self.requests: list[CompletionRequest] = []
        self.cancelled: list[str] = []
        self.in_flight = self.max_in_flight = 0

    def script(self, model: str, *steps: Step) -> None:
        self._script[model] = list(steps)

    @property
    def asked(self) -> list[str]:
        """The models that were asked, in order."""
        return [request.model for request in self.requests]

    async def complete(self, request: CompletionRequest, on_delta: OnDelta | None = None) -> Completion:
        self.requests.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self._play(request, on_delta)
        except asyncio.CancelledError:
            self.cancelled.append(request.model)
            raise
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        pass

    async def _play(self, request: CompletionRequest, on_delta: OnDelta | None) -> Completion:
        while True:
            step = self._next(request.model)
            if not isinstance(step, asyncio.Event):
                break
            await step.wait()
        if callable(step):
            step = step(request)
        if isinstance(step, Exception):
            raise step
        completion = step if isinstance(step, Completion) else said(str(step), request.model)
        if on_delta is not None and completion.content:
            on_delta(completion.content)
        return completion

    def _next(self, model: str) -> Step:
        steps = self._script.get(model, [f"{model} says."])
        return steps.pop(0) if len(steps) > 1 else steps[0]


def said(text: str, model: str = "m", **fields: Any) -> Completion:
    """Return a completion with this text, at a price of 0.001 $."""
    return Completion(
        **{"content": text, "model": model, "tool_calls": [], "usage": USAGE, "cost_usd": 0.001, **fields}
    )


def model(name: str = "m", **settings: Any) -> Model:
    return Model(name=name, model=name, **{"endpoint": "there", **settings})


def open_door(backend: Scripted, *, endpoint: Endpoint = ENDPOINT, limits: Any = None, **settings: Any) -> Client:
    """Return a door behind which this backend stands; retries do not wait."""
    bounds = LimitOptions(**{"backoff_s": 0, **(limits or {})})
    return Client({endpoint.name: endpoint}, bounds, backends={endpoint.name: backend}, **settings)
