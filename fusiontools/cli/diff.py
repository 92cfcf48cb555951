"""`fuse-diff`: what changed between two runs."""

from __future__ import annotations

from typing import Any, Literal

from fusiontools.cli.command import command, leave
from fusiontools.config.options import Settings, option
from fusiontools.config.stage_table import StreamOptions
from fusiontools.errors import EXIT_USAGE, UsageError

HELP = """\
\b
  fuse-diff before.jsonl after.jsonl
  fuse-synth -m openai/gpt-5.5 < before.jsonl | fuse-diff before.jsonl -

What changed between two runs: answers word by word, analyses, panels, failures; and what each run cost and took.

Pairs records by `id`, in whatever order they stand; the k-th record with an id meets the k-th with it in the other
file. Everything is compared but `calls`, which vary from run to run: cost and time are shown, and make no difference.
Removed words are shown [-so-], added words {+so+}. Call time is the time of all calls added up; the summary's cost and
time are those of the records that stand in both files. `-` is standard input.

The second file is read first, and what is compared of it waits in memory, or past 64 MiB on disk ($TMPDIR).

\b
Exit status:
  0    the same
  1    they differ
  2    trouble: a file or a line that cannot be read, wrong usage
"""


class DiffOptions(Settings):
    """What `fuse-diff` can be told."""

    answers: bool = option(False, "--answers", help="Compare only answers: text, tool calls, and whether there is one.")
    output: str | None = option(
        None, "-o", "--output", choices=("text", "jsonl"), help="How to print it.  [default: text]"
    )
    as_json: bool = option(False, "--json", help="The same as -o jsonl: each change, then the summary.")
    brief: bool = option(False, "--brief", help="Write one line for each record that differs.")
    max_line_mib: float = option(
        StreamOptions().max_line_mib, "--max-line-mib", minimum=0.0001, metavar="MIB", help="Refuse longer lines."
    )
    verbose: bool = option(False, "-v", "--verbose", help="Show the panel's words and unchanged text in full too.")
    quiet: bool = option(False, "-q", "--quiet", help="Write nothing but errors; the exit status says the rest.")


@command("fuse-diff", DiffOptions, help=HELP, arguments="A B", recipe=False, trouble=EXIT_USAGE)
def main(files: tuple[str, ...], diff: dict[str, Any]) -> None:
    import asyncio

    from fusiontools.cli.diff_run import Comparison, Wanted

    if len(files) != 2:
        raise UsageError("two files are compared: fuse-diff A B (see fuse-diff --help)")
    options = DiffOptions(**diff)
    longest = int(options.max_line_mib * 2**20)
    wanted = Wanted(_form(options), answers_only=options.answers, whole=options.verbose, max_line_bytes=longest)
    comparison = Comparison(files, wanted)
    with asyncio.Runner() as runner:
        leave(runner.run(comparison.run()))


def _form(options: DiffOptions) -> Literal["text", "json", "brief", "nothing"]:
    as_json = options.as_json or options.output == "jsonl"
    if options.brief and as_json:
        raise UsageError("--brief and --json exclude each other; --json writes one line for each record anyway")
    if options.quiet:
        return "nothing"
    if as_json:
        return "json"
    return "brief" if options.brief else "text"
