"""One file per command: parse, call, print."""

# `signal` itself would load enum first, while Ctrl-C still prints a traceback.
import _signal as signal  # type: ignore[import-not-found]
import os
import sys

# The one thing done at an import: from here on Ctrl-C ends a tool at once and without a word, also in the midst of its
# other imports, where nobody could catch it. A tool that has something to put in order sets a handler of its own.
if os.path.basename(sys.argv[0]).startswith("fuse-") and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # noqa: PTH119
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    # One that came before was lost where it met the callback by which an import gives up its lock: Python drops what is
    # raised there, and goes on. The dead lock is then still listed.
    if any(lock() is None for lock in [*getattr(sys.modules["_frozen_importlib"], "_module_locks", {}).values()]):
        os._exit(130)
