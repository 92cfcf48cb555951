"""`fuse-ask`: one question through a whole chain, or the script by which a shell completes all tools.

A shell waits for that script each time it starts, so it is printed before anything is loaded that a question needs.
"""

import sys


def __getattr__(name: str) -> object:
    if name != "main":
        raise AttributeError(f"module 'fusiontools.cli.ask' has no attribute {name!r}")
    from fusiontools.cli.completion import SHELLS

    if len(sys.argv) == 3 and sys.argv[1] == "--completion" and sys.argv[2] in SHELLS:
        return _print_completion
    from fusiontools.cli.ask_command import main

    return main


def _print_completion() -> None:
    from fusiontools.cli.completion import print_script

    try:
        print_script(sys.argv[2])
    except OSError as error:
        sys.exit(f"fuse-ask: stdout: {error.strerror}")
