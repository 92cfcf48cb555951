"""Where an agent works: the copy of the project, commands in a sandbox that shows it, and what of the work is kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.errors import UsageError
from fusiontools.llm.journal import default_path
from fusiontools.runs.agent.beneath import Beneath, RefusedPath
from fusiontools.runs.agent.exact_edits import count_lines, diff_of
from fusiontools.runs.agent.file_rules import LINKED, Rules, is_cache, runs_later
from fusiontools.runs.agent.file_tree import link_leads_out, walk
from fusiontools.runs.agent.work_copy import FileChange, WorkCopy
from fusiontools.tools.bash import Place, Shell, require_sandbox
from fusiontools.tools.sandbox import SHOWN, Sandbox
from fusiontools.tools.watch import Bounds

_COMMAND_S, _CHECK_S = 120.0, 900.0
_MEMORY_BYTES, _PROCESSES = 4 << 30, 256
#: How often the size of the copy is looked at: it may hold many files.
_LOOK_S = 5.0
#: What programs look for beside their own files; nothing in them is secret.
_SHOWN_OF_ETC = ("/etc/passwd", "/etc/group", "/etc/localtime", "/etc/mime.types")
_OUR_ENV = {
    "HOME": "/tmp",  # noqa: S108 - inside of the sandbox
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    # Python takes what it compiled of a file for that of another one of the same size and second: an agent is as fast.
    "PYTHONDONTWRITEBYTECODE": "1",
    # The files are not always those of the user who runs inside.
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}
_NO_GIT = 99
_LIST = (
    f"git rev-parse --git-dir >/dev/null 2>&1 || exit {_NO_GIT}; "
    "git ls-files -z --cached --others --exclude-standard; printf '\\0'; "
    "git ls-files -z --others --ignored --exclude-standard --directory | tr -cd '\\0' | wc -c"
)
_CHECK_CHARS = 12_000


class CheckRun(Struct, frozen=True):
    """What came of the person's check."""

    green: bool
    text: str
    seconds: float


class KeptWork(Struct, frozen=True):
    """What of the work is kept.

    Args:
        changes: what comes back.
        put_back: files that were made again what they were, and why.
        ignored: how many files stay behind because the project ignores them.
    """

    changes: Sequence[FileChange]
    put_back: Sequence[str]
    ignored: int


class WorkOptions(Struct, frozen=True):
    """How an agent works on a folder.

    Args:
        network: whether commands reach the network.
        readable: what else of the machine they see.
        wrapper: a sandbox in the place of bubblewrap.
        unsafe: whether commands run without one where there is none.
        secrets: what is taken out of what commands say.
    """

    root: Path
    rules: Rules = Rules()
    network: bool = False
    readable: Sequence[str] = ()
    wrapper: str | None = None
    unsafe: bool = False
    secrets: Sequence[str] = ()


