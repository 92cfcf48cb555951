"""What every provider's batch API is asked for, in the same words; a file for each says how."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from fusiontools.record import jsonl

if TYPE_CHECKING:
    from fusiontools.llm.batches.batch_http import BatchHttp
    from fusiontools.llm.batches.job_file import BatchJob

#: The kinds of end that a job has.
COMPLETED, EXPIRED, CANCELLED, REFUSED = "completed", "expired", "cancelled", "refused"


class LineFault(Struct, frozen=True):
    """Why a provider refused a job before it ran; `line` is the line at fault, from 1, where it says one."""

    code: str
    message: str
    line: int | None = None


class Standing(Struct, frozen=True):
    """How far a job is.

    Args:
        end: the kind of its end, None while it is under way.
        done: calls that have been made, failed ones too; None where nobody counts.
        ends_s: Unix time at which it expires.
        faults: why it was refused.
        checking: whether the provider says that it looks through the calls, and may refuse them yet.
    """

    end: str | None = None
    done: int | None = None
    ends_s: float | None = None
    faults: Sequence[LineFault] = ()
    checking: bool = False


class LineAnswer(Struct, frozen=True):
    """What came of one call: an HTTP status and a body; status 0 where it was not made, and `body` says why."""

    custom_id: str
    status: int
    body: bytes


class BatchApi(Protocol):
    """A provider's batch API; every method raises `CallFailed` for what the provider says instead.

    Args:
        max_calls: of one job, as `max_bytes`.
        cancels: whether a job can be cancelled.
    """

    http: BatchHttp
    max_calls: int
    max_bytes: int
    cancels: bool

    def line(self, custom_id: str, body: Mapping[str, Any]) -> bytes:
        """Return a call as a line of a job."""

    async def upload(self, job: BatchJob, lines: Path) -> str:
        """Send the lines where they come first; returns what `create` needs of it. Nothing is bought by it."""

    async def create(self, job: BatchJob, lines: Path, uploaded: str) -> str:
        """Create the job; returns the provider's id."""

    async def find(self, job: BatchJob, is_strange: Any) -> tuple[str, bool] | None:
        """Return the id of a job that was created or not, nobody noted it, and whether that is a guess.

        Args:
            is_strange: whether a provider's id is known as another's.
        """

    async def look(self, job: BatchJob) -> Standing:
        """Return how far the job is."""

    def answers(self, job: BatchJob) -> AsyncIterator[LineAnswer]:
        """Yield what came of its calls, once it has ended; in any order, and not of all."""

    async def cancel(self, job: BatchJob) -> None:
        """Have the job end soon."""


def unmade(custom_id: str, message: str) -> LineAnswer:
    """Return what came of a call that was not made."""
    return LineAnswer(custom_id, 0, jsonl.dumps({"message": message}))
