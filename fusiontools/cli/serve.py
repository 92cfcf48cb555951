"""`fuse-serve`: any chain behind an OpenAI endpoint."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command
from fusiontools.config.stage_table import JournalOptions, LimitOptions
from fusiontools.server.serve_options import ServeOptions

HELP = """\
\b
  fuse-serve -c budget --max-day-cost-usd 20
  fuse-serve --chain "route | panel | judge | synth"

Put a chain behind an OpenAI endpoint: any client that speaks Chat Completions, Responses or Anthropic's Messages can
ask it.

The recipe is the model `fusion`, each other one `fusion/NAME`; a member's own name goes straight to that model.
"""


@command("fuse-serve", ServeOptions, LimitOptions, JournalOptions, help=HELP, arguments="")
def main(
    files: tuple[str, ...], config: str | None, serve: dict[str, Any], limit: dict[str, Any], journal: dict[str, Any]
) -> None:
    import os

    from fusiontools.cli.command import complain
    from fusiontools.errors import UsageError, install_line

    if files:
        raise UsageError(f"{files[0]!r}: a server reads no files")
    try:
        from fusiontools.server.run import serve as run
        from fusiontools.server.state import KEYS_VARIABLE, ServerArguments
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: {install_line('serve')}") from error

    def say(url: str) -> None:
        complain("fuse-serve", f"listening on {url}")
        if os.isatty(2):
            key = "one of your keys" if os.environ.get(KEYS_VARIABLE) else "any key will do"
            complain(
                "fuse-serve", f"clients: base URL {url}/v1 (Anthropic's: {url}), model `fusion`, {key}; Ctrl-C ends it"
            )

    run(ServerArguments(config, ServeOptions(**serve), limit, journal), say)
