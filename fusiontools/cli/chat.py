"""`fuse-chat`: a conversation with a recipe or a chain, in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusiontools.cli.ask_command import AskedOptions, complete_prompts
from fusiontools.cli.command import command, complete_sessions
from fusiontools.config.options import option
from fusiontools.config.stage_table import JournalOptions, LimitOptions
from fusiontools.config.tool_options import ToolOptions

_TOOL = "fuse-chat"
HELP = """\
\b
  fuse-chat -c budget
  fuse-chat --continue

Talk with a recipe: each turn goes through the whole chain, with all that was said before.

Enter sends, Alt-Enter begins a new line, Ctrl-C stops an answer and keeps what was shown of it, Ctrl-D leaves; /help
lists the commands. Each turn is a record in a file that all tools read. Where standard input or output is no terminal,
one question is answered, in plain text.
"""


class ChatOptions(AskedOptions):
    """What `fuse-chat` can be told."""

    session: str | None = option(
        None, "--continue", metavar="[ID]", bare="", help="Go on with the last conversation, or with this one."
    )
    fork: bool = option(False, "--fork", help="Go on with a copy; the conversation itself stays as it is.")
    no_session: bool = option(False, "--no-session", help="Keep no file of the conversation.")
    show_sessions: bool = option(False, "--sessions", help="List the conversations that are kept.")


@command(
    _TOOL,
    ChatOptions,
    ToolOptions,
    LimitOptions,
    JournalOptions,
    help=HELP,
    arguments="[QUESTION]...",
    completes={"session": complete_sessions, "template": complete_prompts},
)
def main(
    files: tuple[str, ...],
    config: str | None,
    chat: dict[str, Any],
    tool: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
) -> None:
    import asyncio
    import os

    from fusiontools.cli.command import leave
    from fusiontools.cli.filter import loop_factory

    options = ChatOptions(**chat)
    if options.show_sessions:
        _print_sessions()
    interactive = os.isatty(0) and os.isatty(1)
    session = _open_session(options)
    from fusiontools.cli.chat_commands import COMMANDS
    from fusiontools.cli.chat_run import ChatLoop, Setting

    setting = Setting(options, config, tool, limit, journal)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        talk = ChatLoop(setting, session)
        leave(runner.run(talk.run(files, COMMANDS) if interactive else talk.answer_once(files)))


def _open_session(options: ChatOptions) -> Any:
    """Return the conversation that is gone on with, or a new one; None where none is kept."""
    from fusiontools.cli.command import complain
    from fusiontools.errors import UsageError
    from fusiontools.runs.session import SessionInUse, new_session, open_session

    if options.session is None:
        if options.fork:
            raise UsageError("--fork goes with --continue")
        return None if options.no_session else new_session()
    if options.no_session:
        raise UsageError("--no-session and --continue exclude each other")
    try:
        session = open_session(options.session, read_only=options.fork)
    except SessionInUse as error:
        raise UsageError(f"{error.message}; --fork goes on with a copy", code="session") from None
    for warning in session.warnings:
        complain(_TOOL, f"warning: {warning}")
    return session.fork() if options.fork else session


def _print_sessions() -> None:
    """Print the conversations, the latest first, and leave."""
    import time

    from fusiontools.cli.command import complain, leave
    from fusiontools.cli.io import is_colour_welcome, write_or_leave
    from fusiontools.cli.table import screen_width, table_text
    from fusiontools.runs.session import list_sessions, sessions_dir

    found = list_sessions()
    if not found:
        complain(_TOOL, f"no conversation is kept in {sessions_dir()}")
        leave(0)
    rows: Sequence[list[Any]] = [
        [each.id, time.strftime("%Y-%m-%d %H:%M", time.localtime(each.modified)), f"{each.turns:,}", each.title]
        for each in found
    ]
    head = ["session", "last turn", "turns", "begins"]
    shown = table_text(head, rows, left=(0, 1, 3), folding=3, colour=is_colour_welcome(), width=screen_width())
    write_or_leave(_TOOL, shown.encode())
    leave(0)
