"""The secret behind the marks of fences: one of each installation, made once, known to nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fusiontools.stages.prompts import FENCE_VARIABLE, fence_key

TELL = "from fusiontools.stages.prompts import fence_key; print(fence_key().hex())"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv(FENCE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    fence_key.cache_clear()
    yield tmp_path / "fusiontools"
    fence_key.cache_clear()


def told_by(count: int) -> list[str]:
    """Have several processes tell the secret, all begun at once."""
    processes = [
        subprocess.Popen([sys.executable, "-c", TELL], stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    return [process.communicate()[0].strip() for process in processes]


def test_whoever_comes_first_makes_it_and_all_others_read_it(folder: Path) -> None:
    secrets = told_by(4)

    assert len(set(secrets)) == 1
    assert (folder / "fence.key").read_bytes().hex() == secrets[0] == told_by(1)[0]
    assert len(bytes.fromhex(secrets[0])) == 32


def test_nobody_else_may_read_it_and_nothing_else_stays_there(folder: Path) -> None:
    fence_key()

    assert (folder / "fence.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == ["fence.key"]


def test_the_environment_may_name_it_and_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FENCE_VARIABLE, "one")
    first = fence_key()
    monkeypatch.setenv(FENCE_VARIABLE, "two")
    fence_key.cache_clear()

    assert fence_key() != first
    assert not folder.exists()


def test_where_it_cannot_be_kept_each_process_has_its_own(folder: Path) -> None:
    folder.write_text("in the way")

    assert fence_key() == fence_key()
    assert len({fence_key().hex(), *told_by(2)}) == 3


def test_a_file_that_is_no_secret_is_left_alone_and_not_used(folder: Path) -> None:
    folder.mkdir()
    (folder / "fence.key").write_bytes(b"")

    assert len(fence_key()) == 32
    assert (folder / "fence.key").read_bytes() == b""
