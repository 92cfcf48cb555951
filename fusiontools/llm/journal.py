"""Keep every finished call on disk under what was asked: nothing that was paid for is paid for twice.

A SQLite file in write-ahead mode, shared by all processes of a user. What finishes in one pass of the event loop is
committed after it in one transaction; a call counts as finished only once it is committed, so `kill -9` loses at most
the calls in flight. Reads are by primary key, commits wait for no disk (but for the first after a checkpoint, with
which the log begins anew), and both take microseconds, so they happen on the loop: a thread takes longer to wake than a
commit does. What does wait for the disk is a checkpoint, which has a thread; at its end, and while another process
writes, finished calls wait, and the loop goes on.
A file that cannot be written (a full disk, a lock that stays) stops nobody: it is said at once, finished calls wait in
memory, up to a bound, and every second it is tried again.
Written by hand over sqlite3, because no cache on disk known to us commits in batches before a call counts as finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from fusiontools.config.stage_table import JournalOptions
from fusiontools.errors import UsageError
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.journal_entry import kept_call, read_body
from fusiontools.llm.state.store import DONE_S, Found, KeptCall, KeptCalls, Lease

#: What is new goes to the end, and only its key among the others: with whole answers in the order of their keys every
#: second page would be split, and none of them would hold more than 1 kB.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS completion (
    key BLOB NOT NULL PRIMARY KEY,
    created_s REAL NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, body BLOB NOT NULL
)
"""
_KEEP = "INSERT OR REPLACE INTO completion VALUES (?, ?, ?, ?, ?)"
_KEEP_WHERE_NONE_IS = "INSERT OR IGNORE INTO completion VALUES (?, ?, ?, ?, ?)"
#: How long a lock is waited for before it is said, and how soon it is looked at again.
_BUSY_S, _BUSY_AGAIN_S = 2.0, 0.002
_RETRY_S = 1.0
#: After so much a checkpoint is made; beside its answer a call changes about one page of the file, a commit two more.
_CHECKPOINT_BYTES, _PAGE_BYTES = 4 * 2**20, 4096
#: So many pages of all processes together wait for one at most: 12 MiB.
_MOST_PAGES = 3072
#: How much waits in memory for a file that cannot be written.
WAITING_BYTES = 64 * 2**20
#: So many entries go in one transaction, where many have waited or are forgotten.
_AT_ONCE = 500


