"""Tasks for tests: `fuse-tasks` as a process, the built-in sets, and rows of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fusiontools.evaluation.tasks.datasets import load_sets, set_tasks
from fusiontools.evaluation.tasks.rows import (
    Prompts,
    draft_of,
    record_of,
)

PLAIN = Prompts("{question}", "{question}\n{options}")


def run(*args: str, env: dict[str, str] | None = None, typed: str = "") -> subprocess.CompletedProcess[str]:
    code = "from fusiontools.cli.tasks import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


def records(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def built_in(name: str) -> list[Any]:
    return list(set_tasks(load_sets().sets[name], None, lambda message: None))


def asked(record: Any) -> str:
    return str(record["messages"][-1]["content"])


def own(row: dict[str, Any]) -> Any:
    return record_of(draft_of(row), PLAIN)


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)
