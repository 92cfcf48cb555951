"""What is known of batch jobs and of the calls in them, on disk beside the journal: a machine may be switched off.

A SQLite file. A job is noted before anything of it leaves (`made`), again before it is created (`creating`), and with
the provider's id (`open`). Whoever finds one that was left in between knows how far it may have come. What a call
brought is kept as it came until the record that asked reads it into the journal.

What a change makes of the file depends on the file and on what the change is told, and on nothing else: so files that
hear of the same changes in the same order hold the same.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from fusiontools.errors import CallFailed, UsageError
from fusiontools.record import jsonl

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, place TEXT NOT NULL, model TEXT NOT NULL, state TEXT NOT NULL,
    calls INTEGER NOT NULL, tokens INTEGER NOT NULL, made_s REAL NOT NULL, remote TEXT, guessed INTEGER NOT NULL,
    cancelled_s REAL, absent_s REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS call (
    key BLOB PRIMARY KEY, job TEXT NOT NULL, line INTEGER NOT NULL, state TEXT NOT NULL, asked_s REAL NOT NULL,
    sent BLOB NOT NULL, bound_usd REAL NOT NULL, status INTEGER, body BLOB, failures BLOB NOT NULL,
    paid_usd REAL, source TEXT, latency_s REAL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS call_of_job ON call (job);
CREATE TABLE IF NOT EXISTS queue (
    place TEXT NOT NULL, model TEXT NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (place, model)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS strange (remote TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heard (number INTEGER NOT NULL);
INSERT INTO heard SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM heard);
"""
_BUSY_S = 30.0
#: How soon somebody who waits for another process looks again.
_LOOK_S = 0.05
#: How long what is over is remembered: so long it says what a call has cost.
_KEPT_S = 31 * 86_400
#: How long an answer is kept beside the journal, which a power cut may set back a little.
_READ_S = 3 * 86_400
JobState = Literal["made", "creating", "open", "ended"]
CallState = Literal["open", "answered", "bought", "failed"]


class BatchJob(Struct, frozen=True):
    """One job at one endpoint for one model.

    Args:
        id: ours, by which the provider is asked for it.
        place: the endpoint's identity.
        made_s: Unix time at which it was noted.
        remote: the provider's id.
        guessed: that id was found by the job's size and time alone, for want of a name.
        cancelled_s: when it was told to end.
        absent_s: since when its provider does not know it.
    """

    id: str
    endpoint: str
    place: str
    model: str
    calls: int
    tokens: int
    made_s: float
    state: JobState = "made"
    remote: str = ""
    guessed: bool = False
    cancelled_s: float | None = None
    absent_s: float | None = None


class NewCall(Struct, frozen=True):
    """A call that goes into a job: under the journal's key, and by what it may cost; `sent` tells its body apart."""

    key: bytes
    sent: bytes
    bound_usd: float


class KnownCall(Struct, frozen=True):
    """What is known of a call.

    Args:
        line: its place in the job, from 1.
        asked_s: when it was first put into a job.
        status: that of the answer, as HTTP has it; 0 where the job ended without one.
        body: the answer, until it has long been read.
        failures: what came of it before, oldest first.
        source: how it is known what it has cost.
    """

    key: bytes
    job: str
    line: int
    state: CallState
    asked_s: float
    sent: bytes
    bound_usd: float
    status: int | None
    body: bytes | None
    failures: tuple[Mapping[str, Any], ...]
    paid_usd: float | None
    source: str | None
    latency_s: float | None


