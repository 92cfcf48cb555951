"""The tools by which an agent reads, searches and changes files, all of them beneath one folder.

A file is changed where what is to go stands there exactly once, byte for byte; what the model believes of a file and is
not so any more is said before anything is written. What fails is a result that says why and what helps.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import stat
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.runs.agent.beneath import Beneath, RefusedPath, Spot
from fusiontools.runs.agent.exact_edits import (
    EditRefused,
    apply_hunks,
    diff_of,
    parse_patch,
    replace_exact,
    text_of_file,
)
from fusiontools.runs.agent.file_rules import LINKED, Rules, matches
from fusiontools.runs.agent.work_copy import printable
from fusiontools.tools.tool import Arguments, Tool, ToolContext, ToolResult, ToolStatus

#: The most of a file that is read, and that is shown at once.
_MOST_BYTES = 16 << 20
_PAGE_LINES, _PAGE_CHARS, _LINE_CHARS = 1000, 40_000, 2000
#: What is shown of a match: the text around it.
_MATCH_CHARS, _MOST_MATCHES = 300, 100
_LISTED = 300
_DIFF_CHARS = 8000
#: A write that leaves so little of a longer file is asked about once.
_SHRUNK, _SHRUNK_LINES = 0.5, 40
_LEFT_OUT = re.compile(
    r"^[ \t]*(#|//|/\*|--|<!--|;|\"|\.\.\.|…)?[ \t]*(\.\.\.|…)?[ \t]*"
    r"((the )?(rest|remainder|remaining|existing|other|previous)\b.{0,40}\b(unchanged|same|as before|code|here|omitted)"
    r"|(unchanged|same as before|omitted)\b)",
    re.IGNORECASE | re.MULTILINE,
)
_PATH = {"type": "string", "minLength": 1, "maxLength": 4096, "description": "From the project's folder on."}

#: Lists the files that are searched: those of the project that it does not ignore, and how many it does.
ListFiles = Callable[[], Awaitable[tuple[list[str], str]]]
#: Asks whether a change may be made, which is shown; returns why not, or None.
Ask = Callable[[str, str], Awaitable[str | None]]


class _Write(Struct, frozen=True):
    """A change of one file that has been checked and not been made."""

    path: str
    before: bytes | None
    after: bytes | None


class FileTools(Struct):
    """Tools that reach the files of one folder.

    Args:
        beneath: the folder.
        rules: which files may not be changed.
        owner: whose new files are, where they are not ours.
        list_files: which files are searched.
        ask: asks before a change; None changes without.
        is_linked: whether a file had another name elsewhere before any of this.
    """

    beneath: Beneath
    rules: Rules
    owner: int | None
    list_files: ListFiles
    ask: Ask | None = None
    is_linked: Callable[[str], bool] = lambda path: False
    #: The digest of each file as the model has last been shown it, or has made it.
    seen: dict[str, str] = {}
    #: What the tools have written.
    written: set[str] = set()
    _asked_about: set[str] = set()

    def tools(self) -> list[Tool]:
        """Return the tools."""
        return [
            self._tool(
                "read", self._read,
                "Read a file, with line numbers, or list a directory. A long file comes in pages.",
                {
                    "path": _PATH,
                    "from_line": {"type": "integer", "minimum": 1},
                    "lines": {"type": "integer", "minimum": 1, "maximum": _PAGE_LINES},
                },
                ["path"],
            ),
            self._tool(
                "search", self._search,
                "Search the project's files, those that git ignores left out, for a regular expression (RE2). Without "
                "a pattern, list the files.",
                {
                    "pattern": {"type": "string", "maxLength": 1000},
                    "files": {"type": "string", "maxLength": 500, "description": "Only files like this: *.py, src/"},
                    "ignore_case": {"type": "boolean"},
                },
                [],
            ),
            self._tool(
                "edit", self._edit,
                "Replace a piece of a file: `old` must stand there exactly once, blanks and all.",
                {
                    "path": _PATH,
                    "old": {"type": "string", "minLength": 1, "description": "Copied exactly, without line numbers."},
                    "new": {"type": "string"},
                    "all": {"type": "boolean", "description": "Replace it wherever it stands."},
                },
                ["path", "old", "new"],
            ),
            self._tool(
                "write", self._write,
                "Make a file, or replace all of one that you have read. To change a part, use edit.",
                {"path": _PATH, "content": {"type": "string"}, "executable": {"type": "boolean"}},
                ["path", "content"],
            ),
            self._tool(
                "patch", self._patch,
                "Apply a unified diff to one or more files, to all or none. Line numbers do not matter; the lines of a "
                "hunk must stand in the file exactly once. /dev/null makes and deletes files.",
                {"patch": {"type": "string", "minLength": 1}},
                ["patch"],
            ),
        ]  # fmt: skip

    def _tool(self, name: str, run: Any, description: str, properties: dict[str, Any], required: list[str]) -> Tool:
        async def guarded(arguments: Arguments, context: ToolContext) -> ToolResult:
            try:
                return await run(arguments)  # type: ignore[no-any-return]
            except RefusedPath as error:
                return _failed(str(error), "refused")
            except EditRefused as error:
                return _failed(str(error))
            except OSError as error:
                return _failed(f"{arguments.get('path', 'the patch')}: {error.strerror}")

        parameters = {
            "type": "object", "properties": properties, "required": required, "additionalProperties": False
        }  # fmt: skip
        # A file may have another content a moment later, so no run stands for another.
        return Tool(name, description, parameters, guarded, ("machine",), repeatable=False, max_chars=60_000)

    async def _read(self, arguments: Arguments) -> ToolResult:
        with self.beneath.find(arguments["path"]) as spot:
            status = spot.status()
            if status is None:
                return _failed(f"{spot.path}: there is no such file")
            if stat.S_ISDIR(status.st_mode):
                return await self._list(spot.path)
            data = spot.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            return _failed(f"{spot.path}: larger than {_MOST_BYTES >> 20} MiB; look into it with bash")
        if b"\0" in data:
            return ToolResult(f"{spot.path}: binary, {len(data)} bytes")
        self.seen[spot.path] = _digest(data)
        return ToolResult(_page(spot.path, data, arguments.get("from_line", 1), arguments.get("lines", _PAGE_LINES)))

    async def _list(self, folder: str) -> ToolResult:
        files, note = await self.list_files()
        inside = "" if folder == "." else folder + "/"
        names: dict[str, int] = {}
        for path in files:
            if path.startswith(inside):
                name, slash, _ = path[len(inside) :].partition("/")
                names[name + slash] = names.get(name + slash, 0) + 1
        lines = [f"{name} ({count} files)" if name.endswith("/") else name for name, count in sorted(names.items())]
        more = [f"… and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
        return ToolResult("\n".join([f"{folder}: {note}", *lines[:_LISTED], *more]))

    async def _search(self, arguments: Arguments) -> ToolResult:
        files, note = await self.list_files()
        if wanted := arguments.get("files"):
            files = [path for path in files if matches(path, wanted)]
        pattern = arguments.get("pattern", "")
        if not pattern:
            more = [f"… and {len(files) - _LISTED} more"] if len(files) > _LISTED else []
            return ToolResult("\n".join([f"{len(files)} files; {note}", *files[:_LISTED], *more]))
        return await asyncio.to_thread(self._search_in, files, pattern, bool(arguments.get("ignore_case")), note)

    def _search_in(self, files: Sequence[str], pattern: str, ignore_case: bool, note: str) -> ToolResult:
        import re2

        options = re2.Options()
        options.case_sensitive = not ignore_case
        options.log_errors = False
        try:
            compiled = re2.compile(pattern.encode(), options)
        except re2.error as error:
            said = error.args[0] if error.args else error
            return _failed(f"the pattern cannot be read: {said.decode() if isinstance(said, bytes) else said}")
        shown: list[str] = []
        found = in_files = 0
        for path in files:
            try:
                with self.beneath.find(path) as spot:
                    data = spot.read(_MOST_BYTES)
            except (OSError, RefusedPath):
                continue
            if b"\0" in data:
                continue
            here = 0
            for number, line in enumerate(data.split(b"\n"), 1):
                match = compiled.search(line)
                if match is not None:
                    here += 1
                    if len(shown) < _MOST_MATCHES:
                        shown.append(f"{path}:{number}: {_around(line, *match.span())}")
            found, in_files = found + here, in_files + bool(here)
        if not found:
            return ToolResult(f"no match in {len(files)} files; {note}")
        more = [f"… and {found - len(shown)} more"] if found > len(shown) else []
        return ToolResult("\n".join([f"{found} lines in {in_files} of {len(files)} files; {note}", *shown, *more]))

    async def _edit(self, arguments: Arguments) -> ToolResult:
        with self.beneath.find(arguments["path"]) as spot:
            before = self._to_change(spot)
            if before is None:
                return _failed(f"{spot.path}: there is no such file; `write` makes one")
            after, count = replace_exact(
                before, arguments["old"], arguments["new"], every=bool(arguments.get("all"))
            )  # fmt: skip
            path = spot.path
        said = f"edited {path}" + (f" in {count} places" if count > 1 else "")
        return await self._make([_Write(path, before, after)], said)

    async def _write(self, arguments: Arguments) -> ToolResult:
        with self.beneath.find(arguments["path"]) as spot:
            before, path = self._to_change(spot), spot.path
        content: str = arguments["content"]
        after = content.encode()
        if before is not None:
            if path not in self.seen:
                raise EditRefused(f"{path} is there already and you have not read it: read it, then edit it")
            if before.startswith(b"\xef\xbb\xbf") and not after.startswith(b"\xef\xbb\xbf"):
                after = b"\xef\xbb\xbf" + after
            if b"\r\n" in before and b"\r\n" not in after:
                after = after.replace(b"\n", b"\r\n")
            if why := self._looks_shortened(path, before, after):
                raise EditRefused(why)
        mode = 0o755 if arguments.get("executable") else None
        made = "replaced" if before is not None else "made"
        return await self._make([_Write(path, before, after)], f"{made} {path}, {len(after)} bytes", mode)

    async def _patch(self, arguments: Arguments) -> ToolResult:
        writes = []
        for each in parse_patch(arguments["patch"]):
            with self.beneath.find(each.before or each.after or "") as spot:
                before, path = self._to_change(spot), spot.path
            if each.before is None:
                if before is not None:
                    raise EditRefused(f"{path} is there already; nothing of the patch was applied")
                lines = [line for _, new in each.hunks for line in new]
                writes.append(_Write(path, None, ("\n".join(lines) + "\n").encode()))
                continue
            if before is None:
                raise EditRefused(f"{path}: there is no such file; nothing of the patch was applied")
            try:
                after = apply_hunks(before, each.hunks)
            except EditRefused as error:
                raise EditRefused(f"{path}: {error}; nothing of the patch was applied") from None
            if each.after is None and after.strip():
                raise EditRefused(f"{path}: the patch deletes it and leaves lines of it; nothing was applied")
            writes.append(_Write(path, before, None if each.after is None else after))
            if each.after is not None and each.after != each.before:
                with self.beneath.find(each.after) as spot:
                    if self._to_change(spot) is not None:
                        raise EditRefused(f"{spot.path} is there already; nothing of the patch was applied")
                    writes[-1:] = [_Write(path, before, None), _Write(spot.path, None, after)]
        if len({write.path for write in writes}) < len(writes):
            raise EditRefused("the patch has two parts for one file; put its hunks into one")
        return await self._make(writes, "patched " + ", ".join(write.path for write in writes))

    def _to_change(self, spot: Spot) -> bytes | None:
        """Return the bytes of a file that is to be changed; None where there is none yet.

        Raises:
            RefusedPath: it may not be changed.
            EditRefused: it is none that can be, or no more what the model was shown.
        """
        if why := self.rules.why_not(spot.path):
            raise RefusedPath(why)
        status = spot.status()
        if status is None:
            return None
        if (status.st_nlink > 1 and stat.S_ISREG(status.st_mode)) or self.is_linked(spot.path):
            raise RefusedPath(LINKED.format(spot.path))
        data = spot.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES or b"\0" in data:
            raise EditRefused(f"{spot.path}: binary or larger than {_MOST_BYTES >> 20} MiB; change it with bash")
        if self.seen.get(spot.path, digest := _digest(data)) != digest:
            # Said once: what it is now, the model then knows.
            self.seen.pop(spot.path)
            raise EditRefused(f"{spot.path} has changed since you read it, by a command or a person: read it again")
        return data

    def _looks_shortened(self, path: str, before: bytes, after: bytes) -> str | None:
        """Return why a whole new text of a file looks as if a part had been left out; the second time it is meant."""
        if path in self._asked_about:
            return None
        self._asked_about.add(path)
        old, new = before.count(b"\n"), after.count(b"\n")
        hint = "to change a part of it, use edit; if you mean it, write it again"
        if old > _SHRUNK_LINES and new < old * _SHRUNK:
            return f"{path} has {old} lines and would have {new}: {hint}"
        found = _LEFT_OUT.search(text_of_file(after)[0])
        if found and found[0].encode() not in before:
            return f"{path} would hold {found[0].strip()[:100]!r}, as if a part was left out: {hint}"
        self._asked_about.discard(path)
        return None

    async def _make(self, writes: Sequence[_Write], said: str, mode: int | None = None) -> ToolResult:
        """Make changes that have been checked, after asking where somebody wants to be asked."""
        diff = "".join(diff_of(printable(write.path), write.before, write.after) for write in writes)
        paths = ", ".join(printable(write.path) for write in writes)
        if self.ask is not None and (why := await self.ask(f"change {paths}", diff)) is not None:
            return _failed(f"the person said no{': ' + why if why else ''}", "refused")
        for write in writes:
            with self.beneath.find(write.path, make=True, owner=self.owner) as spot:
                status = spot.status()
                data = None if status is None else spot.read()
                if data != write.before:
                    raise EditRefused(f"{write.path} has changed just now: read it again")
                if write.after is None:
                    spot.remove()
                    self.seen.pop(write.path, None)
                else:
                    spot.write(write.after, mode, self.owner)
                    self.seen[write.path] = _digest(write.after)
            self.written.add(write.path)
        shown = diff if len(diff) <= _DIFF_CHARS else diff[:_DIFF_CHARS] + "\n[… the rest of the diff is left out]\n"
        return ToolResult(f"{said}\n{shown}")


def _page(path: str, data: bytes, first: int, count: int) -> str:
    """Return lines of a file with their numbers, and what there is to say of it."""
    text, note = text_of_file(data)
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    elif lines:
        note = "; ".join(filter(None, [note, "no line end at its end"]))
    shown: list[str] = []
    size = 0
    for number, line in enumerate(lines[first - 1 : first - 1 + count], first):
        cut = (
            line if len(line) <= _LINE_CHARS else f"{line[:_LINE_CHARS]} [… {len(line) - _LINE_CHARS} more characters]"
        )
        size += len(cut)
        if size > _PAGE_CHARS and shown:
            break
        shown.append(f"{number:>5}\t{cut}")
    last = first + len(shown) - 1
    of = f"lines {first}-{last} of {len(lines)}" if shown else f"{len(lines)} lines, none from {first} on"
    rest = f"; read on from line {last + 1}" if last < len(lines) and shown else ""
    return "\n".join([f"{path}: {of}{rest}{'; ' + note if note else ''}", *shown])


def _around(line: bytes, start: int, end: int) -> str:
    """Return a match with what stands around it, a few hundred characters at most."""
    if len(line) <= _MATCH_CHARS:
        return line.decode("utf-8", "replace").rstrip("\r")
    first = max(0, start - (_MATCH_CHARS - min(end - start, _MATCH_CHARS)) // 2)
    last = min(len(line), first + _MATCH_CHARS)
    cut = line[first:last].decode("utf-8", "replace")
    return f"{'…' if first else ''}{cut}{'…' if last < len(line) else ''} [of a line of {len(line)} bytes]"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _failed(why: str, status: ToolStatus = "error") -> ToolResult:
    return ToolResult(why, status)
