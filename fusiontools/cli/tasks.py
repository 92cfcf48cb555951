"""`fuse-tasks`: a benchmark, or tasks of your own, as records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from fusiontools.cli.command import command, complain
from fusiontools.config.options import Settings, option

if TYPE_CHECKING:
    from fusiontools.evaluation.tasks.datasets import Sets
    from fusiontools.evaluation.tasks.rows import BadRow
    from fusiontools.record.types import Record

_TOOL = "fuse-tasks"
HELP = """\
\b
  fuse-tasks short -n 40 | fuse-panel -c local | fuse-vote | fuse-grade | fuse-report
  fuse-tasks gsm8k -n 100 --seed 7 --epochs 3 > tasks.jsonl

Emit tasks as records: `messages`, and `meta` with target, grader, category, source, revision and licence.

NAME is a set (--list shows them) or a file: .jsonl, .json, .csv, .tsv, .yaml; `-` is standard input in JSON Lines. A
row needs a question (`prompt`, `question` or `messages`) and something to grade by (`target`, `rubric` or `tests`);
it may name `grader`, `category`, `options`, `id` and whatever else. Rows of Fusion Engine, fusionHarness and HumanEval
are read as they are. A row that is no task is reported with its place, and the rest goes on.

short, code and rubric ship with the package. The others are downloaded from the Hugging Face Hub (extra `eval`), each
at one commit and checked against its SHA-256, and stay in its cache ($HF_HOME).

\b
Exit status:
  0    all rows are tasks
  1    some are not
  2    wrong usage; a set that cannot be had
  3    no tasks
"""


class TasksOptions(Settings):
    """What `fuse-tasks` can be told."""

    number: int | None = option(
        None, "-n", "--number", minimum=1, metavar="N", help="A random sample of N tasks of each NAME.  [default: all]"
    )
    seed: int = option(
        0, "--seed", minimum=0, metavar="S", help="Which sample; the first of a larger one are the smaller one."
    )
    split: str | None = option(
        None, "--split", metavar="NAME", help="Take this split.  [default: the usual one, or all]"
    )
    categories: tuple[str, ...] = option(
        (), "--category", multiple=True, metavar="NAME", help="Only tasks of this category; repeat for several."
    )
    epochs: int = option(1, "--epochs", minimum=1, metavar="K", help="Emit each task K times, to be asked anew.")
    template: str | None = option(
        None, "--template", metavar="PROMPT", help="Ask so: a prompt's name, or a text with {question} and {options}."
    )
    list_sets: bool = option(False, "--list", help="Show the sets and the prompts.")


@command(_TOOL, TasksOptions, help=HELP, arguments="[NAME]...", recipe=False)
def main(files: tuple[str, ...], tasks: dict[str, Any]) -> None:
    from fusiontools.cli.command import leave
    from fusiontools.cli.io import write_or_leave
    from fusiontools.errors import UsageError
    from fusiontools.evaluation.tasks.datasets import load_sets

    options = TasksOptions(**tasks)
    sets = load_sets()
    if options.list_sets:
        write_or_leave(_TOOL, _list(sets).encode())
        leave(0)
    if not files:
        raise UsageError("name a set or a file of tasks; fuse-tasks --list shows the sets")
    leave(_Run(options, sets).run(files))


class _Run:
    """One run: what was emitted, and what was not."""

    def __init__(self, options: TasksOptions, sets: Sets) -> None:
        from fusiontools.cli.io import SeenIds
        from fusiontools.evaluation.tasks.rows import typed_prompts

        self.options = options
        self.sets = sets
        self.prompts = typed_prompts(options.template, sets.prompts) if options.template is not None else None
        self.emitted = self.rejected = 0
        self._seen = SeenIds(_TOOL)

    def run(self, names: tuple[str, ...]) -> int:
        from fusiontools.errors import EXIT_NOTHING_USABLE, EXIT_OK, EXIT_SOME_FAILED

        # All of them, before anything is written: a misspelled second name should not cost the first one's download.
        sources = [self._open_source(name) for name in names]
        for name, source in zip(names, sources, strict=True):
            self._emit(name, source)
        if not self.emitted:
            return EXIT_NOTHING_USABLE
        return EXIT_SOME_FAILED if self.rejected else EXIT_OK

    def _open_source(self, name: str) -> Callable[[], Iterator[Record | BadRow]]:
        """Return what reads the tasks of a set or a file; a set's name is never a path."""
        from pathlib import Path

        from msgspec.structs import replace

        from fusiontools.errors import UsageError, nearest
        from fusiontools.evaluation.tasks.datasets import own_tasks, set_tasks
        from fusiontools.evaluation.tasks.files import SUFFIXES

        if (known := self.sets.sets.get(name)) is not None:
            asked = replace(known, prompts=self.prompts) if self.prompts else known
            return lambda: set_tasks(asked, self.options.split, self._say)
        if name == "-" or (Path(name).exists() and not Path(name).is_dir()):
            return lambda: own_tasks(name, self.prompts or self.sets.own_prompts)
        if "/" in name or name.endswith(SUFFIXES):
            raise UsageError(f"{name}: no such file")
        raise UsageError(f"no set is called {name!r}{nearest(name, list(self.sets.sets))}")

    def _emit(self, name: str, source: Callable[[], Iterator[Record | BadRow]]) -> None:
        from fusiontools.cli.io import write_or_leave
        from fusiontools.evaluation.tasks.rows import BadRow, repeated
        from fusiontools.evaluation.tasks.sample import Chooser
        from fusiontools.record import jsonl

        options = self.options
        chooser = Chooser(options.categories, options.split, options.number, options.seed)
        before = self.emitted
        for task in chooser.of(source()):
            if isinstance(task, BadRow):
                self.rejected += 1
                complain(_TOOL, f"{task.place}: {task.reason}")
                continue
            self._seen.note(task["id"])
            for record in repeated(task, options.epochs):
                write_or_leave(_TOOL, jsonl.write(record))
                self.emitted += 1
        if self.emitted == before:
            complain(_TOOL, f"{name}: {chooser.why_nothing()}")

    def _say(self, message: str) -> None:
        complain(_TOOL, message)


def _list(sets: Sets) -> str:
    from fusiontools.cli.table import screen_width, table_text

    head = ["set", "tasks", "splits", "licence", "source", "about"]
    rows = []
    for each in sets.sets.values():
        about = f"{each.about}{' (gated)' if each.gated else ''}"
        revision = f"@{each.revision[:12]}" if each.splits else ""
        splits = ",".join(each.splits or ()) or "-"
        rows.append([each.name, f"{each.tasks:,}", splits, each.licence, each.source + revision, about])
    table = table_text(head, rows, left=range(len(head)), folding=len(head) - 1, width=screen_width())
    prompts = "".join(
        f"\n{name}:\n" + "".join(f"    {line}".rstrip() + "\n" for line in text.splitlines())
        for name, text in sets.prompts.items()
    )
    return f"{table}\nPrompts, for --template:\n{prompts}"
