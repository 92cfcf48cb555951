"""What this installation keeps on disk: how much it is, and how it is removed while other processes may use it.

Finished calls are deleted inside the journal, so whoever has it open goes on with the same file. A day of the log and
a session are files: a day is never written again once it is over, a session that is open is locked and left alone.
Weights may be removed while an engine has them mapped, and are fetched anew by the next one; while somebody fetches
them they are left alone.
"""

from __future__ import annotations

import calendar
import contextlib
import fcntl
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from fusiontools.config.api_keys import keys_file
from fusiontools.llm.journal import count_before, default_path, forget_before
from fusiontools.llm.weights import PACKAGE, cache_dir
from fusiontools.runs.agent.work_copy import copies_of, remove_abandoned
from fusiontools.runs.run_log import day_files, log_dir
from fusiontools.runs.session import sessions_dir

JOURNAL, LOG, SESSIONS, WEIGHTS = "journal", "log", "sessions", "weights"
#: What can be removed, and what a person calls one thing of it, and several.
KINDS = {
    JOURNAL: ("finished call in the journal", "finished calls in the journal"),
    LOG: ("day of the log", "days of the log"),
    SESSIONS: ("session", "sessions"),
    WEIGHTS: ("file of weights", "files of weights"),
}
#: What goes by age; weights are as good as they were.
AGING = (JOURNAL, LOG, SESSIONS)
_DAY_S = 86_400
#: Whoever writes holds the file's lock, and would go on in one without a name: in a session for long, in the log for a
#: moment.
_LOCKS = {SESSIONS: fcntl.LOCK_EX | fcntl.LOCK_NB, LOG: fcntl.LOCK_EX}
#: What goes with a session: a torn end, the turn under way, work that was not kept.
_BESIDE = (".torn", ".turn", ".patch")


class Kept(Struct, frozen=True):
    """One kind of what is kept.

    Args:
        count: of sessions, days and files; None of the journal's calls, which take long to count.
    """

    kind: str
    path: Path
    size_bytes: int
    count: int | None


class Removed(Struct, frozen=True):
    """What went: how many things, and in words what did not, and why."""

    count: int
    left: tuple[str, ...] = ()


def what_is_kept() -> list[Kept]:
    """Return every kind and what it takes; what is never removed here comes last, as `other`."""
    found = [Kept(JOURNAL, default_path(), sum(map(_size, _journal_files())), None)]
    for kind, folder in ((LOG, log_dir()), (SESSIONS, sessions_dir()), (WEIGHTS, cache_dir())):
        files = _files(kind)
        found.append(Kept(kind, folder, sum(map(_size, files)), len([f for f in files if f.suffix not in _BESIDE])))
    if copies := copies_of(sessions_dir()):
        found.append(Kept("copies", copies[0].parent, sum(_size(p) for c in copies for p in _below(c)), len(copies)))
    counted = {path for kind in KINDS for path in _files(kind)} | {*_journal_files()}
    others = [path for path in (*_below(default_path().parent), keys_file()) if path not in counted]
    return [*found, Kept("other", default_path().parent, sum(map(_size, others)), sum(map(_exists, others)))]


def count_older(kind: str, before_s: float) -> int:
    """Return how many things of a kind would go.

    Args:
        before_s: what was last used before this moment, in seconds since the epoch; infinite for all.

    Raises:
        UsageError: the journal cannot be read.
    """
    if kind == JOURNAL:
        return count_before(default_path(), before_s) if default_path().exists() else 0
    return sum(1 for path in _files(kind) if path.suffix not in _BESIDE and _used_s(kind, path) < before_s)


def remove_older(kind: str, before_s: float) -> Removed:
    """Remove what was last used before a moment; what is in use stays.

    Raises:
        UsageError: the journal cannot be written.
    """
    if kind == JOURNAL:
        if not default_path().exists():
            return Removed(0)
        count, why = forget_before(default_path(), before_s)
        room = f"the file keeps its size ({why}); what comes next takes the room" if why and count else None
        return Removed(count, (room,) if room else ())
    count, left = 0, []
    with _nobody_fetches() if kind == WEIGHTS else contextlib.nullcontext(True) as free:
        if not free:
            return Removed(0, ("somebody is fetching the model",))
        for path in _files(kind):
            if _used_s(kind, path) < before_s:
                why_not = _remove(path, _LOCKS.get(kind, 0))
                if why_not is None:
                    count += path.suffix not in _BESIDE
                else:
                    left.append(f"{path.name}: {why_not}")
    if kind == SESSIONS:
        # A copy of a project goes with the session that worked in it.
        remove_abandoned()
    return Removed(count, tuple(left))


def _remove(path: Path, lock: int) -> str | None:
    """Remove a file; return why it stays, where it does."""
    try:
        with path.open("rb") as file:
            if lock:
                fcntl.flock(file, lock)
            path.unlink()
    except BlockingIOError:
        return "it is in use"
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or "it cannot be removed"
    return None


@contextlib.contextmanager
def _nobody_fetches() -> Iterator[bool]:
    """Give whether nobody fetches weights now; nobody begins to while this is open."""
    try:
        with (cache_dir() / "fetch.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
    except FileNotFoundError:
        yield True  # nobody has ever fetched any


def _used_s(kind: str, path: Path) -> float:
    """Return when a file was last used; of a day, when it was over."""
    if kind == LOG:
        return calendar.timegm(time.strptime(path.stem, "%Y-%m-%d")) + _DAY_S
    try:
        return path.stat().st_mtime
    except OSError:
        return math.inf


def _files(kind: str) -> list[Path]:
    if kind == LOG:
        return day_files()
    if kind == SESSIONS:
        return [path for path in _below(sessions_dir()) if path.suffix in (".jsonl", *_BESIDE)]
    return [path for path in _below(cache_dir() / PACKAGE) if path.suffix == ".gguf"] if kind == WEIGHTS else []


def _journal_files() -> list[Path]:
    path = default_path()
    return [path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")]


def _below(folder: Path) -> list[Path]:
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]


def _exists(path: Path) -> bool:
    return path.exists()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
