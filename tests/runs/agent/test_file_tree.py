"""Copies of files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from fusiontools.runs.agent.file_tree import copy_file


@pytest.mark.parametrize("size", [0, 5, 3 << 20])
def test_a_copy_is_the_same_to_the_byte_and_changes_alone(tmp_path: Path, size: int) -> None:
    # One that is large may share its blocks with the file, where the file system can.
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    directory = os.open(tmp_path, os.O_RDONLY)

    digest = copy_file("file", directory, tmp_path / "copy", 0o640)
    os.close(directory)
    copied = (tmp_path / "copy").read_bytes()
    with (tmp_path / "copy").open("r+b") as copy:
        copy.write(b"changed")

    assert copied == data
    assert digest == hashlib.sha256(data).hexdigest()
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "file").read_bytes() == data
