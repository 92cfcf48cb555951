"""`fuse-ask`: one question through a whole chain, in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.options import option
from fusiontools.config.stage_table import JournalOptions, LimitOptions

_TOOL = "fuse-ask"
HELP = """\
\b
  fuse-ask "CRDTs or OT for a shared editor?"
  git diff | fuse-ask --chain "panel -m openai/gpt-5.5 -m x-ai/grok-4 | judge | synth --refine" "Review this:" -

Take one question through a whole chain, in one process.

On a terminal it shows who has answered, how long it took and what it cost, then the answer as it is written; elsewhere
plain text. `-` stands for what comes in on standard input. The chain is the recipe's, else panel | judge | synth.
"""


@dataclass(frozen=True, slots=True)
class AskOptions:
    """What `fuse-ask` can be told."""

    models: tuple[str, ...] = option(
        (), "-m", "--model", multiple=True, metavar="MODEL[*N][@ENDPOINT]",
        help="A panel member; repeat for more.  [default: the recipe's]",
    )  # fmt: skip
    chain: str | None = option(
        None, "--chain", metavar="TEXT", help="Tools without their prefix: 'panel -m a -m b | judge | synth --refine'."
    )
    json: bool = option(False, "--json", help="Print the record instead of the answer.")
    verbose: bool = option(False, "-v", "--verbose", help="Show every response and the analysis too.")
    quiet: bool = option(False, "-q", "--quiet", help="No view, no notes; errors only.")
    strict: bool = option(False, "--strict", help="Exit 1 where anything is degraded.")
    completion: str | None = option(
        None, "--completion", choices=("bash", "zsh", "fish"),
        help="Print what makes this shell complete all tools: eval \"$(fuse-ask --completion bash)\".",
    )  # fmt: skip


@command(_TOOL, AskOptions, LimitOptions, JournalOptions, help=HELP, arguments="[QUESTION]...")
def main(
    files: tuple[str, ...], config: str | None, ask: dict[str, Any], limit: dict[str, Any], journal: dict[str, Any]
) -> None:
    import asyncio

    from fusiontools.chain import StepRefused
    from fusiontools.cli.command import complain, leave
    from fusiontools.cli.filter import loop_factory
    from fusiontools.cli.setup import make_client, read_chain
    from fusiontools.config.recipe_yaml import load_recipe
    from fusiontools.config.resolve import check_calls, missing_keys
    from fusiontools.errors import UsageError

    options = AskOptions(**ask)
    if options.completion:
        from fusiontools.cli.completion import completion_script
        from fusiontools.cli.io import write_or_leave

        write_or_leave(_TOOL, completion_script(options.completion).encode())
        leave(0)
    recipe = load_recipe(config)
    check_calls(recipe)
    chain = read_chain(options.chain, recipe).with_members(options.models)
    if chain.first_panel is None:
        raise UsageError("--chain: a question needs a `panel` that answers it")
    offline = bool(journal.get("offline"))
    limited = bool({"max_cost_usd", "max_record_cost_usd"} & limit.keys())
    try:
        stage = chain.bind(recipe, binding=config is not None, offline=offline, limited=limited)
    except StepRefused as error:
        # Only a chain that was typed has columns that a person knows.
        raise UsageError(f"--chain: {error.message}" if options.chain else error.reason) from error
    question = _read_question(files)
    for warning in missing_keys(recipe, offline) if options.chain is None else []:
        complain(_TOOL, f"warning: {warning}")
    client = make_client(recipe, limit, journal, _TOOL)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        leave(runner.run(_ask(question, stage, client, options)))


def _read_question(words: Sequence[str]) -> Any:
    """Return the record of what was asked: the arguments, with `-` for standard input.

    Raises:
        UsageError: nothing was asked, or the input is no text.
    """
    import os

    from fusiontools.errors import InputError, UsageError
    from fusiontools.record import jsonl

    if not words and os.isatty(0):
        raise UsageError('ask something: fuse-ask "What is a CRDT?" (or `-` for standard input)')
    words = words or ("-",)
    if words.count("-") > 1:
        raise UsageError("`-` may stand once: standard input is read once")
    try:
        pieces = [b"\n\n" + _read_stdin() + b"\n\n" if word == "-" else word.encode() for word in words]
        return jsonl.from_text(b" ".join(pieces).strip())
    except OSError as error:
        raise UsageError(f"stdin: cannot be read: {error.strerror}") from error
    except (InputError, UnicodeEncodeError) as error:
        raise UsageError(f"the question cannot be read: {error}") from error


def _read_stdin() -> bytes:
    with open(0, "rb", closefd=False) as stdin:
        return stdin.read()


async def _ask(question: Any, stage: Any, make: Any, options: AskOptions) -> int:
    """Run the chain, show it, print what came; return the exit status."""
    import asyncio
    import os
    import signal

    from fusiontools.cli.command import leave
    from fusiontools.cli.filter import give_up
    from fusiontools.errors import EXIT_INTERRUPTED
    from fusiontools.stages.runtime import Runtime

    client = make()
    view = None
    if os.isatty(2) and not options.quiet:
        from fusiontools.cli.view import View

        view = View()
        client.notify = view.notify
    shown = _LiveAnswer(view) if os.isatty(1) and not (options.json or options.verbose) else None

    work = asyncio.create_task(stage(question, Runtime(client, shown.take if shown else None)))
    told: list[int] = []

    def interrupt(number: int) -> None:
        told.append(number)
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    await asyncio.wait({work})
    if view is not None:
        view.close()
    if told:
        await give_up()
        leave(EXIT_INTERRUPTED if told[0] == signal.SIGINT else 128 + told[0])
    record = work.result()
    status = _show(record, options, shown, seen=view is not None)
    if view is not None:
        view.sum_up(record)
    await client.aclose()
    return _exit_status(record, client, status, strict=options.strict)


class _LiveAnswer:
    """The answer on a terminal, as it is written."""

    def __init__(self, view: Any) -> None:
        self._view = view
        self.text = ""

    def take(self, delta: Any) -> None:
        """Write a piece of the answer, below the table of calls; a tool call is written when it is whole."""
        from fusiontools.cli.io import write_or_leave
        from fusiontools.record.clean import clean

        if not isinstance(delta, str):
            return
        if not self.text and self._view is not None:
            self._view.close()
        self.text += delta
        write_or_leave(_TOOL, clean(delta).encode("utf-8", "replace"))


def _show(record: Mapping[str, Any], options: AskOptions, shown: _LiveAnswer | None, *, seen: bool) -> bool:
    """Write the answer, or the whole record, and what there is to say of it; return whether there is an answer.

    Args:
        seen: whether somebody has watched the calls, and so knows who failed.
    """
    from fusiontools.cli.command import complain
    from fusiontools.cli.io import write_or_leave
    from fusiontools.cli.text import record_as_text
    from fusiontools.record import jsonl

    if options.json:
        write_or_leave(_TOOL, jsonl.write(record))  # type: ignore[arg-type]
    elif "error" not in record:
        written = shown.text if shown else ""
        if written:
            write_or_leave(_TOOL, b"\n")
        whole = not written or written != record.get("answer", {}).get("content")
        text = record_as_text(record, options.verbose, with_answer=whole)  # type: ignore[arg-type]
        if whole or options.verbose:
            write_or_leave(_TOOL, text.encode("utf-8", "replace"))
    if not options.quiet:
        for note in record.get("degraded", []):
            if seen and note["code"] == "member_failed":
                continue
            complain(_TOOL, f"{note['code']}: {note['detail']}")
    if error := record.get("error"):
        complain(_TOOL, f"no answer: {error['code']}: {error['message']}")
    return "error" not in record


def _exit_status(record: Mapping[str, Any], client: Any, answered: bool, *, strict: bool) -> int:
    from fusiontools.errors import EXIT_BUDGET, EXIT_NOTHING_USABLE, EXIT_OK, EXIT_SOME_FAILED

    if client.budget.stopped:
        return EXIT_BUDGET
    if not answered:
        return EXIT_NOTHING_USABLE
    return EXIT_SOME_FAILED if strict and record.get("degraded") else EXIT_OK
