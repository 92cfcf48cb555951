"""A folder that nobody leaves, by whichever way he tries."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from fusiontools.runs.agent.beneath import Beneath, RefusedPath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a file and links, and a secret beside it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root-evil").mkdir()
    (tmp_path / "root-evil" / "file").write_text("outside")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "outdir").symlink_to("..")
    (root / "in").symlink_to("sub/../file")
    (root / "absolute").symlink_to(root / "file")
    (root / "loop").symlink_to("loop")
    return root


def read(root: Path, path: str) -> bytes:
    with Beneath(root).find(path) as spot:
        return spot.read()


@pytest.mark.parametrize(
    "path",
    [
        "../secret", "sub/../../secret", "/etc/passwd", "{root}-evil/file", "{root}/../secret", "out", "outdir/secret",
        "outdir/new/file", "sub/../outdir/secret", "loop", "a\0b",
    ],
)  # fmt: skip
def test_whatever_leads_outside_is_refused_also_what_is_not_there_yet(root: Path, path: str) -> None:
    with pytest.raises(RefusedPath):
        read(root, path.format(root=root))
    with pytest.raises(RefusedPath), Beneath(root).find(path.format(root=root), make=True) as spot:
        spot.write(b"written")

    assert (root.parent / "secret").read_text() == "outside"
    assert not (root.parent / "new").exists()


@pytest.mark.parametrize("path", ["file", "./sub/../file", "in", "absolute", "{root}/file", "{link}/file"])
def test_whatever_leads_inside_is_reached(root: Path, path: str) -> None:
    link = root.parent / "link"
    link.symlink_to(root)

    assert read(link, path.format(root=root, link=link)) == b"inside"


def test_a_write_keeps_mode_and_link_and_makes_what_is_missing(root: Path) -> None:
    (root / "file").chmod(0o755)

    for path, data in (("in", b"new"), ("a/b/c", b"made")):
        with Beneath(root).find(path, make=True) as spot:
            spot.write(data)

    assert (root / "in").is_symlink()
    assert (root / "file").read_bytes() == b"new"
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o755
    assert (root / "a/b/c").read_bytes() == b"made"
    assert not [name for name in os.listdir(root) if name.startswith(".fuse-code")]  # noqa: PTH208


def test_who_swaps_a_directory_for_a_link_gets_nobody_out(root: Path) -> None:
    """A thread makes `sub` a directory and a link to the outside in turns, as a process of an agent might."""
    (root / "sub" / "secret").write_text("inside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            os.rename(root / "sub", root / "aside")  # noqa: PTH104
            (root / "sub").symlink_to("..")
            (root / "sub").unlink()
            os.rename(root / "aside", root / "sub")  # noqa: PTH104

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        beneath, found = Beneath(root), set()
        for _ in range(3000):
            try:
                with beneath.find("sub/secret") as spot:
                    found.add(spot.read())
            except (RefusedPath, OSError):
                found.add(b"")
    finally:
        done.set()
        thread.join()

    assert found <= {b"inside", b""}
