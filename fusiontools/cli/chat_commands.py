"""The commands of a conversation: `/help` and the others."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from fusiontools.cli.chat_run import ChatLoop, Commands
from fusiontools.cli.cost import format_costs
from fusiontools.cli.table import screen_width, table_text
from fusiontools.cli.text import record_as_text
from fusiontools.config.recipe_yaml import own_recipe_names, recipe_names
from fusiontools.errors import UsageError, nearest
from fusiontools.llm import prices
from fusiontools.record import jsonl
from fusiontools.record.sections import display_names, text_of
from fusiontools.runs.compaction import split_summary
from fusiontools.runs.costs import Costs
from fusiontools.runs.session import new_session

Command = Callable[[ChatLoop, str], Awaitable[bool | None]]


async def obey(chat: ChatLoop, text: str) -> bool:
    """Do what a line with a slash says; return whether the person leaves.

    Raises:
        UsageError: it cannot be done.
    """
    name, _, rest = text.strip().partition(" ")
    if name not in _COMMANDS:
        raise UsageError(f"there is no {name}{nearest(name, list(_COMMANDS))}; // begins a question with a slash")
    return bool(await _COMMANDS[name][2](chat, rest.strip()))


def complete_value(chat: ChatLoop, name: str) -> Iterable[str] | None:
    """Return what may stand behind a command; None for the name of a file."""
    if name in ("/attach", "/save"):
        return None
    if name == "/recipe":
        return sorted({*own_recipe_names(), *recipe_names()})
    if name == "/retry":
        return [*chat.recipe.aliases] or [model.name for model in chat.recipe.panel.members]
    return ()


def _last(chat: ChatLoop) -> Any:
    if chat.last is None:
        raise UsageError("nothing has been asked yet")
    return chat.last


async def _panel(chat: ChatLoop, _: str) -> None:
    kept = {key: value for key, value in _last(chat).items() if key in ("id", "messages", "panel", "layers", "route")}
    chat.say(record_as_text(kept, verbose=True) or "no panel has answered")  # type: ignore[arg-type]


async def _analysis(chat: ChatLoop, _: str) -> None:
    kept = {key: value for key, value in _last(chat).items() if key in ("id", "messages", "analysis")}
    chat.say(record_as_text(kept, verbose=True) or "nobody has compared the responses")  # type: ignore[arg-type]


async def _sources(chat: ChatLoop, _: str) -> None:
    record = _last(chat)
    lines = [f"given: {text.get('title', '')} {text.get('url', '')}".strip() for text in record.get("evidence", [])]
    panel = record.get("panel", [])
    for name, response in zip(display_names(panel), panel, strict=True):
        lines += [f"{name}: {s['how']}: {s.get('title', '')} {s['url']}" for s in response.get("sources", [])]
    cited = [f"[{n}] {s['url']}" for n, s in enumerate(record.get("answer", {}).get("sources", []), start=1)]
    chat.say("\n".join([*lines, *(["", "cited:", *cited] if cited else [])]) or "nothing was looked up")


async def _cost(chat: ChatLoop, _: str) -> None:
    costs = Costs(["model"])
    for record in chat.session.records:
        costs.add(record)
    chat.say(format_costs(costs, "table", foreseen=True))


async def _recipe(chat: ChatLoop, rest: str) -> None:
    if rest:
        await chat.use(rest, models=(), judge=None, synth=None, chain=None)
    members = ", ".join(model.name for model in chat.recipe.panel.members)
    chat.say(f"{chat.recipe.name}: {chat.recipe.description}\n{chat.options.chain or chat.recipe.chain}: {members}")


async def _chain(chat: ChatLoop, rest: str) -> None:
    if rest:
        await chat.use(chat.config, chain=None if rest == "-" else rest)
    chat.say(chat.options.chain or chat.recipe.chain)


async def _retry(chat: ChatLoop, rest: str) -> None:
    if not chat.asked:
        raise UsageError("nothing has been asked yet")
    stage = None
    if rest:
        alone = chat.options.replace(models=(rest,), judge=None, synth=None, chain="panel | synth --method copy")
        stage = chat.bind(alone, chat.recipe)
    await chat.turn(chat.asked[-1], before=chat.asked[:-1], stage=stage)


async def _edit(chat: ChatLoop, _: str) -> None:
    if not chat.asked:
        raise UsageError("nothing has been asked yet")
    content = chat.asked[-1].get("content")
    seen = [part for part in content if part.get("type") != "text"] if isinstance(content, list) else []
    chat.attached = [(str(part["type"]), part) for part in seen]
    chat.editing = split_summary(text_of(chat.asked[-1]))[1]


async def _attach(chat: ChatLoop, rest: str) -> None:
    if rest == "-":
        chat.attached.clear()
    elif rest:
        chat.aside(f"{chat.attach(rest)} goes with the next question; /attach - takes it away")
    else:
        raise UsageError("/attach FILE or URL: a text, a picture or a PDF")


async def _system(chat: ChatLoop, rest: str) -> None:
    if rest:
        chat.system = "" if rest == "-" else rest
    said = [text_of(message) for message in chat.session.messages if message.get("role") == "system"]
    now = chat.system if chat.system is not None else "\n".join(said)
    chat.say(now or "there is no system prompt")


async def _save(chat: ChatLoop, rest: str) -> None:
    if not rest:
        raise UsageError("/save FILE: x.jsonl keeps the records, x.md or any other name the text")
    chat.aside(_write_conversation(chat, Path(rest)))


def _write_conversation(chat: ChatLoop, path: Path) -> str:
    path = path.expanduser()
    if path.suffix == ".jsonl":
        data = b"".join(map(jsonl.write, chat.session.records))
    else:
        data = _as_markdown(chat).encode("utf-8", "replace")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{path} exists already; give another name") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    return f"{path}: {len(data):,} bytes"


def _as_markdown(chat: ChatLoop) -> str:
    """Return the conversation as it stands, each turn under the name of who said it."""
    said = []
    for message in chat.session.messages:
        seen = message.get("content")
        parts = [part["type"] for part in seen if part.get("type") != "text"] if isinstance(seen, list) else []
        title = {"user": "Question", "assistant": "Answer"}.get(message.get("role", ""), "System")
        said.append("\n\n".join([f"## {title}", *(f"({part})" for part in parts), text_of(message).strip()]))
    return "\n\n".join(said) + "\n"


async def _reset(chat: ChatLoop, _: str) -> None:
    if chat.kept and chat.session.records:
        chat.aside(f"kept: fuse-chat --continue {chat.session.id}")
    chat.session.close()
    chat.session = new_session()
    chat.last, chat.asked, chat.editing = None, [], None
    chat.attached.clear()


async def _stats(chat: ChatLoop, _: str) -> None:
    records = chat.session.records
    costs = Costs([])
    for record in records:
        costs.add(record)
    total = costs.total
    answered = sum("answer" in record for record in records)
    known = "≥ " if total.unknown else ""
    shortened = sum("compaction" in record for record in records)
    lines = [
        f"session   {chat.session.id if chat.kept else 'kept nowhere'}",
        f"turns     {len(records)}, {answered} answered, {shortened} shortened",
        f"calls     {total.calls}, {total.failed} failed, {total.replayed} replayed, {total.time_s:.1f} s",
        f"tokens    {total.prompt_tokens:,} in, {total.completion_tokens:,} out",
        f"cost      {known}${total.known_usd:.4f}",
        f"sent on   about {prices.prompt_tokens(chat.session.messages, {}):,} tokens",
    ]
    chat.say("\n".join(lines))


async def _help(chat: ChatLoop, _: str) -> None:
    rows = [list(row) for row in USAGES]
    keys = [["Enter", "Send."], ["Alt-Enter", "Begin a new line; Ctrl-J, too."], ["Ctrl-C", "Stop an answer."]]
    chat.say(table_text(["", ""], [*rows, *keys], left=(0, 1), folding=1, width=screen_width()).lstrip("\n"))


async def _quit(_: ChatLoop, __: str) -> bool:
    return True


#: For each command how it is written, what it does, and who does it.
_COMMANDS: dict[str, tuple[str, str, Command]] = {
    "/help": ("/help", "Show this.", _help),
    "/panel": ("/panel", "Show what each member answered.", _panel),
    "/analysis": ("/analysis", "Show how the answers compare.", _analysis),
    "/sources": ("/sources", "Show what the last answer rests on.", _sources),
    "/cost": ("/cost", "Show what the conversation cost, by model.", _cost),
    "/stats": ("/stats", "Show turns, calls, tokens and time.", _stats),
    "/recipe": ("/recipe [NAME]", "Show the recipe, or go on with another one.", _recipe),
    "/chain": ("/chain [TEXT|-]", "Show the chain, or go on with another one; - is the recipe's.", _chain),
    "/retry": ("/retry [MODEL]", "Ask the last question again, of this model alone where one is named.", _retry),
    "/edit": ("/edit", "Put the last question differently.", _edit),
    "/attach": ("/attach FILE|URL|-", "Let a text, a picture or a PDF go with the next question.", _attach),
    "/system": ("/system [TEXT|-]", "Show or set the system prompt; - takes it away.", _system),
    "/save": ("/save FILE", "Write the conversation: x.md as Markdown, x.jsonl as records.", _save),
    "/reset": ("/reset", "Begin a new conversation.", _reset),
    "/quit": ("/quit", "Leave.", _quit),
}
#: How each command is written, and what it does.
USAGES = [(usage, about) for usage, about, _ in _COMMANDS.values()]
COMMANDS = Commands({name: about for name, (_, about, _) in _COMMANDS.items()}, obey, complete_value)
