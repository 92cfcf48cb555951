"""A conversation kept as a file: a record for each turn, in their order, so that whatever reads records reads it.

    with new_session() as session:                   # the file appears with the first turn
        messages = session.ask("What is a CRDT?")    # what was said until now, then this
        session.append(record)                       # {"messages": messages, "answer": {…}, "calls": […], …}
    with open_session("3f9a") as session: ...        # an id or its beginning, a path, "" for the latest
    for found in list_sessions(): ...                # newest first; nothing is locked

Each record is whole: its `messages` are all that was sent for that turn, so `fuse-judge` or `fuse-synth` can go on
from any of them. The conversation goes on from the last record that has an answer: whoever asks a turn again, or
differently, appends another record. A turn without an answer stays in the file and is not sent on.

A file belongs to one process at a time. Each record is one write of a whole line. A process that was killed in the
midst of one leaves a torn line, which the next one puts aside, into `ID.torn`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from msgspec import Struct

from fusiontools.errors import InputError, UsageError
from fusiontools.llm.journal import default_path
from fusiontools.record import jsonl
from fusiontools.record.clean import clean
from fusiontools.record.sections import text_of
from fusiontools.record.types import Message, Record

#: Whose sessions there are: an id is `KIND-8 hex digits`.
CHAT, CODE = "chat", "code"
_SUFFIX = ".jsonl"
#: The session of a single question.
LAST = "chat-last"
_TITLE_CHARS = 72
#: So much of a file is read for its title: pictures make the first line long.
_HEAD_BYTES = 32 << 20


class SessionInUse(UsageError):
    """Another process has this session open."""


class SessionFile(Struct, frozen=True):
    """A session as a list shows it.

    Args:
        kind: `chat` or `code`; the part of its id before the dash.
        turns: lines in the file, a torn one left out.
        modified: when its last turn was added, in seconds since the epoch.
        title: how its first question begins, on one line; empty where that cannot be read.
    """

    id: str
    path: Path
    kind: str
    turns: int
    size_bytes: int
    modified: float
    title: str


class Session:
    """One conversation, open for more; close it, or use it in a `with`.

    `records` are its turns. `warnings` say in words what was found amiss in the file: what was torn, what is no record.
    """

    def __init__(self, path: Path, fd: int | None = None) -> None:
        self.path = path
        self.records: list[Record] = []
        self.warnings: list[str] = []
        self._fd = fd
        self._turns = 0

    @property
    def id(self) -> str:
        """What the session is called."""
        return self.path.name.removesuffix(_SUFFIX)

    @property
    def last(self) -> Record | None:
        """The last turn that was answered."""
        return next((record for record in reversed(self.records) if "answer" in record), None)

    @property
    def messages(self) -> list[Message]:
        """What was said, answers included, as the next turn sends it on."""
        return conversation(self.last)

    def ask(self, content: str | list[dict[str, object]]) -> list[Message]:
        """Return the messages of the next turn: the conversation, and this after it."""
        return [*self.messages, {"role": "user", "content": content}]

    def next_id(self) -> str:
        """Return the id of the record of the next turn, as no other record in the file has it."""
        return f"{self.id}-{self._turns + 1}"

    def append(self, record: Record) -> None:
        """Add a turn; it is in the file when this returns.

        Raises:
            OSError: there is no room for it, or no place. The file then ends as it did; the turn is in `records`
                all the same, so that the conversation goes on.
        """
        self.take(record)
        if self._fd is None:
            self._fd = _create(self.path)
        write_line(self._fd, jsonl.write(record), self.path)

    def take(self, record: Record | None) -> None:
        """Count a turn as said, without writing it; None is one that could not be read."""
        self._turns += 1
        if record is not None:
            self.records.append(record)

    def fork(self) -> Session:
        """Return a new session with the turns of this one; each goes on by itself."""
        forked = Session(_new_path(self.path.parent, self.id.partition("-")[0]))
        for record in self.records:
            forked.append(record)
        return forked

    def close(self) -> None:
        """Let others have the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_line(fd: int, line: bytes, path: Path) -> None:
    """Add a whole line to a file that this process has locked, in one write.

    Raises:
        OSError: there is no room for it; it names the file, which then ends as it did.
    """
    before = os.fstat(fd).st_size
    try:
        if os.write(fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        os.ftruncate(fd, before)
        raise OSError(error.errno, error.strerror, str(path)) from error


def conversation(record: Record | None) -> list[Message]:
    """Return what was said in a turn and before it, the answer at the end; nothing where there is no turn."""
    if record is None:
        return []
    answer = record["answer"]
    said: Message = {"role": "assistant", "content": answer["content"]}
    if answer.get("tool_calls"):
        said["tool_calls"] = answer["tool_calls"]
    return [*record["messages"], said]


def sessions_dir() -> Path:
    """Return where sessions are kept: beside the journal, in the XDG state directory."""
    return default_path().parent / "sessions"


def new_session(kind: str = CHAT, folder: Path | None = None) -> Session:
    """Return a session without turns; its file appears with the first one."""
    return Session(_new_path(folder or sessions_dir(), kind))


def open_session(
    which: str = "", kinds: Sequence[str] = (CHAT,), folder: Path | None = None, *, read_only: bool = False
) -> Session:
    """Return a session that is there.

    Args:
        which: its id or how that begins, with or without the kind; a path; the latest where it is empty.
        kinds: of which kinds it may be, where no path is given.
        read_only: to look at, not to go on with: nothing is locked or mended, and `append` is not for it.

    Raises:
        UsageError: there is none, several begin so, or it cannot be read.
        SessionInUse: another process has it open.
    """
    path = _find(which, kinds, folder or sessions_dir())
    try:
        fd = os.open(path, os.O_RDONLY if read_only else os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"session {path}: cannot be opened: {error.strerror}", code="session") from error
    with ExitStack() as until_open:
        session = until_open.enter_context(Session(path, fd))
        if not read_only:
            _lock(fd, session.id)
        try:
            _read(session, fd, mend=not read_only)
        except OSError as error:
            raise UsageError(f"session {path}: cannot be read: {error.strerror}", code="session") from error
        if not read_only:
            until_open.pop_all()
    return session


def keep_last(record: Record, folder: Path | None = None) -> None:
    """Keep a single question and its answer, until the next one, so that a person can go on from it.

    A conversation that has gone on from the one before is kept under a name of its own.

    Raises:
        OSError: it cannot be kept.
    """
    path = (folder or sessions_dir()) / f"{LAST}{_SUFFIX}"
    session = Session(path)
    if path.exists():
        try:
            with open_session(str(path)) as before:
                if len(before.records) > 1:
                    path.rename(_new_path(path.parent, CHAT))
                else:
                    path.unlink()
        except SessionInUse:
            return  # somebody goes on from it just now
    with session:
        session.append(record)


def list_sessions(kinds: Sequence[str] = (CHAT, CODE), folder: Path | None = None) -> list[SessionFile]:
    """Return the sessions of these kinds, the one that was used last first."""
    found = []
    for path, status in _paths(kinds, folder or sessions_dir()):
        name = path.name.removesuffix(_SUFFIX)
        try:
            with path.open("rb") as file:
                title = _title(file.readline(_HEAD_BYTES))
                file.seek(0)
                turns = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        except OSError:
            continue
        found.append(SessionFile(name, path, name.partition("-")[0], turns, status.st_size, status.st_mtime, title))
    return found


def _paths(kinds: Sequence[str], folder: Path) -> list[tuple[Path, os.stat_result]]:
    found = []
    for path in _files(folder):
        if path.name.partition("-")[0] in kinds:
            try:
                found.append((path, path.stat()))
            except OSError:
                continue  # it has just been removed
    return sorted(found, key=lambda each: (each[1].st_mtime_ns, each[0].name), reverse=True)


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.glob(f"*-*{_SUFFIX}")
    except OSError:
        return


def _find(which: str, kinds: Sequence[str], folder: Path) -> Path:
    if os.sep in which or which.endswith(_SUFFIX):
        return Path(which)
    paths = [path for path, _ in _paths(kinds, folder)]
    if not which:
        if not paths:
            raise UsageError(f"there is no session to go on with in {folder}", code="session")
        return paths[0]
    names = {path.name.removesuffix(_SUFFIX): path for path in paths}
    if which in names:
        return names[which]
    begun = [name for name in names if name.startswith(which) or name.partition("-")[2].startswith(which)]
    if len(begun) == 1:
        return names[begun[0]]
    if begun:
        raise UsageError(f"session {which!r}: {len(begun)} begin so: {', '.join(sorted(begun)[:5])}", code="session")
    latest = f"; the latest is {next(iter(names))}" if names else f"; {folder} has none"
    # Where a name may stand and need not, a question is taken for one.
    asked = "" if which.replace("-", "").isalnum() else "; what is to be asked comes after `--`"
    raise UsageError(f"session {which!r}: there is none that begins so{latest}{asked}", code="session")


def _new_path(folder: Path, kind: str) -> Path:
    return folder / f"{kind}-{secrets.token_hex(4)}{_SUFFIX}"


def _create(path: Path) -> int:
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _lock(fd: int, name: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SessionInUse(f"session {name}: another process has it open", code="session") from None
    if not os.fstat(fd).st_nlink:
        raise UsageError(f"session {name}: it has just been removed", code="session")


def _read(session: Session, fd: int, *, mend: bool) -> None:
    """Read the records of a file, put a torn last line aside, and end the file with a line feed."""
    with os.fdopen(os.dup(fd), "rb") as file:
        data = file.read()
    *lines, tail = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                session.take(jsonl.parse(line))
            except InputError as error:
                session.take(None)
                session.warnings.append(f"{session.path}:{number}: no record, left out: {error.message}")
    if not tail:
        return
    try:
        session.take(jsonl.parse(tail))
        if mend:
            os.write(fd, b"\n")
    except InputError:
        where = ""
        if mend:
            torn = session.path.with_name(f"{session.id}.torn")
            where = f"; what is there of it is in {torn}"
            _put_aside(torn, tail)
            os.ftruncate(fd, len(data) - len(tail))
        session.warnings.append(f"{session.path}:{len(lines) + 1}: the last turn is torn and left out{where}")


def _put_aside(path: Path, tail: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, tail + b"\n")
    finally:
        os.close(fd)


def _title(line: bytes) -> str:
    """Return how the first question of a file begins; the whole line is not always at hand."""
    try:
        record = jsonl.parse(line)
    except InputError:
        return ""
    first = next((message for message in record["messages"] if message.get("role") == "user"), None)
    words = " ".join(clean(text_of(first)).split()) if first else ""
    return words if len(words) <= _TITLE_CHARS else words[: _TITLE_CHARS - 1] + "…"
