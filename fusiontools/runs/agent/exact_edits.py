"""Change a text exactly where somebody says and nowhere else: on bytes, so that endings, marks and encodings stay."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence

from msgspec import Struct

#: Longer files are not compared line by line.
_DIFF_BYTES = 1 << 20
_SHOWN_PLACES = 20
_SHOWN_LINES = 3


class EditRefused(Exception):
    """A change that was not made; the text says why and what helps, for the model."""


class FilePatch(Struct, frozen=True):
    """What a patch does to one file.

    Args:
        before: its path; None where it is new.
        after: its path then; None where it is deleted.
        hunks: pieces of text and what stands in their place, in the order of the file.
    """

    before: str | None
    after: str | None
    hunks: Sequence[Hunk]


#: Lines that stand in a file, and those that stand in their place.
Hunk = tuple[list[str], list[str]]


def replace_exact(
    data: bytes, old: str, new: str, *, every: bool = False, whole_lines: bool = False
) -> tuple[bytes, int]:
    """Return the bytes with a text replaced that stands in them once, and how often it was.

    Line ends are compared as line feeds. Lines that `old` and `new` share keep every byte; new ones end as the lines
    that they replace, or those around them.

    Args:
        every: replace it wherever it stands.
        whole_lines: it begins at the beginning of a line and ends at the end of one.

    Raises:
        EditRefused: it does not stand there, or stands there more than once.
    """
    old, new = old.replace("\r\n", "\n"), new.replace("\r\n", "\n")
    if not old:
        raise EditRefused("`old` is empty; to make a file or to replace all of it, use `write`")
    if old == new:
        raise EditRefused("`old` and `new` are the same")
    if not (old + new).isascii() and not is_utf8(data):
        raise EditRefused("the file is not UTF-8, so only plain ASCII can be put into it or found in it")
    places = _places(data, old, whole_lines) if every else [_only_place(data, old, whole_lines)]
    if not places:
        raise EditRefused(_missing(data, old))
    pieces, at, count = [], 0, 0
    for start, end in places:
        if start < at:
            continue  # it overlaps the one before
        pieces += [data[at:start], _spliced(data, start, end, old, new)]
        at, count = end, count + 1
    return b"".join([*pieces, data[at:]]), count


def _only_place(data: bytes, old: str, whole_lines: bool = True) -> tuple[int, int]:
    """Return where a text stands that stands there once.

    Raises:
        EditRefused: it does not, or more than once.
    """
    places = _places(data, old, whole_lines)
    if not places:
        raise EditRefused(_missing(data, old))
    if len(places) > 1:
        lines = ", ".join(str(data.count(b"\n", 0, start) + 1) for start, _ in places[:_SHOWN_PLACES])
        more = f" and {len(places) - _SHOWN_PLACES} more" if len(places) > _SHOWN_PLACES else ""
        raise EditRefused(
            f"`old` stands in the file {len(places)} times, in lines {lines}{more}; "
            "give more of the text around the one you mean, or say all: true"
        )
    return places[0]


def _places(data: bytes, old: str, whole_lines: bool) -> list[tuple[int, int]]:
    """Return where a text stands, overlapping places included, whatever the line ends are."""
    text = rb"\r?\n".join(re.escape(line.encode()) for line in old.split("\n"))
    pattern = rb"(?<![^\n])(?=(" + text + rb")(?:\r?\n|\Z))" if whole_lines else rb"(?=(" + text + rb"))"
    return [match.span(1) for match in re.finditer(pattern, data)]


def _spliced(data: bytes, start: int, end: int, old: str, new: str) -> bytes:
    """Return what stands in the place of a match: its own lines as far as they stay, new ones in its line ends."""
    found, old_lines, new_lines = data[start:end].split(b"\n"), old.split("\n"), new.split("\n")
    most = min(len(old_lines), len(new_lines)) - 1
    head = next((i for i in range(most) if old_lines[i] != new_lines[i]), most)
    tail = next((i for i in range(most - head + 1) if old_lines[-1 - i] != new_lines[-1 - i]), most - head + 1)
    around = _ending_around(data, start, end)
    made = []
    for i in range(head, len(new_lines) - tail):
        is_last = i == len(new_lines) - 1
        has_own = i < len(found) - 1
        cr = found[i].endswith(b"\r") if has_own else around
        made.append(new_lines[i].encode() + (b"\r" if cr and not is_last else b""))
    return b"\n".join([*found[:head], *made, *found[len(found) - tail :]])


def _ending_around(data: bytes, start: int, end: int) -> bool:
    """Return whether the lines at a place end with a carriage return, too."""
    inside = data.find(b"\n", start, end)
    near = inside if inside >= 0 else data.find(b"\n", end)
    near = near if near >= 0 else data.rfind(b"\n", 0, start)
    return near > 0 and data[near - 1 : near] == b"\r"


def _missing(data: bytes, old: str) -> str:
    """Return that a text is not there, which lines come nearest, and in which characters they differ."""
    missing = "`old` does not stand in the file; read it again and copy exactly"
    lines = text_of_file(data)[0].split("\n")
    wanted = old.split("\n")
    probe = next((line for line in wanted if line.strip()), "")
    if not probe or len(data) > _DIFF_BYTES:
        return missing
    folded = _folded(probe)
    alike = [i for i, line in enumerate(lines) if _folded(line) == folded]
    if not alike:
        close = difflib.get_close_matches(probe, lines, n=_SHOWN_LINES, cutoff=0.6)
        alike = [lines.index(line) for line in close]
    shown = [f"\nline {i + 1}: {lines[i]!r}{_difference(probe, lines[i])}" for i in alike[:_SHOWN_LINES]]
    return missing + (". The nearest lines:" + "".join(shown) if shown else "")


def _folded(text: str) -> str:
    """Return a text in which look-alikes are alike."""
    quotes = {"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " "}
    normal = "".join(quotes.get(char, char) for char in unicodedata.normalize("NFKC", text))
    return " ".join(normal.split())


def _difference(wanted: str, line: str) -> str:
    """Return the first characters in which a line differs from what was looked for."""
    at = next((i for i, (a, b) in enumerate(zip(wanted, line, strict=False)) if a != b), min(len(wanted), len(line)))
    asked, there = wanted[at : at + 1], line[at : at + 1]
    if not asked and not there:
        return " (this line is the same; others differ)"
    return f" (at column {at + 1}: `old` has {_named(asked)}, the file has {_named(there)})"


def _named(char: str) -> str:
    known = {"\t": "a tab", " ": "a blank", "\r": "a carriage return", "": "the end of the line"}
    return known.get(char) or f"{char!r} (U+{ord(char):04X})"


def is_utf8(data: bytes) -> bool:
    """Return whether bytes are text in UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def text_of_file(data: bytes) -> tuple[str, str]:
    """Return a file's text with line feeds, and what there is to say of how it is written."""
    notes = []
    if is_utf8(data):
        text = data.decode()
        if text.startswith("\ufeff"):
            text = text[1:]
            notes.append("a byte-order mark, which stays")
    else:
        text = data.decode("latin-1")
        notes.append("not UTF-8, shown as Latin-1")
    if "\r\n" in text:
        mixed = text.count("\n") != text.count("\r\n")
        notes.append("mixed line ends, which stay" if mixed else "CRLF line ends, which stay")
        text = text.replace("\r\n", "\n")
    return text, "; ".join(notes)


