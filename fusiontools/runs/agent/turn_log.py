"""The turn under way, written down step by step, so that one who is killed in the midst of it can go on.

A file beside the session's, `ID.turn`: first what the turn is about, then a line for each step with its messages and
the calls that were paid for. When the turn has its record in the session the file goes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.errors import UsageError
from fusiontools.record import jsonl
from fusiontools.record.types import Call, Message
from fusiontools.runs.session import (
    CODE,
    Session,
    SessionInUse,
    list_sessions,
    open_session,
    sessions_dir,
    write_line,
)

_SUFFIX = ".turn"


class TurnLog(Struct):
    """The steps of a turn.

    Args:
        about: what the turn is about: `root`, `work`, `plan` and the like.
    """

    path: Path
    about: dict[str, Any] = {}
    messages: list[Message] = []
    calls: list[Call] = []
    _fd: int | None = None

    @classmethod
    def of(cls, session: Session) -> TurnLog:
        """Return the turn of a session that was not finished; an empty one where there is none.

        Raises:
            SessionInUse: another process is at it.
            UsageError: it cannot be read.
        """
        log = cls(session.path.with_suffix(_SUFFIX))
        try:
            log._open(os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, session.id)
            log._read()
        except FileNotFoundError:
            return log
        except OSError as error:
            raise UsageError(f"session {log.path}: cannot be read: {error.strerror}", code="session") from error
        return log

    @property
    def is_open(self) -> bool:
        """Whether there is a turn under way."""
        return self._fd is not None

    def begin(self, session: Session, about: dict[str, Any]) -> None:
        """Write down that a turn begins, or goes on and with what.

        Raises:
            OSError: there is no room for it, or no place; so say all that write.
        """
        if self._fd is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open(os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, session.id)
            # Of a turn that the session could not take.
            os.ftruncate(self._fd, 0)  # type: ignore[arg-type]
            try:
                self.note(about)
            except OSError:
                self.end()
                raise
        else:
            self.note(about)

    def note(self, about: dict[str, Any]) -> None:
        """Write down what is to be known of the turn beside its steps."""
        self.about |= about
        self._write({"about": about})

    def add(self, messages: Sequence[Message], calls: Sequence[Call] = ()) -> None:
        """Write down what was said in a step and what it cost."""
        self.messages += messages
        self.calls += calls
        self._write({"messages": list(messages), "calls": list(calls)})

    def end(self, *, keep: bool = False) -> None:
        """Take the file away: its turn is in the session.

        Args:
            keep: the session could not take it, so the file stays.
        """
        if not keep:
            self.path.unlink(missing_ok=True)
        self.close()
        self.about, self.messages, self.calls = {}, [], []

    def close(self) -> None:
        """Let others have the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self, flags: int, name: str) -> None:
        self._fd = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise SessionInUse(f"session {name}: another process is at work in it", code="session") from None

    def _write(self, line: dict[str, Any]) -> None:
        assert self._fd is not None  # noqa: S101 - `begin` opens it
        write_line(self._fd, jsonl.dumps(line) + b"\n", self.path)

    def _read(self) -> None:
        for line in self.path.read_bytes().split(b"\n"):
            # The last one may be torn.
            with contextlib.suppress(ValueError):
                step = jsonl.loads(line) if line else {}
                self.about |= step.get("about", {})
                self.messages += step.get("messages", [])
                self.calls += step.get("calls", [])


def answer_all(messages: Sequence[Message], why: str) -> list[Message]:
    """Return results for the last calls of a conversation that have none: an endpoint refuses a call without one."""
    at = max((i for i, message in enumerate(messages) if message.get("tool_calls")), default=len(messages))
    asked = [call["id"] for message in messages[at : at + 1] for call in message.get("tool_calls") or []]
    # In the order of the calls: some endpoints give one name to many.
    answered = sum(message.get("role") == "tool" for message in messages[at:])
    return [{"role": "tool", "tool_call_id": name, "content": why} for name in asked[answered:]]


def reopen_session(which: str) -> Session:
    """Return an agent's session to go on with, also one that was killed in its first turn.

    Args:
        which: its id or how that begins; the latest where it is empty.

    Raises:
        UsageError: there is none, or several begin so.
    """
    folder = sessions_dir()
    begun = {}
    for path in folder.glob(f"{CODE}-*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # its turn has just come to its end
            begun[path.stem] = path.stat().st_mtime
    finished = {found.id: found.modified for found in list_sessions((CODE,))}
    latest = sorted({**finished, **begun}.items(), key=lambda each: -each[1])
    names = [name for name, _ in latest if name.startswith(which) or name.partition("-")[2].startswith(which)]
    if (len(names) == 1 or not which) and names and names[0] not in finished:
        return Session(folder / f"{names[0]}.jsonl")
    if not which and names:
        which = names[0]
    elif not names and not which:
        raise UsageError(f"there is no session to go on with in {folder}", code="session")
    return open_session(which, (CODE,))
