"""What a person types in a conversation: a prompt with history, completion and several lines."""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

#: How many lines below the prompt are kept free for completions, on a screen that has them.
_MENU_LINES, _MENU_SHARE = 6, 4


class LineEditor:
    """Where a person types.

    Args:
        commands: what begins with a slash, with a word about each.
        values: what may stand behind a command; None for the names of files.
        history: the file in which what was typed is kept; None keeps it in memory.
    """

    def __init__(
        self, commands: Mapping[str, str], values: Callable[[str], Iterable[str] | None], history: Path | None
    ) -> None:
        completer = _Commands(commands, values)
        begins_command = Condition(lambda: self._session.default_buffer.text.startswith("/"))
        self._session: PromptSession[str] = PromptSession(
            multiline=True,
            key_bindings=_keys(),
            history=_history(history),
            completer=completer,
            complete_while_typing=begins_command,
            prompt_continuation="  ",
            enable_suspend=True,
            reserve_space_for_menu=min(_MENU_LINES, os.get_terminal_size(1).lines // _MENU_SHARE),
        )

    async def ask(self, before: str = "> ", text: str = "") -> str:
        """Return what was typed.

        Args:
            text: what stands there to be changed.

        Raises:
            EOFError: Ctrl-D on an empty line.
            KeyboardInterrupt: Ctrl-C.
        """
        return await self._session.prompt_async(before, default=text)

    async def ask_secret(self, before: str) -> str:
        """Return what was typed, which nobody sees and nothing keeps."""
        secret: PromptSession[str] = PromptSession(is_password=True, history=InMemoryHistory())
        return await secret.prompt_async(before)


class _Commands(Completer):
    """Completes a command, and the name or the file behind it."""

    def __init__(self, commands: Mapping[str, str], values: Callable[[str], Iterable[str] | None]) -> None:
        self._commands = commands
        self._values = values
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Yield what the word before the cursor may become."""
        typed = document.text_before_cursor
        if not typed.startswith("/") or "\n" in typed:
            return
        name, space, rest = typed.partition(" ")
        if not space:
            for command, about in self._commands.items():
                if command.startswith(name):
                    yield Completion(command, -len(name), display_meta=about)
            return
        values = self._values(name)
        if values is None:
            yield from self._paths.get_completions(Document(rest, len(rest)), complete_event)
            return
        yield from (Completion(value, -len(rest)) for value in values if value.startswith(rest))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history(path: Path | None) -> History:
    """Return where what was typed is kept; its owner alone may read it."""
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(path))


@contextmanager
def keeping_typed_text() -> Iterator[None]:
    """Let what is typed meanwhile wait for the next prompt instead of showing up in the midst of an answer."""
    try:
        before: list[Any] = termios.tcgetattr(0)
    except termios.error:
        yield
        return
    quiet = [*before]
    # Enter stays what the prompt takes for Enter, Ctrl-C a signal.
    quiet[0] &= ~termios.ICRNL
    # What stands there when Ctrl-C comes is not thrown away.
    quiet[3] = quiet[3] & ~(termios.ICANON | termios.ECHO) | termios.NOFLSH
    termios.tcsetattr(0, termios.TCSANOW, quiet)

    def go_on(*_: object) -> None:
        # Whoever has been stopped (Ctrl-Z) comes back to what the shell has made of the terminal.
        if termios.tcgetattr(0)[3] & termios.ECHO:
            termios.tcsetattr(0, termios.TCSANOW, quiet)

    signal.signal(signal.SIGCONT, go_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, before)
