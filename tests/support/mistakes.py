"""How mistakes are tried out on a tool, and what it may say of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from workdir import Result

SECRET = "wr-9f2c-correct-horse"
PANEL = ["fuse-panel", "-m", "fake/a", "-m", "fake/b", "--backoff", "0.01"]
JUDGE = ["fuse-judge", "-m", "fake/judge", "--backoff", "0.01"]
SYNTH = ["fuse-synth", "-m", "fake/s", "--backoff", "0.01"]

# Linux has it; elsewhere no disk can be made full without harm.
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


def panel(*models: str, options: str = "") -> list[str]:
    return ["fuse-panel", "--backoff", "0.01", *options.split(), *(word for model in models for word in ("-m", model))]


def clear(result: Result) -> str:
    """Return what was said, if it is fit for a person: whole lines that say who speaks, no traceback, no key."""
    assert SECRET not in result.err + result.text
    assert "Traceback" not in result.err
    assert "bug" not in result.err
    for line in result.err.splitlines():
        assert re.match(r"fuse-(panel|judge|synth|cost): \S", line), line
    return result.err


def error_of(result: Result) -> dict[str, Any]:
    (record,) = result.records
    return record["error"]
