"""Files of records, on this machine or in a bucket: found by name, read line by line.

JSON Lines, compressed or not, or Parquet; through Arrow's file systems, which know `s3://`, `gs://` and others.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.errors import UsageError
from fusiontools.record import jsonl

#: What a folder is searched for.
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet")
_PACKED = (".gz", ".bz2", ".zst")
_WILD = re.compile(r"[*?\[]")
#: What follows an address and is no wildcard: `s3://bucket/key?region=eu-west-1`.
_QUERY = re.compile(r"\?\w+=.*$")
_ROWS_AT_ONCE = 1024
_CHUNK_BYTES = 1 << 20
#: Columns of Parquet that may hold JSON as text.
_JSON_COLUMNS = ("messages", "params", "meta", "recipe", "panel", "analysis", "answer", "calls")


class Location(Struct, frozen=True):
    """A file or folder: `scheme` and `query` are empty on this machine, where `path` is absolute.

    Args:
        path: as Arrow's file system wants it.
        shown: as a person said it.
    """

    scheme: str
    path: str
    query: str
    shown: str

    @property
    def is_local(self) -> bool:
        """Whether it lies in this machine's own file system."""
        return not self.scheme

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.path.rpartition("/")[2]

    def beside(self, path: str) -> Location:
        """Return another path in the same place, shown by how it lies to this one."""
        shown = self.shown + path.removeprefix(self.path) if path.startswith(self.path) else path
        return Location(self.scheme, path, self.query, shown)

    def open(self) -> Any:
        """Return Arrow's file system for it.

        Raises:
            UsageError: Arrow knows no such place, or may not use it.
        """
        from pyarrow import ArrowException, fs

        if self.is_local:
            return fs.LocalFileSystem()
        try:
            return fs.FileSystem.from_uri(f"{self.scheme}://{self.path}{self.query}")[0]
        except (ArrowException, OSError) as error:
            raise UsageError(f"{self.shown}: cannot be reached: {reason_of(error)}") from error


def locate(text: str) -> Location:
    """Return where a path or an address leads."""
    scheme, mark, rest = text.partition("://")
    if not mark or scheme == "file":
        path = rest if mark else text
        return Location("", str(Path(path).expanduser().absolute()), "", path)
    query = found.group() if (found := _QUERY.search(rest)) else ""
    return Location(scheme, rest.removesuffix(query).rstrip("/"), query, text.removesuffix(query).rstrip("/"))


def find_files(texts: Sequence[str], output: Location) -> list[Location]:
    """Return the files that paths, folders, addresses and patterns name, each once, in order.

    Args:
        output: a folder that is no input, wherever it lies.

    Raises:
        UsageError: one of them names nothing, or its place cannot be reached.
    """
    found: dict[tuple[str, str], Location] = {}
    for text in texts:
        asked = locate(text)
        files = [file for file in _files_of(asked) if not _lies_in(file, output)]
        if not files:
            wanted = ", ".join(_SUFFIXES)
            raise UsageError(f"{text}: no such file, or a folder without any of {wanted}")
        found.update({(file.scheme, file.path): file for file in files})
    return list(found.values())


def _files_of(asked: Location) -> list[Location]:
    from pyarrow import ArrowException
    from pyarrow.fs import FileType

    system = asked.open()
    wild = _WILD.search(asked.path)
    try:
        if wild:
            begun = asked.path[: wild.start()].rpartition("/")[0]
            pattern = asked.path[len(begun) + 1 :]
            paths = _matching(system, begun or "/", pattern.split("/"))
            return [Location(asked.scheme, path, asked.query, _shown(asked, path)) for path in sorted(paths)]
        info = system.get_file_info(asked.path)
        if info.type == FileType.File:
            return [asked]
        return [asked.beside(path) for path in sorted(_below(system, asked.path))]
    except (ArrowException, OSError) as error:
        raise UsageError(f"{asked.shown}: cannot be read: {reason_of(error)}") from error


def _shown(asked: Location, path: str) -> str:
    """Return a path that a pattern has found as a person would have typed it."""
    if not asked.is_local:
        return f"{asked.scheme}://{path}"
    here = f"{Path.cwd()}/"
    return path if Path(asked.shown).is_absolute() else path.removeprefix(here)


