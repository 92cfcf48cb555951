"""One run of `fuse-code`; apart from `code.py`, whose `--help` needs nothing of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fusiontools.cli.code_view import StepView
from fusiontools.cli.command import complain, leave
from fusiontools.cli.io import write_or_leave
from fusiontools.cli.setup import read_chain
from fusiontools.config.code_options import CodeOptions
from fusiontools.config.models import Model, require_ready
from fusiontools.config.recipe import Recipe, parse_model
from fusiontools.errors import (
    EXIT_BUDGET,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_USABLE,
    EXIT_OK,
    EXIT_SOME_FAILED,
    UsageError,
    install_line,
)
from fusiontools.record import jsonl
from fusiontools.record.clean import clean
from fusiontools.runs.agent.agent import Agent, CodeTurn
from fusiontools.runs.agent.file_rules import Rules
from fusiontools.runs.agent.loop import AgentOptions
from fusiontools.runs.agent.turn_log import reopen_session
from fusiontools.runs.agent.work_copy import CopyStopped
from fusiontools.runs.agent.workspace import WorkOptions
from fusiontools.runs.session import CODE, Session, new_session
from fusiontools.stages.runtime import Runtime, Stage
from fusiontools.tools.opening import secrets_here

_TOOL = "fuse-code"
_EXITS = {
    "done": EXIT_OK,
    "answered": EXIT_OK,
    "failed": EXIT_NOTHING_USABLE,
    "budget": EXIT_BUDGET,
    "interrupted": EXIT_INTERRUPTED,
}
_SAID = {
    "done": "done",
    "answered": "answered",
    "reverted": "not kept: the check fails; the project is as it was",
    "conflict": "not brought over: files were changed meanwhile; nothing was touched",
    "unwritten": "not wholly brought over: a file could not be written; the rest is kept in the copy",
    "unfinished": "not finished: the model stopped without calling finish; the project is as it was",
    "steps": "not finished; the project is as it was",
    "repeats": "not finished: it went in circles; the project is as it was",
    "budget": "stopped by the cost limit; the project is as it was",
    "failed": "the model could not be asked; the project is as it was",
    "broken": "broken off: a file could not be read or written; the project is as it was",
    "interrupted": "interrupted; the project is as it was",
}
_COMMANDS = {"/go": "go on with a task that was not finished", "/cost": "what was spent", "/help": "this"}
_HELP = "Say what to do. /go goes on with a task that was not finished, /cost says what was spent. Ctrl-D leaves."


async def code_once(task: str, options: CodeOptions, recipe: Recipe, make: Callable[[], Any], journal: Any) -> int:
    """Work on a task, or on one after the other as a person gives them; return the exit status.

    Raises:
        UsageError: options that cannot be, no model that can work, no sandbox.
    """
    talks = not task and os.isatty(0)
    goes_on = options.session is not None
    if not task and not talks and not goes_on:
        task = sys.stdin.read().strip()
    if not (task or talks or goes_on):
        raise UsageError('say what to do: fuse-code "add a test for the parser"')
    if options.approve and not os.isatty(0):
        raise UsageError("--approve asks on a terminal, and standard input is none")
    model = _model(options, recipe, offline=bool(journal.get("offline")))
    view = StepView(quiet=options.quiet)
    advice, council = _chains(options, recipe, view)
    work = WorkOptions(
        _root(options.root),
        Rules(options.allow, options.protect),
        options.network,
        options.readable,
        recipe.tools.sandbox,
        (client := make()).tools.unsafe_shell,
        tuple(secrets_here()),
    )
    about = AgentOptions(model, work, advice, council, options.check, options.plan, options.max_steps, talks)
    with tempfile.TemporaryDirectory() as nowhere:
        session = _session(options, Path(nowhere) if journal.get("no_journal") else None)
        for warning in session.warnings:
            complain(_TOOL, warning)
        agent = Agent(session, Runtime(client), about, view, options.approve)
        view.opens(session.id, str(work.root), model.name, network=work.network)
        try:
            if talks and not (goes_on and agent.goes_on):
                return await _talk(agent, view, options)
            turn, number = await _turn(agent, task or None)
            if turn is None:
                view.close()
                complain(_TOOL, _SAID["interrupted"])
                return 128 + number
            status = _show(turn, options, view)
            if agent.goes_on and not journal.get("no_journal"):
                complain(_TOOL, f"fuse-code --continue {session.id} goes on with it")
            return 128 + number if number == signal.SIGTERM else status
        finally:
            view.close()
            agent.close(forget=bool(journal.get("no_journal")))
            await client.aclose()


def _root(path: str) -> Path:
    return Path(path).resolve()


def _session(options: CodeOptions, folder: Path | None) -> Session:
    if options.session is not None:
        return reopen_session(options.session)
    return new_session(CODE, folder)


def _model(options: CodeOptions, recipe: Recipe, *, offline: bool) -> Model:
    """Return who works.

    Raises:
        UsageError: there is nobody, its key is missing, or it cannot call tools.
    """
    if options.model is not None:
        model = parse_model(options.model, recipe)
    else:
        named = (*recipe.synth.models, *recipe.panel.members)
        if not named:
            raise UsageError(f"the recipe {recipe.name!r} names no model; say who works with -m")
        model = named[0]
    endpoint = recipe.endpoints[model.endpoint]
    if endpoint.embedded or endpoint.runs_program:
        what = "is the embedded model, which" if endpoint.embedded else "is asked through a program, which here"
        raise UsageError(f"{model.name} {what} cannot call tools; name another with -m, or a recipe with -c")
    if not offline:
        require_ready(endpoint)
    return model


def _chains(options: CodeOptions, recipe: Recipe, view: StepView) -> tuple[Stage | None, Stage | None]:
    """Return the chain that advises, where one is to, and the council's."""
    try:
        chain = read_chain(options.chain, recipe)
        if chain.first_panel is None or not chain.answers:
            raise UsageError("--chain: what is asked needs a `panel` and somebody who writes the answer")
        stage = chain.bind(recipe)
    except UsageError as error:
        if options.fuse or options.chain:
            raise
        view.notes(f"no council: {error.message}")
        return None, None
    return stage if options.fuse else None, stage


