"""Completion as a person gets it: a real shell, the one line of its start-up file, and the Tab key."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from workdir import ROOT, Run

from fusiontools.record import jsonl

TERMINALS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
SHELLS = [*TERMINALS, "fish"]
SCRIPTS = sorted(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"])
#: Typed after the Tab: to the start of the line, and print what stands there instead of running it.
_PRINT = "\x01printf '<%s>' \r"

Typed = Callable[[str], str]


@pytest.fixture(params=SHELLS)
def typed(request: pytest.FixtureRequest, env: dict[str, str], tmp_path: Path) -> Iterator[Typed]:
    """Type the beginning of a line and Tab; return the words that then stand on the line."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "records.jsonl").touch()
    if shell == "fish":
        yield partial(tab_in_fish, env, tmp_path)
    else:
        with on_a_terminal(shell, env, tmp_path) as type_in:
            yield type_in


@contextmanager
def on_a_terminal(shell: str, env: dict[str, str], cwd: Path) -> Iterator[Typed]:
    """Run a shell that has read its one line; yield what types into it."""

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


def tab_in_fish(env: dict[str, str], cwd: Path, line: str) -> str:
    """Ask fish what it would put there: it tells without a terminal."""
    ask = f"fuse-ask --completion fish | source; complete --do-complete '{line}'"
    shown = subprocess.run(
        ["fish", "--no-config", "-c", ask], env=env, cwd=cwd, capture_output=True, text=True, check=True
    )
    [candidate] = {row.split("\t")[0] for row in shown.stdout.splitlines()}
    return f"{line.rpartition(' ')[0]} {candidate}"


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("fuse-panel --tempera", "fuse-panel --temperature"),
        ("fuse-serve --keepalive-i", "fuse-serve --keepalive-interval"),
        ("fuse-panel -c bud", "fuse-panel -c budget"),
        ("fuse-panel -c rec", "fuse-panel -c records.jsonl"),
        ("fuse-judge --method lex", "fuse-judge --method lexical"),
        ("fuse-judge --swap rec", "fuse-judge --swap records.jsonl"),
        ("fuse-vote --rejects rec", "fuse-vote --rejects records.jsonl"),
        ("fuse-log pru", "fuse-log prune"),
    ],
    ids=["option", "long-option", "recipe", "recipe-file", "choice", "file", "file-of-an-option", "command"],
)
def test_tab_completes_options_choices_recipes_and_files(line: str, completed: str, typed: Typed) -> None:
    assert typed(line) == completed


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


def test_a_shell_nobody_knows_is_refused(run: Run) -> None:
    result = run(["fuse-ask", "--completion", "csh"])

    assert (result.status, result.out) == (2, b"")
    assert "csh" in result.err
