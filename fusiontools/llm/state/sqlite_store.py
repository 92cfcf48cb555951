"""Shared state in two SQLite files of one machine: the journal's, with its leases, and the money's beside it.

Everything that reads and then writes is one immediate transaction: a deferred one fails at once where somebody else
has written in between.
"""

from __future__ import annotations

import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fusiontools.llm import journal
from fusiontools.llm.state.sqlite_purses import SqlitePurses
from fusiontools.llm.state.store import DONE_S, Done, Grant, Held, Lease, StateAway

_LEASES = """
CREATE TABLE IF NOT EXISTS lease (
    key BLOB PRIMARY KEY, fence INTEGER NOT NULL, ends_s REAL NOT NULL, done INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lease_ends ON lease (ends_s);
CREATE TABLE IF NOT EXISTS fence (last INTEGER NOT NULL);
INSERT INTO fence SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM fence);
"""


class SqliteStore(SqlitePurses):
    """The leases of a journal's file, and the money, limits and values of the file beside it.

    Args:
        path: the journal's file.
        clock: Unix time, which processes of one machine share.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        super().__init__(path.with_name("spending.db"), clock)
        self.place = f"sqlite:{path}"
        self._path = path
        self._db: sqlite3.Connection | None = None

    async def check(self) -> str:
        """Return in words what answers there."""
        with self._transaction():
            return f"SQLite {sqlite3.sqlite_version}"

    async def acquire(
        self, key: bytes, lease_s: float, *, waited: int = 0, replays: bool = False
    ) -> Lease | Held | Done:
        """Take the lease of a call, where nobody has it."""
        now = self._clock()
        with self._transaction() as db:
            row = db.execute("SELECT fence, ends_s, done FROM lease WHERE key = ?", (key,)).fetchone()
            fence, ends_s, done = row or (0, 0.0, 0)
            if done and 0 < waited <= fence:
                return Done()
            if not done and ends_s > now:
                return Held(fence)
            if replays and db.execute("SELECT 1 FROM completion WHERE key = ?", (key,)).fetchone():
                return Done()
            db.execute("DELETE FROM lease WHERE ends_s < ?", (now - DONE_S,))
            [fence] = db.execute("UPDATE fence SET last = last + 1 RETURNING last").fetchone()
            db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, 0)", (key, fence, now + lease_s))
            return Lease(key, fence)

    async def renew(self, leases: Sequence[Lease], lease_s: float) -> None:
        """Put the end of leases off; those that others have taken are left alone."""
        ends_s = self._clock() + lease_s
        with self._transaction() as db:
            changes = [(ends_s, lease.key, lease.fence) for lease in leases]
            db.executemany("UPDATE lease SET ends_s = ? WHERE key = ? AND fence = ? AND done = 0", changes)

    async def release(self, lease: Lease) -> None:
        """End a lease without a result: whoever waits may take it."""
        with self._transaction() as db:
            db.execute("DELETE FROM lease WHERE key = ? AND fence = ? AND done = 0", (lease.key, lease.fence))

    async def grant(
        self, name: str, owner: str, least: int, most: int, limit: int, window_s: float, valid_s: float
    ) -> Grant:
        """Take between `least` and `most` of a limit over a sliding window; none where `least` does not fit."""
        now = self._clock()
        with self._money_transaction() as db:
            db.execute("DELETE FROM granted WHERE name = ? AND ends_s <= ?", (name, now))
            rows = db.execute("SELECT owner, count, ends_s FROM granted WHERE name = ? ORDER BY ends_s", (name,))
            earlier = rows.fetchall()
            workers = len({owner, *(row[0] for row in earlier)})
            used = sum(row[1] for row in earlier)
            if used and used + least > limit:
                return Grant("", 0, _until_free(earlier, used + least - limit) - now, workers)
            block = int(limit * valid_s / window_s / workers)
            granted = Grant(uuid.uuid4().hex, max(least, min(most, block, limit - used)), 0.0, workers)
            row = (granted.id, name, owner, granted.count, now + valid_s + window_s)
            db.execute("INSERT INTO granted VALUES (?, ?, ?, ?, ?)", row)
            return granted

    async def give_back(self, name: str, grant: str, unused: int) -> None:
        """Return what of a grant was not used."""
        with self._money_transaction() as db:
            db.execute("UPDATE granted SET count = MAX(0, count - ?) WHERE id = ?", (unused, grant))

    async def hold(self, name: str, owner: str, busy: int, wanted: int, limit: int, lease_s: float) -> int:
        """Hold places of a bounded number, until they are given back or the lease ends; return how many may be used."""
        now = self._clock()
        with self._money_transaction() as db:
            db.execute("DELETE FROM held WHERE name = ? AND ends_s <= ?", (name, now))
            query = "SELECT count, wanted FROM held WHERE name = ? AND owner <> ?"
            others: list[tuple[int, int]] = db.execute(query, (name, owner)).fetchall()
            even = max(1, limit // (len(others) + 1))
            # What others hold stays with them, and what they want is left to them up to an even share.
            left = limit - sum(max(held, min(theirs, even)) for held, theirs in others)
            # Where there are more of them than places, a free one is the first comer's.
            free = limit - sum(held for held, _ in others)
            target = min(wanted, max(left, min(1, free)))
            if wanted:
                row = (name, owner, max(busy, target), wanted, now + lease_s)
                db.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?)", row)
            else:
                db.execute("DELETE FROM held WHERE name = ? AND owner = ?", (name, owner))
            return target

    async def value_of(self, name: str) -> bytes | None:
        """Return a value that is still kept."""
        with self._money_transaction() as db:
            query = "SELECT value FROM value WHERE name = ? AND ends_s > ?"
            row = db.execute(query, (name, self._clock())).fetchone()
            return None if row is None else bytes(row[0])

    async def keep_value(self, name: str, value: bytes, keep_s: float) -> None:
        """Keep a value for some seconds."""
        now = self._clock()
        with self._money_transaction() as db:
            db.execute("DELETE FROM value WHERE ends_s <= ?", (now,))
            db.execute("INSERT OR REPLACE INTO value VALUES (?, ?, ?)", (name, value, now + keep_s))

    async def count_before(self, before_s: float) -> int:
        """Return how many finished calls are older than a moment, in Unix time."""
        return journal.count_before(self._path, before_s)

    async def forget_before(self, before_s: float) -> int:
        """Forget the finished calls that are older than a moment, a few at a time; return how many went."""
        return journal.forget_before(self._path, before_s)[0]

    async def aclose(self) -> None:
        """Close the files."""
        self.close()
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._db is None:
                self._db = journal.open_database(self._path)
                self._db.executescript(_LEASES)
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
        except (sqlite3.Error, OSError) as error:
            raise StateAway(f"{self.place}: {error}") from error


#: File systems of other machines, on which SQLite's write-ahead mode does not work: each machine has its own memory.
_NETWORKS = re.compile(r"nfs|cifs|smb|9p|afs|ceph|gluster|lustre|beegfs|gpfs|gfs2|ocfs2|fuse\.sshfs|davfs")


def network_of(path: Path, mounts: str) -> str | None:
    """Return the kind of the network file system that a file lies on; None where it is this machine's own.

    Args:
        mounts: what `/proc/self/mounts` says.
    """
    rows = [line.split() for line in mounts.splitlines()]
    homes = {Path(row[1].replace("\\040", " ")): row[2] for row in rows if len(row) > 2}
    kind = next((homes[folder] for folder in (path, *path.parents) if folder in homes), "")
    return kind if _NETWORKS.match(kind) else None


def _until_free(earlier: list[tuple[str, int, float]], wanted: int) -> float:
    """Return when so much of what was granted before will have come back."""
    for _, count, ends_s in earlier:
        wanted -= count
        if wanted <= 0:
            return ends_s
    return earlier[-1][2]