def diff_of(path: str, before: bytes | None, after: bytes | None) -> str:
    """Return what changed in a file as a unified diff, line ends left out; None stands for no file."""
    names = (f"a/{path}" if before is not None else "/dev/null", f"b/{path}" if after is not None else "/dev/null")
    sides = (before or b"", after or b"")
    if any(b"\0" in side for side in sides) or max(map(len, sides)) > _DIFF_BYTES:
        return f"--- {names[0]}\n+++ {names[1]}\n({len(sides[0])} bytes before, {len(sides[1])} after)\n"
    old, new = map(_lines_of, sides)
    body = list(difflib.unified_diff(old, new, *names, lineterm="", n=3))
    return "\n".join(body) + "\n" if body else f"--- {names[0]}\n+++ {names[1]}\n(only line ends or marks differ)\n"


def _lines_of(data: bytes) -> list[str]:
    """Return the lines of a file; the last one says so where its end is missing."""
    *lines, last = text_of_file(data)[0].split("\n")
    return [*lines, f"{last}\n\\ No newline at end of file"] if last else lines


def count_lines(diff: str) -> tuple[int, int]:
    """Return how many lines a diff adds and removes."""
    lines = diff.split("\n")[2:]
    return sum(line.startswith("+") for line in lines), sum(line.startswith("-") for line in lines)


