"""Completion as a person gets it: a real shell, the one line of its start-up file, and the Tab key."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from workdir import ROOT, Run

from fusiontools.cli.completion import tool_names
from fusiontools.record import jsonl

TERMINALS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
SHELLS = [*TERMINALS, "fish"]
SCRIPTS = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])
#: Typed after the Tab: to the start of the line, and print what stands there instead of running it.
_PRINT = "\x01printf '<%s>' \r"

#: The beginning of a line, and what stands there after Tab: what the tools say is the same in every shell.
LINES = {
    "fuse-panel --tempera": "fuse-panel --temperature",
    "fuse-panel -c bud": "fuse-panel -c budget",
    "fuse-panel -c rec": "fuse-panel -c records.jsonl",
    "fuse-judge --swap rec": "fuse-judge --swap records.jsonl",
}
MORE_LINES = {
    "fuse-serve --keepalive-i": "fuse-serve --keepalive-interval",
    "fuse-judge --method lex": "fuse-judge --method lexical",
    "fuse-vote --rejects rec": "fuse-vote --rejects records.jsonl",
    "fuse-log pru": "fuse-log prune",
}


@contextmanager
def on_a_terminal(shell: str, env: dict[str, str], cwd: Path) -> Iterator[Callable[[str], str]]:
    """Run a shell that has read its one line; yield what types the beginning of a line and Tab into it."""

    def wait_for(pattern: str) -> str:
        seen = ""
        while not (found := re.search(pattern, seen)):
            seen += os.read(ours, 1 << 16).decode(errors="replace")
        return found[0]

    def tab(line: str) -> str:
        os.write(ours, f"{line}\t{_PRINT}".encode())
        return " ".join(re.findall("<([^<>]*)>", wait_for(r"(<[^<>%]*>)+")))

    ours, theirs = pty.openpty()
    env = {**env, "TERM": "xterm", "COLUMNS": "200"}
    with subprocess.Popen(
        TERMINALS[shell], stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=cwd, start_new_session=True
    ) as process:
        os.close(theirs)
        try:
            os.write(ours, f"eval \"$(fuse-ask --completion {shell})\"; printf 'load%s\\n' ed\r".encode())
            wait_for("loaded")
            yield tab
        finally:
            process.kill()
            os.close(ours)


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


@pytest.mark.parametrize(("shell", "lines"), [("bash", {**LINES, **MORE_LINES}), ("zsh", LINES)], ids=["bash", "zsh"])
def test_tab_completes_options_choices_recipes_and_files(
    shell: str, lines: dict[str, str], env: dict[str, str], tmp_path: Path
) -> None:
    needs(shell)
    (tmp_path / "records.jsonl").touch()

    with on_a_terminal(shell, env, tmp_path) as type_in:
        assert {line: type_in(line) for line in lines} == lines


def test_fish_would_put_the_same_there(env: dict[str, str], tmp_path: Path) -> None:
    """It tells without a terminal."""
    needs("fish")
    (tmp_path / "records.jsonl").touch()
    ask = "fuse-ask --completion fish | source; for line in $argv; complete --do-complete $line; echo; end"

    shown = subprocess.run(
        ["fish", "--no-config", "-c", ask, *LINES], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )

    said = shown.stdout.split("\n\n")
    for line, candidates in zip(LINES, said, strict=False):
        [candidate] = {row.split("\t")[0] for row in candidates.strip().splitlines()}
        assert f"{line.rpartition(' ')[0]} {candidate}" == LINES[line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("fuse-log show ", {"chat-0a"}),
        ("fuse-log prune j", {"journal"}),
        ("fuse-log clear w", {"weights"}),
        ("fuse-log --recipe budg", {"budget"}),
        ("fuse-chat --continue ", {"chat-0a"}),
        ("fuse-code --continue co", {"code-0b"}),
        ("fuse-ask --session ch", {"chat-0a"}),
        ("fuse-ask --template ", {"review"}),
        ("fuse-chat --template ", {"review"}),
        ("fuse-mcp --recipe budg", {"budget"}),
        ("fuse-doctor --set-key openr", {"openrouter"}),
        ("fuse-doctor --forget-key ", {"LAB_KEY"}),
    ],
)
def test_names_that_only_this_disk_knows_are_offered(words: str, offered: set[str], kept: None) -> None:
    tool, *before, typed = words.split(" ")
    command = import_module(f"fusiontools.cli.{tool.removeprefix('fuse-')}").main.command

    items = ShellComplete(command, {}, tool, "_").get_completions(before, typed)

    assert {item.value for item in items if item.type == "plain"} == offered


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a person has: a conversation, an agent's session, a prompt, a key."""
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    record = jsonl.write(jsonl.parse(b'{"messages": [{"role": "user", "content": "Why?"}]}'))
    for folder, name in (("sessions", "chat-0a.jsonl"), ("sessions", "code-0b.jsonl"), ("prompts", "review.md")):
        (tmp_path / "fusiontools" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "fusiontools" / folder / name).write_bytes(record)
    (tmp_path / "fusiontools" / "sessions" / "code-0b.jsonl").write_bytes(b"")
    (tmp_path / "fusiontools" / "keys.json").touch(0o600)
    (tmp_path / "fusiontools" / "keys.json").write_text('{"LAB_KEY": {"key": "kept-0123456789"}}')


@pytest.mark.parametrize("shell", SHELLS)
def test_one_script_knows_every_tool(shell: str, run: Run) -> None:
    result = run(["fuse-ask", "--completion", shell])

    assert (result.status, result.err) == (0, "")
    assert all(re.search(rf"\b{tool}\b", result.text) for tool in SCRIPTS)


def test_the_tools_are_those_of_the_metadata_wherever_their_file_is() -> None:
    assert sorted(tool_names(sys.path)) == sorted(tool_names([])) == SCRIPTS


def test_a_shell_nobody_knows_is_refused(run: Run) -> None:
    result = run(["fuse-ask", "--completion", "csh"])

    assert (result.status, result.out) == (2, b"")
    assert "csh" in result.err
