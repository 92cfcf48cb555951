"""One question on its way to the screen; apart from `ask.py`, whose `--help` needs nothing of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from fusiontools.cli.command import complain, leave, report_bug
from fusiontools.cli.filter import give_up
from fusiontools.cli.io import write_or_leave
from fusiontools.cli.text import footnotes, record_as_text, sets_markdown
from fusiontools.errors import (
    EXIT_BUDGET,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    FusionError,
    UsageError,
)
from fusiontools.record import jsonl
from fusiontools.record.clean import CleanStream, clean
from fusiontools.record.sections import reasons_of, with_error
from fusiontools.runs.session import Session, keep_last
from fusiontools.runs.turn import ChatTurn

if TYPE_CHECKING:
    from fusiontools.config.stage_table import BatchOptions


class Asking(Struct, frozen=True):
    """How one question is asked and shown.

    Args:
        tool: which tool asks.
        as_record: the record is wanted and not its answer.
        plain: on a terminal, too, the answer comes as it was written.
        replayable: whether finished calls are kept, so that the same command with `--replay` goes on.
        keeps_last: whether the last question that a person asks is kept, so that `--continue` goes on from it.
        batch: whether its calls go as batch jobs.
    """

    tool: str
    as_record: bool
    plain: bool
    verbose: bool
    quiet: bool
    strict: bool
    replayable: bool
    keeps_last: bool = False
    batch: BatchOptions | None = None

    @property
    def is_live(self) -> bool:
        """Whether the answer is shown as it is written: nothing else is printed then."""
        return not (self.as_record or self.verbose)

    @property
    def is_set(self) -> bool:
        """Whether Markdown is set for a person who reads it on a terminal."""
        return sets_markdown(self.plain)


async def ask_once(
    question: Any, stage: Any, make: Any, asking: Asking, session: Session | None = None, keep: Any = None
) -> int:
    """Run the chain, show it, print what came; return the exit status.

    Args:
        session: the conversation that the question goes on with.
        keep: keeps the record among the past runs, where somebody wants that.
    """
    client = make()
    if asking.batch is not None and (status := await _go_by_batch(question, stage, client, asking)) is not None:
        return status
    view = None
    if os.isatty(2) and not asking.quiet:
        from fusiontools.cli.view import View

        view = View()
    shown = LiveAnswer(view, asking) if asking.is_live else None
    turn = ChatTurn(question, shown.take if shown else None)
    record, told = await run_turn(turn, stage, client, view, asking.tool)
    if view is not None:
        view.close()
    keep_turn(record, session, asking)
    if told:
        await _leave_interrupted(told, view is not None and asking.replayable, shown, asking.tool)
    if keep is not None:
        keep(record)
    answered = show_record(record, asking, shown, seen=view is not None)
    if view is not None:
        view.sum_up(record)
    await client.aclose()
    return _exit_status(record, client, answered, strict=asking.strict)


async def _go_by_batch(question: Any, stage: Any, client: Any, asking: Asking) -> int | None:
    """Send and fetch the question's calls as batch jobs; returns the exit status, None where all are there."""
    from fusiontools.cli.batch_run import BatchRun

    async def records() -> Any:
        yield [question]

    assert asking.batch is not None  # noqa: S101 - only then it is called
    run = BatchRun(asking.tool, asking.batch, asking.quiet, client)
    status = await run.go(stage, records)
    return await run.ended(run.waiting, 0) if status is None else status


async def run_turn(turn: ChatTurn, stage: Any, client: Any, view: Any, tool: str) -> tuple[Any, int]:
    """Return the record that came, and the signal that has stopped it, else 0.

    A bug of ours is a failed record, with the calls that were paid for.
    """
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(turn.run(stage, client, view.notify if view is not None else None))
    told: list[int] = []

    def interrupt(number: int) -> None:
        told.append(number)
        work.cancel()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, interrupt, number)
    await asyncio.wait({work})
    for number in heard:
        loop.remove_signal_handler(number)
        signal.signal(number, before[number])
    if told and (work.cancelled() or work.exception() is not None):
        return turn.stopped(), told[0]
    try:
        return work.result(), told[0] if told else 0
    except FusionError:
        raise
    except Exception as error:
        # Nobody expected this one.
        then = "finished calls are in the journal (--replay)"
        said = report_bug(tool, "the question", error, set(), then)
        return with_error(turn.record, "ask", "bug", said, turn.calls), 0


def keep_turn(record: Any, session: Session | None, asking: Asking) -> None:
    """Add the turn to its conversation; of a question alone that a person asks, the last one is kept to go on from."""
    try:
        if session is not None:
            session.append(record)
        elif asking.keeps_last and os.isatty(2) and "answer" in record:
            keep_last(record)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        complain(asking.tool, f"warning: the conversation is not kept: {where}{error.strerror}")
    except UsageError as error:
        complain(asking.tool, f"warning: the question is not kept to go on from: {error.message}")


