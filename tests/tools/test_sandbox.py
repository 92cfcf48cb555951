"""The sandbox says why there is none and what helps, and is tried with the flags of every start."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from fusiontools.errors import UsageError
from fusiontools.tools.sandbox import explain, find_sandbox


@pytest.mark.parametrize(
    ("said", "cause", "remedy"),
    [
        ("bwrap: setting up uid map: Permission denied", "AppArmor", "a profile"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "AppArmor", "a profile"),
        ("bwrap: Creating new namespace failed: No space left on device", "no more user namespaces", "sysctl"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "seccomp", "--security-opt"),
        ("bwrap: Can't mount proc on /newroot/proc: Operation not permitted", "seccomp", "systempaths"),
        ("", "it says nothing", "install bubblewrap"),
    ],
)
def test_why_bubblewrap_does_not_work_is_said_with_what_helps(said: str, cause: str, remedy: str) -> None:
    why, help_ = explain(said)

    assert " ".join(said.split()) in why
    assert cause in why
    assert remedy in help_


def pretend(folder: Path, script: str) -> None:
    """Put a bubblewrap there that is a script."""
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def test_a_bubblewrap_that_refuses_is_not_gone_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(tmp_path, 'test "$1" = --help && exit 0\necho "bwrap: setting up uid map: Permission denied" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(UsageError, match="AppArmor"):
        find_sandbox()
    assert find_sandbox(unsafe=True).kind == "none"


def test_it_is_tried_with_the_flags_of_every_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    seen = tmp_path / "seen"
    seen.touch()
    seen.chmod(0o666)
    pretend(tmp_path, f'echo "$*" >> {seen}\nwhile test "$1" != --; do test $# = 0 && exit 0; shift; done; shift; "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    sandbox = find_sandbox()
    with sandbox.lend() as folder:
        sandbox.start(["/bin/sh", "-c", ":"], folder=folder).wait()

    tried, later = (line.split() for line in seen.read_text().splitlines()[-2:])
    names = [[word for word in line if word.startswith("--")] for line in (tried, later)]
    assert names[0] == names[1]
    assert {"--unshare-all", "--die-with-parent", "--new-session", "--remount-ro"} <= set(names[0])
