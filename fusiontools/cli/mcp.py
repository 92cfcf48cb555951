"""`fuse-mcp`: the panel as tools of an agent, by the Model Context Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from fusiontools.cli.command import command, complete_recipes
from fusiontools.config.options import Settings, option
from fusiontools.config.stage_table import JournalOptions, LimitOptions
from fusiontools.config.tool_options import ToolOptions
from fusiontools.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, UsageError, install_line

if TYPE_CHECKING:
    from fusiontools.config.recipe import Recipe
    from fusiontools.runs.mcp_server import OwnModels, PanelTools

_TOOL = "fuse-mcp"
#: How long what is under way may take to end: clients kill after five seconds or so.
_END_S = 3.0
#: How long the SDK may take to give the streams back.
_CLOSE_S = 0.2
HELP = """\
\b
  claude mcp add fusion -- fuse-mcp -c budget --max-cost-usd 5
  codex mcp add fusion -- fuse-mcp

Offer the panel to an agent as tools, by the Model Context Protocol on standard input and output.

An agent's program starts it and ends it. Its tools: `fuse` asks the panel a question; `second_opinion` has it judge an
answer; `compare` has it compare several; each of them returns within 45 seconds, with a handle where there is no answer
yet, and `fuse_result` collects that. What was bought before is taken from the journal, as by --replay, so that asking
again costs nothing. `/mcp` of fuse-serve has the same tools.
"""


class McpOptions(Settings):
    """What `fuse-mcp` can be told."""

    HEADING: ClassVar[str] = "MCP"

    recipes: tuple[str, ...] = option(
        (), "--recipe", multiple=True, metavar="NAME|PATH|all",
        help="Offer this recipe beside that of -c; repeat for more. `all` is every one that has its keys.  "
        "[default: all, where none is chosen: by -c, $FUSION_CONFIG or ./fusion.yaml]",
    )  # fmt: skip


@command(
    _TOOL,
    McpOptions,
    ToolOptions,
    LimitOptions,
    JournalOptions,
    help=HELP,
    arguments="",
    completes={"recipes": complete_recipes},
)
def main(
    files: tuple[str, ...],
    config: str | None,
    mcp: dict[str, Any],
    tool: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
) -> None:
    import asyncio
    import os

    from fusiontools.cli.command import complain, leave, report_bug
    from fusiontools.cli.filter import loop_factory

    if files:
        raise UsageError(f"{files[0]!r}: this tool reads no files; an agent's program starts it (see {_TOOL} --help)")
    try:
        from fusiontools.runs.mcp_server import OwnModels, PanelTools
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: {install_line('mcp')}") from error

    if os.isatty(0):
        complain(_TOOL, "waits for an agent's program on standard input; Ctrl-D ends it (--help explains)")
    models = OwnModels(_offered(config, McpOptions(**mcp)), _opener(tool, limit, journal))
    known: set[str] = set()
    tools = PanelTools(models, lambda error: report_bug(_TOOL, "a call", error, known, "the server goes on"))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        leave(runner.run(_serve(tools, models)))


def _offered(config: str | None, options: McpOptions) -> Mapping[str, Recipe]:
    """Return the recipes that may be named, by name; the first is the usual one.

    Raises:
        UsageError: one that cannot be.
    """
    from fusiontools.cli.listing import missing_of
    from fusiontools.config.recipe_yaml import (
        ALL,
        chosen_by_person,
        load_offered,
        load_recipe,
        own_recipe_names,
        recipe_names,
    )
    from fusiontools.config.resolve import check_calls

    found = load_offered(config, options.recipes)
    for recipe in found.values():
        check_calls(recipe)
    if ALL in options.recipes or not (config or options.recipes or chosen_by_person()):
        for name in sorted({*own_recipe_names(), *recipe_names()}):
            try:
                recipe = load_recipe(name)
            except UsageError:
                continue  # `fuse-ask --list` says why
            if missing_of(recipe) is None:
                found.setdefault(recipe.name, recipe)
    return found


def _opener(tool: Mapping[str, Any], limit: Mapping[str, Any], journal: Mapping[str, Any]) -> Any:
    """Return what opens the way to a recipe's models; what was bought before is not bought again."""
    from fusiontools.cli.setup import make_client
    from fusiontools.llm.purses import Purses

    # A limit that was typed is one over all recipes; each recipe's own is over what goes through it.
    purses = Purses() if "max_cost_usd" in limit else None

    def open_client(recipe: Recipe) -> Any:
        client = make_client(recipe, limit, journal, _TOOL, tool, purses)()
        client.replay = client.journal is not None
        return client

    return open_client


async def _serve(tools: PanelTools, models: OwnModels) -> int:
    """Serve until standard input ends or a signal comes; return the exit status."""
    import asyncio
    import signal
    from contextlib import suppress

    from fusiontools.cli.command import complain
    from fusiontools.runs.mcp_server import serve_stdio

    models.open(next(iter(models.recipes)))  # what is wrong with it is said before anybody asks
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    told: list[int] = []

    def end(number: int) -> None:
        told.append(number)
        over.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end, number)
    serving = asyncio.create_task(serve_stdio(tools, over.set))
    serving.add_done_callback(lambda _: over.set())
    await over.wait()
    status = EXIT_OK
    if told:
        status = EXIT_INTERRUPTED if told[0] == signal.SIGINT else 128 + told[0]
    elif (await asyncio.wait({serving}, timeout=_CLOSE_S))[0]:
        try:
            serving.result()
        except* BrokenPipeError:
            pass  # the client has gone
        except* OSError as group:
            complain(_TOOL, f"standard input or output: {group.exceptions[0]}")
            status = EXIT_SOME_FAILED
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            await tools.aclose()
            await models.aclose()
    return status
