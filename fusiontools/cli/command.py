"""Command-line options from the option dataclasses: each declared once, each spelled the same in every tool."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from fusiontools.config.click_options import click_option, given_of
from fusiontools.config.options import flags_of
from fusiontools.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_USAGE, FusionError, UsageError, __version__

_CONFIG_HELP = (
    "Recipe: a name or a file.  [default: $FUSION_CONFIG, ./fusion.yaml, budget where an OpenRouter key is set, local]"
)


def command(
    name: str,
    *groups: type,
    help: str,  # noqa: A002 - click's own word
    arguments: str = "[FILE]...",
    recipe: bool = True,
    trouble: int = EXIT_SOME_FAILED,
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a console script: options from the groups, files as arguments, errors in words.

    The function gets `files`, `config` and, for each group, the options that were typed, as a dict under the group's
    name (`PanelOptions` → `panel`).

    Args:
        arguments: how the files are called in the usage line.
        recipe: whether the tool has use for one; without, there is no `-c` and no `config`.
        trouble: the exit status where something fails that nobody expected.
    """

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        def callback(files: tuple[str, ...], **values: Any) -> None:
            given = {_group_name(group): given_of(group, values) for group in groups}
            chosen = {"config": values["config"]} if recipe else {}
            try:
                function(files=files, **chosen, **given)
            except KeyboardInterrupt:
                # Before click sees it: click would put an empty line on standard error.
                leave(EXIT_INTERRUPTED)

        params: list[click.Parameter] = [
            click.Argument(["files"], nargs=-1, metavar=arguments),
            *([_recipe_option()] if recipe else []),
            *[click_option(group, name, flag) for group in groups for name, flag in flags_of(group).items()],
            click.Option(
                ["--version"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_print_version,
                help="Show the version and exit.",
            ),
        ]
        cli = click.Command(
            name,
            callback=callback,
            params=params,
            help=help,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )

        def main() -> None:
            run_command(cli, name, trouble)

        main.command = cli  # type: ignore[attr-defined]
        return main

    return decorate


def run_command(cli: click.Command, name: str, trouble: int) -> NoReturn:
    """Run a command and leave by the one door: no traceback for what a user can cause."""
    _occupy_closed_streams()
    try:
        load_dotenv()
        cli.main(prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        leave(EXIT_USAGE)
    except click.ClickException as error:
        complain(name, f"{error.format_message()} (see {name} --help)")
        leave(EXIT_USAGE)
    except click.exceptions.Exit as error:
        leave(error.exit_code)
    except FusionError as error:
        complain(name, error.message)
        leave(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        leave(EXIT_INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # click ends so where completions are written, or where the reader of `--help` has gone.
        leave(0)
    except OSError as error:
        complain(name, f"{error.filename or 'stdout'}: {error.strerror}")
        leave(trouble)
    except Exception:
        # Nobody expected this one: show all of it, and still leave by the one door.
        import traceback

        traceback.print_exc()
        complain(name, "this is a bug in fusiontools; finished calls are in the journal (--replay)")
        leave(trouble)
    leave(0)


def leave(status: int) -> NoReturn:
    """End the process at once: a thread that is blocked on standard input would hold a normal exit up.

    Everything of worth is written by now: records are flushed one by one, the journal commits call by call.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(status)


def _occupy_closed_streams() -> None:
    """Let no socket or file get the number of a standard stream that the caller has closed.

    Reading such an input and writing such an output fail as they would have, only not into somebody else's file.
    """
    for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)


def complain(name: str, message: str) -> None:
    """Write one line to standard error, whole, so that the lines of a pipeline do not garble each other."""
    line = "".join(char if char.isprintable() else " " for char in f"{name}: {message}") + "\n"
    try:
        os.write(2, line.encode("utf-8", "replace"))
    except OSError:
        return


def load_dotenv() -> None:
    """Let a `.env` in the working directory fill in variables that the environment lacks."""
    if Path(".env").is_file():
        import dotenv

        try:
            dotenv.load_dotenv(".env", override=False)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f".env: cannot be read: {error}") from error


def _recipe_option() -> click.Option:
    return click.Option(["-c", "--config"], metavar="RECIPE", help=_CONFIG_HELP, shell_complete=_recipes)


def _group_name(group: type) -> str:
    return group.__name__.removesuffix("Options").lower()


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"{context.info_name} {__version__}")
        context.exit()


def _recipes(context: click.Context, _: click.Parameter, typed: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    from fusiontools.config.recipe_yaml import recipe_names

    names = [CompletionItem(name) for name in recipe_names() if name.startswith(typed)]
    return [*names, CompletionItem(typed, type="file")]
