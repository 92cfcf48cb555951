"""The copy of a folder that an agent works on, and how what was done comes back.

The folder itself is not touched while the agent works, so nothing has to be undone where the work is given up: what is
staged, changed, untracked or ignored stays as it is, to the byte. What is kept comes back file by file, each only where
the folder still holds what was copied.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from msgspec import Struct

from fusiontools.errors import UsageError
from fusiontools.runs.agent.beneath import Beneath, RefusedPath
from fusiontools.runs.agent.file_rules import LINKED
from fusiontools.runs.agent.file_tree import Entry, copy_file, look, put, walk

#: A larger folder is no project.
_MOST_BYTES, _MOST_FILES = 4 << 30, 300_000
#: What the copy may grow by.
_ROOM_BYTES, _ROOM_FILES = 2 << 30, 200_000
_PREFIX = "fuse-code-"
_TREE, _OUTPUT, _BASE, _ABOUT = "tree", "output", "base.json", "about.json"
_TESTS = re.compile(
    r"(^|/)(tests?|specs?|__tests__|(__)?snapshots(__)?|testdata)/|(^|/)(test_[^/]*|conftest\.py)$"
    r"|[^/]_test\.[^/]+$|\.(test|spec)\.[^/]+$|\.snap$"
)


class FileChange(Struct, frozen=True):
    """A path that is not in the copy as it was in the folder."""

    path: str
    before: Entry | None
    after: Entry | None

    @property
    def kind(self) -> Literal["added", "changed", "deleted"]:
        """What became of it."""
        return "added" if self.before is None else "deleted" if self.after is None else "changed"

    @property
    def is_test(self) -> bool:
        """Whether it looks like a test, or what a test is held against."""
        return _TESTS.search(self.path) is not None


class NotWritten(Exception):
    """A change could not be written into the folder, the text says which and why; those before it are there."""


class CopyStopped(Exception):
    """Somebody has stopped it while the folder was being copied; nothing is left of the copy."""


class WorkCopy(Struct):
    """A copy of a folder.

    Args:
        root: the folder.
        folder: where the copy is, and what belongs to it.
        base: what was copied, by path.
        owner: whose the files of the copy are, where they are not ours.
    """

    root: Path
    folder: Path
    base: dict[str, Entry]
    owner: int | None = None
    #: What could not be copied, and why.
    skipped: list[str] = []
    _lock: int = -1
    _stamps: dict[str, tuple[int, ...]] = {}
    _known: dict[str, Entry] = {}

    @property
    def tree(self) -> Path:
        """The copy itself."""
        return self.folder / _TREE

    @property
    def output(self) -> Path:
        """Where long output of commands is kept."""
        return self.folder / _OUTPUT

    @classmethod
    def create(
        cls,
        root: Path,
        session: Path,
        owner: int | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> WorkCopy:
        """Copy a folder.

        Args:
            session: the file of the session that it is for.
            is_stopped: asked before each file.

        Raises:
            UsageError: it is too large, or cannot be read.
            CopyStopped: somebody has stopped it.
            OSError: the copy cannot be written.
        """
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_place()))
        copy = cls(root, folder, {}, owner)
        with contextlib.ExitStack() as stack:
            stack.callback(copy.remove)
            copy._lock = _locked(folder)
            about = {"root": str(root), "session": str(session.absolute())}
            (folder / _ABOUT).write_text(json.dumps(about), encoding="ascii")
            for each in (copy.tree, copy.output):
                each.mkdir()
                each.chmod(0o755)
            try:
                copy._fill(is_stopped)
                copy._save()
            except OSError as error:
                # Who writes into an open file does not say into which.
                error.filename = error.filename or str(copy.tree)
                raise
            if owner is not None:
                os.chown(copy.tree, owner, owner)
                # Who runs inside goes through it, and changes nothing in it.
                os.chown(folder, -1, owner)
                folder.chmod(0o710)
            stack.pop_all()
        return copy

    @classmethod
    def reopen(cls, root: Path, folder: Path, owner: int | None = None) -> WorkCopy | None:
        """Return a copy that was made before; None where it is not there any more, or is not of this folder."""
        try:
            status = os.lstat(folder)
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or _about(folder)["root"] != str(root):
                return None
            lock = _locked(folder)
            entries = json.loads((folder / _BASE).read_text(encoding="ascii"))
        except (OSError, ValueError, KeyError):
            return None
        return cls(root, folder, {path: Entry(*entry) for path, entry in entries.items()}, owner, _lock=lock)

    def close(self) -> None:
        """Let go of the copy, which stays."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Take the copy away."""
        _remove(self.folder)
        self.close()

    def is_too_full(self) -> bool:
        """Return whether the copy has grown by more than it may."""
        grown = 0
        for files, (_, _, _, status) in enumerate(walk(self.tree)):
            grown += status.st_blocks * 512
            if files > len(self.base) + _ROOM_FILES or grown > _MOST_BYTES + _ROOM_BYTES:
                return True
        return False

    def changes(self) -> list[FileChange]:
        """Return what is not in the copy as it was in the folder, by path."""
        now = self._scan()
        return [
            FileChange(path, self.base.get(path), now.get(path))
            for path in sorted(self.base.keys() | now.keys())
            if not _same(self.base.get(path), now.get(path))
        ]

    def put_back(self, paths: Collection[str]) -> None:
        """Make paths of the copy again what they were in the folder; where that has changed, as it is now there."""
        if not paths:
            return
        with contextlib.closing(Beneath(self.root)) as root, contextlib.closing(Beneath(self.tree)) as tree:
            for path in paths:
                try:
                    entry, data = look(root, path, whole=True)
                except (RefusedPath, OSError):
                    entry, data = None, b""
                self._clear(tree, path, entry)
                put(tree, path, entry, data, self.owner)
                if entry is None:
                    self.base.pop(path, None)
                else:
                    self.base[path] = entry
        self._save()

    def bring_over(self, changes: Sequence[FileChange]) -> dict[str, str]:
        """Bring changes over into the folder; return why not, for each file, and then nothing was touched.

        A file that is already as it is to be counts as done, so that one who was interrupted can do the rest.

        Raises:
            NotWritten: the folder cannot be written to, or no more; some of the changes may be there.
        """
        with contextlib.ExitStack() as stack:
            with _saying_where(str(self.root)):
                root = stack.enter_context(contextlib.closing(Beneath(self.root)))
            with _saying_where(str(self.tree)):
                tree = stack.enter_context(contextlib.closing(Beneath(self.tree)))
            todo: list[FileChange] = []
            conflicts: dict[str, str] = {}
            for change in changes:
                try:
                    there, _ = look(root, change.path)
                except (RefusedPath, OSError) as error:
                    conflicts[change.path] = str(error)
                    continue
                if _same(there, change.after):
                    continue
                # One that was interrupted may have taken away what stood in the way of another kind.
                if not _same(there, change.before) and not (there is None and _changes_kind(change)):
                    conflicts[change.path] = f"{change.path} has been changed in the folder meanwhile"
                elif there is not None and there.kind == "file" and there.names > 1:
                    conflicts[change.path] = LINKED.format(change.path)
                else:
                    todo.append(change)
            if conflicts:
                return conflicts
            # What goes makes room first, the deepest before that in which it is.
            for change in sorted(todo, key=lambda change: change.path, reverse=True):
                if change.after is None or _changes_kind(change):
                    with _saying_where(change.path):
                        put(root, change.path, None, b"")
            for change in todo:
                if change.after is not None:
                    with _saying_where(change.path):
                        entry, data = look(tree, change.path, whole=True)
                        put(root, change.path, entry, data)
        return {}

    def bytes_of(self, change: FileChange) -> tuple[bytes | None, bytes | None]:
        """Return the bytes of a changed file before and after; None for what is no file."""
        found: list[bytes | None] = []
        for folder, entry in ((self.root, change.before), (self.tree, change.after)):
            data: bytes | None = None
            if entry is not None and entry.kind != "directory":
                with (
                    contextlib.suppress(OSError, RefusedPath),
                    contextlib.closing(Beneath(folder)) as beneath,
                ):
                    data = look(beneath, change.path, whole=True)[1]
                    data = data if entry.kind == "file" else f"-> {entry.digest}\n".encode()
            found.append(data)
        return found[0], found[1]

    def _fill(self, is_stopped: Callable[[], bool]) -> None:
        size = 0
        for path, directory, name, status in walk(self.root, self.skipped):
            if is_stopped():
                raise CopyStopped
            target = self.tree / path
            mode = stat.S_IMODE(status.st_mode) & 0o777
            size += status.st_size if stat.S_ISREG(status.st_mode) else 0
            if size > _MOST_BYTES or len(self.base) > _MOST_FILES:
                raise UsageError(
                    f"--root {self.root}: it holds more than {_MOST_BYTES >> 30} GiB or {_MOST_FILES:,} files, and the "
                    "agent works on a copy; name a smaller folder"
                )
            try:
                if stat.S_ISDIR(status.st_mode):
                    target.mkdir(mode=0o700)
                    target.chmod(mode | 0o700)
                    self.base[path] = Entry("directory", mode)
                elif stat.S_ISLNK(status.st_mode):
                    to = os.readlink(name, dir_fd=directory)
                    target.symlink_to(to)
                    self.base[path] = Entry("link", 0o777, to)
                elif stat.S_ISREG(status.st_mode):
                    digest = copy_file(name, directory, target, mode, self.owner)
                    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
                    self.base[path] = Entry("file", mode, digest, status.st_nlink)
                    self._note(path, self.base[path], target.lstat())
                else:
                    self.skipped.append(f"{path}: no file, directory or link")
            except PermissionError as error:
                self.skipped.append(f"{path}: {error.strerror}")
                continue
            if self.owner is not None and target.is_dir() and not target.is_symlink():
                os.chown(target, self.owner, self.owner)

    def _clear(self, tree: Beneath, path: str, entry: Entry | None) -> None:
        """Move out of the copy what stands in the way: a file where a directory belongs, or vice versa."""
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            wants_directory = end < len(parts) or (entry is not None and entry.kind == "directory")
            with tree.find("/".join(parts[:end]), follow=False) as spot:
                status = spot.status()
                if status is None or (end == len(parts) and entry is None):
                    return
                if stat.S_ISDIR(status.st_mode) != wants_directory:
                    if not wants_directory:
                        # Whoever moves a directory must be able to write to it.
                        os.chmod(spot.name, 0o700, dir_fd=spot.directory)
                    os.rename(spot.name, self.folder / secrets.token_hex(8), src_dir_fd=spot.directory)
                    return

    def _save(self) -> None:
        kept = {path: [e.kind, e.mode, e.digest, e.names] for path, e in self.base.items()}
        # Names need not be text: the standard library's JSON writes what is none, too.
        (self.folder / _BASE).write_text(json.dumps(kept), encoding="ascii")

    def _note(self, path: str, entry: Entry, status: os.stat_result) -> None:
        self._stamps[path] = _stamp(status)
        self._known[path] = entry

    def _scan(self) -> dict[str, Entry]:
        now: dict[str, Entry] = {}
        for path, directory, name, status in walk(self.tree, self.skipped):
            mode = stat.S_IMODE(status.st_mode) & 0o777
            if stat.S_ISDIR(status.st_mode):
                # Ours may always be opened by their owner.
                before = self.base.get(path)
                now[path] = before if before and before.kind == "directory" else Entry("directory", mode)
            elif stat.S_ISLNK(status.st_mode):
                now[path] = Entry("link", 0o777, os.readlink(name, dir_fd=directory))
            elif stat.S_ISREG(status.st_mode):
                if self._stamps.get(path) == _stamp(status):
                    now[path] = self._known[path]
                    continue
                with contextlib.suppress(OSError):
                    now[path] = Entry("file", mode, copy_file(name, directory))
                    self._note(path, now[path], status)
        return now


