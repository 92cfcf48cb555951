"""The tools that read, search and change files: what they do, and what they refuse."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from coding import git, project

from fusiontools.runs.agent.beneath import Beneath
from fusiontools.runs.agent.file_rules import Rules
from fusiontools.runs.agent.file_tools import FileTools
from fusiontools.tools.tool import ToolContext
from fusiontools.tools.toolbox import Toolbox


class Files:
    """The tools on a folder, called by name."""

    def __init__(self, root: Path, **rules: Any) -> None:
        self.root = root

        async def listed() -> tuple[list[str], str]:
            return git(root, "ls-files").split(), "3 entries that git ignores are left out"

        self.tools = FileTools(Beneath(root), Rules(**rules), None, listed)
        self.box = Toolbox(self.tools.tools())

    def __call__(self, name: str, **arguments: Any) -> str:
        run = asyncio.run(self.box.run(name, arguments, ToolContext()))
        self.status = run.result.status
        return run.result.text


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(project(tmp_path / "root", **{"long.txt": "line\n" * 3000}))


def test_a_long_file_comes_in_pages_with_line_numbers(files: Files) -> None:
    first = files("read", path="long.txt")
    last = files("read", path="long.txt", from_line=2999)

    assert first.startswith("long.txt: lines 1-1000 of 3000; read on from line 1001\n    1\tline\n")
    assert last == "long.txt: lines 2999-3000 of 3000\n 2999\tline\n 3000\tline"


def test_what_is_no_text_is_said_to_be_none_and_other_encodings_are_shown(files: Files) -> None:
    (files.root / "image").write_bytes(b"\x89PNG\0")
    (files.root / "old.txt").write_bytes(b"caf\xe9\r\nend")

    assert files("read", path="image") == "image: binary, 5 bytes"
    assert files("read", path="old.txt").startswith(
        "old.txt: lines 1-2 of 2; not UTF-8, shown as Latin-1; CRLF line ends, which stay; no line end at its end\n"
    )
    assert files("read", path=".").startswith(".: 3 entries that git ignores are left out\n.gitignore\napp.py\n")


def test_a_search_says_where_and_what_it_left_out_and_cuts_long_lines(files: Files) -> None:
    (files.root / "min.js").write_text(f"{'x' * 5000}needle{'y' * 5000}\n")
    git(files.root, "add", "min.js")

    found = files("search", pattern="needle|return")
    none = files("search", pattern="no such thing")

    assert found.startswith("2 lines in 2 of 5 files; 3 entries that git ignores are left out\napp.py:2:     return")
    assert "needle" in found
    assert "[of a line of 10006 bytes]" in found
    assert len(found) < 800
    assert (files.status, none) == ("ok", "no match in 5 files; 3 entries that git ignores are left out")
    assert files("search", files="*.py") == "2 files; 3 entries that git ignores are left out\napp.py\ntest_app.py"
    assert files("search", pattern="(").startswith("the pattern cannot be read: ")
    assert files("search", pattern="(a+)+$" * 20 + "b", files="min.js").startswith("no match")  # in linear time


def test_an_edit_changes_the_lines_that_it_says_and_keeps_what_the_file_may(files: Files) -> None:
    (files.root / "app.py").write_bytes(b"#!/bin/sh\r\n\tx = 1  \r\n\ty = 2")
    (files.root / "app.py").chmod(0o755)
    git(files.root, "commit", "-qam", "two")
    (files.root / "link.py").symlink_to("app.py")

    said = files("edit", path="link.py", old="\tx = 1", new="\tx = 3\n\tz = 4")

    assert said.startswith("edited app.py\n--- a/app.py\n")
    assert (files.root / "app.py").read_bytes() == b"#!/bin/sh\r\n\tx = 3\r\n\tz = 4  \r\n\ty = 2"
    assert git(files.root, "diff", "--numstat") == "2\t1\tapp.py\n"
    assert stat.S_IMODE((files.root / "app.py").stat().st_mode) == 0o755
    assert (files.root / "link.py").is_symlink()


def test_a_patch_is_applied_to_all_files_or_to_none(files: Files) -> None:
    good = "--- a/app.py\n+++ b/app.py\n@@ @@\n-    return a - b\n+    return a + b\n"
    new = "--- /dev/null\n+++ b/sub/new.py\n@@ @@\n+x = 1\n"
    gone = "--- a/long.txt\n+++ /dev/null\n@@ @@\n" + "-line\n" * 3000
    before = (files.root / "app.py").read_text()

    refused = files("patch", patch=good + "--- a/test_app.py\n+++ b/test_app.py\n@@ @@\n-nowhere\n+x\n")
    untouched = (files.root / "app.py").read_text()
    done = files("patch", patch=good + new + gone)

    assert "test_app.py: hunk 1: `old` does not stand in the file" in refused
    assert "nothing of the patch was applied" in refused
    assert untouched == before
    assert done.startswith("patched app.py, sub/new.py, long.txt\n")
    assert (files.root / "app.py").read_text() == before.replace("-", "+")
    assert (files.root / "sub/new.py").read_text() == "x = 1\n"
    assert not (files.root / "long.txt").exists()


def test_a_whole_new_text_that_looks_shortened_is_asked_about_once(files: Files) -> None:
    unread = files("write", path="long.txt", content="x\n")
    files("read", path="long.txt")
    short = files("write", path="long.txt", content="x\n")
    meant = files("write", path="long.txt", content="x\n")
    files("read", path="app.py")
    left_out = files("write", path="app.py", content="def add(a, b):\n    # ... rest of the code unchanged\n")

    assert "you have not read it" in unread
    assert short.startswith("long.txt has 3000 lines and would have 1: to change a part of it, use edit")
    assert meant.startswith("replaced long.txt, 2 bytes\n")
    assert "as if a part was left out" in left_out


def test_a_file_that_changed_since_it_was_read_is_not_changed_and_one_that_was_touched_is(files: Files) -> None:
    files("read", path="app.py")
    os.utime(files.root / "app.py", (1, 1))
    touched = files("edit", path="app.py", old="a - b", new="a + b")
    again = files("edit", path="app.py", old="a + b", new="b + a")
    (files.root / "app.py").write_text("somebody else's")
    foreign = files("edit", path="app.py", old="somebody", new="nobody")

    assert touched.startswith("edited app.py")
    assert again.startswith("edited app.py")
    assert foreign.startswith("app.py has changed since you read it")
    assert (files.root / "app.py").read_text() == "somebody else's"


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".git/hooks/pre-commit", ".envrc", ".vscode/tasks.json", ".github/workflows/ci.yml", ".mcp.json",
        ".gitlab-ci.yml", ".claude/settings.json", ".codex/config.toml", "sub/.GIT/hooks/x", ".devcontainer/a.json",
    ],
)  # fmt: skip
def test_what_is_run_later_outside_of_the_sandbox_is_not_written(files: Files, path: str) -> None:
    said = files("write", path=path, content="evil")

    assert said == f"{path} is run later, outside of the sandbox; only --allow lets it be changed"
    assert files.status == "refused"


def test_what_a_person_allows_is_written_and_what_he_protects_is_not(tmp_path: Path) -> None:
    files = Files(project(tmp_path / "root"), allowed=[".github/"], protected=["test_*", "docs/*.md"])

    assert files("write", path=".github/workflows/ci.yml", content="x").startswith("made ")
    for path in ("test_app.py", "docs/a/b.md"):
        assert "is protected (--protect " in files("write", path=path, content="x")
    assert files("write", path="docs/a.txt", content="x").startswith("made ")


def test_a_file_with_another_name_elsewhere_is_not_written(files: Files, tmp_path: Path) -> None:
    os.link(files.root / "app.py", tmp_path / "outside")

    said = files("edit", path="app.py", old="a - b", new="a + b")

    assert "has another name elsewhere (a hard link)" in said
    assert "a - b" in (tmp_path / "outside").read_text()


def test_what_leads_out_of_the_project_is_a_result_that_says_so(files: Files) -> None:
    for path in ("../x", "/etc/passwd"):
        assert files("read", path=path) == f"{path} is outside of the project"
        assert files("write", path=path, content="x") == f"{path} is outside of the project"
    assert files("read", path="nowhere/x") == "nowhere/x: there is no such file"