def parse_patch(patch: str) -> list[FilePatch]:
    """Read a unified diff; its line numbers say nothing, since the lines themselves say where they stand.

    Raises:
        EditRefused: it is none.
    """
    lines = patch.replace("\r\n", "\n").split("\n")
    files: list[FilePatch] = []
    at = 0
    while at < len(lines):
        if not (lines[at].startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ ")):
            at += 1
            continue
        before, after = _path(lines[at]), _path(lines[at + 1])
        if before is None and after is None:
            raise EditRefused("a patch from /dev/null to /dev/null does nothing")
        hunks, at = _hunks(lines, at + 2)
        if not hunks:
            raise EditRefused(f"the patch of {after or before} has no hunk: lines that begin with @@, blank, - or +")
        files.append(FilePatch(before, after, hunks))
    if not files:
        raise EditRefused("this is no unified diff: it has no line `--- a/PATH` with `+++ b/PATH` below it")
    return files


def _hunks(lines: Sequence[str], at: int) -> tuple[list[Hunk], int]:
    """Return the hunks that begin at a line, and where they end."""
    hunks: list[Hunk] = []
    while at < len(lines) and lines[at].startswith("@@"):
        at += 1
        old: list[str] = []
        new: list[str] = []
        bare = 0  # empty lines at the end, of which nobody knows whether they belong to it
        while at < len(lines) and not lines[at].startswith("@@") and not _begins_file(lines, at):
            kind, text = lines[at][:1], lines[at][1:]
            if kind not in ("", " ", "-", "+", "\\"):
                break
            at += 1
            # Models leave the blank before an empty line out.
            bare = bare + 1 if not kind else 0
            if kind in ("", " ", "-"):
                old.append(text)
            if kind in ("", " ", "+"):
                new.append(text)
        hunks.append((old[: len(old) - bare], new[: len(new) - bare]))
    return hunks, at


def _begins_file(lines: Sequence[str], at: int) -> bool:
    line = lines[at]
    is_head = line.startswith("--- ") and at + 1 < len(lines) and lines[at + 1].startswith("+++ ")
    return is_head or line.startswith("diff --git ")


def _path(line: str) -> str | None:
    name = line[4:].split("\t")[0].strip()
    if name == "/dev/null":
        return None
    return name[2:] if name[:2] in ("a/", "b/") else name


def apply_hunks(data: bytes, hunks: Sequence[Hunk]) -> bytes:
    """Return the bytes with every hunk applied.

    Raises:
        EditRefused: one does not stand there, or stands there more than once.
    """
    for number, (old, new) in enumerate(hunks, 1):
        if not old:
            raise EditRefused(f"hunk {number} has no line that stays or goes, so nobody knows where it belongs")
        try:
            if new:
                data, _ = replace_exact(data, "\n".join(old), "\n".join(new), whole_lines=True)
            else:
                start, end = _only_place(data, "\n".join(old))
                # Lines that go take their ends with them.
                end += len(data[end : end + 2]) - len(data[end : end + 2].removeprefix(b"\r").removeprefix(b"\n"))
                data = data[:start] + data[end:]
        except EditRefused as error:
            raise EditRefused(f"hunk {number}: {error}") from None
    return data
