"""Reach the files of a folder without ever leaving it, whatever links it holds and whoever changes them meanwhile.

A path is walked component by component over open directories: a link is read and walked like the rest of the path, and
`..` goes back to the directory that was open before. So no name is looked at twice, and what somebody swaps for a link
between two looks is not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

_MOST_LINKS = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: A name that a file has only while it is being written.
_UNFINISHED = ".fuse-code-"


class RefusedPath(Exception):
    """A path that is not to be used; the text says why, for the model and for a person."""


class Spot(Struct, frozen=True):
    """Where a path leads: an open directory, and a name in it, which need not exist and is no link.

    Args:
        directory: -1 where the directory does not exist either.
        path: the path without links, from the folder; `.` is the folder itself.
    """

    directory: int
    name: str
    path: str

    def status(self) -> os.stat_result | None:
        """Return what stands there; None for nothing."""
        return None if self.directory < 0 else _status_of(self.name, self.directory)

    def read(self, most_bytes: int | None = None) -> bytes:
        """Return the bytes of a file, or the first ones of them.

        Raises:
            RefusedPath: it is no file.
        """
        if self.directory < 0:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        # Not waiting for somebody to write into a pipe.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(self.name, flags, dir_fd=self.directory), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise RefusedPath(f"{self.path} is {'a directory' if stat.S_ISDIR(mode) else 'no file'}")
            return file.read() if most_bytes is None else file.read(most_bytes)

    def write(self, data: bytes, mode: int | None = None, owner: int | None = None) -> None:
        """Put a file there, whole or not at all; what the one before was allowed to, and whose it was, stays so.

        Args:
            mode: what the file may be used for, where that is not as before.
            owner: whose a new file is, where it is not ours.
        """
        before = self.status()
        unfinished = _UNFINISHED + secrets.token_hex(8)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(unfinished, flags, 0o666 if before is None else 0o600, dir_fd=self.directory)
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget, unfinished)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                if before is not None:
                    self._keep_marks(file.fileno(), before)
                elif owner is not None:
                    os.fchown(file.fileno(), owner, owner)
                if mode is None and before is not None:
                    mode = stat.S_IMODE(before.st_mode)
                if mode is not None:
                    os.fchmod(file.fileno(), mode)
            os.rename(unfinished, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
            stack.pop_all()

    def link(self, target: str) -> None:
        """Put a link there, in the place of a file or a link; where that fails, what was there stays."""
        unfinished = _UNFINISHED + secrets.token_hex(8)
        os.symlink(target, unfinished, dir_fd=self.directory)
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget, unfinished)
            os.rename(unfinished, self.name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
            stack.pop_all()

    def _forget(self, unfinished: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(unfinished, dir_fd=self.directory)

    def remove(self) -> None:
        """Take a file away."""
        os.unlink(self.name, dir_fd=self.directory)

    def _keep_marks(self, fd: int, before: os.stat_result) -> None:
        """Give the new file the owner and the extended attributes of the one before, as far as we may."""
        with contextlib.suppress(OSError):
            os.fchown(fd, before.st_uid, before.st_gid)
        if hasattr(os, "listxattr"):
            with contextlib.suppress(OSError):
                there = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
                try:
                    for name in os.listxattr(there):
                        os.setxattr(fd, name, os.getxattr(there, name))
                finally:
                    os.close(there)


class Beneath:
    """A folder.

    Args:
        root: where it is.
        known_as: by which absolute paths somebody may call it, besides that.

    Raises:
        OSError: it is no directory that can be opened.
    """

    def __init__(self, root: Path, known_as: Sequence[str] = ()) -> None:
        self.root = root
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        names = {os.path.normpath(name) for name in (str(root), os.path.realpath(root), *known_as)}
        self._names = [[part for part in name.split("/") if part] for name in sorted(names)]

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._fd)

    @contextlib.contextmanager
    def find(self, path: str, *, follow: bool = True, make: bool = False, owner: int | None = None) -> Iterator[Spot]:
        """Walk to where a path leads.

        Args:
            follow: whether links are followed, as far as they lead to somewhere inside.
            make: whether directories on the way are made.
            owner: whose those are then, where they are not ours.

        Raises:
            RefusedPath: it leads outside, or cannot be a path.
            OSError: there is no such directory on the way.
        """
        opened = [os.dup(self._fd)]
        try:
            yield self._walk(path, opened, follow, make, owner)
        finally:
            for fd in opened:
                os.close(fd)

    def _walk(self, path: str, opened: list[int], follow: bool, make: bool, owner: int | None) -> Spot:
        waiting = deque(self._inside(path, path))
        names: list[str] = []
        links = 0
        while waiting:
            part = waiting.popleft()
            if part == "..":
                if len(opened) == 1:
                    raise RefusedPath(f"{path} is outside of the project")
                os.close(opened.pop())
                names.pop()
                continue
            status = _status_of(part, opened[-1])
            if status is not None and stat.S_ISLNK(status.st_mode) and (follow or waiting):
                links += 1
                if links > _MOST_LINKS or not follow:
                    raise RefusedPath(f"{path} leads through a link" if not follow else f"{path}: too many links")
                target = os.readlink(part, dir_fd=opened[-1])
                if target.startswith("/"):
                    while len(opened) > 1:
                        os.close(opened.pop())
                    names.clear()
                    waiting.extendleft(reversed(self._inside(target, path)))
                else:
                    waiting.extendleft(reversed(_parts(target)))
            elif not waiting:
                return Spot(opened[-1], part, "/".join([*names, part]))
            elif status is None and not make and ".." not in waiting:
                return Spot(-1, waiting[-1], "/".join([*names, part, *waiting]))
            else:
                if status is None and make:
                    os.mkdir(part, 0o777, dir_fd=opened[-1])
                    if owner is not None:
                        os.chown(part, owner, owner, dir_fd=opened[-1], follow_symlinks=False)
                opened.append(_open_directory(part, opened[-1], path))
                names.append(part)
        return Spot(opened[-1], ".", "/".join(names) or ".")

    def _inside(self, path: str, asked: str) -> list[str]:
        """Return the components of a path from the folder on.

        Raises:
            RefusedPath: it is absolute and elsewhere, or cannot be a path.
        """
        if "\0" in path:
            raise RefusedPath("a path holds no NUL")
        parts = _parts(path)
        if not path.startswith("/"):
            return parts
        for name in self._names:
            if parts[: len(name)] == name:
                return parts[len(name) :]
        raise RefusedPath(f"{asked} is outside of the project")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _status_of(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _open_directory(name: str, directory: int, path: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            # It was none when we looked.
            raise RefusedPath(f"{path} leads through a link that has just come up") from None
        raise