def default_path() -> Path:
    """Return the journal's place in the XDG state directory."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "fusiontools" / "journal.db"


def folder_of(journal: KeptCalls) -> Path:
    """Return the folder where a run keeps what goes with its journal."""
    return journal.path.parent if isinstance(journal, Journal) else default_path().parent


class Journal:
    """An open journal in a file. Every method may be called from the event loop only.

    Args:
        path: the SQLite file; its folder is made.
        warn: told in words what goes wrong; a logger by default.
        read_only: nothing will be put into it: a file that can be read is enough.

    Raises:
        UsageError: the file cannot be opened, or is no journal.
    """

    remote = False

    def __init__(self, path: Path, warn: Callable[[str], None] | None = None, *, read_only: bool = False) -> None:
        self.path = path
        self.place = str(path)
        #: Why the file cannot be written now; None where it can.
        self.broken: str | None = None
        self._warn = warn or logging.getLogger("fusiontools").warning
        #: What writes; unlike what reads, it waits for no lock.
        self._writer: sqlite3.Connection | None = None
        #: What the next commit takes along, and who waits for it.
        self._finished: list[tuple[KeptCall, asyncio.Future[None]]] = []
        #: When that will be, and in which loop.
        self._next: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._locked_since: float | None = None
        self._unchecked_bytes = 0
        self._checkpoint: threading.Thread | None = None
        self._ends_checkpoint = False
        #: Finished calls that wait for a file that cannot be written.
        self._waiting: dict[bytes, KeptCall] = {}
        self._waiting_bytes = self._lost = 0
        self._said_unreadable = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = _open_to_read(path) if read_only else open_database(path)
        except _Locked as error:
            self._db = error.db
            self._hold([], "somebody has locked it")
        except (sqlite3.Error, OSError) as error:
            what = "read" if read_only else "written"
            raise UsageError(f"journal {path}: cannot be {what}: {_reason(error)}", code="journal") from error

    def get(self, key: bytes) -> Found | None:
        """Return a finished call and what it cost, or None; an entry that cannot be read is none, which is said."""
        try:
            waiting = self._waiting.get(key)
            if waiting is not None:
                return read_body(waiting.body)
            row = self._db.execute("SELECT body FROM completion WHERE key = ?", (key,)).fetchone()
            return read_body(row[0]) if row is not None else None
        except (sqlite3.Error, ValueError) as error:
            if not self._said_unreadable:
                self._said_unreadable = True
                self._warn(
                    f"warning: the journal {self.path} has an entry that cannot be read ({_reason(error)}); "
                    "each such call counts as missing"
                )
            return None

    async def find(self, key: bytes) -> Found | None:
        """Return a finished call, as `get` does."""
        return self.get(key)

    async def put(
        self,
        key: bytes,
        request: CompletionRequest,
        completion: Completion,
        paid_usd: float | None,
        lease: Lease | None = None,
    ) -> None:
        """Keep a finished call; returns when it is safe on disk, or waits in memory for a file that is `broken`.

        Args:
            lease: under which it was bought; it ends in the same transaction.
        """
        try:
            row = kept_call(key, request, completion, paid_usd, lease)
        except ValueError as error:
            self._warn(f"warning: a finished call cannot be kept in the journal {self.path}: {error}")
            return
        loop = asyncio.get_running_loop()
        if self.broken:
            self._hold([row], self.broken)
            self._write_in(loop)
            return
        done: asyncio.Future[None] = loop.create_future()
        self._finished.append((row, done))
        self._write_in(loop)
        await done

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Finish the writes under way and close the file."""
        self.close(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Finish the writes under way and close the file; what then still waits is said to be lost."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._checkpoint is not None:
            self._checkpoint.join(timeout_s)
        if self._finished or self._waiting:
            try:
                self._commit(timeout_s)
            except Exception as error:  # as in `_write`
                self._give_up(error)
        if lost := self._lost + len(self._waiting):
            self._lost, self._waiting = 0, {}
            self._warn(f"warning: {lost} finished calls are not in the journal {self.path}: {self.broken}")
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._db.close()

    def _write_in(self, loop: asyncio.AbstractEventLoop, delay_s: float = 0.0) -> None:
        """Have a loop write, unless it is to already."""
        if self._next is None or self._loop is not loop:
            self._loop = loop
            self._next = loop.call_later(delay_s, self._write, loop) if delay_s else loop.call_soon(self._write, loop)

    def _write(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit what is there; where that cannot be, see to it that it is tried again."""
        self._next = None
        if not (self._finished or self._waiting):
            return
        if self._ends_checkpoint:
            # What is committed now would keep the log from beginning anew.
            self._write_in(loop, _BUSY_AGAIN_S)
            return
        try:
            self._commit()
        except Exception as error:  # whatever it is, who waits has an answer that is paid for
            if self._is_soon_over(error):
                self._write_in(loop, _BUSY_AGAIN_S)
            else:
                self._give_up(error)
                self._write_in(loop, _RETRY_S)
            return
        is_under_way = self._checkpoint is not None and self._checkpoint.is_alive()
        if self._unchecked_bytes > _CHECKPOINT_BYTES and not is_under_way:
            # Measured, for a first commit cuts what others have left, where all of it was moved.
            self._unchecked_bytes = self._log_bytes()
            if self._unchecked_bytes > _CHECKPOINT_BYTES:
                self._unchecked_bytes = 0
                self._checkpoint = threading.Thread(target=self._make_checkpoint, name="journal", daemon=True)
                self._checkpoint.start()

    def _commit(self, busy_s: float = 0.0) -> None:
        """Write what waits and what has finished; whoever waits for that goes on."""
        if self._writer is None:
            try:
                self._writer = open_database(self.path, busy_s)
            except _Locked as error:
                error.db.close()
                raise
            # A log that begins anew is cut: its length tells the next run how much may not have been moved.
            self._writer.execute(f"PRAGMA journal_size_limit={_CHECKPOINT_BYTES // 4}")
            # Where many write at once, each too little for a checkpoint of its own, a commit makes one.
            self._writer.execute(f"PRAGMA wal_autocheckpoint={_MOST_PAGES}")
            self._unchecked_bytes = self._log_bytes()
        elif busy_s:
            self._writer.execute(f"PRAGMA busy_timeout={busy_s * 1000:.0f}")
        while self._waiting:
            rows = list(islice(self._waiting.values(), _AT_ONCE))
            self._keep(self._writer, rows)
            for row in rows:
                del self._waiting[row.key]
        if self._finished:
            self._keep(self._writer, [row for row, _ in self._finished])
            self._settle()
        self._locked_since = None
        if self.broken:
            self._waiting_bytes, self.broken = 0, None
            self._warn(f"the journal {self.path} is written again, with the calls that waited for it")

    def _log_bytes(self) -> int:
        """Return how long the log is: what short runs and those that were killed have left in it."""
        with contextlib.suppress(OSError):
            return Path(f"{self.path.resolve()}-wal").stat().st_size
        return 0

    def _keep(self, db: sqlite3.Connection, rows: list[KeptCall]) -> None:
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_KEEP, [row[:5] for row in rows if row.fence is None])
            self._unchecked_bytes += 2 * _PAGE_BYTES
            for row in rows:
                self._unchecked_bytes += len(row.body) + _PAGE_BYTES
                if row.fence is not None:
                    _end_lease(db, row)

    def _settle(self) -> None:
        finished, self._finished = self._finished, []
        for _, done in finished:
            # A loop that has closed has nobody left to tell.
            if not (done.done() or done.get_loop().is_closed()):
                done.set_result(None)

    def _is_soon_over(self, error: Exception) -> bool:
        """Return whether another process has a lock that it has not had for long."""
        if self.broken or "locked" not in str(error):
            return False
        now = time.monotonic()
        self._locked_since = self._locked_since or now
        return now - self._locked_since < _BUSY_S

    def _give_up(self, error: Exception) -> None:
        """Let what has finished wait in memory; the file is opened anew when it is tried again."""
        if self._writer is not None:
            self._writer.close()
        self._writer = self._locked_since = None
        self._hold([row for row, _ in self._finished], _reason(error))
        self._settle()

    def _make_checkpoint(self) -> None:
        """Move what is committed to its place in the file; what cannot be moved now is left to the next one."""
        there = f"{self.path.absolute().as_uri()}?mode=rw"
        try:
            with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(there, uri=True)) as db:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
                # The little that was committed meanwhile, while commits wait.
                self._ends_checkpoint = True
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            self._ends_checkpoint = False

    def _hold(self, rows: list[KeptCall], reason: str) -> None:
        """Let rows wait in memory, while there is room, and say so once."""
        if not self.broken:
            self._warn(
                f"warning: the journal {self.path} cannot be written: {reason}; "
                "finished calls wait in memory until it can, and are lost where this run ends before"
            )
        self.broken = reason
        for row in rows:
            if self._waiting_bytes + len(row.body) > WAITING_BYTES:
                if not self._lost:
                    self._warn(f"warning: {WAITING_BYTES >> 20} MiB wait for the journal; what comes now is not kept")
                self._lost += 1
            else:
                self._waiting[row.key] = row
                self._waiting_bytes += len(row.body)


def count_before(path: Path, before_s: float) -> int:
    """Return how many finished calls are older than a moment, in seconds since the epoch.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with contextlib.closing(_open_to_read(path)) as db:
            [count] = db.execute("SELECT count(*) FROM completion WHERE created_s < ?", (before_s,)).fetchone()
    except (sqlite3.Error, OSError) as error:
        raise UsageError(f"journal {path}: cannot be read: {_reason(error)}", code="journal") from error
    return int(count)


def forget_before(path: Path, before_s: float) -> tuple[int, str | None]:
    """Forget the finished calls that are older than a moment; other processes may use the journal meanwhile.

    Returns:
        How many went, and why the file keeps its size, where it does.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        with contextlib.closing(open_database(path)) as db:
            keys = db.execute("SELECT key FROM completion WHERE created_s < ?", (before_s,)).fetchall()
            for first in range(0, len(keys), _AT_ONCE):
                # A few at a time: whoever has bought a call waits for its turn to write it.
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    "DELETE FROM completion WHERE key = ? AND created_s < ?",
                    [(key, before_s) for (key,) in keys[first : first + _AT_ONCE]],
                )
                db.execute("COMMIT")
            try:
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:
                return len(keys), _reason(error)
            return len(keys), None
    except (sqlite3.Error, OSError) as error:
        raise UsageError(f"journal {path}: cannot be written: {_reason(error)}", code="journal") from error


def _end_lease(db: sqlite3.Connection, row: KeptCall) -> None:
    """Keep a call that was bought under a lease, which ends; whoever comes late takes nobody's place."""
    ends_s = time.time() + DONE_S
    mark = "UPDATE lease SET done = 1, ends_s = ? WHERE key = ? AND fence = ? AND done = 0"
    in_time = db.execute(mark, (ends_s, row.key, row.fence)).rowcount
    db.execute(_KEEP if in_time else _KEEP_WHERE_NONE_IS, row[:5])


def _reason(error: Exception) -> str:
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return said if said and isinstance(error, sqlite3.Error | OSError) else f"{type(error).__name__}: {said}"


class _Locked(sqlite3.OperationalError):
    """Somebody holds the file for themselves; `db` works once they do no longer."""

    def __init__(self, db: sqlite3.Connection, error: Exception) -> None:
        super().__init__(str(error))
        self.db = db


def open_database(path: Path, busy_s: float = _BUSY_S) -> sqlite3.Connection:
    """Open the file, whose lock is waited for so long; several processes may be making it at the same moment."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    give_up = time.monotonic() + busy_s
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute(_SCHEMA)
        except sqlite3.Error as error:
            # Switching to write-ahead mode does not wait for other processes by itself.
            if "locked" in str(error) and time.monotonic() < give_up:
                time.sleep(0.01)
                continue
            if "locked" in str(error):
                raise _Locked(db, error) from error
            db.close()
            raise
        return db


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Open a journal that may lie where nothing can be written: on a disc, in somebody else's folder."""
    try:
        return open_database(path)
    except _Locked:
        raise
    except (sqlite3.Error, OSError):
        # Without leave to write beside it, SQLite reads a file in write-ahead mode only where it never changes.
        db = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)
        try:
            db.execute("SELECT 1 FROM completion LIMIT 1")
        except sqlite3.Error:
            db.close()
            raise
        return db


def open_journal(given: Mapping[str, Any], warn: Callable[[str], None]) -> Journal | None:
    """Open the journal that the options name; None where nothing is to be kept.

    A default journal that cannot be written is warned about, for the answers do not depend on it; a journal that was
    asked for by name, or is to be read, must open.

    Args:
        given: the options of `JournalOptions` that somebody chose.
        warn: says to a person what goes wrong and does not stop the run.
    """
    options = JournalOptions(**given)
    if options.no_journal:
        if options.replay or options.offline or options.journal:
            raise UsageError("--no-journal contradicts --replay, --offline and --journal")
        return None
    try:
        path = Path(options.journal) if options.journal else default_path()
        journal = Journal(path, warn, read_only=options.offline)
        if journal.broken and (options.replay or options.offline):
            raise UsageError(f"journal {path}: cannot be read: {journal.broken}", code="journal")
        return journal
    except UsageError as error:
        if options.journal or options.replay or options.offline:
            raise
        warn(f"warning: {error.message}; going on without it")
        return None
