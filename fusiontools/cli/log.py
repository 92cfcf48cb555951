"""`fuse-log`: past runs, and what is kept on this disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusiontools.cli.command import command, complete_names, complete_recipes
from fusiontools.config.options import Settings, option

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fusiontools.runs.kept import Removed
    from fusiontools.runs.run_log import PastRun

_TOOL = "fuse-log"
#: How wide a list is where no terminal bounds it.
_PLAIN_WIDTH = 160
#: How many past runs a shell is offered.
_OFFERED = 100
#: Unix time that all stores understand, and no call is made at.
_NEVER_S = 1e11
_COMMANDS = ("list", "show", "size", "prune", "clear")
HELP = """\
\b
  FUSION_LOG=1 fuse-ask "CRDTs or OT for a shared editor?"; fuse-log crdts
  fuse-log show 3f9a1c0d | fuse-synth -m openai/gpt-5.5@openrouter

List past runs, give them back to the pipe, and say or remove what is kept on this disk.

\b
  fuse-log [list] [WORD]...         runs and sessions with these words in question or answer
  fuse-log show ID...               their records
  fuse-log size                     what is kept, where, and how much it is
  fuse-log prune --older AGE [KIND] remove what was last used before: journal, log, sessions
  fuse-log clear KIND...            remove all of it: journal, log, sessions, weights

Runs are kept where FUSION_LOG=1 or `log: true` in a recipe says so, for their texts are kept: those of fuse-ask, and
of each filter that gives a record its answer. Sessions of fuse-chat and fuse-code are listed, too. AGE and --since are
30d, 12h, 2w, or a day such as 2026-11-30.

\b
Exit status:
  0    done; something was found
  1    some of it could not be removed
  2    wrong usage; no such run; a journal that cannot be read
  3    nothing was found
