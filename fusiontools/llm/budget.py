"""The money of one call, from before it begins until it has settled."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fusiontools.errors import CallFailed
from fusiontools.llm.purses import Budget, Claim, Purses, refusal
from fusiontools.llm.state.store import Reservation

if TYPE_CHECKING:
    from fusiontools.config.models import Endpoint, Model

#: Failures for want of money, before anything is asked.
NO_MONEY = ("budget", "record_budget", "caller_budget", "price_unknown")


class RecordBudget:
    """A limit of one record's or request's own, which no other process has to do with.

    Args:
        whose: whose money it is, for a person.
        spent_usd: what has been spent of it already.
    """

    def __init__(self, limit_usd: float, whose: str = "the record", spent_usd: float = 0.0) -> None:
        self.limit_usd = limit_usd
        self.spent_usd = spent_usd
        self.in_flight_usd = 0.0
        self.settled = asyncio.Event()  # another one for each call that settles
        self._whose = whose

    def has_room(self, usd: float) -> bool:
        """Return whether a call of this price may run beside those in flight.

        Raises:
            CallFailed: it would pass the limit whatever those come to.
        """
        if not self.spent_usd + usd <= self.limit_usd:
            raise refusal("record_budget", self._whose, self.limit_usd, self.spent_usd, usd)
        return self.in_flight_usd <= 0 or self.spent_usd + self.in_flight_usd + usd <= self.limit_usd

    def settle(self, reserved_usd: float, paid_usd: float | None) -> None:
        """Put what was paid in the place of what was reserved; an unknown cost stays at the reservation."""
        self.in_flight_usd = max(0.0, self.in_flight_usd - reserved_usd)
        self.spent_usd += reserved_usd if paid_usd is None else paid_usd
        self.settled.set()
        self.settled = asyncio.Event()

    async def book(self, usd: float) -> None:
        """Add what was spent without having been reserved."""
        self.spent_usd += usd


class Payment:
    """The money of one call, from before it begins until it has settled; without budgets it is nobody's business.

    Args:
        purses: where the budgets that are shared are counted, and where it stands what endpoints have cost.
        bound_usd: what the call may cost at most, by its tokens; None where no price is known.
    """

    def __init__(
        self,
        budgets: Sequence[Budget | RecordBudget],
        purses: Purses,
        endpoint: Endpoint,
        model: Model,
        bound_usd: float | None,
    ) -> None:
        #: What it has cost; None where nobody knows.
        self.paid_usd: float | None = None
        #: Whether the endpoint has answered.
        self.answered = False
        self._shared = tuple(budget for budget in budgets if isinstance(budget, Budget))
        self._own = tuple(budget for budget in budgets if not isinstance(budget, Budget))
        self._purses, self._endpoint, self._model = purses, endpoint, model
        self._bound_usd = bound_usd
        self._reservation: Reservation | None = None

    async def open(self) -> None:
        """Set the money aside; waits for other calls where there is no room beside them.

        Raises:
            CallFailed: `price_unknown` where a limit could not be held, the code of the budget whose limit would be
                passed.
        """
        if not self._shared and not self._own:
            return
        if self._bound_usd is None or not 0 <= self._bound_usd < math.inf:
            raise CallFailed(
                "price_unknown",
                f"no price is known for {self._model.model} at this endpoint, so the cost limit cannot be held; "
                "give `price_usd_per_mtok` in the recipe, or lift the limit (list prices: fusiontools[prices])",
            )
        claim = Claim(self._shared, *_known_as(self._endpoint, self._model), self._bound_usd)
        while self._reservation is None:
            reservation = await self._purses.reserve(claim)
            if reservation is None:
                await self._purses.changed()
            else:
                await self._take_own(reservation)

    async def _take_own(self, reservation: Reservation) -> None:
        """Set aside of the record's own money what is reserved of the shared; gives that back where there is no room,
        and waits until there may be some.
        """
        full = None
        try:
            full = next((budget for budget in self._own if not budget.has_room(reservation.usd)), None)
            if full is None:
                for budget in self._own:
                    budget.in_flight_usd += reservation.usd
                self._reservation = reservation
        finally:
            if self._reservation is None:
                await self._purses.settle(reservation, 0.0, answered=False)
        if full is not None:
            await full.settled.wait()

    async def settle(self) -> None:
        """Put what was paid in the place of what was set aside, where that was done."""
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return
        for budget in self._own:
            budget.settle(reservation.usd, self.paid_usd)
        await self._purses.settle(reservation, self.paid_usd, answered=self.answered)


def costs_nothing(failure: CallFailed) -> bool:
    """Return whether a failed call costs nothing: the endpoint refused it, was not reached, or was never asked."""
    return failure.status is not None or failure.code in ("connect", *NO_MONEY)


def _known_as(endpoint: Endpoint, model: Model) -> tuple[str, str]:
    """Return the names under which is noted what an endpoint and a model cost: by another price it is another one."""
    price = model.price_usd_per_mtok
    listed = f" at {price['prompt']:g}+{price['completion']:g}" if price else ""
    return hashlib.sha256(endpoint.identity.encode()).hexdigest()[:16], f"{model.model}{listed}"
