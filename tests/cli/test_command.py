"""What every console script does when nobody reads on, or nothing can be written."""

from __future__ import annotations

import pytest
from mistakes import clear, needs_dev_full
from workdir import Run


def test_a_reader_that_has_enough_of_the_help_is_no_error(run: Run) -> None:
    result = run("fuse-panel --help | true", pipefail=True)

    assert (result.status, result.err) == (0, "")


@needs_dev_full
@pytest.mark.parametrize("asked", ["--help", "--version"])
def test_a_full_disk_under_the_help_is_named(asked: str, run: Run) -> None:
    result = run(f"fuse-panel {asked} > /dev/full")

    assert result.status == 1
    assert clear(result) == "fuse-panel: stdout: No space left on device\n"
