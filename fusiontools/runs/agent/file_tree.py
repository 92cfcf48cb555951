"""The files of a folder one by one: what stands at a path, and how something else is put there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from fusiontools.runs.agent.beneath import Beneath

_CHUNK_BYTES = 1 << 20
#: What is smaller is sooner copied.
_WORTH_SHARING_BYTES = 64 << 10
#: Linux's request to share blocks (ioctl_ficlone(2)); Python names it from 3.13 on.
_FICLONE: int = getattr(fcntl, "FICLONE", 0x40049409)
#: What lies deeper is left out.
_MOST_DEPTH = 200


class Entry(Struct, frozen=True):
    """What stands at a path.

    Args:
        digest: the SHA-256 of a file, in hex, or where a link leads.
        names: how many names a file has; with more than one, a change would be seen elsewhere.
    """

    kind: Literal["file", "link", "directory"]
    mode: int
    digest: str = ""
    names: int = 1

    def same(self, other: Entry | None) -> bool:
        """Return whether two entries are the same to whoever reads them."""
        return other is not None and (self.kind, self.digest, self.mode) == (other.kind, other.digest, other.mode)


def walk(root: Path, unread: list[str] | None = None) -> Iterator[tuple[str, int, str, os.stat_result]]:
    """Yield everything beneath a folder, directories before what is in them: path, open directory, name, status.

    Args:
        unread: told of directories that cannot be read.
    """
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _walk(fd, "", unread)
    finally:
        os.close(fd)


def _walk(
    directory: int, prefix: str, unread: list[str] | None, depth: int = 0
) -> Iterator[tuple[str, int, str, os.stat_result]]:
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        path = prefix + name
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue  # it has just gone
        yield path, directory, name, status
        if not stat.S_ISDIR(status.st_mode):
            continue
        if depth >= _MOST_DEPTH:
            if unread is not None:
                unread.append(f"{path[:200]}…: deeper than {_MOST_DEPTH} directories")
            continue
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(name, flags, dir_fd=directory)
        except OSError as error:
            if unread is not None:
                unread.append(f"{path}: {error.strerror}")
            continue
        try:
            yield from _walk(inner, path + "/", unread, depth + 1)
        finally:
            os.close(inner)


def copy_file(
    name: str, directory: int, target: Path | None = None, mode: int = 0o600, owner: int | None = None
) -> str:
    """Return the SHA-256 of a file, and copy it where a place for the copy is given.

    Where the file system can (Btrfs, XFS), the copy shares the file's blocks until one of them is written to.
    """
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        source = os.open(name, flags, dir_fd=directory)
        stack.callback(os.close, source)
        out = None
        if target is not None:
            out = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, out)
        is_shared = out is not None and _share_blocks(source, out)
        # What the copy holds counts: somebody may be writing to the file.
        while data := os.read(out if out is not None and is_shared else source, _CHUNK_BYTES):
            digest.update(data)
            view = memoryview(data)
            while out is not None and not is_shared and view:
                view = view[os.write(out, view) :]
        if out is not None:
            os.fchmod(out, mode)
            if owner is not None:
                os.fchown(out, owner, owner)
    return digest.hexdigest()


def _share_blocks(source: int, out: int) -> bool:
    """Make an empty file share all blocks of another; return whether the file system has done so."""
    if os.fstat(source).st_size < _WORTH_SHARING_BYTES:
        return False
    try:
        fcntl.ioctl(out, _FICLONE, source)
    except OSError:
        return False
    return True


def look(beneath: Beneath, path: str, *, whole: bool = False) -> tuple[Entry | None, bytes]:
    """Return what stands at a path without links, and the bytes of a file where they are wanted.

    Raises:
        RefusedPath: a link stands on the way.
    """
    try:
        with beneath.find(path, follow=False) as spot:
            status = spot.status()
            if status is None:
                return None, b""
            mode = stat.S_IMODE(status.st_mode) & 0o777
            if stat.S_ISLNK(status.st_mode):
                return Entry("link", 0o777, os.readlink(spot.name, dir_fd=spot.directory)), b""
            if stat.S_ISDIR(status.st_mode):
                return Entry("directory", mode), b""
            data = spot.read() if whole else b""
            digest = hashlib.sha256(data).hexdigest() if whole else copy_file(spot.name, spot.directory)
            return Entry("file", mode, digest, status.st_nlink), data
    except (FileNotFoundError, NotADirectoryError):
        return None, b""


def put(beneath: Beneath, path: str, entry: Entry | None, data: bytes, owner: int | None = None) -> None:
    """Make a path what an entry says; None takes it away, and a directory only where it is empty."""
    if entry is None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), beneath.find(path, follow=False) as spot:
            status = spot.status()
            if status is not None and stat.S_ISDIR(status.st_mode):
                try:
                    os.rmdir(spot.name, dir_fd=spot.directory)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
            elif status is not None:
                os.unlink(spot.name, dir_fd=spot.directory)
        return
    with beneath.find(path, follow=False, make=True, owner=owner) as spot:
        if entry.kind == "directory":
            if spot.status() is None:
                os.mkdir(spot.name, entry.mode, dir_fd=spot.directory)
        elif entry.kind == "link":
            spot.link(entry.digest)
        else:
            spot.write(data, entry.mode, owner)


def link_leads_out(path: str, target: str) -> bool:
    """Return whether a link at a path of a folder names something outside of it."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    ups = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    # What `..` means behind a name depends on whether that name is a link.
    return target.startswith("/") or ups > path.count("/") or ".." in parts[ups:]
