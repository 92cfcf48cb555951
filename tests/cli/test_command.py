"""Console scripts: how their help is laid out, and how they end where nothing can be written."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import click
import pytest
from mistakes import clear, needs_dev_full
from workdir import TOOLS, Run


def test_a_reader_that_has_enough_of_the_help_is_no_error(run: Run) -> None:
    result = run("fuse-panel --help | true", pipefail=True)

    assert (result.status, result.err) == (0, "")


def test_a_tool_that_ends_with_a_status_of_its_own_keeps_it(run: Run) -> None:
    """click ends with 1 where it knows no such shell, and with 0 where it has written completions."""
    assert run("_FUSE_PANEL_COMPLETE=tcsh_source fuse-panel").status == 1
    assert run("_FUSE_PANEL_COMPLETE=fish_source fuse-panel").status == 0


@needs_dev_full
@pytest.mark.parametrize("asked", ["--help", "--version"])
def test_a_full_disk_under_the_help_is_named(asked: str, run: Run) -> None:
    result = run(f"fuse-panel {asked} > /dev/full")

    assert result.status == 1
    assert clear(result) == "fuse-panel: stdout: No space left on device\n"


@pytest.mark.parametrize("tool", TOOLS)
def test_help_lists_each_option_once_under_a_heading_and_the_everyday_ones_first(tool: str) -> None:
    command = import_module(f"fusiontools.cli.{tool.removeprefix('fuse-')}").main.command

    text = command.get_help(click.Context(command, info_name=tool, terminal_width=100, max_content_width=100))

    headings = [h for h in re.findall(r"^(\w[\w ]*):$", text, re.M) if h != "Exit status"]
    shared = ["Tools", "Calls and limits", "Journal", "Batch jobs", "Output", "Other"]
    own = next(h for h in headings if h.lower() == tool.removeprefix("fuse-"))
    assert [h for h in headings if h not in ("Question", own)] == [h for h in shared if h in headings]
    assert headings.index(own) < headings.index("Other") == len(headings) - 1
    options = [name for option in command.get_params(click.Context(command)) for name in option.opts]
    listed = text[text.index(f"\n{headings[0]}:\n") :]
    for name in (name for name in options if name.startswith("-")):
        assert len(re.findall(rf"^  (?:--?[\w-]+, )*{name}(?=[ ,]|$)", listed, re.M)) == 1, name


def test_an_interrupt_that_python_itself_drops_before_our_first_line_ends_the_tool_all_the_same(
    run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    # What is raised in the callback by which an import gives up its lock is shown and forgotten.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "def interrupt(frame, event, _):\n"
        "    if event == 'call' and frame.f_code.co_name == 'cb':\n"
        "        sys.setprofile(None)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.setprofile(interrupt)\n"
    )

    result = run(["fuse-ask", "--help"], env={**env, "PYTHONPATH": str(tmp_path)})

    assert (result.status, result.out) == (130, b"")
    assert result.err.startswith("Exception ignored in: <function _get_module_lock")


@pytest.mark.parametrize("tool", TOOLS)
def test_an_interrupt_in_the_midst_of_the_imports_ends_the_tool_without_a_word(
    tool: str, run: Run, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")

    result = run([tool, "--help"], env={**env, "PYTHONPATH": str(tmp_path)})

    assert (result.status, result.out, result.err) == (130, b"", "")


@pytest.mark.parametrize("columns", ["60", "200", "no number", "-3", "20", ""])
def test_help_is_as_wide_as_click_makes_it(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    cli = import_module("fusiontools.cli.panel").main.command

    ours, clicks = (click.Context(cli, info_name="fuse-panel", **cli.context_settings) for _ in range(2))

    assert cli.get_help(ours) == click.Command.get_help(cli, clicks)
