"""Past runs, kept where the user has said so: each question with its answer, its recipe and what it cost.

    keep_run(record, "fuse-ask")
    for run in past_runs(): ...                      # newest first

A run is a question that got its answer, or failed for good: each one of `fuse-ask`, and each record to which a filter
gives its answer. Lines of JSON, a file for each day: a day that is over is never written again, so it can be removed
while others run. Several processes write to the day's file, each line whole and under the file's lock. A line that a
crash has torn is left out.

Nothing is kept unless `FUSION_LOG` or a recipe says so: the texts stand in it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.errors import InputError, UsageError
from fusiontools.llm.journal import default_path
from fusiontools.llm.ledger import Spending
from fusiontools.record import jsonl
from fusiontools.record.sections import question_text
from fusiontools.record.types import Record
from fusiontools.runs.session import CHAT, CODE, LAST, SessionFile, list_sessions, open_session, write_line


class PastRun(Struct, frozen=True):
    """A run, or a whole session, as it was kept.

    Args:
        at_s: when it ended, in seconds since the epoch.
        tool: which one gave the answer.
        records: one for a run, one for each turn of a session.
    """

    id: str
    at_s: float
    tool: str
    records: tuple[Record, ...]

    @property
    def question(self) -> str:
        """What was asked, of a session first; on one line."""
        return " ".join(question_text(self.records[0]).split()) if self.records else ""

    @property
    def recipe(self) -> str:
        """What the recipe is called; empty where the record does not say."""
        named: Any = self.records[-1].get("recipe") if self.records else None
        return str(named.get("name", "")) if isinstance(named, Mapping) else ""

    @property
    def spending(self) -> Spending:
        """What all of its calls come to."""
        return Spending.of(call for record in self.records for call in record.get("calls", []))

    @property
    def failure(self) -> str | None:
        """Why there is no answer, as a code; None where there is one."""
        error = self.records[-1].get("error") if self.records else None
        return str(error["code"]) if error else None

    def has_words(self, words: tuple[str, ...]) -> bool:
        """Return whether all of these stand in its questions and answers, whatever their case."""
        texts = (part for r in self.records for part in (question_text(r), r.get("answer", {}).get("content") or ""))
        said = "\n".join(texts).casefold()
        return all(word.casefold() in said for word in words)


def log_dir() -> Path:
    """Return where past runs are kept: beside the journal, in the XDG state directory."""
    return default_path().parent / "log"


def keep_run(record: Record, tool: str) -> None:
    """Keep a run; its line is in the file when this returns.

    Raises:
        OSError: it cannot be written.
    """
    now = time.time()
    entry = {"id": secrets.token_hex(4), "at_s": round(now, 3), "tool": tool, "record": record}
    path = log_dir() / f"{time.strftime('%Y-%m-%d', time.gmtime(now))}.jsonl"
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = _open_locked(path)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        write_line(fd, b"\n" * torn + jsonl.dumps(entry) + b"\n", path)
    finally:
        os.close(fd)


def _open_locked(path: Path) -> int:
    """Return a day's file, locked; somebody may remove one while it is waited for."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)


def past_runs(since_s: float = 0.0, texts: Sequence[str] = ()) -> Iterator[PastRun]:
    """Yield the runs since then and the sessions that were used since, newest first.

    Args:
        texts: only of what may hold these somewhere, whatever their case; what cannot is not read, which is a hundred
            times as fast.
    """
    sessions = iter([each for each in list_sessions() if each.modified >= since_s])
    session = next(sessions, None)
    for run in _logged_runs(since_s, texts):
        while session is not None and session.modified > run.at_s:
            yield from _as_run(session)
            session = next(sessions, None)
        yield run
    while session is not None:
        yield from _as_run(session)
        session = next(sessions, None)


def find_run(run_id: str) -> PastRun:
    """Return the run with this id or an id that begins so, a session, or the last run of the record with this id.

    Raises:
        UsageError: there is none, or several begin so.
    """
    begun: dict[str, PastRun] = {}
    of_record: PastRun | None = None
    for run in past_runs(texts=[run_id]):
        if run.id == run_id:
            return run
        if run.id.startswith(run_id):
            begun[run.id] = run
        if of_record is None and any(record["id"] == run_id for record in run.records):
            of_record = run
    if len(begun) > 1:
        raise UsageError(f"{run_id!r}: {len(begun)} runs begin so: {', '.join([*begun][:5])}")
    if begun or of_record is not None:
        return of_record if of_record is not None else next(iter(begun.values()))
    raise UsageError(f"{run_id!r}: no run and no session begins so; `fuse-log` lists them")


def day_files() -> list[Path]:
    """Return the files of the log, the newest day first."""
    return sorted(log_dir().glob("????-??-??.jsonl"), reverse=True)


def _logged_runs(since_s: float, texts: Sequence[str]) -> Iterator[PastRun]:
    # As they stand in a line, between the quotes.
    spelled = [jsonl.dumps(text)[1:-1].decode().casefold() for text in texts]
    first_day = time.strftime("%Y-%m-%d", time.gmtime(since_s))
    for path in day_files():
        if path.stem < first_day:
            return
        for line in _last_lines_first(path):
            if spelled:
                said = line.decode(errors="replace").casefold()
                if not all(text in said for text in spelled):
                    continue
            run = _run_of(line)
            if run is not None and run.at_s >= since_s:
                yield run


def _last_lines_first(path: Path) -> Iterator[bytes]:
    """Yield a file's lines, the last one first, without reading what nobody asks for."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                end = len(data)
                while end > 0:
                    begin = data.rfind(b"\n", 0, end - 1) + 1
                    yield data[begin:end]
                    end = begin
    except FileNotFoundError:
        return  # it has just been removed


def _run_of(line: bytes) -> PastRun | None:
    """Return the run of a line; None of one that is torn."""
    try:
        entry = jsonl.loads(line)
        record = entry["record"]
        return PastRun(str(entry["id"]), float(entry["at_s"]), str(entry["tool"]), (jsonl.parse(jsonl.dumps(record)),))
    except (InputError, ValueError, KeyError, TypeError):
        return None


def _as_run(session: SessionFile) -> Iterator[PastRun]:
    tool = {CHAT: "fuse-chat", CODE: "fuse-code"}.get(session.kind, session.kind)
    try:
        records = open_session(str(session.path), read_only=True).records
    except UsageError:
        return  # it has just been removed
    # A single question is kept to go on from, not because somebody wanted its text kept.
    if len(records) > (session.id == LAST):
        yield PastRun(session.id, session.modified, tool, tuple(records))