"""


class LogOptions(Settings):
    """What `fuse-log` can be told."""

    number: int = option(20, "-n", "--number", minimum=1, metavar="N", help="List so many runs, the newest first.")
    since: str | None = option(None, "--since", metavar="AGE", help="List runs since then only.")
    recipe: str | None = option(None, "--recipe", metavar="NAME", help="List runs with this recipe only.")
    output: str | None = option(
        None, "-o", "--output", choices=("table", "jsonl"), help="How to list.  [default: table]"
    )
    json: bool = option(False, "--json", help="The same as -o jsonl.")
    older: str | None = option(None, "--older", metavar="AGE", help="Prune what was last used before.")
    shared: bool = option(False, "--shared", help="Prune or clear the journal of FUSION_STATE, and not this user's.")
    yes: bool = option(False, "-y", "--yes", help="Remove without asking.")


def _complete_words(context: Any, parameter: Any, typed: str) -> list[Any]:
    """Let the shell complete the command, then what it takes."""
    from itertools import islice

    from fusiontools.runs.kept import AGING, KINDS
    from fusiontools.runs.run_log import past_runs

    words = context.params.get("files") or ()
    if not words:
        return complete_names(lambda: _COMMANDS)(context, parameter, typed)
    kinds = {"prune": AGING, "clear": KINDS}.get(words[0], ())
    recent = islice(past_runs(), _OFFERED) if words[0] == "show" else ()
    return complete_names(lambda: [*kinds, *(run.id for run in recent)])(context, parameter, typed)


@command(
    _TOOL,
    LogOptions,
    help=HELP,
    arguments="[COMMAND] [WORD]...",
    recipe=False,
    completes={"files": _complete_words, "recipe": complete_recipes},
)
def main(files: tuple[str, ...], log: dict[str, Any]) -> None:
    from fusiontools.cli.command import leave
    from fusiontools.errors import UsageError

    options = LogOptions(**log)
    verb, words = (files[0], files[1:]) if files[:1] and files[0] in _COMMANDS else ("list", files)
    if options.older and verb != "prune":
        raise UsageError("--older goes with `fuse-log prune`; `fuse-log --since AGE` lists")
    if verb == "show":
        leave(_show(words))
    if verb == "size":
        leave(_size(words, as_json=options.json or options.output == "jsonl"))
    if verb in ("prune", "clear"):
        leave(_remove(verb, words, options))
    leave(_list(words, options))


def _list(words: tuple[str, ...], options: LogOptions) -> int:
    from itertools import islice

    from fusiontools.cli.command import complain
    from fusiontools.cli.io import write_or_leave
    from fusiontools.errors import EXIT_NOTHING_USABLE, EXIT_OK
    from fusiontools.runs.run_log import past_runs

    since_s = read_moment(options.since, "--since") if options.since else 0.0
    wanted = (
        run
        for run in past_runs(since_s, [*words, *filter(None, [options.recipe])])
        if run.has_words(words) and (options.recipe is None or run.recipe == options.recipe)
    )
    found = list(islice(wanted, options.number))
    if not found:
        complain(_TOOL, _why_nothing(bool(words or options.since or options.recipe)))
        return EXIT_NOTHING_USABLE
    as_json = options.json or options.output == "jsonl"
    write_or_leave(_TOOL, (_lines(found) if as_json else _table(found)).encode("utf-8", "replace"))
    return EXIT_OK


def _why_nothing(filtered: bool) -> str:
    from fusiontools.runs.run_log import past_runs

    if filtered and next(past_runs(), None) is not None:
        return "no run is like that"
    return "no run was kept; FUSION_LOG=1, or `log: true` in a recipe of yours, keeps those that follow"


def _lines(runs: list[PastRun]) -> str:
    from fusiontools.record import jsonl

    return "".join(jsonl.dumps(_summary(run)).decode() + "\n" for run in runs)


def _summary(run: PastRun) -> dict[str, Any]:
    from datetime import UTC, datetime

    spending = run.spending
    return {
        "id": run.id,
        "at": datetime.fromtimestamp(run.at_s, UTC).isoformat(timespec="seconds"),
        "tool": run.tool,
        "recipe": run.recipe or None,
        "question": run.question,
        "turns": len(run.records),
        "cost_usd": None if spending.unknown else round(spending.known_usd, 8),
        "error": run.failure,
    }


def _table(runs: list[PastRun]) -> str:
    import time

    from fusiontools.cli.io import is_colour_welcome
    from fusiontools.cli.table import Cell, Styled, screen_width, table_text
    from fusiontools.record.clean import clean

    width = screen_width()
    rows: list[list[Cell]] = []
    for run in runs:
        spending = run.spending
        cost = ("≥ " if spending.unknown else "") + f"${spending.known_usd:.4f}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.at_s))
        turns = f"({len(run.records)} turns) " if len(run.records) > 1 else ""
        asked: Cell = clean(turns + run.question)
        if run.failure:
            asked = Styled(f"[{run.failure}] {asked}", "red")
        rows.append([run.id, when, run.recipe or "-", "unknown" if spending.nothing_known else cost, asked])
    head = ["id", "when", "recipe", "cost", "question"]
    taken = sum(max(len(head[i]), *(len(str(row[i])) for row in rows)) + 2 for i in range(4))
    most = max(20, (width or _PLAIN_WIDTH) - taken)
    shown = [[*row[:4], _cut(row[4], most)] for row in rows]
    return table_text(head, shown, left=(0, 1, 2, 4), folding=4, colour=is_colour_welcome(), width=width)


def _cut(cell: Any, most: int) -> Any:
    from fusiontools.cli.table import Styled

    if isinstance(cell, Styled):
        return Styled(_cut(cell.text, most), cell.style)
    return cell if len(cell) <= most else cell[: most - 1] + "…"


def _show(ids: tuple[str, ...]) -> int:
    from fusiontools.cli.io import write_or_leave
    from fusiontools.errors import EXIT_OK, UsageError
    from fusiontools.record import jsonl
    from fusiontools.runs.run_log import find_run

    if not ids:
        raise UsageError("show what? `fuse-log` lists runs with their ids")
    for run in [find_run(each) for each in ids]:
        for record in run.records:
            write_or_leave(_TOOL, jsonl.write(record))
    return EXIT_OK


def _size(words: tuple[str, ...], *, as_json: bool) -> int:
    from fusiontools.cli.io import write_or_leave
    from fusiontools.cli.table import screen_width, table_text
    from fusiontools.errors import EXIT_OK, UsageError
    from fusiontools.record import jsonl
    from fusiontools.runs.kept import what_is_kept

    if words:
        raise UsageError(f"{words[0]!r}: `fuse-log size` says it of everything")
    kept = what_is_kept()
    if as_json:
        lines = [{"kind": k.kind, "path": str(k.path), "size_bytes": k.size_bytes, "count": k.count} for k in kept]
        text = "".join(jsonl.dumps(line).decode() + "\n" for line in lines)
    else:
        rows = [[k.kind, size_text(k.size_bytes), "" if k.count is None else f"{k.count:,}", str(k.path)] for k in kept]
        text = table_text(["kept", "size", "files", "where"], rows, left=(0, 3), folding=3, width=screen_width())
    write_or_leave(_TOOL, text.encode("utf-8", "replace"))
    return EXIT_OK


def size_text(size_bytes: int) -> str:
    """Return a size in the unit that suits it."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} GB"