class JobFile:
    """The open file.

    Raises:
        UsageError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            self._db = _open(path)
            self._forget_old()
        except (sqlite3.Error, OSError) as error:
            raise UsageError(f"{path}, where batch jobs are noted, cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def find(self, key: bytes) -> KnownCall | None:
        """Return what is known of a call."""
        row = self._db.execute("SELECT * FROM call WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        known = KnownCall(*row)
        return replace(known, failures=tuple(jsonl.loads(known.failures)))  # type: ignore[arg-type]

    def jobs(self, *states: JobState) -> list[BatchJob]:
        """Return the jobs in these states, oldest first."""
        marks = ",".join("?" * len(states))
        query = f"SELECT * FROM job WHERE state IN ({marks}) ORDER BY made_s"  # noqa: S608 - question marks
        return [_job_of(row) for row in self._db.execute(query, states)]

    def job(self, job_id: str) -> BatchJob | None:
        """Return one job."""
        row = self._db.execute("SELECT * FROM job WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job_of(row)

    def make(self, job: BatchJob, calls: Sequence[NewCall]) -> bool:
        """Note a job and its calls, before anything of it leaves; False, and nothing, where one is in a job already."""
        taken = "SELECT 1 FROM call WHERE key = ? AND state = 'open'"
        with self._transaction():
            if any(self._db.execute(taken, (call.key,)).fetchone() for call in calls):
                return False
            row = (job.id, job.endpoint, job.place, job.model, "made", job.calls, job.tokens, job.made_s)
            self._db.execute("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, 0, NULL, NULL)", row)
            self._db.executemany(
                "INSERT INTO call VALUES (?, ?, ?, 'open', ?, ?, ?, NULL, NULL, '[]', NULL, NULL, NULL) "
                "ON CONFLICT (key) DO UPDATE SET job = excluded.job, line = excluded.line, state = 'open', "
                "sent = excluded.sent, bound_usd = excluded.bound_usd, status = NULL, body = NULL, paid_usd = NULL, "
                # What was bought once and has gone from the journal begins anew.
                "failures = CASE state WHEN 'bought' THEN '[]' ELSE failures END, "
                "asked_s = CASE state WHEN 'bought' THEN excluded.asked_s ELSE asked_s END",
                [
                    (call.key, job.id, line, job.made_s, call.sent, call.bound_usd)
                    for line, call in enumerate(calls, start=1)
                ],
            )
            return True

    def set_job(self, job: BatchJob, /, **values: Any) -> None:
        """Change what is noted of a job."""
        names = ", ".join(f"{name} = ?" for name in values)
        with self._transaction(durable=True):
            self._db.execute(f"UPDATE job SET {names} WHERE id = ?", (*values.values(), job.id))  # noqa: S608 - our names

    def drop(self, job: BatchJob) -> float:
        """Forget a job that was never created: its calls are as they were before. Returns what they might have cost."""
        query = "SELECT SUM(bound_usd) FROM call WHERE job = ?"
        bound_usd = float(self._db.execute(query, (job.id,)).fetchone()[0] or 0.0)
        with self._transaction():
            # Those that failed in an earlier job have that to be remembered.
            self._db.execute("UPDATE call SET state = 'failed' WHERE job = ? AND failures != '[]'", (job.id,))
            self._db.execute("DELETE FROM call WHERE job = ? AND failures = '[]'", (job.id,))
            self._db.execute("DELETE FROM job WHERE id = ?", (job.id,))
        return bound_usd

    def answer(self, job: BatchJob, answers: Iterable[tuple[bytes, int, bytes]]) -> int:
        """Keep what came of calls, as (key, status, body); returns how many of them the job has."""
        with self._transaction():
            return sum(
                self._db.execute(
                    "UPDATE call SET state = 'answered', status = ?, body = ? WHERE key = ? AND job = ? "
                    "AND state IN ('open', 'answered')",
                    (status, body, key, job.id),
                ).rowcount
                for key, status, body in answers
            )

    def end(self, job: BatchJob, left: Sequence[tuple[bytes, int, bytes]]) -> None:
        """Note that a job is over, with what became of the calls that it did not answer."""
        with self._transaction():
            self._db.executemany(
                "UPDATE call SET state = 'answered', status = ?, body = ? WHERE key = ? AND state = 'open'",
                [(status, body, key) for key, status, body in left],
            )
            self._db.execute("UPDATE job SET state = 'ended' WHERE id = ?", (job.id,))

    def unanswered(self, job: BatchJob) -> list[tuple[bytes, int]]:
        """Return the calls of a job of which nothing has come, each with its line."""
        query = "SELECT key, line FROM call WHERE job = ? AND state = 'open' ORDER BY line"
        return self._db.execute(query, (job.id,)).fetchall()

    def set_bought(
        self, key: bytes, job: str, paid_usd: float | None, source: str | None, latency_s: float, now_s: float
    ) -> bool:
        """Note that a call is in the journal, and what it has cost; returns whether that is news.

        Args:
            job: empty where it was bought at once.
        """
        with self._transaction():
            row = self._db.execute("SELECT state FROM call WHERE key = ?", (key,)).fetchone()
            self._db.execute(
                "INSERT INTO call VALUES (?, ?, 0, 'bought', ?, '', 0, NULL, NULL, '[]', ?, ?, ?) ON CONFLICT (key) DO "
                "UPDATE SET state = 'bought', paid_usd = excluded.paid_usd, source = excluded.source, "
                "latency_s = excluded.latency_s",
                (key, job, now_s, paid_usd, source, latency_s),
            )
            return row is None or row[0] != "bought"

    def set_failed(self, key: bytes, failures: Sequence[Mapping[str, Any]]) -> bool:
        """Note that a call has failed, with all that came of it until now; False where it waits for that no more."""
        query = (
            "UPDATE call SET state = 'failed', body = NULL, failures = ? WHERE key = ? "
            "AND state IN ('answered', 'bought')"
        )
        with self._transaction():
            return self._db.execute(query, (jsonl.dumps(list(failures)), key)).rowcount == 1

    def forget(self, keys: Iterable[bytes]) -> None:
        """Forget calls that have failed for good: who asks for them again has them sent anew."""
        with self._transaction():
            self._db.executemany("DELETE FROM call WHERE key = ? AND state = 'failed'", [(key,) for key in keys])

    def queue_tokens(self, place: str, model: str) -> int | None:
        """Return how many tokens of prompts may wait at an endpoint for a model, where it has once refused more."""
        row = self._db.execute("SELECT tokens FROM queue WHERE place = ? AND model = ?", (place, model)).fetchone()
        return None if row is None else int(row[0])

    def learn_queue(self, job: BatchJob) -> None:
        """Note that a job was longer than may wait: the next ones are half of it."""
        tokens = max(1, job.tokens // 2)
        self._db.execute("INSERT OR REPLACE INTO queue VALUES (?, ?, ?)", (job.place, job.model, tokens))

    def is_strange(self, remote: str) -> bool:
        """Return whether a provider's job is none of ours, or another one of ours."""
        query = "SELECT 1 FROM strange WHERE remote = ? UNION SELECT 1 FROM job WHERE remote = ?"
        return self._db.execute(query, (remote, remote)).fetchone() is not None

    def disown(self, job: BatchJob) -> None:
        """Note that the provider's job which was taken for this one is none of ours."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO strange VALUES (?)", (job.remote,))
            self._db.execute("UPDATE job SET state = 'creating', remote = NULL, guessed = 0 WHERE id = ?", (job.id,))

    @property
    def heard(self) -> int:
        """The number of the last change that came from elsewhere."""
        return int(self._db.execute("SELECT number FROM heard").fetchone()[0])

    @contextmanager
    def hearing(self, number: int) -> Iterator[None]:
        """Make a change that came from elsewhere, and note its number with it."""
        with self._transaction():
            yield
            self._db.execute("UPDATE heard SET number = ?", (number,))

    @contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Write all of it or nothing, in one with what is under way; `durable` is what no power cut must take."""
        if self._db.in_transaction:
            yield
            return
        if durable:
            self._db.execute("PRAGMA synchronous=FULL")
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield
        if durable:
            self._db.execute("PRAGMA synchronous=NORMAL")

    def _forget_old(self) -> None:
        now = time.time()
        over = now - _KEPT_S
        with self._transaction():
            self._db.execute("UPDATE call SET body = NULL WHERE state = 'bought' AND asked_s < ?", (now - _READ_S,))
            self._db.execute(
                "DELETE FROM call WHERE asked_s < ? AND job NOT IN (SELECT id FROM job WHERE state != 'ended')", (over,)
            )
            self._db.execute("DELETE FROM job WHERE state = 'ended' AND made_s < ?", (over,))


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    give_up = time.monotonic() + _BUSY_S
    while True:
        try:
            db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)
            return db
        except sqlite3.OperationalError as error:
            # Switching to write-ahead mode does not wait for other processes by itself.
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(_LOOK_S)


def _job_of(row: Sequence[Any]) -> BatchJob:
    job_id, endpoint, place, model, state, calls, tokens, made_s, remote, guessed, cancelled_s, absent_s = row
    return BatchJob(
        job_id, endpoint, place, model, calls, tokens, made_s, state, remote or "", bool(guessed), cancelled_s, absent_s
    )


def kept_failure(failure: CallFailed) -> dict[str, Any]:
    """Return a failure as it is kept."""
    return {
        "code": failure.code,
        "message": failure.message,
        "status": failure.status,
        "retryable": failure.retryable,
        "usage": failure.usage,
    }


def failure_of(kept: Mapping[str, Any]) -> CallFailed:
    """Return a failure that was kept."""
    return CallFailed(
        kept["code"],
        kept["message"],
        status=kept["status"],
        retryable=kept["retryable"],
        usage=kept["usage"],
        cost_usd=kept["cost_usd"],
    )
