"""Keep every finished call on disk under what was asked: nothing that was paid for is paid for twice.

A SQLite file in write-ahead mode, shared by all processes of a user. Writes go through one thread that commits
whatever has piled up in one transaction; a call counts as finished only once it is committed, so `kill -9` loses at
most the calls in flight. Reads are by primary key and take microseconds, so they happen where they are asked for.
Written by hand over sqlite3, because no cache on disk known to us commits in batches before a call counts as finished.
"""

from __future__ import annotations

import asyncio
import hashlib
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
from fusiontools.record import jsonl

_SCHEMA = """
CREATE TABLE IF NOT EXISTS completion (
    key BLOB PRIMARY KEY, created_s REAL NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, body BLOB NOT NULL
) WITHOUT ROWID
"""
_KEPT = (
    *("content", "model", "finish_reason", "tool_calls", "reasoning", "reasoning_details", "usage", "cost_usd"),
    *("mean_logprob", "unmet"),
)
_BUSY_S = 30.0


def default_path() -> Path:
    """Return the journal's place in the XDG state directory."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "fusiontools" / "journal.db"


def request_key(request: CompletionRequest, identity: str, epoch: int = 0) -> bytes:
    """Return what a request is stored under: everything that decides its answer, and where it was asked.

    Args:
        epoch: which repetition of the question it belongs to; each is asked anew.
    """
    asked = [identity, request.model, request.messages, request.params, request.sample]
    if epoch:
        asked.append(epoch)
    return hashlib.sha256(jsonl.canonical(asked)).digest()[:16]


class Journal:
    """An open journal. Every method may be called from the event loop only.

    Args:
        path: the SQLite file; its folder is made.

    Raises:
        UsageError: the file cannot be opened for writing, or is no journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken: str | None = None
        self._queue: queue.SimpleQueue[tuple[tuple[Any, ...], asyncio.Future[None] | None] | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = _open(path)
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(f"journal {path}: cannot be written: {reason}", code="journal") from error

    def get(self, key: bytes) -> tuple[Completion, float | None] | None:
        """Return a finished call and what it cost, or None."""
        try:
            row = self._db.execute("SELECT body FROM completion WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self.broken = str(error)
            return None
        if row is None:
            return None
        body = jsonl.loads(row[0])
        return Completion(**{name: body[name] for name in _KEPT if name in body}), body.get("paid_usd")

    async def put(self, key: bytes, request: CompletionRequest, completion: Completion, paid_usd: float | None) -> None:
        """Keep a finished call; returns when it is safe on disk, or when the disk refuses (see `broken`)."""
        if self.broken:
            return
        body = {name: value for name in _KEPT if (value := getattr(completion, name)) is not None}
        if paid_usd is not None:
            body["paid_usd"] = paid_usd
        row = (key, time.time(), request.endpoint, request.model, jsonl.dumps(body))
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
            self._writer.start()
        self._queue.put((row, done))
        await done

    def close(self) -> None:
        """Finish the writes under way and close the file."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join(timeout=5)
        self._db.close()

    def _write(self) -> None:
        db: sqlite3.Connection | None = None
        try:
            db = _open(self.path)
        except (sqlite3.Error, OSError) as error:
            self.broken = str(error)
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            items = [item for item in batch if item is not None]
            if items and db is not None:
                self._commit(db, [row for row, _ in items])
            _resolve([done for _, done in items if done is not None])
            if len(items) < len(batch):
                if db is not None:
                    db.close()
                return

    def _commit(self, db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
        try:
            with db:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("INSERT OR REPLACE INTO completion VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            # The answers themselves go on in the records; the caller says once that they are not journalled.
            self.broken = str(error)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    """Wake the calls that wait for this commit: one wake-up of the loop for the whole batch."""

    def wake() -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    # A loop that has closed has nobody left to tell.
    if futures and not (loop := futures[0].get_loop()).is_closed():
        loop.call_soon_threadsafe(wake)


def _open(path: Path) -> sqlite3.Connection:
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
        except sqlite3.OperationalError as error:
            # Switching to write-ahead mode does not wait for other processes by itself.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
        else:
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
        return Journal(Path(options.journal) if options.journal else default_path())
    except UsageError as error:
        if options.journal or options.replay or options.offline:
            raise
        warn(f"warning: {error.message}; going on without it")
        return None
