"""Money that many calls, and several processes, spend together: reserved before a call, settled after it.

What those who spend from one purse must know of each other stands in one SQLite file, or in memory where there is one
process: what is spent, what is in flight, and what calls to a model have cost beside what was reserved for them. So a
limit holds over all of them, and an endpoint that charges more than it should surprises them once. What is in flight
has an owner and an end, which the owner puts off for as long as it lives: what a killed process had reserved counts as
spent soon after. Where the file cannot be used, nothing is bought.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fusiontools.errors import CallCode, CallFailed, UsageError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS purse (name TEXT PRIMARY KEY, spent_usd REAL NOT NULL, used_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservation (
    id TEXT NOT NULL, purse TEXT NOT NULL, usd REAL NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    owner TEXT NOT NULL, ends_s REAL NOT NULL, PRIMARY KEY (id, purse)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoint (name TEXT PRIMARY KEY, at_once INTEGER NOT NULL, used_s REAL NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model (
    endpoint TEXT NOT NULL, name TEXT NOT NULL, excess REAL NOT NULL, least_usd REAL NOT NULL, used_s REAL NOT NULL,
    PRIMARY KEY (endpoint, name)
) WITHOUT ROWID;
"""
#: What a process waits for another one, which needs microseconds.
_BUSY_S = 2.0
#: How long what a process has reserved is in flight after its last sign of life.
_LEASE_S = 15.0
#: How soon a call that waits sees what other processes have done, and how soon that one of them is dead.
_LOOK_S, _LOOKS = 0.05, 20
_DAY_S = 86_400
#: For how long a purse that nobody uses is remembered, and what an endpoint has been like.
_KEPT_S, _TRUSTED_S = 31 * _DAY_S, _DAY_S


def default_purses_path() -> Path:
    """Return the place of the purses that all processes of a user share: beside the journal's."""
    from fusiontools.llm.journal import default_path

    return default_path().with_name("spending.db")


@dataclass(slots=True, eq=False)
class Budget:
    """A limit over all that is spent under a name, counted in `purses`.

    Args:
        limit_usd: what may be spent; None is no limit.
        code: how a call fails that would pass the limit.
        whose: whose money it is, for a person.
    """

    purses: Purses
    name: str
    limit_usd: float | None = None
    code: CallCode = "budget"
    whose: str = "the run"
    #: Whether a call was refused for want of this money.
    stopped: bool = False

    @property
    def committed_usd(self) -> float:
        """What has been spent, and what is reserved.

        Raises:
            CallFailed: nobody can know it now.
        """
        return self.purses.committed_usd(self)

    async def book(self, usd: float) -> None:
        """Add what was spent without having been reserved."""
        await self.purses.settle(Reservation("", (self.name,)), usd)

    def refusal(self, spent_usd: float, usd: float) -> CallFailed:
        """Return the failure of a call that would pass the limit."""
        self.stopped = True
        return refusal(self.code, self.whose, self.limit_usd, spent_usd, usd)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a call wants before it is made: money of some budgets, and a turn at a model.

    Args:
        bound_usd: what it may cost at most, by its tokens.
    """

    budgets: tuple[Budget, ...]
    endpoint: str
    model: str
    bound_usd: float


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money that is set aside for a call, in the purses of these names; without an endpoint nothing is learned."""

    id: str
    purses: tuple[str, ...]
    endpoint: str = ""
    model: str = ""
    bound_usd: float = 0.0
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class _Settlement:
    reservation: Reservation
    paid_usd: float | None
    answered: bool


