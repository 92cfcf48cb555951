"""A pipeline whose calls go to a provider as batch jobs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from batching import Batch, Provider, questions, recipe
from workdir import Result, Run


@pytest.fixture
def there(env: dict[str, str]) -> dict[str, str]:
    """The environment without a server that stands in for every endpoint."""
    kept = {name: value for name, value in env.items() if name not in ("FUSION_BASE_URL", "FUSION_API_KEY")}
    return {**kept, "FAKE_KEY": "test-key"}


@pytest.fixture
def batch(run: Run, provider: Provider, there: dict[str, str], tmp_path: Path) -> Batch:
    """Run a pipeline over questions, with a recipe whose calls go to the provider."""

    def batch(
        command: str,
        count: int = 3,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Result:
        (tmp_path / "fusion.yaml").write_text(recipe(provider, **settings))
        return run(command, questions(count) if stdin is None else stdin, env={**there, **(environment or {})})

    return batch
