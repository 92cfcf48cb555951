"""What `fuse-code` can be told."""

from __future__ import annotations

from fusiontools.config.options import Settings, option


class CodeOptions(Settings):
    """What `fuse-code` can be told."""

    root: str = option(".", "--root", metavar="PATH", help="The project's folder.")
    model: str | None = option(
        None, "-m", "--model", metavar="MODEL[@ENDPOINT]",
        help="Who works.  [default: the recipe's synthesizer, else the first of its panel]",
    )  # fmt: skip
    fuse: bool = option(
        False, "--fuse", help="Let the chain say what to do, once for each task, before the model acts."
    )
    chain: str | None = option(
        None, "--chain", metavar="TEXT", help="The chain of --fuse and of the council.  [default: the recipe's]"
    )
    plan: bool = option(False, "--plan", help="A numbered plan first, and keep to it.")
    approve: bool = option(False, "--approve", help="Ask before every change, every command, and the plan.")
    check: str | None = option(
        None, "--check", metavar="COMMAND", help="Keep the work only if this passes: 'pytest -q'. Run before, too."
    )
    protect: tuple[str, ...] = option(
        (), "--protect", multiple=True, metavar="GLOB", help="Files that may not be changed: 'tests/'; repeat for more."
    )
    allow: tuple[str, ...] = option(
        (), "--allow", multiple=True, metavar="GLOB",
        help="Files that something runs later and that may be changed all the same: .github/; repeat for more.",
    )  # fmt: skip
    network: bool = option(
        False, "--network", help="Let commands reach the network, the services of this machine included."
    )
    readable: tuple[str, ...] = option(
        (), "--readable", multiple=True, metavar="PATH",
        help="What else of this machine commands may read; repeat for more.",
    )  # fmt: skip
    max_steps: int = option(
        100, "--max-steps", minimum=1, metavar="N", help="The most answers of the model for a task."
    )
    session: str | None = option(
        None, "--continue", metavar="[ID]", bare="", help="Go on with the latest session, or with this one."
    )
    output: str | None = option(None, "-o", "--output", choices=("text", "jsonl"), help="The summary, or the record.")
    json: bool = option(False, "--json", help="The same as -o jsonl.")
    quiet: bool = option(False, "-q", "--quiet", help="Do not show the steps.")
