"""No key, no recipe and no address from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipes import KEYS


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*KEYS, "FUSION_BASE_URL", "FUSION_CONFIG", "FUSION_LOCAL_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
