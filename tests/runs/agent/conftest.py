from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from coding import Coding, forget_copies, project


@pytest.fixture
def coding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coding]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    yield Coding(project(tmp_path / "root"))
    forget_copies(tmp_path)