def _place() -> str:
    """Return where copies are: on a disk rather than in memory, and where a sandbox's user can reach them."""
    return os.environ.get("TMPDIR") or ("/var/tmp" if os.access("/var/tmp", os.W_OK) else tempfile.gettempdir())  # noqa: S108


def _locked(folder: Path) -> int:
    """Return an open folder that nobody else has open so.

    Raises:
        BlockingIOError: somebody is at work in it.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _about(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / _ABOUT).read_text(encoding="ascii"))
    return found


def _remove(folder: Path) -> None:
    # Of a directory that may not be written to, nothing could be taken away; and one may be deeper than any path.
    for words in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*words, "--", folder], stderr=subprocess.DEVNULL, check=False)


def copies_of(sessions: Path) -> list[Path]:
    """Return the copies that belong to sessions of a folder."""
    return [folder for folder, session in _ours() if session.parent == sessions.absolute()]


def remove_abandoned() -> None:
    """Take away the copies that nobody is at work in and no session goes on with: somebody was killed in the midst."""
    for folder, session in _ours():
        name = folder.name.encode()
        with contextlib.suppress(OSError):
            # Locked only where nobody would look for it: who goes on with a session needs the lock.
            if not _is_named(name, session):
                lock = _locked(folder)
                try:
                    # Somebody may have been about to name it.
                    if not _is_named(name, session):
                        _remove(folder)
                finally:
                    os.close(lock)


def _ours() -> Iterator[tuple[Path, Path]]:
    """Yield every copy of ours, and the file of the session that it is for."""
    for folder in Path(_place()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if folder.lstat().st_uid == os.geteuid():
                yield folder, Path(_about(folder)["session"])


def _is_named(name: bytes, session: Path) -> bool:
    """Return whether the turn under way, or the last one, says that it goes on in a copy."""
    with contextlib.suppress(FileNotFoundError):
        if name in session.with_suffix(".turn").read_bytes():
            return True
    with contextlib.suppress(FileNotFoundError):
        return name in session.read_bytes().rstrip().rpartition(b"\n")[2]
    return False


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes whenever a file does: nobody can set the time of the last change of its state."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)


def _changes_kind(change: FileChange) -> bool:
    return change.before is not None and change.after is not None and change.before.kind != change.after.kind


@contextlib.contextmanager
def _saying_where(path: str) -> Iterator[None]:
    """Say of a write that fails at which path.

    Raises:
        NotWritten: it has failed.
    """
    try:
        yield
    except OSError as error:
        raise NotWritten(f"{path}: {error.strerror}") from error
    except RefusedPath as error:
        raise NotWritten(str(error)) from error


def _same(one: Entry | None, other: Entry | None) -> bool:
    return other is None if one is None else one.same(other)


def lines_of(changes: Sequence[FileChange], counted: Mapping[str, tuple[int, int]]) -> list[str]:
    """Return a line for each change whose lines were counted, as a person reads it: `M app.py +3 -1`."""
    marks = {"added": "A", "changed": "M", "deleted": "D"}
    shown = []
    for change in changes:
        if change.path in counted:
            added, removed = counted[change.path]
            shown.append(f"{marks[change.kind]} {printable(change.path)} +{added} -{removed}")
    return shown


def printable(text: str) -> str:
    """Return a path, or what else is to be one line; what is no text, is not seen, or moves a cursor is replaced."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