def _remove(verb: str, words: tuple[str, ...], options: LogOptions) -> int:
    import math

    from fusiontools.cli.command import complain
    from fusiontools.errors import EXIT_OK, EXIT_SOME_FAILED, UsageError, nearest
    from fusiontools.runs.kept import AGING, JOURNAL, KINDS
    from fusiontools.runs.kept import count_older as count_here
    from fusiontools.runs.kept import remove_older as remove_here

    known = AGING if verb == "prune" else tuple(KINDS)
    for word in words:
        if word not in known:
            raise UsageError(f"{word!r}: `fuse-log {verb}` knows {', '.join(known)}{nearest(word, list(known))}")
    if verb == "prune" and not options.older:
        raise UsageError("say from what age on: fuse-log prune --older 30d")
    if verb == "clear" and not words:
        raise UsageError(f"say what: fuse-log clear {' '.join(known)}")
    before_s = read_moment(options.older, "--older") if options.older else math.inf
    if options.shared and words != (JOURNAL,):
        raise UsageError(f"--shared is of the journal alone: fuse-log {verb} journal --shared")
    count_older, remove_older = _shared_hands() if options.shared else (count_here, remove_here)
    counts = {kind: count_older(kind, before_s) for kind in dict.fromkeys(words or known)}
    doomed = {kind: count for kind, count in counts.items() if count}
    if not doomed:
        complain(_TOOL, "there is nothing to remove")
        return EXIT_OK
    if not options.yes and not _agreed(", ".join(_counted(kind, count) for kind, count in doomed.items())):
        complain(_TOOL, "nothing was removed")
        return EXIT_OK
    left = False
    for kind in doomed:
        removed = remove_older(kind, before_s)
        left = _say_removed(kind, removed) or left
    return EXIT_SOME_FAILED if left else EXIT_OK


def _shared_hands() -> tuple[Callable[[str, float], int], Callable[[str, float], Removed]]:
    """Return what counts and what removes in the state that is shared.

    Raises:
        UsageError: there is none; of both, it cannot be reached.
    """
    import asyncio

    from fusiontools.errors import UsageError
    from fusiontools.llm.state.shared import chosen_state, open_state
    from fusiontools.llm.state.store import StateAway, Store
    from fusiontools.runs.kept import Removed

    url = chosen_state(None)
    if url is None:
        raise UsageError("--shared: FUSION_STATE names no state")

    def with_store(work: Callable[[Store], Awaitable[int]]) -> int:
        async def opened() -> int:
            state = open_state(url, keeps=False)
            try:
                return await work(state.store)
            except StateAway as away:
                raise UsageError(f"the state {away}") from away
            finally:
                await state.aclose()

        return asyncio.run(opened())

    def count(_: str, before_s: float) -> int:
        return with_store(lambda store: store.count_before(min(before_s, _NEVER_S)))

    def remove(_: str, before_s: float) -> Removed:
        return Removed(with_store(lambda store: store.forget_before(min(before_s, _NEVER_S))))

    return count, remove


def _agreed(what: str) -> bool:
    """Return whether the person at the terminal wants it removed.

    Raises:
        UsageError: nobody is there to be asked.
    """
    import os
    import sys

    from fusiontools.errors import UsageError

    if not os.isatty(0):
        raise UsageError(f"{what}: --yes removes it where nobody can be asked")
    sys.stderr.write(f"Remove {what}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say_removed(kind: str, removed: Removed) -> bool:
    """Say what went, and what did not; return whether anything is left."""
    from fusiontools.cli.command import complain

    complain(_TOOL, f"{_counted(kind, removed.count)} removed")
    for reason in removed.left:
        complain(_TOOL, f"{kind}: {reason}")
    return bool(removed.left)


def _counted(kind: str, count: int) -> str:
    from fusiontools.runs.kept import KINDS

    return f"{count:,} {KINDS[kind][count != 1]}"


def read_moment(text: str, where: str) -> float:
    """Return the moment that an age (`30d`, `12h`) or a day says, in seconds since the epoch.

    Raises:
        UsageError: it is neither.
    """
    import re
    import time
    from datetime import datetime

    from fusiontools.errors import UsageError

    units = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
    if said := re.fullmatch(r"(\d{1,6})([mhdw])", text.strip()):
        return time.time() - int(said[1]) * units[said[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{where} {text!r}: write 30d, 12h, 90m, 2w, or a day such as 2026-11-30") from None
