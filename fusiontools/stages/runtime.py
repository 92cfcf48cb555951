"""What a stage is, and what it is handed beside the record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fusiontools.models.door import Door
from fusiontools.models.types import OnDelta
from fusiontools.record import Record


@dataclass(frozen=True, slots=True)
class Runtime:
    """The outside world of a stage.

    Args:
        door: the way to every model.
        on_delta: takes the answer's text as it is written, where somebody watches.
    """

    door: Door
    on_delta: OnDelta | None = None


Stage = Callable[[Record, Runtime], Awaitable[Record]]
