"""What the jobs of a run cost, and may still cost: held to the limits of the run, of its budget, and of each record.

What a call may cost at most is set aside before it is sent, and settled at what it has cost when its answer is read.
The budget of a run alone is told anew in each round, by what is noted of the run's calls: so a limit holds over
submitting and collecting, in however many processes. A budget with a name outlives them, and so do the sums set aside
there for jobs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.errors import CallFailed
from fusiontools.llm.budget import RecordBudget

if TYPE_CHECKING:
    from fusiontools.config.models import BatchTerms
    from fusiontools.llm.purses import Budget


class BatchMoney(Struct):
    """The money of one run.

    Args:
        budget: that of the run.
        shared: whether it has a name, and a limit.
    """

    budget: Budget
    shared: bool
    #: Whether the cost of a call became known in this round: who was short of money before may have some now.
    has_settled: bool = False
    _counted: set[Hashable] = set()
    #: Of this round: what calls have cost, what those may that have no answer yet, and of these what is not sent yet.
    _spent_usd: float = 0.0
    _pending_usd: float = 0.0
    _unsent_usd: float = 0.0
    #: What of it the budget knows.
    _booked_usd: float = 0.0

    def begin_round(self) -> None:
        """Count anew."""
        self._counted = set()
        self._spent_usd = self._pending_usd = self._unsent_usd = 0.0
        self.has_settled = self.budget.stopped = False

    async def end_round(self) -> None:
        """Tell the run's own budget what its jobs have cost, or may: what is bought at once goes by that."""
        if self.budget.limit_usd is not None and not self.shared:
            total_usd = self._spent_usd + self._pending_usd
            await self.budget.book(total_usd - self._booked_usd)
            self._booked_usd = total_usd

    async def reserve(self, usd: float) -> None:
        """Set aside what a job may cost, or take it back."""
        if self.shared:
            await self.budget.book(usd)

    async def settle(self, reserved_usd: float, paid_usd: float | None) -> None:
        """Put what a call has cost in the place of what was set aside; an unknown cost stays at that."""
        self.has_settled = self.budget.limit_usd is not None
        if self.shared and paid_usd is not None:
            await self.budget.book(paid_usd - reserved_usd)

    def count_spent(self, what: Hashable, usd: float, budgets: Sequence[Any]) -> None:
        """Count what an attempt at a call has cost: once for the run, and for the record whose budgets these are."""
        if what not in self._counted:
            self._counted.add(what)
            self._spent_usd += usd
        for budget in _of_record(budgets):
            budget.spent_usd += usd

    def count_pending(self, what: Hashable, usd: float, budgets: Sequence[Any]) -> None:
        """Count what a call may cost that is in a job."""
        if what not in self._counted:
            self._counted.add(what)
            self._pending_usd += usd
        for budget in _of_record(budgets):
            budget.in_flight_usd += usd

    async def take_room(self, what: Hashable, model: str, bound_usd: float | None, budgets: Sequence[Any]) -> bool:
        """Count what a call may cost that is to be sent; False where there is room for it only once others are settled.

        Raises:
            CallFailed: it would pass a limit whatever the others come to, or its price is not known.
        """
        if bound_usd is None and budgets:
            why = "no price is known for it, so the cost limit cannot be held; give `price_usd_per_mtok` in the recipe"
            raise CallFailed("price_unknown", f"{model}: {why}")
        usd = bound_usd or 0.0
        if self.budget.limit_usd is not None:
            committed_usd = await self.budget.committed_usd()
            if self.shared:
                committed_usd += self._unsent_usd
            else:
                committed_usd += self._spent_usd + self._pending_usd - self._booked_usd
            settled_usd = committed_usd - self._pending_usd
            if not settled_usd + usd <= self.budget.limit_usd:
                raise self.budget.refusal(settled_usd, usd)
            if not committed_usd + usd <= self.budget.limit_usd:
                return False
        if not all(budget.has_room(usd) for budget in _of_record(budgets)):
            return False
        self.count_pending(what, usd, budgets)
        self._unsent_usd += usd
        return True


def in_a_job(usd: float | None, source: str | None, terms: BatchTerms) -> tuple[float | None, str | None]:
    """Return what a call costs in a job, and how that is known: a price of the list is another one there.

    What a provider says of a call that went in a job is what that cost.
    """
    return (usd * terms.price_factor, "batch") if source == "table" and usd is not None else (usd, source)


def _of_record(budgets: Sequence[Any]) -> list[RecordBudget]:
    return [budget for budget in budgets if isinstance(budget, RecordBudget)]