class Workspace(Struct):
    """The copy of a project, open for work."""

    options: WorkOptions
    copy: WorkCopy
    sandbox: Sandbox
    files: Beneath
    shell: Shell
    #: Whether nobody has worked in it yet.
    fresh: bool
    #: What our own run of the check has left behind.
    leavings: set[str] = set()

    @property
    def at(self) -> str:
        """What the folder is called, for the model and inside of the sandbox."""
        return str(self.options.root) if self.sandbox.boxed else str(self.copy.tree)

    @classmethod
    def open(cls, options: WorkOptions, sandbox: Sandbox, copy: WorkCopy, *, fresh: bool) -> Workspace:
        """Open a copy of the folder for work.

        Args:
            fresh: whether nobody has worked in it yet.

        Raises:
            OSError: it cannot be read.
        """
        at = str(options.root) if sandbox.boxed else str(copy.tree)
        place = Place(copy.tree, copy.output, at, _environment(at), _seldom(copy), options.network)
        shell = Shell(sandbox, Bounds(_COMMAND_S, _MEMORY_BYTES, _PROCESSES), options.secrets, place)
        known_as = [str(options.root)]
        return cls(options, copy, sandbox, Beneath(copy.tree, known_as), shell, fresh)

    def close(self, *, remove: bool) -> None:
        """Let go of the copy, and take it away where nobody goes on with it."""
        self.files.close()
        if remove:
            self.copy.remove()
        self.copy.close()

    async def list_files(self) -> tuple[list[str], str]:
        """Return the files of the project, those left out that it ignores, and what to say of those."""
        run = await self.shell.execute(_LIST, whole=True)
        if run.ending == "exit" and run.status == 0 and "\0\0" in run.text:
            # A file may be listed twice, once for each side of a merge.
            listed, _, ignored = run.text.rpartition("\0\0")
            files = sorted({path for path in listed.split("\0") if path and not is_cache(path)})
            count = int(ignored.strip() or 0)
            return files, f"{count} entries that git ignores are left out" if count else "git ignores none"
        if run.ending == "exit" and run.status == 0:
            return [], "git knows of no file"
        found = [path for path, _, _, status in walk(self.copy.tree) if not stat.S_ISDIR(status.st_mode)]
        shown = [path for path in found if not is_cache(path) and ".git" not in path.split("/")]
        return shown, f"{len(found) - len(shown)} files of caches are left out; this is no git repository"

    async def check(self, command: str) -> CheckRun:
        """Run the person's check on the copy as it is."""
        begun = time.monotonic()
        run = await self.shell.execute(command, seconds=_CHECK_S)
        green = run.ending == "exit" and run.status == 0
        ended = f"exit {run.status}" if run.ending == "exit" else f"ended: {run.ending}"
        return CheckRun(green, f"{ended}\n{run.text[-_CHECK_CHARS:]}", time.monotonic() - begun)

    def note_leavings(self) -> None:
        """Remember what stands in the copy now and not in the folder: it is none of the agent's work."""
        self.leavings |= {change.path for change in self.copy.changes()}

    async def settle(self, written: set[str]) -> KeptWork:
        """Decide what of the work is kept; what may not be changed is put back, so that a check sees what is kept.

        Args:
            written: what the agent's own file tools have written, which is kept though the project ignores it.
        """
        changes = await asyncio.to_thread(self.copy.changes)
        wanted: list[FileChange] = []
        put_back: dict[str, str] = {}
        for change in changes:
            path = change.path
            if ".git" in path.split("/"):
                if self._allows(path):
                    wanted.append(change)
                elif {"hooks", "config", "info"} & set(path.split("/")) and not _is_directory(change):
                    put_back[path] = f"{path} is run later, outside of the sandbox; only --allow lets it be changed"
            elif path in self.leavings and path not in written:
                continue
            elif why := self.why_not(change):
                put_back[path] = why
            elif not _is_directory(change) or change.after is None or change.before is not None:
                # A new directory comes with what is in it; one in the place of a file has to make that give way.
                wanted.append(change)
        ignored = await self._ignored([change.path for change in wanted if change.path not in written])
        await asyncio.to_thread(self.copy.put_back, sorted(put_back, reverse=True))
        kept = [change for change in wanted if change.path not in ignored]
        return KeptWork(kept, [why for _, why in sorted(put_back.items())], len(ignored))

    def why_not(self, change: FileChange) -> str | None:
        """Return why a change is not kept, or None."""
        if why := self.options.rules.why_not(change.path):
            return why
        if change.before is not None and change.before.names > 1:
            return LINKED.format(change.path)
        if change.after is not None and change.after.kind == "link":
            to = change.after.digest
            if link_leads_out(change.path, to) or self._leads_out(change.path):
                return f"{change.path} would be a link to {to}, outside of the project"
        return None

    def _leads_out(self, path: str) -> bool:
        """Return whether a path leads out of the copy over other links."""
        try:
            with contextlib.suppress(OSError), self.files.find(path):
                return False
        except RefusedPath:
            return True
        return False

    def _allows(self, path: str) -> bool:
        return runs_later(path) and self.options.rules.why_not(path) is None

    async def _ignored(self, paths: Sequence[str]) -> set[str]:
        """Return which of these paths the project ignores; git is asked, in the sandbox."""
        ignored = {path for path in paths if is_cache(path)}
        asked = [path for path in paths if path not in ignored]
        if not asked:
            return ignored
        told = self.copy.output / "asked"
        told.write_bytes(b"\0".join(os.fsencode(path) for path in asked))
        told.chmod(0o644)
        name = f"{SHOWN if self.sandbox.boxed else told.parent}/asked"
        run = await self.shell.execute(f"git check-ignore -z --stdin < '{name}'", whole=True)
        return ignored | ({path for path in run.text.split("\0") if path} & set(asked) if run.status == 0 else set())

    def patch(self, changes: Sequence[FileChange]) -> tuple[str, dict[str, tuple[int, int]]]:
        """Return changes as one diff, and how many lines each file gains and loses."""
        diffs, counted = [], {}
        for change in changes:
            if not _is_directory(change):
                diff = diff_of(change.path, *self.copy.bytes_of(change))
                diffs.append(diff)
                counted[change.path] = count_lines(diff)
        return "".join(diffs), counted