async def _leave_interrupted(number: int, replayable: bool, shown: LiveAnswer | None, tool: str) -> None:
    if shown is not None:
        shown.finish()
    await give_up()
    if replayable:
        complain(tool, "interrupted; the same command with --replay goes on, and finished calls are not bought again")
    leave(EXIT_INTERRUPTED if number == signal.SIGINT else 128 + number)


class LiveAnswer:
    """The answer as it is written: set as Markdown on a terminal, elsewhere its very text."""

    def __init__(self, view: Any, asking: Asking) -> None:
        self._view = view
        self._screen: Any = None
        self._is_set = asking.is_set
        self._tool = asking.tool
        #: Blanks that are written only where more follows them: an answer neither begins nor ends with any.
        self._blanks = ""
        self._clean = CleanStream()
        #: What the model wrote, as it came.
        self.text = ""

    def take(self, delta: Any) -> None:
        """Write a piece of the answer, below the table of calls; a tool call is written when it is whole."""
        if not isinstance(delta, str):
            return
        self.text += delta
        if not self.text.strip():
            return
        first = self.text.strip() == delta.strip() and not self._blanks
        if first:
            delta = delta.lstrip()
            if self._view is not None:
                self._view.close()
        piece = self._blanks + delta
        self._blanks = piece[len(piece.rstrip()) :]
        self._write(piece.rstrip())

    def _write(self, text: str) -> None:
        if not text:
            return
        if not self._is_set:
            write_or_leave(self._tool, self._clean.take(text).encode("utf-8", "replace"))
            return
        if self._screen is None:
            from fusiontools.cli.markdown import MarkdownScreen

            self._screen = MarkdownScreen()
        self._screen.take(text)

    def finish(self) -> None:
        """End the last line."""
        if self._screen is not None:
            self._screen.close()
        elif self.text.strip():
            write_or_leave(self._tool, f"{self._clean.finish()}\n".encode("utf-8", "replace"))
        self._screen = None

    def print_whole(self, text: str) -> None:
        """Write an answer that nobody has seen come."""
        if not self._is_set:
            write_or_leave(self._tool, text.encode("utf-8", "replace"))
            return
        from fusiontools.cli.markdown import MarkdownScreen

        screen = MarkdownScreen()
        screen.take(text)
        screen.close()


def show_record(record: Mapping[str, Any], asking: Asking, shown: LiveAnswer | None, *, seen: bool) -> bool:
    """Write the answer, or the whole record, and what there is to say of it; return whether there is an answer.

    Args:
        seen: whether somebody has watched the calls, and so knows who failed.
    """
    if shown is not None:
        shown.finish()
    if asking.as_record:
        write_or_leave(asking.tool, jsonl.write(record))  # type: ignore[arg-type]
    elif "error" not in record:
        _show_answer(record, asking, shown)
    if not asking.quiet:
        for note in _say_once(record.get("degraded", []), seen):
            complain(asking.tool, note)
    if error := record.get("error"):
        _say_failed(record, error, asking.tool)
    return "error" not in record


def _say_failed(record: Mapping[str, Any], error: Mapping[str, Any], tool: str) -> None:
    """Say why there is no answer; where members failed for several reasons, each on a line of its own."""
    reasons = reasons_of(record.get("panel", [])) if error["stage"] == "panel" else []
    if len(reasons) < 2 or error["message"] != "; ".join(reasons):
        complain(tool, f"no answer: {error['code']}: {error['message']}")
        return
    complain(tool, f"no answer: {error['code']}:")
    for reason in reasons:
        complain(tool, f"  {reason}")


def _show_answer(record: Mapping[str, Any], asking: Asking, shown: LiveAnswer | None) -> None:
    """Write what has not been written yet; where another text came than the answer, say so and write the answer."""
    if shown is not None and shown.text == record.get("answer", {}).get("content"):
        if notes := footnotes(record):  # type: ignore[arg-type]
            write_or_leave(asking.tool, f"\n{clean(notes)}\n".encode("utf-8", "replace"))
        return
    text = record_as_text(record, asking.verbose)  # type: ignore[arg-type]
    if shown is None:
        write_or_leave(asking.tool, text.encode("utf-8", "replace"))
        return
    if shown.text.strip():
        complain(asking.tool, "what stands above broke off; the answer is what follows")
    shown.print_whole(text)


def _say_once(notes: Any, seen: bool) -> list[str]:
    """Return what degraded, in words; what is said of several members alike is said once."""
    said: dict[str, int] = {}
    for note in notes:
        if seen and note["code"] == "member_failed":
            continue
        line = f"{note['code']}: {note['detail']}"
        said[line] = said.get(line, 0) + 1
    return [f"{line} ({count} times)" if count > 1 else line for line, count in said.items()]


def _exit_status(record: Mapping[str, Any], client: Any, answered: bool, *, strict: bool) -> int:
    if client.budget.stopped:
        return EXIT_BUDGET
    if not answered:
        return EXIT_NOTHING_USABLE
    return EXIT_SOME_FAILED if strict and record.get("degraded") else EXIT_OK
