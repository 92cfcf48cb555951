"""`fuse-ask`: one question through a whole chain, in one process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fusiontools.cli.command import command, complete_names, complete_sessions
from fusiontools.cli.completion import SHELLS
from fusiontools.config.options import Settings, option
from fusiontools.config.stage_table import EVIDENCE_HELP, BatchOptions, JournalOptions, LimitOptions
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


class AskedOptions(Settings):
    """What a question can be asked with, alone or in a conversation."""

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
    texts: tuple[str, ...] = option(
        (), "-f", "--file", multiple=True, metavar="FILE", help="A text to stand below the question, under its name."
    )
    attachments: tuple[str, ...] = option(
        (), "-a", "--attach", multiple=True, metavar="FILE|URL", help="A picture or a PDF, for models that can see it."
    )
    evidence: tuple[str, ...] = option((), "--evidence", multiple=True, metavar="FILE", help=EVIDENCE_HELP)
    template: str | None = option(
        None, "--template", metavar="NAME",
        help="Ask what the prompt file NAME.md in ~/.config/fusiontools/prompts says; or a path.",
    )  # fmt: skip
    values: tuple[str, ...] = option(
        (), "-p", "--param", multiple=True, metavar="KEY=VALUE", help="What stands in its place {{KEY}}."
    )
    max_tokens: int | None = option(
        None, "-t", "--max-tokens", minimum=1, metavar="N", help="Longest answer, in tokens."
    )
    plain: bool = option(False, "--plain", help="On a terminal too, the answer as the model wrote it.")
    quiet: bool = option(False, "-q", "--quiet", help="No view, no notes; errors only.")


class AskOptions(AskedOptions):
    """What `fuse-ask` can be told."""

    goes_on: bool = option(False, "--continue", help="Go on with the last conversation, here or in fuse-chat.")
    session: str | None = option(
        None, "--session", metavar="ID|FILE", help="The same with this one; `fuse-chat --sessions` lists them."
    )
    output: str | None = option(None, "-o", "--output", choices=("text", "jsonl"), help="The answer, or the record.")
    json: bool = option(False, "--json", help="The same as -o jsonl.")
    verbose: bool = option(False, "-v", "--verbose", help="Show every response and the analysis too.")
    strict: bool = option(False, "--strict", help="Exit 1 where anything is degraded.")
    show_list: bool = option(False, "--list", help="Show recipes, endpoints and models, and what each still lacks.")
    import_file: str | None = option(
        None, "--import", metavar="FILE", help="Print a file of fusionHarness, openfusion or Fusion Engine as a recipe."
    )  # fmt: skip
    completion: str | None = option(
        None, "--completion", choices=SHELLS,
        help="Print what makes this shell complete all tools: eval \"$(fuse-ask --completion bash)\".",
    )  # fmt: skip


def _prompts() -> Iterable[str]:
    from fusiontools.cli.given import prompt_names

    return prompt_names()


complete_prompts = complete_names(_prompts)


@command(
    _TOOL,
    AskOptions,
    ToolOptions,
    LimitOptions,
    JournalOptions,
    BatchOptions,
    help=HELP,
    arguments="[QUESTION]...",
    completes={"session": complete_sessions, "template": complete_prompts},
)
def main(
    files: tuple[str, ...],
    config: str | None,
    ask: dict[str, Any],
    tool: dict[str, Any],
    limit: dict[str, Any],
    journal: dict[str, Any],
    batch: dict[str, Any],
) -> None:
    options = AskOptions(**ask)
    _print_and_leave(options)

    import asyncio

    from fusiontools.cli.ask_run import Asking, ask_once
    from fusiontools.cli.command import complain, leave
    from fusiontools.cli.filter import loop_factory
    from fusiontools.cli.setup import batch_options, keeps_nothing, make_client, named_recipe, run_keeper
    from fusiontools.config.resolve import check_calls, missing_keys

    recipe = named_recipe(config, _TOOL, journal, typed=bool(options.models or options.chain), quiet=options.quiet)
    check_calls(recipe)
    offline = bool(journal.get("offline"))
    limited = bool({"max_cost_usd", "max_record_cost_usd"} & limit.keys())
    session = _open_session(options)
    if session is not None:
        recipe = compacted(recipe, options)
    stage = bind_chain(options, recipe, binding=config is not None, offline=offline, limited=limited)
    question = with_wishes(read_question(files, options, _TOOL), options)
    if session is not None:
        question = continued(question, session)
    for warning in missing_keys(recipe, offline) if options.chain is None else []:
        complain(_TOOL, f"warning: {warning}")
    client = make_client(recipe, limit, journal, _TOOL, tool)
    asking = Asking(
        _TOOL,
        options.json or options.output == "jsonl",
        plain=options.plain,
        verbose=options.verbose,
        quiet=options.quiet,
        strict=options.strict,
        replayable=not journal.get("no_journal"),
        keeps_last=not keeps_nothing(journal),
        batch=batch_options(batch),
    )
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        keep = None if session else run_keeper(_TOOL, recipe, journal)
        leave(runner.run(ask_once(question, stage, client, asking, session, keep)))


def _open_session(options: AskOptions) -> Any:
    """Return the conversation that is gone on with; None where there is none."""
    if not options.goes_on and options.session is None:
        return None
    from fusiontools.cli.command import complain
    from fusiontools.runs.session import open_session

    session = open_session(options.session or "")
    for warning in session.warnings:
        complain(_TOOL, f"warning: {warning}")
    return session


def continued(question: Any, session: Any) -> Any:
    """Return the question as the next turn of a conversation."""
    from fusiontools.runs.turn import with_system_prompt

    asked = [message for message in question["messages"] if message.get("role") not in ("system", "developer")]
    system = next((m["content"] for m in question["messages"] if m not in asked), None)
    messages = with_system_prompt([*session.messages, *asked], system)
    return {**question, "id": session.next_id(), "messages": messages}


def _print_and_leave(options: AskOptions) -> None:
    """Print what is asked of the tool and not of a model, and leave; return where it is a question."""
    from fusiontools.cli.command import leave

    if options.completion:
        from fusiontools.cli.completion import print_script

        print_script(options.completion)
        leave(0)
    if options.show_list:
        from fusiontools.cli.listing import listing

        text = listing()
    elif options.import_file:
        from fusiontools.config.recipe_yaml import imported_recipe

        text = imported_recipe(options.import_file)
    else:
        return
    from fusiontools.cli.io import write_or_leave

    write_or_leave(_TOOL, text.encode())
    leave(0)


def bind_chain(options: AskedOptions, recipe: Any, **binding: bool) -> Any:
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


def compacted(recipe: Any, options: AskedOptions) -> Any:
    """Return the recipe with somebody to summarise a long conversation: its own, else who writes, else a member."""
    from msgspec.structs import replace

    from fusiontools.config.recipe import Compact, parse_model

    if recipe.compact is not None:
        return recipe
    typed = [parse_model(text, recipe) for text in (*filter(None, [options.synth]), *options.models[:1])]
    known = [*typed, *recipe.synth.models, *recipe.panel.members]
    return replace(recipe, compact=Compact(replace(known[0], samples=1))) if known else recipe


def with_wishes(question: Any, options: AskedOptions) -> Any:
    """Return the question with what was typed beside it: texts, what is to be seen, a system prompt, a length."""
    from fusiontools.cli.given import attachment, file_text, read_evidence, with_evidence, with_given
    from fusiontools.record.sections import question_id

    question = with_evidence(question, read_evidence(options.evidence))
    if options.max_tokens is not None:
        question = {**question, "params": {**question.get("params", {}), "max_tokens": options.max_tokens}}
    messages = question["messages"]
    if options.texts or options.attachments:
        texts, parts = [file_text(path) for path in options.texts], [attachment(a) for a in options.attachments]
        messages = [*messages[:-1], with_given(messages[-1], texts, parts)]
    if options.system is not None:
        messages = [{"role": "system", "content": options.system}, *messages]
    if messages is question["messages"]:
        return question
    made_id = question["id"] == question_id(question["messages"])
    return {**question, "messages": messages, **({"id": question_id(messages)} if made_id else {})}


def read_question(words: Sequence[str], options: AskedOptions, tool: str) -> Any:
    """Return the record of what was asked: the arguments, and what comes in on standard input, in a prompt file.

    `-` says where among the arguments that stands; without it a pipe or a file stands below them. Without arguments it
    is the question, or a record in JSON.

    Raises:
        UsageError: nothing was asked, or the input is no text.
    """
    import os

    from fusiontools.cli.given import fill_prompt, load_prompt
    from fusiontools.errors import InputError, UsageError
    from fusiontools.record import jsonl

    prompt = load_prompt(options.template) if options.template else None
    if options.values and prompt is None:
        raise UsageError("-p goes with --template")
    if not words and os.isatty(0) and prompt is None:
        raise UsageError(f'ask something: {tool} "What is a CRDT?" (or `-` for standard input)')
    if words.count("-") > 1:
        raise UsageError("`-` may stand once: standard input is read once")
    if "-" not in words and (_is_piped() or (not words and prompt is None)):
        words = (*words, "-")
    try:
        if words == ("-",) and prompt is None:
            data = _read_stdin(tool)
            return _read_record(data) if data.lstrip()[:1] == b"{" else jsonl.from_text(data.strip())
        pieces = [b"\n\n" + _read_stdin(tool) + b"\n\n" if word == "-" else word.encode() for word in words]
        asked = b" ".join(pieces).strip()
        if prompt is None:
            return jsonl.from_text(asked)
        user, system = fill_prompt(prompt, options.values, asked.decode())
        record = jsonl.from_text(user.encode())
        return jsonl.parse(jsonl.dumps({"prompt": user, "system": system})) if system else record
    except OSError as error:
        raise UsageError(f"stdin: cannot be read: {error.strerror}") from error
    except (InputError, UnicodeError) as error:
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


def _read_stdin(tool: str) -> bytes:
    import select

    from fusiontools.cli.command import complain

    with open(0, "rb", closefd=False) as stdin:
        if not select.select([stdin], [], [], _SILENT_S)[0]:
            complain(tool, "waits for standard input; `< /dev/null` leaves it out")
        return stdin.read()
