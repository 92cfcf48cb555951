"""Hold what a model wrote against a person's own command: in the sandbox, each time in a new folder.

The command is the person's, and what it runs may be the model's: it has no network, no environment but a few harmless
variables, nothing of this machine but its programs and the files that were named, and bounds on all that it takes.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from fusiontools.errors import UsageError
from fusiontools.tools.bash import Place, Shell, is_too_full
from fusiontools.tools.sandbox import FOLDER, Sandbox, find_sandbox
from fusiontools.tools.watch import Bounds

#: What is kept of what a command says: its end, where failures stand.
_SAID_CHARS = 4_000
#: What the files beside a response may have together.
_MOST_BYTES = 64 * 2**20


class CheckVerdict(Struct, frozen=True):
    """Whether a check has passed, and what it said."""

    passed: bool
    said: str


class ImaginedChecker(Struct, frozen=True):
    """Runs nothing: what an estimate holds a response against.

    Args:
        passes: whether each response passes; else as much is said of each as may be.
    """

    passes: bool

    async def check(self, texts: Mapping[str, str], given: str) -> CheckVerdict:
        """Return the verdict that is taken for granted."""
        return CheckVerdict(True, "") if self.passes else CheckVerdict(False, "no " * (_SAID_CHARS // 3))

    async def aclose(self) -> None:
        """Nothing is open."""


class Checker(Struct):
    """Runs one command on one text after the other, as many at once as there are processors.

    Args:
        command: for bash; it passes with exit 0.
        files: what the command finds beside the text, copied anew each time.
        seconds: how long it may take.
        secrets: what is taken out of all that it says.
    """

    command: str
    files: Sequence[Path]
    seconds: float
    sandbox: Sandbox
    secrets: Sequence[str] = ()
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(os.cpu_count() or 1))

    async def check(self, texts: Mapping[str, str], given: str) -> CheckVerdict:
        """Run the command among these texts as files; cancelling ends it.

        Args:
            given: the file that is its standard input.
        """
        async with self._places:
            with self.sandbox.lend() as base:
                folder, output = base / "work", base / "output"
                await asyncio.to_thread(self._lay_out, folder, texts)
                output.mkdir()
                at = FOLDER if self.sandbox.boxed else str(folder)
                own = Path(sys.executable).parent
                env = {"HOME": at, "PATH": f"{own}:/usr/local/bin:/usr/bin:/bin"}
                place = Place(folder, output, at, env, lambda: is_too_full(folder))
                shell = Shell(self.sandbox, Bounds(self.seconds), self.secrets, place)
                run = await shell.execute(f"exec < {given}\n{self.command}")
        if run.ending == "exit":
            return CheckVerdict(run.status == 0, f"exit {run.status}\n{run.text[-_SAID_CHARS:]}".strip())
        ended = f"not through after {self.seconds:g} s" if run.ending == "timeout" else f"too much {run.ending}"
        return CheckVerdict(False, f"ended: {ended}\n{run.text[-_SAID_CHARS:]}".strip())

    async def aclose(self) -> None:
        """Do nothing: each folder has gone with its run."""

    def _lay_out(self, folder: Path, texts: Mapping[str, str]) -> None:
        folder.mkdir()
        for path in self.files:
            if path.is_dir():
                shutil.copytree(path, folder / path.name)
            else:
                shutil.copy(path, folder)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", errors="replace")
        if self.sandbox.user is not None:
            for place, folders, files in os.walk(folder):
                for name in (".", *folders, *files):
                    os.chown(Path(place, name), self.sandbox.user, self.sandbox.user, follow_symlinks=False)


def open_checker(
    command: str, files: Sequence[str], seconds: float, *, wrapper: str | None = None, secrets: Sequence[str] = ()
) -> Checker:
    """Return what runs a check here.

    Args:
        wrapper: the recipe's `sandbox:`, in the place of bubblewrap.

    Raises:
        UsageError: there is no sandbox, or a file cannot be read.
    """
    paths = [Path(text).resolve() for text in files]
    for text, path in zip(files, paths, strict=True):
        if not path.exists():
            raise UsageError(f"--check-with {text}: there is no such file or folder")
    size = sum(each.stat().st_size for path in paths for each in (path.rglob("*") if path.is_dir() else [path]))
    if size > _MOST_BYTES:
        raise UsageError(f"--check-with: {size >> 20} MiB are more than {_MOST_BYTES >> 20}: they are copied each time")
    own = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent)]
    try:
        sandbox = find_sandbox(wrapper, readable=own, trial=["bash", "-c", ":"])
    except UsageError as error:
        message = f"--check runs what models write, and there is no sandbox for it: {error.message}"
        raise UsageError(
            f'{message}; or name another one in the recipe (sandbox: "srt --")', code="no_sandbox"
        ) from error
    return Checker(command, paths, seconds, sandbox, secrets)
