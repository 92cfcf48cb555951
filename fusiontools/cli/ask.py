"""`fuse-ask`: one question through a whole chain, in one process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.options import option
from fusiontools.config.stage_table import EVIDENCE_HELP, JournalOptions, LimitOptions
from fusiontools.config.tool_options import ToolOptions

_TOOL = "fuse-ask"
#: How long a pipe may be silent until it is said that it is waited for.
_SILENT_S = 3.0
HELP = """\
\b
  fuse-ask "CRDTs or OT for a shared editor?"
  git diff | fuse-ask --chain "panel -m openai/gpt-5.5 -m x-ai/grok-4 | judge | synth --refine" "Review this:"

Take one question through a whole chain, in one process.

On a terminal it shows who has answered, how long it took and what it cost, then the answer as it is written, with its
Markdown set; elsewhere plain text, as it comes too. What comes in on standard input stands below the question; `-`
puts it elsewhere. Without a question, JSON on standard input is a record. A question that begins with a dash comes
after `--`. The chain is the recipe's, else panel | judge | synth.
"""


@dataclass(frozen=True, slots=True)
class AskOptions:
    """What `fuse-ask` can be told."""

    models: tuple[str, ...] = option(
        (), "-m", "--model", "--panel", multiple=True, metavar="MODEL[*N][@ENDPOINT]",
        help="A panel member; repeat for more.  [default: the recipe's]",
    )  # fmt: skip
    judge: str | None = option(
        None, "-J", "--judge", metavar="MODEL[@ENDPOINT]", help="Who judges.  [default: the recipe's]"
    )
    synth: str | None = option(
        None, "-S", "--synth", metavar="MODEL[@ENDPOINT]", help="Who writes the answer.  [default: the recipe's]"
    )
    chain: str | None = option(
        None, "--chain", metavar="TEXT", help="Tools without their prefix: 'panel -m a -m b | judge | synth --refine'."
    )
    system: str | None = option(None, "-s", "--system", metavar="TEXT", help="A system prompt for the conversation.")
    evidence: tuple[str, ...] = option((), "--evidence", multiple=True, metavar="FILE", help=EVIDENCE_HELP)
    max_tokens: int | None = option(
        None, "-t", "--max-tokens", minimum=1, metavar="N", help="Longest answer, in tokens."
    )
    output: str | None = option(None, "-o", "--output", choices=("text", "jsonl"), help="The answer, or the record.")
    json: bool = option(False, "--json", help="The same as -o jsonl.")
    plain: bool = option(False, "--plain", help="On a terminal too, the answer as the model wrote it.")
    verbose: bool = option(False, "-v", "--verbose", help="Show every response and the analysis too.")
    quiet: bool = option(False, "-q", "--quiet", help="No view, no notes; errors only.")
    strict: bool = option(False, "--strict", help="Exit 1 where anything is degraded.")
    show_list: bool = option(False, "--list", help="Show recipes, endpoints and models, and what each still lacks.")
    import_file: str | None = option(
        None, "--import", metavar="FILE", help="Print a file of fusionHarness, openfusion or Fusion Engine as a recipe."
    )  # fmt: skip
    completion: str | None = option(
        None, "--completion", choices=("bash", "zsh", "fish"),
        help="Print what makes this shell complete all tools: eval \"$(fuse-ask --completion bash)\".",
    )  # fmt: skip


@command(_TOOL, AskOptions, ToolOptions, LimitOptions, JournalOptions, help=HELP, arguments="[QUESTION]...")
def main(
    files: tuple[str, ...],
    config: str | None,
    ask: dict[str, Any],
    tool: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
) -> None:
    import asyncio

    from fusiontools.cli.ask_run import Asking, ask_once
    from fusiontools.cli.command import complain, leave
    from fusiontools.cli.filter import loop_factory
    from fusiontools.cli.setup import make_client, named_recipe, run_keeper
    from fusiontools.config.resolve import check_calls, missing_keys

    options = AskOptions(**ask)
    _print_and_leave(options)
    recipe = named_recipe(config, _TOOL, journal, typed=bool(options.models or options.chain), quiet=options.quiet)
    check_calls(recipe)
    offline = bool(journal.get("offline"))
    limited = bool({"max_cost_usd", "max_record_cost_usd"} & limit.keys())
    stage = _bind_chain(options, recipe, binding=config is not None, offline=offline, limited=limited)
    question = _with_wishes(_read_question(files), options)
    for warning in missing_keys(recipe, offline) if options.chain is None else []:
        complain(_TOOL, f"warning: {warning}")
    client = make_client(recipe, limit, journal, _TOOL, tool)
    asking = Asking(
        options.json or options.output == "jsonl",
        plain=options.plain,
        verbose=options.verbose,
        quiet=options.quiet,
        strict=options.strict,
        replayable=not journal.get("no_journal"),
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        leave(runner.run(ask_once(question, stage, client, asking, run_keeper(_TOOL, recipe, journal))))


def _print_and_leave(options: AskOptions) -> None:
    """Print what is asked of the tool and not of a model, and leave; return where it is a question."""
    from fusiontools.cli.command import leave
    from fusiontools.cli.io import write_or_leave

    if options.completion:
        from fusiontools.cli.completion import completion_script

        text = completion_script(options.completion)
    elif options.show_list:
        from fusiontools.cli.listing import listing

        text = listing()
    elif options.import_file:
        from fusiontools.config.recipe_yaml import imported_recipe

        text = imported_recipe(options.import_file)
    else:
        return
    write_or_leave(_TOOL, text.encode())
    leave(0)


def _bind_chain(options: AskOptions, recipe: Any, **binding: bool) -> Any:
    """Return the chain as one stage, with the models that were typed.

    Raises:
        UsageError: options that cannot be, or no panel that answers.
    """
    from fusiontools.cli.setup import read_chain
    from fusiontools.errors import UsageError
    from fusiontools.runs.chain import StepRefused

    chain = read_chain(options.chain, recipe).with_members(options.models)
    chain = chain.with_models("judge", options.judge).with_models("synth", options.synth)
    if chain.first_panel is None:
        raise UsageError("--chain: a question needs a `panel` that answers it")
    try:
        return chain.bind(recipe, **binding)
    except StepRefused as error:
        # Only a chain that was typed has columns that a person knows.
        raise UsageError(f"--chain: {error.message}" if options.chain else error.reason) from error


def _with_wishes(question: Any, options: AskOptions) -> Any:
    """Return the question with what was typed beside it: texts, a system prompt, the length of the answer."""
    from fusiontools.cli.evidence import read_evidence, with_evidence
    from fusiontools.record.sections import question_id

    question = with_evidence(question, read_evidence(options.evidence))
    if options.max_tokens is not None:
        question = {**question, "params": {**question.get("params", {}), "max_tokens": options.max_tokens}}
    if options.system is not None:
        told = [{"role": "system", "content": options.system}, *question["messages"]]
        made_id = question["id"] == question_id(question["messages"])
        question = {**question, "messages": told, **({"id": question_id(told)} if made_id else {})}
    return question


def _read_question(words: Sequence[str]) -> Any:
    """Return the record of what was asked: the arguments, and what comes in on standard input.

    `-` says where among the arguments that stands; without it a pipe or a file stands below them. Without arguments it
    is the question, or a record in JSON.

    Raises:
        UsageError: nothing was asked, or the input is no text.
    """
    import os

    from fusiontools.errors import InputError, UsageError
    from fusiontools.record import jsonl

    if not words and os.isatty(0):
        raise UsageError('ask something: fuse-ask "What is a CRDT?" (or `-` for standard input)')
    if words.count("-") > 1:
        raise UsageError("`-` may stand once: standard input is read once")
    words = words or ("-",)
    if "-" not in words and _is_piped():
        words = (*words, "-")
    try:
        if words == ("-",):
            data = _read_stdin()
            return _read_record(data) if data.lstrip()[:1] == b"{" else jsonl.from_text(data.strip())
        pieces = [b"\n\n" + _read_stdin() + b"\n\n" if word == "-" else word.encode() for word in words]
        return jsonl.from_text(b" ".join(pieces).strip())
    except OSError as error:
        raise UsageError(f"stdin: cannot be read: {error.strerror}") from error
    except (InputError, UnicodeEncodeError) as error:
        raise UsageError(f"the question cannot be read: {error}") from error


def _read_record(data: bytes) -> Any:
    """Return the one record that JSON on standard input is."""
    from fusiontools.errors import InputError
    from fusiontools.record import jsonl

    try:
        return jsonl.parse(data)
    except InputError as error:
        more = sum(1 for line in data.splitlines() if line.strip()[:1] == b"{") > 1 and b"\n{" in data.strip()
        many = "; fuse-panel | fuse-judge | fuse-synth reads many records" if more else ""
        raise InputError(f'{error.message}{many}; to ask about JSON, say what: fuse-ask "Explain:"') from None


def _is_piped() -> bool:
    """Return whether standard input is a pipe or a file: what else is no terminal (/dev/null) has nothing to say."""
    import os
    import stat

    mode = os.fstat(0).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read_stdin() -> bytes:
    import select

    from fusiontools.cli.command import complain

    with open(0, "rb", closefd=False) as stdin:
        if not select.select([stdin], [], [], _SILENT_S)[0]:
            complain(_TOOL, "waits for standard input; `< /dev/null` leaves it out")
        return stdin.read()