async def _turn(agent: Agent, task: str | None) -> tuple[CodeTurn | None, int]:
    """Work on a task; return what came of it, None where it had not begun, and the signal that ended it, or 0.

    A second signal leaves at once: every step is written down.
    """
    loop = asyncio.get_running_loop()
    told: list[int] = []

    def stop(number: int) -> None:
        if told:
            leave(128 + number)
        told.append(number)
        agent.stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, stop, number)
    try:
        turn = await agent.turn(task)
    except CopyStopped:
        turn = None
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
    return turn, told[0] if told else 0


async def _talk(agent: Agent, view: StepView, options: CodeOptions) -> int:
    """Ask a person for one task after the other."""
    try:
        from fusiontools.cli.chat_input import LineEditor
    except ImportError:
        raise UsageError(f"to ask for tasks needs prompt_toolkit: {install_line('chat')}") from None
    prompt = LineEditor(_COMMANDS, lambda name: (), None)
    view.notes(_HELP)
    while True:
        try:
            task = (await prompt.ask("task> ")).strip()
        except EOFError:
            return EXIT_OK
        except KeyboardInterrupt:
            continue
        if task == "/cost":
            view.cost(agent.session.records)
        elif task == "/go" and not agent.goes_on:
            view.notes("every task has come to its end")
        elif task.startswith("/") and task != "/go":
            view.notes(_HELP)
        elif task:
            try:
                turn, _ = await _turn(agent, None if task == "/go" else task)
            except UsageError as error:
                complain(_TOOL, error.message)
                continue
            if turn is not None:
                _show(turn, options, view)


def _show(turn: CodeTurn, options: CodeOptions, view: StepView) -> int:
    """Show what came of a turn; return the exit status."""
    view.close()
    if options.json or options.output == "jsonl":
        write_or_leave(_TOOL, jsonl.write(turn.record))
    elif "answer" in turn.record and not (os.isatty(1) and view.has_shown(turn.summary)):
        _write_summary(turn.summary)
    code: Mapping[str, Any] = turn.record["code"]  # type: ignore[typeddict-item]
    if not options.quiet:
        view.sums_up(turn, _SAID[turn.outcome])
    if turn.outcome in ("failed", "budget", "steps", "repeats", "broken"):
        complain(_TOOL, turn.summary)
    elif options.quiet and turn.outcome not in ("done", "answered"):
        complain(_TOOL, _SAID[turn.outcome])
    if options.quiet:
        for note in code["notes"]:
            complain(_TOOL, note)
    return _EXITS.get(turn.outcome, EXIT_SOME_FAILED)


def _write_summary(text: str) -> None:
    if not os.isatty(1) or os.environ.get("TERM", "dumb") == "dumb":
        write_or_leave(_TOOL, f"{clean(text).strip()}\n".encode("utf-8", "replace"))
        return
    from fusiontools.cli.markdown import MarkdownScreen

    screen = MarkdownScreen()
    screen.take(text)
    screen.close()
