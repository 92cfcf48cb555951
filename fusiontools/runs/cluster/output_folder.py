"""The folder that a run writes to: each file of records whole or not at all, so that what is there is done.

On a disk a file gets its name when it is written and has reached the disk; in a bucket it is there when all of it is.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from fusiontools.record import jsonl
from fusiontools.runs.cluster.record_files import Location, read_lines

#: Where failed records are, in the output.
FAILED = "failed"
#: Where a file is there as a whole as soon as it is there.
_BUCKETS = ("s3", "gcs", "abfs")
#: A file that is being written, or was when its writer was killed.
_UNFINISHED = ".unfinished-"
#: No record that was written is longer.
_MOST_BYTES = 2**31


class OutputFolder(Struct, frozen=True):
    """A folder of finished files: those of answered records in it, those of failed ones in its folder `failed`.

    Args:
        form: `jsonl` or `parquet`.
    """

    at: Location
    form: str

    def names(self, folder: str = "") -> set[str]:
        """Return the files of records in it, or in a folder of it, without their suffix.

        Raises:
            OSError: it cannot be read.
        """
        from pyarrow.fs import FileSelector, FileType

        found = self.at.open().get_file_info(FileSelector(self._path(folder), allow_not_found=True))
        return {
            info.base_name.removesuffix(f".{self.form}")
            for info in found
            if info.type == FileType.File and info.base_name[:1] not in "._" and info.base_name.endswith(self.form)
        }

    def location(self, name: str, folder: str = "") -> Location:
        """Return where a file of records lies."""
        return self.at.beside(self._path(folder, f"{name}.{self.form}"))

    def read(self, name: str, folder: str = "") -> list[bytes]:
        """Return the records of a file, as lines; none where there is no such file.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return [line for _, line in read_lines(self.location(name, folder), _MOST_BYTES) if line is not None]
        except FileNotFoundError:
            return []

    def write(self, name: str, lines: Sequence[bytes], folder: str = "") -> None:
        """Write a file of records, or write it anew; without any, there is none.

        Raises:
            OSError: it cannot be written.
        """
        file = f"{folder}/{name}.{self.form}".lstrip("/")
        if not lines:
            self._remove(self._path(file))
            return
        data = b"".join(line.rstrip(b"\n") + b"\n" for line in lines)
        self.write_whole(file, data if self.form == "jsonl" else as_parquet(lines))

    def write_whole(self, name: str, data: bytes) -> None:
        """Write a file of the folder so that it is there as a whole or not at all."""
        path = self._path(name)
        if self.at.is_local:
            place = Path(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            unfinished = place.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}-{place.name}")
            with unfinished.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(place)
            return
        system = self.at.open()
        if system.type_name in _BUCKETS:
            with system.open_output_stream(path) as stream:
                stream.write(data)
            return
        folder, _, name = path.rpartition("/")
        system.create_dir(folder)
        unfinished_path = f"{folder}/{_UNFINISHED}{uuid.uuid4().hex}-{name}"
        with system.open_output_stream(unfinished_path) as stream:
            stream.write(data)
        system.move(unfinished_path, path)

    def read_whole(self, name: str) -> bytes | None:
        """Return what a file of the folder holds; None where there is none."""
        try:
            with self.at.open().open_input_stream(self._path(name)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def sweep(self) -> None:
        """Remove what killed writers have left behind."""
        from pyarrow.fs import FileSelector

        system = self.at.open()
        for folder in ("", FAILED):
            for info in system.get_file_info(FileSelector(self._path(folder), allow_not_found=True)):
                if info.base_name.startswith(_UNFINISHED):
                    self._remove(info.path)

    def _remove(self, path: str) -> None:
        try:
            self.at.open().delete_file(path)
        except FileNotFoundError:
            return

    def _path(self, *parts: str) -> str:
        return "/".join([self.at.path, *filter(None, parts)])


def as_parquet(lines: Sequence[bytes]) -> bytes:
    """Return records as Parquet: what is asked for most in columns of its own, and each record whole, as JSON."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = []
    for line in lines:
        record = jsonl.loads(line)
        costs = [call.get("cost_usd") for call in record.get("calls", [])]
        rows.append(
            {
                "id": record["id"],
                "answer": (record.get("answer") or {}).get("content"),
                "error": (record.get("error") or {}).get("message"),
                "cost_usd": None if None in costs else float(sum(costs)),
                "record": line.decode().rstrip("\n"),
            }
        )
    text = pa.string()
    columns = {"id": text, "answer": text, "error": text, "cost_usd": pa.float64(), "record": text}
    written = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, pa.schema(columns)), written, compression="zstd")
    return bytes(written.getvalue())