def _matching(system: Any, folder: str, parts: Sequence[str]) -> Iterator[str]:
    from pyarrow.fs import FileSelector, FileType

    for info in system.get_file_info(FileSelector(folder, allow_not_found=True)):
        hidden = info.base_name.startswith(".") and not parts[0].startswith(".")
        if hidden or not fnmatchcase(info.base_name, parts[0]):
            continue
        if len(parts) > 1 and info.type == FileType.Directory:
            yield from _matching(system, info.path, parts[1:])
        elif len(parts) == 1 and info.type == FileType.File:
            yield info.path


def _below(system: Any, folder: str) -> Iterator[str]:
    """Yield the files of records in a folder and in those below it; what begins with a dot or `_` is somebody's own."""
    from pyarrow.fs import FileSelector, FileType

    for info in system.get_file_info(FileSelector(folder, allow_not_found=True, recursive=True)):
        inner = info.path.removeprefix(folder).strip("/").split("/")
        own = any(part[:1] in "._" for part in inner)
        if info.type == FileType.File and not own and _form_of(info.path) is not None:
            yield info.path


def _lies_in(file: Location, folder: Location) -> bool:
    return file.scheme == folder.scheme and file.path.startswith(f"{folder.path}/")


def _form_of(path: str) -> str | None:
    """Return the suffix that says what a file holds; None where it says nothing."""
    for packed in _PACKED:
        path = path.removesuffix(packed)
    return next((suffix for suffix in _SUFFIXES if path.endswith(suffix)), None)


def stem_of(file: Location) -> str:
    """Return the name of a file without what says its form, as a part of other names."""
    stem = file.name
    for suffix in (*_PACKED, *_SUFFIXES):
        stem = stem.removesuffix(suffix)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:60].lstrip("._") or "records"


def read_lines(file: Location, most_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield every line that is not blank, with its number; None where it has more bytes; rows of Parquet as JSON.

    Raises:
        OSError: the file cannot be read.
    """
    system = file.open()
    if _form_of(file.path) == ".parquet":
        yield from enumerate(_rows(system, file), 1)
        return
    with system.open_input_stream(file.path, buffer_size=_CHUNK_BYTES) as stream:
        lines = io.BufferedReader(stream, _CHUNK_BYTES)
        number = 0
        while piece := lines.readline(most_bytes + 1):
            number += 1
            too_long = len(piece) > most_bytes and not piece.endswith(b"\n")
            if number == 1:
                piece = piece.removeprefix(b"\xef\xbb\xbf")
            while too_long and piece and not piece.endswith(b"\n"):
                piece = lines.readline(_CHUNK_BYTES)
            if too_long:
                yield number, None
            elif piece.strip():
                yield number, piece.rstrip(b"\r\n")


def _rows(system: Any, file: Location) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with system.open_input_file(file.path) as opened:
            for batch in parquet.ParquetFile(opened).iter_batches(batch_size=_ROWS_AT_ONCE):
                for row in batch.to_pylist():
                    yield _row_as_line(row)
    except pa.ArrowInvalid as error:
        raise OSError(f"is no Parquet: {reason_of(error)}") from error


def _row_as_line(row: dict[str, Any]) -> bytes:
    """Return a row as a record's line: as it stands in a column `record`, else each column as a key."""
    if isinstance(row.get("record"), str):
        return str(row["record"]).encode()
    record: dict[str, Any] = {}
    for name, value in row.items():
        if name in _JSON_COLUMNS and isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            record[name] = jsonl.loads(value)
        elif value is not None:
            record[name] = _plain(value)
    if "id" in record:
        record["id"] = str(record["id"])
    return jsonl.dumps(record)


def _plain(value: Any) -> Any:
    """Return a value of Arrow's as JSON knows it; what nobody said in one of several structures is left out."""
    if isinstance(value, dict):
        return {key: _plain(kept) for key, kept in value.items() if kept is not None}
    if isinstance(value, list):
        return [_plain(kept) for kept in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def reason_of(error: Exception) -> str:
    """Return why Arrow or the system could not do a thing, in one line."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