def find_work_sandbox(options: WorkOptions) -> Sandbox:
    """Return the sandbox in which an agent's commands run.

    Raises:
        UsageError: there is none; or the folder is none to work on.
    """
    root = options.root
    if not root.is_dir():
        raise UsageError(f"--root {root}: there is no such directory")
    if folder := _ours_within(root):
        why = f"it holds or is in {folder}, with keys and journal"
        raise UsageError(f"--root {root}: {why}; name the project's own folder")
    shown = [Path(path).resolve() for path in options.readable]
    for path in shown:
        if not path.exists():
            raise UsageError(f"--readable {path}: there is no such file or directory")
        if folder := _ours_within(path):
            raise UsageError(f"--readable {path}: it holds or is in {folder}, with keys and journal; name less of it")
    readable = [*_SHOWN_OF_ETC, *_pythons(root), *_repositories(root), *map(str, shown)]
    return require_sandbox(options.wrapper, unsafe=options.unsafe, network=options.network, readable=readable)


def _ours_within(place: Path) -> Path | None:
    """Return a folder with keys or a journal that lies within a place, or holds it."""
    ours = [default_path().parent, Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config", "fusiontools")]
    for folder in ours:
        there = folder.resolve()
        if folder.exists() and (there.is_relative_to(place) or place.is_relative_to(there)):
            return folder
    return None


def _is_directory(change: FileChange) -> bool:
    entry = change.after or change.before
    return entry is not None and entry.kind == "directory"


def _environment(at: str) -> Mapping[str, str]:
    """Return what commands have in their environment; what the project has installed for itself is found first."""
    path = f"{at}/.venv/bin:{at}/venv/bin:{at}/node_modules/.bin:/usr/local/bin:/usr/bin:/bin"
    return {**_OUR_ENV, "PATH": path}


def _seldom(copy: WorkCopy) -> Any:
    """Return whether the copy has grown too large, looked at every few seconds."""
    looked = [time.monotonic()]

    def is_too_full() -> bool:
        if time.monotonic() - looked[0] < _LOOK_S:
            return False
        full = copy.is_too_full()
        looked[0] = time.monotonic()
        return full

    return is_too_full


def _pythons(root: Path) -> list[str]:
    """Return the interpreters of the project's virtual environments, and their libraries."""
    found = []
    for name in (".venv", "venv"):
        # The link may be a trap that comes with the project: no more is shown than an installed Python has.
        python = Path(os.path.realpath(root / name / "bin" / "python"))
        library = python.parent.parent / "lib"
        if python.name.startswith("python") and python.parent.name == "bin" and any(library.glob("python3*/os.py")):
            found += [str(python), str(library)]
    return [path for path in found if not path.startswith("/usr/")]


def _repositories(root: Path) -> list[str]:
    """Return where git keeps the history of a folder that is a worktree of a repository elsewhere."""
    try:
        words = (root / ".git").read_text(encoding="utf-8", errors="surrogateescape").split(": ", 1)
    except OSError:
        return []
    if words[0] != "gitdir" or len(words) < 2:
        return []
    own = (root / words[1].strip()).resolve()
    with contextlib.suppress(OSError):
        common = (own / (own / "commondir").read_text(encoding="utf-8").strip()).resolve()
        # Whoever wrote that file may have meant something else to be shown.
        if (common / "HEAD").is_file() and (common / "objects").is_dir():
            return [str(common)]
    return []
