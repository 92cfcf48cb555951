"""`fuse-code`: an agent that works on a project."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command, complete_sessions
from fusiontools.config.code_options import CodeOptions
from fusiontools.config.stage_table import JournalOptions, LimitOptions
from fusiontools.config.tool_options import ToolOptions

HELP = """\
\b
  fuse-code "add a /version endpoint and a test for it" --check "pytest -q"
  fuse-code --plan --approve "split this module in two" --max-cost-usd 1

Work on a project as an agent: one model reads, searches, edits and runs commands until the task is done.

It works on a copy of the folder, and commands run in a sandbox without network. What it has changed comes over when it
says that it is done and the check passes; else the folder stays as it was, to the byte. A hard question it may put to
the whole panel (the tool `council`). AGENTS.md and CLAUDE.md of the folder are read. Without a task, on a terminal, it
asks for one, and then for the next.

\b
Exit status:
  0    done, or answered where nothing was to be changed
  1    not kept: the check fails, a limit of steps, the same files changed meanwhile
  2    the command line, the recipe or the environment is wrong
  3    the model could not be asked
  4    stopped by --max-cost-usd
  130  interrupted
"""


@command(
    "fuse-code",
    CodeOptions,
    ToolOptions,
    LimitOptions,
    JournalOptions,
    help=HELP,
    arguments="[TASK]...",
    completes={"session": complete_sessions},
)
def main(
    files: tuple[str, ...],
    config: str | None,
    code: dict[str, Any],
    tool: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
) -> None:
    import asyncio

    from fusiontools.cli.code_run import code_once
    from fusiontools.cli.command import leave
    from fusiontools.cli.filter import loop_factory
    from fusiontools.cli.setup import make_client, named_recipe

    options = CodeOptions(**code)
    recipe = named_recipe(config, "fuse-code", journal, typed=options.model is not None, quiet=options.quiet)
    client = make_client(recipe, limit, journal, "fuse-code", tool)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        leave(runner.run(code_once(" ".join(files), options, recipe, client, journal)))
