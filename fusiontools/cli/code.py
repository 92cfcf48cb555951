"""`fuse-code`: an agent that works on a project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.options import option
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


@dataclass(frozen=True, slots=True)
class CodeOptions:
    """What `fuse-code` can be told."""

    root: str = option(".", "--root", metavar="PATH", help="The project's folder.")
    model: str | None = option(
        None, "-m", "--model", metavar="MODEL[@ENDPOINT]",
        help="Who works.  [default: the recipe's synthesizer, else the first of its panel]",
    )  # fmt: skip
    fuse: bool = option(
        False, "--fuse", help="Let the chain say what to do, once for each task, before the model acts."
    )
    chain: str | None = option(
        None, "--chain", metavar="TEXT", help="The chain of --fuse and of the council.  [default: the recipe's]"
    )
    plan: bool = option(False, "--plan", help="A numbered plan first, and keep to it.")
    approve: bool = option(False, "--approve", help="Ask before every change, every command, and the plan.")
    check: str | None = option(
        None, "--check", metavar="COMMAND", help="Keep the work only if this passes: 'pytest -q'. Run before, too."
    )
    protect: tuple[str, ...] = option(
        (), "--protect", multiple=True, metavar="GLOB", help="Files that may not be changed: 'tests/'; repeat for more."
    )
    allow: tuple[str, ...] = option(
        (), "--allow", multiple=True, metavar="GLOB",
        help="Files that something runs later and that may be changed all the same: .github/; repeat for more.",
    )  # fmt: skip
    network: bool = option(
        False, "--network", help="Let commands reach the network, the services of this machine included."
    )
    readable: tuple[str, ...] = option(
        (), "--readable", multiple=True, metavar="PATH",
        help="What else of this machine commands may read; repeat for more.",
    )  # fmt: skip
    max_steps: int = option(
        100, "--max-steps", minimum=1, metavar="N", help="The most answers of the model for a task."
    )
    go_on: bool = option(False, "--continue", help="Go on with the latest session.")
    session: str | None = option(None, "--session", metavar="ID", help="Go on with this session.")
    output: str | None = option(None, "-o", "--output", choices=("text", "jsonl"), help="The summary, or the record.")
    json: bool = option(False, "--json", help="The same as -o jsonl.")
    quiet: bool = option(False, "-q", "--quiet", help="Do not show the steps.")


@command("fuse-code", CodeOptions, ToolOptions, LimitOptions, JournalOptions, help=HELP, arguments="[TASK]...")
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