@dataclass(slots=True)
class Purses:
    """What is spent and what is in flight, of every purse, and how far endpoints keep to their prices.

    An endpoint's first call goes alone, and so does the first to each model. Every call that costs no more than was
    reserved lets one more run at once, so that there are soon as many as ever; one that costs more lets few or only
    one, and is what the next to its model may cost. Near a limit, too, fewer calls run: there must be room for each of
    those in flight to cost twice what it should, or a call runs alone. All of this holds over everybody who shares the
    file.

    Args:
        path: the file, whose folder is made; None is memory, for one process.
        lease_s: how long after its last sign of life a process is taken for dead.
        clock: Unix time, which processes share.
        busy_s: how long the file is waited for.

    Raises:
        UsageError: the file cannot be written.
    """

    path: Path | None = None
    lease_s: float = _LEASE_S
    clock: Callable[[], float] = time.time
    busy_s: float = _BUSY_S
    _owner: str = field(default_factory=lambda: uuid.uuid4().hex)
    _db: sqlite3.Connection | None = None
    _held: set[str] = field(default_factory=set)
    #: What has been paid and is not written yet.
    _due: list[_Settlement] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _looking: asyncio.Task[None] | None = None
    _renewing: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        if self.path is None:
            return  # opened when money is limited
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600)
            db = self._open()
            now = self.clock()
            db.execute("DELETE FROM purse WHERE used_s < ?", (now - _KEPT_S,))
            for table in ("endpoint", "model"):
                db.execute(f"DELETE FROM {table} WHERE used_s < ?", (now - _TRUSTED_S,))  # noqa: S608 - two names
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"{self.path}, where money is counted, cannot be written: {error}") from error

    async def reserve(self, claim: Claim) -> Reservation | None:
        """Set aside what a call may cost; None where it has to wait until something has `changed`.

        Raises:
            CallFailed: a limit would be passed whatever the calls in flight come to, or nobody can know it now.
        """
        refusal, wait = None, False
        with self._transaction(claim.budgets) as db:
            self._sweep(db)
            usd = self._likely_usd(db, claim)
            for budget in claim.budgets:
                if budget.limit_usd is None:
                    continue
                spent_usd, in_flight_usd = self._standing(db, budget.name)
                if not spent_usd + usd <= budget.limit_usd:
                    refusal = budget.refusal(spent_usd, usd)
                    break
                wait = wait or (in_flight_usd > 0 and not spent_usd + 2 * in_flight_usd + usd <= budget.limit_usd)
            wait = wait or not self._has_turn(db, claim)
            if refusal is None and not wait:
                names = tuple(budget.name for budget in claim.budgets)
                made = Reservation(uuid.uuid4().hex, names, claim.endpoint, claim.model, claim.bound_usd, usd)
                self._write(db, made)
        if refusal is not None:
            raise refusal
        if wait:
            return None
        self._hold(made)
        return made

    async def settle(self, reservation: Reservation, paid_usd: float | None, *, answered: bool = True) -> None:
        """Put what was paid in the place of what was reserved; an unknown cost stays at the reservation.

        What cannot be written now is written before anything else is bought.

        Args:
            answered: whether the endpoint did what it is paid for: what was free for having failed says nothing of its
                prices.
        """
        self._held.discard(reservation.id)
        self._due.append(_Settlement(reservation, paid_usd, answered))
        with suppress(CallFailed), self._transaction():
            pass
        self._wake()

    async def changed(self) -> None:
        """Wait until a call that had to wait may try again."""
        if self.path is not None and self._looking is None:
            self._looking = asyncio.create_task(self._look())
        await self._changed.wait()

    def committed_usd(self, budget: Budget) -> float:
        """Return what has been spent of a budget, and what is reserved.

        Raises:
            CallFailed: nobody can know it now.
        """
        with self._transaction((budget,)) as db:
            self._sweep(db)
            return sum(self._standing(db, budget.name))

    def close(self) -> None:
        """Close the file."""
        for task in (self._looking, self._renewing):
            if task is not None:
                task.cancel()
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            db = sqlite3.connect(
                self.path or ":memory:", timeout=self.busy_s, isolation_level=None, check_same_thread=False
            )
            # Killing a process loses nothing in write-ahead mode; only the machine's end may.
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)
            self._db = db
        return self._db

    @contextmanager
    def _transaction(self, budgets: tuple[Budget, ...] = ()) -> Iterator[sqlite3.Connection]:
        """Do what nobody else may come between, after writing what is due."""
        try:
            with self._open() as db:
                db.execute("BEGIN IMMEDIATE")
                for settlement in self._due:
                    self._book(db, settlement)
                yield db
            self._due.clear()
        except sqlite3.Error as error:
            code = budgets[0].code if budgets else "budget"
            away = f"what has been spent cannot be looked up, so nothing more is bought: {error}"
            raise CallFailed(code, away) from error

    def _sweep(self, db: sqlite3.Connection) -> None:
        """Count as spent what those had reserved who give no sign of life any more."""
        over = db.execute("SELECT id, purse, usd FROM reservation WHERE ends_s < ?", (self.clock(),)).fetchall()
        for key, name, usd in over:
            self._spend(db, name, usd)
            db.execute("DELETE FROM reservation WHERE id = ? AND purse = ?", (key, name))

    def _standing(self, db: sqlite3.Connection, name: str) -> tuple[float, float]:
        """Return what has been spent from a purse, and what is in flight."""
        row = db.execute(
            "SELECT (SELECT spent_usd FROM purse WHERE name = ?), (SELECT SUM(usd) FROM reservation WHERE purse = ?)",
            (name, name),
        ).fetchone()
        return row[0] or 0.0, row[1] or 0.0

    def _likely_usd(self, db: sqlite3.Connection, claim: Claim) -> float:
        """Return what a call may cost at most, by what others to its model have cost."""
        excess, least_usd = _excess_of(db, claim.endpoint, claim.model) or (1.0, 0.0)
        return max(claim.bound_usd * excess, least_usd)

    def _has_turn(self, db: sqlite3.Connection, claim: Claim) -> bool:
        """Return whether one more call to this model may run."""
        in_flight, to_model = db.execute(
            "SELECT COUNT(DISTINCT id), COUNT(*) FILTER (WHERE model = ?) FROM reservation WHERE endpoint = ?",
            (claim.model, claim.endpoint),
        ).fetchone()
        known = _excess_of(db, claim.endpoint, claim.model) is not None
        return in_flight < _at_once(db, claim.endpoint) and (known or not to_model)

    def _write(self, db: sqlite3.Connection, made: Reservation) -> None:
        ends_s = self.clock() + self.lease_s
        for name in made.purses or ("",):  # a call that pays from none of them has its turn, too
            row = (made.id, name, made.usd, made.endpoint, made.model, self._owner, ends_s)
            db.execute("INSERT INTO reservation VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def _book(self, db: sqlite3.Connection, settlement: _Settlement) -> None:
        reservation, paid_usd = settlement.reservation, settlement.paid_usd
        swept = db.execute("DELETE FROM reservation WHERE id = ?", (reservation.id,)).rowcount == 0
        usd = reservation.usd if paid_usd is None else paid_usd
        for name in reservation.purses:
            self._spend(db, name, usd - reservation.usd if swept else usd)
        if reservation.endpoint and (settlement.answered or paid_usd is None or paid_usd > reservation.usd):
            self._learn(db, reservation, paid_usd)

    def _spend(self, db: sqlite3.Connection, name: str, usd: float) -> None:
        if name:
            db.execute(
                "INSERT INTO purse VALUES (?, MAX(0, ?), ?) ON CONFLICT (name) "
                "DO UPDATE SET spent_usd = MAX(0, spent_usd + ?), used_s = excluded.used_s",
                (name, usd, self.clock(), usd),
            )

    def _learn(self, db: sqlite3.Connection, reservation: Reservation, paid_usd: float | None) -> None:
        """Note how far a call's cost kept to what was reserved."""
        at_once = _at_once(db, reservation.endpoint)
        excess, least_usd = _excess_of(db, reservation.endpoint, reservation.model) or (1.0, 0.0)
        if paid_usd:
            least_usd = min(least_usd or paid_usd, paid_usd)
        if paid_usd is None or paid_usd <= reservation.usd:
            at_once += 1
        else:
            at_once = max(1, at_once // 2) if paid_usd <= 2 * reservation.usd else 1
            if reservation.bound_usd > 0:
                excess = max(excess, paid_usd / reservation.bound_usd)
        now = self.clock()
        db.execute("INSERT OR REPLACE INTO endpoint VALUES (?, ?, ?)", (reservation.endpoint, at_once, now))
        known = (reservation.endpoint, reservation.model, excess, least_usd, now)
        db.execute("INSERT OR REPLACE INTO model VALUES (?, ?, ?, ?, ?)", known)

    def _hold(self, made: Reservation) -> None:
        """Give signs of life while something is in flight."""
        self._held.add(made.id)
        if self.path is not None and self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(self.lease_s / 3)
            with suppress(CallFailed), self._transaction() as db:
                ends_s = self.clock() + self.lease_s
                db.execute("UPDATE reservation SET ends_s = ? WHERE owner = ?", (ends_s, self._owner))
        self._renewing = None

    async def _look(self) -> None:
        """Wake those who wait when another process has done something, or may be dead."""
        seen = self._version()
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_S)
            if self._version() != seen:
                break
        self._looking = None
        self._wake()

    def _version(self) -> int:
        """Return a number that is another one when another process has written."""
        with suppress(sqlite3.Error):
            return int(self._open().execute("PRAGMA data_version").fetchone()[0])
        return -1

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def refusal(code: CallCode, whose: str, limit_usd: float | None, spent_usd: float, usd: float) -> CallFailed:
    """Return the failure of a call that would pass a limit."""
    return CallFailed(code, f"{whose} has committed ${spent_usd:.4f} of ${limit_usd:g}; this call may cost ${usd:.4f}")


def _at_once(db: sqlite3.Connection, endpoint: str) -> int:
    """Return how many calls to an endpoint may run at once."""
    row = db.execute("SELECT at_once FROM endpoint WHERE name = ?", (endpoint,)).fetchone()
    return row[0] if row else 1


def _excess_of(db: sqlite3.Connection, endpoint: str, model: str) -> tuple[float, float] | None:
    """Return by what a model's calls have passed their bounds, and what each has cost; None before the first."""
    query = "SELECT excess, least_usd FROM model WHERE endpoint = ? AND name = ?"
    row: tuple[float, float] | None = db.execute(query, (endpoint, model)).fetchone()
    return row
