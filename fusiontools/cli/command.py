"""Console scripts from option dataclasses: how a tool is parsed, explains itself, complains and leaves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fusiontools.config.click_options import (
    Completer,
    click_options,
    complete_files,
    given_of,
    group_name,
    heading_of,
)
from fusiontools.errors import EXIT_INTERRUPTED, EXIT_SOME_FAILED, EXIT_USAGE, FusionError, UsageError, __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_CONFIG_HELP = (
    "Recipe: a name or a file; `fuse-ask --list` shows them.  "
    "[default: $FUSION_CONFIG, ./fusion.yaml, that of the first key that is set, ollama where it runs, local]"
)

_NAMES_WIDTH = 30
#: How wide help is, as click has it: at most, at least, and where nobody knows how wide the screen is.
_WIDEST, _NARROWEST, _COLUMNS = 100, 50, 80
#: New objects after which young ones are looked through for garbage.
_GARBAGE = 5_000


def command(
    name: str,
    *groups: type,
    help: str,  # noqa: A002 - click's own word
    arguments: str = "[FILE]...",
    recipe: bool = True,
    trouble: int = EXIT_SOME_FAILED,
    completes: Mapping[str, Completer] | None = None,
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a console script: options from the groups, files as arguments, errors in words.

    The function gets `files`, `config` and, for each group, the options that were typed, as a dict under the group's
    name (`PanelOptions` → `panel`). `--help` lists the groups in their order, each under its heading.

    Args:
        arguments: how the files are called in the usage line.
        recipe: whether the tool has use for one; without, there is no `-c` and no `config`.
        trouble: the exit status where something fails that nobody expected.
        completes: what a shell is offered for an option, by its field's name, or for `files`; else these are files.
    """
    completes = completes or {}

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        def callback(files: tuple[str, ...], **values: Any) -> None:
            given = {group_name(group): given_of(group, values) for group in groups}
            chosen = {"config": values["config"]} if recipe else {}
            try:
                function(files=files, **chosen, **given)
            except KeyboardInterrupt:
                # Before click sees it: click would put an empty line on standard error.
                leave(EXIT_INTERRUPTED)

        words = completes.get("files", complete_files)
        cli = GroupedCommand(
            name,
            callback=callback,
            params=[click.Argument(["files"], nargs=-1, metavar=arguments, shell_complete=words)],
            help=help,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
        )
        for group in groups:
            is_own = group_name(group) == name.removeprefix("fuse-")
            cli.add_group(
                heading_of(group),
                [*([_recipe_option()] if recipe and is_own else []), *click_options(group, completes)],
            )
        cli.add_group("Other", [_version_option()])

        def main() -> None:
            run_command(cli, name, trouble)

        main.command = cli  # type: ignore[attr-defined]
        return main

    return decorate


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings, in the order in which they were added."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._groups: list[tuple[str, Sequence[click.Parameter]]] = []

    def add_group(self, heading: str, options: Sequence[click.Parameter]) -> None:
        """Add options under a heading."""
        self.params += options
        self._groups.append((heading, options))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse; an option that may stand without its value takes the next word only where that is one."""
        bare = {name: param for param in self.params if _may_be_bare(param) for name in param.opts}
        ends = args.index("--") if "--" in args else len(args)
        for at, (word, following) in enumerate(zip(args[:ends], [*args[1:], ""], strict=False)):
            if (param := bare.get(word)) is not None and following not in param.type.choices:  # type: ignore[attr-defined]
                args[at] = f"{word}={param.flag_value}"  # type: ignore[attr-defined]
        return super().parse_args(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help; its width is found here, for click asks `shutil`, which loads every compression first."""
        if ctx.terminal_width is None:
            ctx.terminal_width = max(_NARROWEST, min(_screen_columns(), ctx.max_content_width or _WIDEST) - 2)
        return super().get_help(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups, aligned with each other; `--help` stands in the last one."""
        *groups, (last, others) = self._groups
        shown = [
            (heading, [record for option in options if (record := option.get_help_record(ctx))])
            for heading, options in [*groups, (last, [*others, *filter(None, [self.get_help_option(ctx)])])]
        ]
        width = _name_width(name for _, rows in shown for name, _ in rows)
        for heading, rows in shown:
            with formatter.section(heading):
                gap = width - _name_width(name for name, _ in rows) + 2
                formatter.write_dl(rows, col_max=_NAMES_WIDTH, col_spacing=gap)


def _screen_columns() -> int:
    """Return how wide the screen is, by the rules of `shutil.get_terminal_size`."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or _COLUMNS  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return _COLUMNS


def _may_be_bare(param: click.Parameter) -> bool:
    return (
        isinstance(param, click.Option) and isinstance(param.type, click.Choice) and isinstance(param.flag_value, str)
    )


def _name_width(names: Iterable[str]) -> int:
    """Return how wide the column of names is; the help of a longer name begins on a line of its own."""
    return min(max(map(len, names)), _NAMES_WIDTH)


def run_command(cli: click.Command, name: str, trouble: int) -> NoReturn:
    """Run a command and leave by the one way out: no traceback for what a user can cause."""
    _occupy_closed_streams()
    # httpx loads a command line of its own where it can, and with it rich and pygments: half of what it takes to load.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    stdout = sys.stdout
    try:
        load_dotenv()
        _warn_of_unread(name)
        cli.main(prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        leave(EXIT_USAGE)
    except click.NoSuchOption as error:
        said = error.format_message().rstrip(".") + _hint_at_dashes(name, error.option_name)
        complain(name, f"{said} (see {name} --help)")
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
    except BrokenPipeError:
        leave(0)
    except SystemExit as error:
        # click ends so where completions are written. It ends with 1, too, where the reader of `--help` has gone; then
        # it has put something else in the place of standard output.
        if sys.stdout is not stdout:
            leave(0)
        if isinstance(error.code, str):
            complain(name, error.code)
        leave(error.code if isinstance(error.code, int) else int(error.code is not None))
    except OSError as error:
        complain(name, f"{error.filename or 'stdout'}: {error.strerror}")
        leave(trouble)
    except Exception:
        # Nobody expected this one: show all of it, and still leave by the one way out.
        import traceback

        traceback.print_exc()
        complain(name, "this is a bug in fusiontools; finished calls are in the journal (--replay)")
        leave(trouble)
    leave(0)


def _hint_at_dashes(name: str, option: str) -> str:
    """Return what to do where a text that begins with a dash was taken for an option."""
    import shlex

    for word in sys.argv[1:]:
        if word.startswith(option) and (" " in word or option[1:2].isdigit()):
            return f"; what begins with a dash and is no option comes after `--`: {name} -- {shlex.quote(word)}"
    return ""


def leave(status: int) -> NoReturn:
    """End the process at once: a thread that is blocked on standard input would hold a normal exit up.

    Everything of worth is written by now: records are flushed one by one, the journal commits call by call.
    """
    if "opentelemetry.sdk" in sys.modules:
        from fusiontools.llm.traces import flush_traces

        flush_traces()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(status)


def collect_less() -> None:
    """Spare what is loaded by now the search for garbage, and look for new garbage less often.

    What lives as long as the process is never garbage: looking through it again and again took a tenth of a call.
    """
    import gc

    gc.freeze()
    gc.set_threshold(_GARBAGE)


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
    if hasattr(sys.stderr, "rich_proxied_file"):
        # Something is drawn on the screen just now: whoever draws puts the line above it.
        sys.stderr.write(line)
        return
    try:
        os.write(2, line.encode("utf-8", "replace"))
    except OSError:
        return


def report_bug(name: str, place: str, error: Exception, known: set[str], then: str = "the run goes on") -> str:
    """Say where an exception came up that nobody expected, its traceback the first time; return it in a few words.

    Args:
        known: what has been shown; the bug is added.
        then: what happens now, for a person.
    """
    import traceback
    from pathlib import Path

    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
    bug = f"a bug in fusiontools: {type(error).__name__} at {where}"
    if bug not in known:
        known.add(bug)
        traceback.print_exception(error)
        complain(name, f"{place}: {bug}; {then}")
    return bug


def load_dotenv() -> None:
    """Let a `.env` in the working directory fill in variables that the environment lacks."""
    # `pathlib`, which brings along all of `urllib.parse`, would be a fourteenth of what `--help` takes.
    if os.path.isfile(".env"):  # noqa: PTH113
        import dotenv

        try:
            dotenv.load_dotenv(".env", override=False)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f".env: cannot be read: {error}") from error


def _warn_of_unread(name: str) -> None:
    """Say which variable of the environment looks like ours and is read by nobody: most are typing errors."""
    if any(variable.startswith("FUSION_") for variable in os.environ):
        from fusiontools.config.environment import explain_unread

        for warning in explain_unread(os.environ):
            complain(name, f"warning: {warning}")


def _recipe_option() -> click.Option:
    return click.Option(["-c", "--config"], metavar="RECIPE", help=_CONFIG_HELP, shell_complete=complete_recipes)


def _version_option() -> click.Option:
    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_print_version,
        help="Show the version and exit.",
    )


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"{context.info_name} {__version__}")
        context.exit()


def complete_recipes(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell complete the names of recipes, and files."""
    from fusiontools.config.recipe_yaml import own_recipe_names, recipe_names

    names = complete_names(lambda: sorted({*own_recipe_names(), *recipe_names()}))
    return [*names(context, parameter, typed), *complete_files(context, parameter, typed)]


def complete_names(names: Callable[[], Iterable[str]]) -> Completer:
    """Return what lets the shell complete names, which are looked up when it asks."""

    def complete(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        return [CompletionItem(name) for name in names() if name.startswith(typed)]

    return complete


def complete_sessions(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell complete the names of sessions: a tool's own, or those of conversations."""
    from fusiontools.runs.session import CHAT, CODE, list_sessions

    kind = CODE if context.info_name == "fuse-code" else CHAT
    return complete_names(lambda: [each.id for each in list_sessions([kind])])(context, parameter, typed)
