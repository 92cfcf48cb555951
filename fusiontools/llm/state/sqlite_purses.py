"""Purses in a SQLite file, or in memory: what is spent, what is in flight, what calls to a model have cost."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fusiontools.errors import UsageError
from fusiontools.llm.state.store import KEPT_S, TRUSTED_S, Purchase, Reservation, Settlement, Shortage, StateAway

_SCHEMA = """
CREATE TABLE IF NOT EXISTS purse (name TEXT PRIMARY KEY, spent_usd REAL NOT NULL, used_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reservation (
    id TEXT NOT NULL, purse TEXT NOT NULL, usd REAL NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    owner TEXT NOT NULL, ends_s REAL NOT NULL, PRIMARY KEY (id, purse)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS swept (id TEXT PRIMARY KEY, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endpoint (name TEXT PRIMARY KEY, at_once INTEGER NOT NULL, used_s REAL NOT NULL)
WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS model (
    endpoint TEXT NOT NULL, name TEXT NOT NULL, excess REAL NOT NULL, least_usd REAL NOT NULL, used_s REAL NOT NULL,
    PRIMARY KEY (endpoint, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS granted (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, owner TEXT NOT NULL, count INTEGER NOT NULL, ends_s REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS granted_name ON granted (name, ends_s);
CREATE TABLE IF NOT EXISTS held (
    name TEXT NOT NULL, owner TEXT NOT NULL, count INTEGER NOT NULL, wanted INTEGER NOT NULL, ends_s REAL NOT NULL,
    PRIMARY KEY (name, owner)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS value (name TEXT PRIMARY KEY, value BLOB NOT NULL, ends_s REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS value_ends ON value (ends_s);
"""
#: What a process waits for another one, which needs microseconds.
BUSY_S = 2.0


class SqlitePurses:
    """Purses in a file that processes of one machine share.

    Args:
        path: the file, whose folder is made; None is memory, for one process.
        clock: Unix time, which processes share.
        busy_s: how long the file is waited for.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time, busy_s: float = BUSY_S) -> None:
        self._money_path, self._clock, self._busy_s = path, clock, busy_s
        self._money: sqlite3.Connection | None = None
        if path is None:
            return  # opened when money is limited
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            db = self._open_money()
            now = clock()
            db.execute("DELETE FROM purse WHERE used_s < ?", (now - KEPT_S,))
            db.execute("DELETE FROM swept WHERE at_s < ?", (now - TRUSTED_S,))
            for table in ("endpoint", "model"):
                db.execute(f"DELETE FROM {table} WHERE used_s < ?", (now - TRUSTED_S,))  # noqa: S608 - two names
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"{path}, where money is counted, cannot be written: {error}") from error

    async def reserve(self, purchase: Purchase, lease_s: float) -> Reservation | Shortage | None:
        """Set money aside; None where it may be tried again once something has settled."""
        with self._money_transaction() as db:
            self._sweep(db)
            usd = _likely_usd(db, purchase)
            wait = not _has_turn(db, purchase)
            for name, limit_usd in purchase.purses:
                if limit_usd is None:
                    continue
                spent_usd, in_flight_usd = _standing(db, name)
                if not spent_usd + usd <= limit_usd:
                    return Shortage(name, spent_usd, usd)
                wait = wait or (in_flight_usd > 0 and not spent_usd + 2 * in_flight_usd + usd <= limit_usd)
            if wait:
                return None
            names = tuple(name for name, _ in purchase.purses)
            made = Reservation(uuid.uuid4().hex, names, purchase.endpoint, purchase.model, purchase.bound_usd, usd)
            ends_s = self._clock() + lease_s
            for name in names or ("",):  # a call that pays from none of them has its turn, too
                row = (made.id, name, made.usd, made.endpoint, made.model, "", ends_s)
                db.execute("INSERT INTO reservation VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            return made

    async def settle(self, settlements: Sequence[Settlement]) -> None:
        """Put what was paid in the place of what was reserved."""
        with self._money_transaction() as db:
            for settlement in settlements:
                self._book(db, settlement)

    async def renew_reservations(self, ids: Sequence[str], lease_s: float) -> None:
        """Put off the end of what is reserved."""
        ends_s = self._clock() + lease_s
        with self._money_transaction() as db:
            db.executemany("UPDATE reservation SET ends_s = ? WHERE id = ?", [(ends_s, each) for each in ids])

    async def committed_usd(self, name: str) -> float:
        """Return what has been spent from a purse, and what is reserved."""
        with self._money_transaction() as db:
            self._sweep(db)
            return sum(_standing(db, name))

    async def changes(self) -> int:
        """Return a number that is another one when another process has written."""
        try:
            return int(self._open_money().execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise StateAway(str(error)) from error

    def close(self) -> None:
        """Close the file."""
        if self._money is not None:
            self._money.close()
            self._money = None

    def _open_money(self) -> sqlite3.Connection:
        if self._money is None:
            db = sqlite3.connect(
                self._money_path or ":memory:", timeout=self._busy_s, isolation_level=None, check_same_thread=False
            )
            # Killing a process loses nothing in write-ahead mode; only the machine's end may.
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)
            self._money = db
        return self._money

    @contextmanager
    def _money_transaction(self) -> Iterator[sqlite3.Connection]:
        """Do what nobody else may come between."""
        try:
            with self._open_money() as db:
                db.execute("BEGIN IMMEDIATE")
                yield db
        except sqlite3.Error as error:
            raise StateAway(str(error)) from error

    def _sweep(self, db: sqlite3.Connection) -> None:
        """Count as spent what those had reserved who give no sign of life any more."""
        over = db.execute("SELECT id, purse, usd FROM reservation WHERE ends_s < ?", (self._clock(),)).fetchall()
        for key, name, usd in over:
            self._spend(db, name, usd)
            db.execute("DELETE FROM reservation WHERE id = ? AND purse = ?", (key, name))
            db.execute("INSERT OR IGNORE INTO swept VALUES (?, ?)", (key, self._clock()))

    def _book(self, db: sqlite3.Connection, settlement: Settlement) -> None:
        reservation, paid_usd = settlement.reservation, settlement.paid_usd
        in_flight = db.execute("DELETE FROM reservation WHERE id = ?", (reservation.id,)).rowcount > 0
        swept = db.execute("DELETE FROM swept WHERE id = ?", (reservation.id,)).rowcount > 0
        if reservation.id and not (in_flight or swept):
            return  # it has been settled before
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
                (name, usd, self._clock(), usd),
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
        now = self._clock()
        db.execute("INSERT OR REPLACE INTO endpoint VALUES (?, ?, ?)", (reservation.endpoint, at_once, now))
        known = (reservation.endpoint, reservation.model, excess, least_usd, now)
        db.execute("INSERT OR REPLACE INTO model VALUES (?, ?, ?, ?, ?)", known)


def _standing(db: sqlite3.Connection, name: str) -> tuple[float, float]:
    """Return what has been spent from a purse, and what is in flight."""
    row = db.execute(
        "SELECT (SELECT spent_usd FROM purse WHERE name = ?), (SELECT SUM(usd) FROM reservation WHERE purse = ?)",
        (name, name),
    ).fetchone()
    return row[0] or 0.0, row[1] or 0.0


def _likely_usd(db: sqlite3.Connection, purchase: Purchase) -> float:
    """Return what a call may cost at most, by what others to its model have cost."""
    excess, least_usd = _excess_of(db, purchase.endpoint, purchase.model) or (1.0, 0.0)
    return max(purchase.bound_usd * excess, least_usd)


def _has_turn(db: sqlite3.Connection, purchase: Purchase) -> bool:
    """Return whether one more call to this model may run."""
    in_flight, to_model = db.execute(
        "SELECT COUNT(DISTINCT id), COUNT(*) FILTER (WHERE model = ?) FROM reservation WHERE endpoint = ?",
        (purchase.model, purchase.endpoint),
    ).fetchone()
    known = _excess_of(db, purchase.endpoint, purchase.model) is not None
    return in_flight < _at_once(db, purchase.endpoint) and (known or not to_model)


def _at_once(db: sqlite3.Connection, endpoint: str) -> int:
    """Return how many calls to an endpoint may run at once."""
    row = db.execute("SELECT at_once FROM endpoint WHERE name = ?", (endpoint,)).fetchone()
    return row[0] if row else 1


def _excess_of(db: sqlite3.Connection, endpoint: str, model: str) -> tuple[float, float] | None:
    """Return by what a model's calls have passed their bounds, and what each has cost; None before the first."""
    query = "SELECT excess, least_usd FROM model WHERE endpoint = ? AND name = ?"
    row: tuple[float, float] | None = db.execute(query, (endpoint, model)).fetchone()
    return row
