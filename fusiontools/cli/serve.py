"""`fuse-serve`: any chain behind an OpenAI endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusiontools.cli.command import command, complete_recipes
from fusiontools.config.stage_table import JournalOptions, LimitOptions
from fusiontools.errors import UsageError, install_line
from fusiontools.server.serve_options import ServeOptions

_HIGHEST_PORT = 65_535
HELP = """\
\b
  fuse-serve -c budget --max-day-cost-usd 20
  fuse-serve --chain "route | panel | judge | synth"

Put a chain behind an OpenAI endpoint: any client that speaks Chat Completions, Responses or Anthropic's Messages can
ask it.

The recipe is the model `fusion`, each other one `fusion/NAME`; a member's own name goes straight to that model.
"""


@command(
    "fuse-serve",
    ServeOptions,
    LimitOptions,
    JournalOptions,
    help=HELP,
    arguments="",
    completes={"recipes": complete_recipes},
)
def main(
    files: tuple[str, ...], config: str | None, serve: dict[str, Any], limit: dict[str, Any], journal: dict[str, Any]
) -> None:
    import os

    from fusiontools.cli.command import complain

    if files:
        raise UsageError(f"{files[0]!r}: a server reads no files")
    try:
        from fusiontools.server.run import serve as run
        from fusiontools.server.state import ServerArguments, server_keys
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed: {install_line('serve')}") from error

    options = ServeOptions(**{**_read_environment(os.environ), **serve})
    if options.open and options.no_page:
        raise UsageError("--open: there is no page to open with --no-page")

    def say(url: str) -> None:
        complain("fuse-serve", f"listening on {url}")
        if options.open:
            _open_page(url)
        if os.isatty(2):
            key = "one of your keys" if server_keys() else "any key will do"
            complain(
                "fuse-serve", f"clients: base URL {url}/v1 (Anthropic's: {url}), model `fusion`, {key}; Ctrl-C ends it"
            )

    run(ServerArguments(config, options, limit, journal), say)


def _open_page(url: str) -> None:
    """Open the page; where there is no browser its address has been said already."""
    import threading
    import webbrowser

    # Some browsers end only when they are closed.
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return where to listen, as the environment says it.

    Raises:
        UsageError: a port that is none.
    """
    said: dict[str, Any] = {}
    if host := environ.get("FUSION_HOST"):
        said["host"] = host
    if port := environ.get("FUSION_PORT"):
        if not (port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
            raise UsageError(f"FUSION_PORT={port!r}: a port is a number from 0 to {_HIGHEST_PORT}")
        said["port"] = int(port)
    return said
