"""Money that several processes spend together, in a SQLite file: a new worker and a killed one refill nothing."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fusiontools.errors import CallCode, CallFailed, UsageError
from fusiontools.llm.journal import default_path
from fusiontools.server.protocols.exchange import ApiError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (
    day INTEGER NOT NULL, caller TEXT NOT NULL, usd REAL NOT NULL, PRIMARY KEY (day, caller)
) WITHOUT ROWID
"""
DAY_S = 86_400
#: What a process waits for another one, which needs microseconds.
_BUSY_S = 5.0
#: How many days are remembered.
_KEPT_DAYS = 7


class DayMoney:
    """The file, shared by all processes of a user that serve.

    Args:
        path: beside the journal by default; its folder is made.

    Raises:
        UsageError: it cannot be written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_path().with_name("spending.db")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            with closing(self.connect()) as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"{self.path}, where money is counted, cannot be written: {error}") from error

    def connect(self) -> sqlite3.Connection:
        """Return a connection."""
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
        # Killing a process loses nothing in write-ahead mode; only the machine's end may.
        db.execute("PRAGMA synchronous=NORMAL")
        return db

    def of(self, caller: str, day: int) -> DayAccount:
        """Return what a caller spends on a day (of Unix time)."""
        return DayAccount(self, caller, day)

    def of_run(self) -> DayAccount:
        """Return what all callers spend, in a file that one run has for itself."""
        return DayAccount(self, "", 0, "budget")


@dataclass(frozen=True, slots=True)
class DayAccount:
    """One caller's day: an `Account` of the ledger."""

    money: DayMoney
    caller: str
    day: int
    code: CallCode = "caller_budget"

    def total_usd(self) -> float:
        """Return what has been spent and what is set aside.

        Raises:
            CallFailed: the file cannot be read.
        """
        try:
            with closing(self.money.connect()) as db:
                return self._total(db)
        except sqlite3.Error as error:
            raise self._away(error) from error

    def add(self, usd: float, most_usd: float | None = None) -> bool:
        """Add, or take away what is negative, unless the total would pass `most_usd`.

        Raises:
            CallFailed: the file cannot be written.
        """
        try:
            with closing(self.money.connect()) as db, db:
                db.execute("BEGIN IMMEDIATE")
                total = self._total(db) + usd
                if most_usd is not None and not total <= most_usd:
                    return False
                db.execute("INSERT OR REPLACE INTO spent VALUES (?, ?, ?)", (self.day, self.caller, max(0.0, total)))
                db.execute("DELETE FROM spent WHERE day < ?", (self.day - _KEPT_DAYS,))
                return True
        except sqlite3.Error as error:
            raise self._away(error) from error

    def _total(self, db: sqlite3.Connection) -> float:
        row = db.execute("SELECT usd FROM spent WHERE day = ? AND caller = ?", (self.day, self.caller)).fetchone()
        return float(row[0]) if row else 0.0

    def _away(self, error: sqlite3.Error) -> CallFailed:
        return CallFailed(self.code, f"what has been spent cannot be looked up, so nothing more is bought: {error}")


def refuse_for_today(why: str, now: float | None = None) -> ApiError:
    """Return the refusal of what a day's money does not reach for, with the time until there is more.

    Args:
        now: Unix time.
    """
    left_s = int(DAY_S - (time.time() if now is None else now) % DAY_S) + 1
    return ApiError(402, "caller_budget", why, headers={"retry-after": str(left_s)})
