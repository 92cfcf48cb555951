"""What every tool is tried under: a key that must be found nowhere afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mistakes import SECRET
from workdir import Run


@pytest.fixture
def env(env: dict[str, str]) -> dict[str, str]:
    return {**env, "FUSION_API_KEY": SECRET}


@pytest.fixture(autouse=True)
def nothing_leaks(run: Run, tmp_path: Path) -> Iterator[None]:
    """Whatever went wrong, the key is in no file that the test left behind: journal, rejects, output."""
    yield
    leaked = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert leaked == []
