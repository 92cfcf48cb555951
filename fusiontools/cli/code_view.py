"""What a person sees of an agent at work, on standard error: each step as it happens, with its diff."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.text import Text

from fusiontools.cli.markdown import MarkdownScreen
from fusiontools.cli.text import money
from fusiontools.llm.ledger import Event
from fusiontools.record.clean import clean
from fusiontools.record.types import Record
from fusiontools.runs.agent.agent import CodeTurn
from fusiontools.runs.agent.work_copy import printable
from fusiontools.runs.agent.work_tools import WorkPlan
from fusiontools.runs.agent.workspace import CheckRun
from fusiontools.tools.tool import ToolRun

_DIFF_LINES, _OUTPUT_LINES = 60, 8
_TITLE_CHARS = 400
_INDENT = 4


class _StepConsole(Console):
    """Standard error; nobody need read it."""

    def on_broken_pipe(self) -> None:
        """Say nothing any more: the work goes on."""
        self.quiet = True


class StepView:
    """The steps on the screen.

    Args:
        quiet: nothing is shown but what a person is asked.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._console = _StepConsole(stderr=True, highlight=False, soft_wrap=not os.isatty(2))
        self._quiet = quiet
        self._status: Status | None = None
        #: What the model says just now, as it is shown and as it came.
        self._screen: MarkdownScreen | None = None
        self._heard = ""
        self._all = False
        #: Whether the change that is being made has been shown already, to be asked about.
        self._shown = False

    def opens(self, session: str, root: str, model: str, *, network: bool) -> None:
        """Say what is worked on, and by whom."""
        self._line(f"{model} works on a copy of {root}; network {'on' if network else 'off'}; session {session}", "dim")

    def close(self) -> None:
        """Leave the screen as it stands."""
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._screen is not None:
            self._screen.close()
            self._screen = None

    def waits(self, what: str) -> None:
        """Show that something is waited for; an empty text says that it has come."""
        self.close()
        if what and not self._quiet and self._console.is_terminal:
            self._status = self._console.status(Text(_shortened(what, 60), style="dim"))
            self._status.start()

    def hears(self) -> Callable[[str | None], None] | None:
        """Return what shows the model's text as it comes; None where nobody watches."""
        return self._hear if self._console.is_terminal and not (self._quiet or self._console.is_dumb_terminal) else None

    def says(self, text: str) -> None:
        """Show what the model says between its calls, where it has not been shown as it came."""
        self.close()
        if not self.has_shown(text):
            self._line(text.strip())

    def has_shown(self, text: str) -> bool:
        """Return whether this is what the model has last been heard to say."""
        return bool(self._heard) and self._heard.strip() == text.strip()

    def _hear(self, piece: str | None) -> None:
        """Show a piece of a model's text; see `Watcher.hears`."""
        if piece is None and self._heard:
            self.close()
            self._heard = ""
            self.notes("the model broke off, and begins anew")
        elif piece and (self._screen is not None or piece.strip()):
            if self._screen is None:
                self.close()
                self._screen, self._heard = MarkdownScreen(sys.stderr), ""
            self._screen.take(piece)
            self._heard += piece
        elif not piece and self._screen is not None:
            self.waits("the model writes on")

    def begins(self, name: str, arguments: Any) -> None:
        """Show a call that begins."""
        self.close()
        self._shown = False
        self._line(f"• {name} {_about(arguments)}".rstrip(), "bold")
        if name in ("bash", "council", "finish"):
            self.waits(name)

    def ran(self, run: ToolRun) -> None:
        """Show what came of it: a diff, the end of what a command said, or what went wrong."""
        self.close()
        text = run.result.text.rstrip("\n")
        if run.result.status != "ok":
            self._block(text.split("\n"), _OUTPUT_LINES, "red")
        elif run.name in ("edit", "write", "patch"):
            if self._shown:
                return
            for line in _bounded(text.split("\n")[1:], _DIFF_LINES):
                self._line(line, {"+": "green", "-": "red", "@": "cyan"}.get(line[:1]), _INDENT)
        elif run.name == "bash":
            lines = text.split("\n")
            style = "dim" if lines[0] == "exit 0" else "yellow"
            self._line(f"{lines[0]} ({run.latency_s:.1f} s)", style, _INDENT)
            self._block(lines[1:][-_OUTPUT_LINES:], _OUTPUT_LINES, "dim")
        elif run.name in ("read", "search"):
            self._line(text.split("\n")[0], "dim", _INDENT)
        elif run.name == "council":
            self._block(text.split("\n"), _DIFF_LINES, None)

    def checked(self, run: CheckRun, when: str) -> None:
        """Show what came of the check."""
        mark, style = ("✓", "green") if run.green else ("✗", "red")
        self._line(f"{mark} the check {when}: {'passes' if run.green else 'fails'} ({run.seconds:.1f} s)", style)
        if not run.green and when == "after":
            self._block(run.text.split("\n")[-_OUTPUT_LINES:], _OUTPUT_LINES, "dim")

    def planned(self, plan: WorkPlan) -> None:
        """Show the plan as it stands."""
        self._block(str(plan).split("\n"), _DIFF_LINES, None)

    def notes(self, text: str) -> None:
        """Show a remark."""
        self._line(text, "yellow")

    def event(self, event: Event) -> None:
        """Show a call of the panel's that has settled."""
        if event.began:
            return
        self.close()
        why = f"{event.failure.code}: {event.failure.message}" if event.failure else ""
        cost = "" if event.cost_usd is None else f" {money(event.cost_usd)}"
        self._line(f"{event.stage} {event.label} {event.latency_s:.1f} s{cost} {why}".rstrip(), "dim", _INDENT)
        self.waits("the panel")

    async def ask(self, what: str, shown: str) -> str | None:
        """Ask the person for leave; return why not, or None.

        The answer is `y`, `a` for all that follow, or `n` and why.
        """
        self.close()
        if self._all:
            return None
        self._shown = True
        # Nothing is left out, be it long or invisible: it would be agreed to unseen.
        for line in shown.split("\n"):
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            self._console.print(Text(f"    {printable(line.expandtabs())}", style=style or ""))
        while True:
            self._console.print(Text(f"{printable(what)}? [y]es, [a]ll, [n]o and why: ", style="bold yellow"), end="")
            answer = await _read_line()
            if answer is None:
                return "nobody answers"
            word, _, rest = answer.strip().partition(" ")
            if word.lower() in ("y", "yes", "a", "all"):
                self._all = word.lower() in ("a", "all")
                return None
            if word.lower() in ("n", "no"):
                return rest.strip()

    def sums_up(self, turn: CodeTurn, said: str) -> None:
        """Say at the end what came of it, what was changed, and what it cost."""
        code: Any = turn.record["code"]  # type: ignore[typeddict-item]
        self._console.print()
        kept = turn.outcome in ("done", "answered")
        if checks := code.get("checks"):
            said += f"; check {checks['before']} before, {checks.get('after', 'not run')} after"
        self._line(said, "green" if kept else "red")
        for line in code["changed"]:
            self._line(line if kept else f"in the copy: {line}", None, 2)
        if code["tests"]:
            self._line(f"tests among them, to be looked at: {', '.join(code['tests'])}", "yellow", 2)
        for note in code["notes"]:
            self._line(note, "yellow", 2)
        if code["ignored"]:
            self._line(f"{code['ignored']} files that the project ignores stay behind", "dim", 2)
        if "patch" in code:
            self._line(f"what was done is in {code['patch']}", "dim", 2)
        steps = _counted(code["steps"], "step")
        self._line(f"{steps}, {_cost_of([turn.record])}, {code['seconds']:.1f} s", "dim", 2)

    def cost(self, records: Sequence[Record]) -> None:
        """Say what was spent."""
        self._line(_cost_of(records), "dim")

    def _block(self, lines: Sequence[str], most: int, style: str | None) -> None:
        for line in _bounded(lines, most):
            self._line(line, style, _INDENT)

    def _line(self, text: str, style: str | None = None, indent: int = 0) -> None:
        """Show a line; on a terminal what does not fit on it goes on below, as far to the right."""
        if self._quiet:
            return
        shown = Text(clean(text), style=style or "")
        if self._console.is_terminal and indent:
            self._console.print(Padding(shown, (0, 0, 0, indent), expand=False))
        else:
            self._console.print(Text(" " * indent).append_text(shown))


def _about(arguments: Any) -> str:
    """Return what a call is about, on one line."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return _shortened(arguments, _TITLE_CHARS)
    if not isinstance(arguments, dict):
        return ""
    told = [
        arguments[name] for name in ("path", "command", "pattern", "question", "number", "state") if name in arguments
    ]
    told += [arguments["files"]] if isinstance(arguments.get("files"), str) else []
    return _shortened(" ".join(map(str, told)), _TITLE_CHARS)


def _shortened(text: str, most: int) -> str:
    line = " ".join(clean(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _bounded(lines: Sequence[str], most: int) -> list[str]:
    if len(lines) <= most:
        return list(lines)
    return [*lines[:most], f"… {len(lines) - most} lines more"]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _cost_of(records: Sequence[Record]) -> str:
    costs = [call["cost_usd"] for record in records for call in record.get("calls", [])]
    bound = "at least " if None in costs else ""
    return f"{_counted(len(costs), 'call')}, {bound}{money(sum(cost for cost in costs if cost is not None))}"


async def _read_line() -> str | None:
    """Return a line that a person types; None at the end. Whoever waits for it can be cancelled."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(0, wake)
    try:
        await ready
    finally:
        loop.remove_reader(0)
    return sys.stdin.readline() or None
