"""Keep every finished call on disk under what was asked: nothing that was paid for is paid for twice.

A SQLite file in write-ahead mode, shared by all processes of a user. Writes go through one thread that commits
whatever has piled up in one transaction; a call counts as finished only once it is committed, so `kill -9` loses at
most the calls in flight. Reads are by primary key and take microseconds, so they happen where they are asked for.
A file that cannot be written (a full disk, somebody's lock) stops nobody: it is said at once, finished calls wait in
memory, up to a bound, and each that follows, or a second, has the writer try again.
Written by hand over sqlite3, because no cache on disk known to us commits in batches before a call counts as finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fusiontools.config.stage_table import JournalOptions
from fusiontools.errors import UsageError
from fusiontools.llm.completion import Completion, CompletionRequest
from fusiontools.llm.state.store import DONE_S, Found, KeptCall, KeptCalls, Lease
from fusiontools.record import jsonl

_SCHEMA = """
CREATE TABLE IF NOT EXISTS completion (
    key BLOB PRIMARY KEY, created_s REAL NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID
"""
_KEEP = "INSERT OR REPLACE INTO completion VALUES (?, ?, ?, ?, ?)"
_KEEP_WHERE_NONE_IS = "INSERT OR IGNORE INTO completion VALUES (?, ?, ?, ?, ?)"
#: What is kept of a completion, and the kinds of value that it may have.
_KEPT: Mapping[str, tuple[type, ...]] = {
    "content": (str,),
    "model": (str,),
    "finish_reason": (str,),
    "tool_calls": (list,),
    "reasoning": (str,),
    "reasoning_details": (list,),
    "usage": (dict,),
    "cost_usd": (int, float),
    "mean_logprob": (int, float),
    "lowest_window_logprob": (int, float),
    "unmet": (str,),
    "sources": (list,),
    "native": (list,),
}
#: How long a lock is waited for before it is said.
_BUSY_S = 2.0
_RETRY_S = 1.0
#: How much waits in memory for a file that cannot be written.
WAITING_BYTES = 64 * 2**20
#: So many entries go in one transaction, where old ones are forgotten.
_FORGOTTEN_AT_ONCE = 500


def default_path() -> Path:
    """Return the journal's place in the XDG state directory."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "fusiontools" / "journal.db"


def folder_of(journal: KeptCalls) -> Path:
    """Return the folder where a run keeps what goes with its journal."""
    return journal.path.parent if isinstance(journal, Journal) else default_path().parent


def request_key(request: CompletionRequest, identity: str, epoch: int = 0) -> bytes:
    """Return what a request is stored under: everything that decides its answer, and where it was asked.

    Args:
        epoch: which repetition of the question it belongs to; each is asked anew.
    """
    asked = [identity, request.model, request.messages, request.params, request.sample]
    if epoch:
        asked.append(epoch)
    told = jsonl.canonical(asked)
    for mark in request.marks:
        # Who replays a journal that another installation wrote makes other marks around the same texts.
        told = told.replace(mark.encode(), b"")
    return hashlib.sha256(told).digest()[:16]


class Journal:
    """An open journal in a file. Every method may be called from the event loop only.

    Args:
        path: the SQLite file; its folder is made.
        warn: told in words what goes wrong, from any thread; a logger by default.
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
        self._queue: queue.SimpleQueue[tuple[KeptCall, asyncio.Future[None] | None] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        #: Finished calls that wait for the file, the writer's own; others only look.
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
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
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
        row = kept_call(key, request, completion, paid_usd, lease)
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
            self._writer.start()
        if self.broken:
            self._queue.put((row, None))
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((row, done))
        await done

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Finish the writes under way and close the file."""
        self.close(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Finish the writes under way and close the file; what then still waits is said to be lost."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join(timeout_s)
            self._writer = None
        if lost := self._lost + len(self._waiting):
            self._lost, self._waiting = 0, {}
            self._warn(f"warning: {lost} finished calls are not in the journal {self.path}: {self.broken}")
        self._db.close()

    def _write(self) -> None:
        db: sqlite3.Connection | None = None
        while True:
            batch = self._take()
            items = [item for item in batch if item is not None]
            if items or self._waiting:
                db = self._commit(db, [row for row, _ in items])
            _resolve([done for _, done in items if done is not None])
            if len(items) < len(batch):
                if db is not None:
                    db.close()
                return

    def _take(self) -> list[tuple[KeptCall, asyncio.Future[None] | None] | None]:
        """Return what has piled up; nothing where it is time to try again."""
        try:
            batch = [self._queue.get(timeout=_RETRY_S if self._waiting else None)]
        except queue.Empty:
            return []
        while not self._queue.empty():
            batch.append(self._queue.get())
        return batch

    def _commit(self, db: sqlite3.Connection | None, rows: list[KeptCall]) -> sqlite3.Connection | None:
        """Write what waits and these rows; returns the connection, None where it is to be opened anew."""
        try:
            db = db or open_database(self.path)
            with db:
                db.execute("BEGIN IMMEDIATE")
                everything = [*self._waiting.values(), *rows]
                db.executemany(_KEEP, [row[:5] for row in everything if row.fence is None])
                for row in everything:
                    if row.fence is not None:
                        _end_lease(db, row)
        except (sqlite3.Error, OSError) as error:
            for opened in (db, getattr(error, "db", None)):
                if opened is not None:
                    opened.close()
            self._hold(rows, _reason(error))
            return None
        if self.broken:
            self._waiting, self._waiting_bytes, self.broken = {}, 0, None
            self._warn(f"the journal {self.path} is written again, with the calls that waited for it")
        return db

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
            for first in range(0, len(keys), _FORGOTTEN_AT_ONCE):
                # A few at a time: whoever has bought a call waits for its turn to write it.
                db.execute("BEGIN IMMEDIATE")
                db.executemany(
                    "DELETE FROM completion WHERE key = ? AND created_s < ?",
                    [(key, before_s) for (key,) in keys[first : first + _FORGOTTEN_AT_ONCE]],
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


def kept_call(
    key: bytes, request: CompletionRequest, completion: Completion, paid_usd: float | None, lease: Lease | None
) -> KeptCall:
    """Return a finished call as it is kept."""
    body = {name: value for name in _KEPT if (value := getattr(completion, name)) not in (None, ())}
    if paid_usd is not None:
        body["paid_usd"] = paid_usd
    fence = None if lease is None else lease.fence
    return KeptCall(key, time.time(), request.endpoint, request.model, jsonl.dumps(body), fence)


def read_body(data: bytes) -> tuple[Completion, float | None]:
    """Return what an entry holds.

    Raises:
        KeyError, TypeError, ValueError: it is none of ours.
    """
    body = jsonl.loads(data)
    if type(body) is not dict:
        raise TypeError("no object")
    kept = {name: value for name, value in body.items() if name in _KEPT}
    for name, value in kept.items():
        if type(value) not in _KEPT[name]:
            raise TypeError(f"`{name}` is of no kind that is kept")
    return Completion(**kept), body.get("paid_usd")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    """Wake the calls that wait for this commit: one wake-up of the loop for the whole batch."""

    def wake() -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    # A loop that has closed has nobody left to tell.
    if futures and not (loop := futures[0].get_loop()).is_closed():
        loop.call_soon_threadsafe(wake)


class _Locked(sqlite3.OperationalError):
    """Somebody holds the file for themselves; `db` works once they do no longer."""

    def __init__(self, db: sqlite3.Connection, error: Exception) -> None:
        super().__init__(str(error))
        self.db = db


def open_database(path: Path) -> sqlite3.Connection:
    """Open the file; several processes may be making it at the same moment."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    give_up = time.monotonic() + _BUSY_S
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
