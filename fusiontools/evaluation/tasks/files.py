"""The rows of a JSON Lines, JSON, CSV or YAML file, each with its place: the reader of people's own tasks."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import yaml
from msgspec import Struct

from fusiontools.errors import InputError, UsageError
from fusiontools.evaluation.tasks.rows import BadRow
from fusiontools.record import jsonl
from fusiontools.record.params import PARAMETERS

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".yaml", ".yml")
#: The cells of a table that may hold JSON.
_JSON_CELLS = frozenset({"choices", "options", "rubric", "criteria", "grader", "meta", "messages"})
#: What YAML 1.1 takes for something else, and people mean as text: yes, no, 12:30, 0777, 2024-05-01.
_NUMBER_TAGS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
_MEANT_AS_TEXT = frozenset({"tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"}) | _NUMBER_TAGS
#: A number that is written as its value is: 3.10 may be a version, 010 a code, 1_000 anything.
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d*[1-9])?")
#: What is no text, however it is written.
_SETTINGS = frozenset({"all", "weight", "tolerance", "relative", *PARAMETERS})
_TEXT_TAG = "tag:yaml.org,2002:str"
_BOM = b"\xef\xbb\xbf"


class FileRow(Struct, frozen=True):
    """One row of a file, and where it stands: `mine.csv:3`."""

    place: str
    data: dict[str, Any]


def rows_of(name: str) -> Iterator[FileRow | BadRow]:
    """Yield the rows of a file as they are read; `-` is standard input, in JSON Lines.

    Raises:
        UsageError: no such file, or none of a kind that is known.
    """
    if name == "-":
        with open(0, "rb", closefd=False) as stream:
            yield from _read_lines(stream, "stdin")
        return
    path = Path(name)
    suffix = path.suffix.lower()
    # A file without a suffix is what a shell makes of `<(…)`: JSON Lines.
    if suffix and suffix not in SUFFIXES:
        raise UsageError(f"{name}: tasks are read from {', '.join(SUFFIXES)} files")
    try:
        with path.open("rb") as stream:
            if suffix == ".json":
                yield from _read_json(stream, name)
            elif suffix in (".csv", ".tsv"):
                yield from _read_table(path, name, "\t" if suffix == ".tsv" else ",")
            elif suffix in (".yaml", ".yml"):
                yield from _read_yaml(stream.read(), name)
            else:
                yield from _read_lines(stream, name)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from error


def read_yaml(path: Path) -> Any:
    """Return what a YAML file of ours holds."""
    return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def _read_lines(stream: IO[bytes], name: str) -> Iterator[FileRow | BadRow]:
    for number, line in enumerate(stream, 1):
        text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
        if text:
            yield _read_row(text, f"{name}:{number}")


def _read_row(text: bytes, place: str) -> FileRow | BadRow:
    try:
        return FileRow(place, jsonl.read_object(text, "a task"))
    except InputError as error:
        return BadRow(place, error.message)


def _read_json(stream: IO[bytes], name: str) -> Iterator[FileRow | BadRow]:
    """Read one document: a list of tasks, or an object with `tasks`; else it is JSON Lines by another name."""
    try:
        data = jsonl.loads(stream.read().removeprefix(_BOM))
    except ValueError:
        stream.seek(0)
        yield from _read_lines(stream, name)
        return
    tasks = data["tasks"] if isinstance(data, dict) and isinstance(data.get("tasks"), list) else data
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], 1):
        place = f"{name}: task {number}"
        yield FileRow(place, task) if isinstance(task, dict) else BadRow(place, "a task is a JSON object")


def _read_table(path: Path, name: str, delimiter: str) -> Iterator[FileRow | BadRow]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter)
        while True:
            # A cell may hold line breaks: a row begins where the one before it ended.
            place = f"{name}:{max(reader.line_num, 1) + 1}"
            try:
                cells = next(reader, None)
            except UnicodeDecodeError as error:
                yield BadRow(place, f"not UTF-8 from here on: byte 0x{error.object[error.start]:02x}")
                return
            except csv.Error as error:
                yield BadRow(place, str(error))
                continue
            if cells is None:
                return
            yield BadRow(place, "more cells than columns") if None in cells else _read_cells(cells, place)


def _read_cells(cells: dict[str, str | None], place: str) -> FileRow | BadRow:
    """Return a row without its empty cells."""
    data: dict[str, Any] = {}
    for key, cell in cells.items():
        if cell is None or not cell.strip():
            continue
        if key in _JSON_CELLS and cell.lstrip()[0] in "[{":
            try:
                data[key] = jsonl.loads(cell)
            except ValueError as error:
                return BadRow(place, f"the cell {key!r} is not JSON: {error}")
        else:
            data[key] = cell
    return FileRow(place, data)


def _read_yaml(data: bytes, name: str) -> Iterator[FileRow | BadRow]:
    """Read one document or several: lists of tasks, mappings with `tasks`, or single tasks."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for document in yaml.compose_all(data, Loader=loader):
            for node in _find_task_nodes(document):
                yield _read_node(node, f"{name}:{node.start_mark.line + 1}")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        yield BadRow(place, f"not YAML from here on: {getattr(error, 'problem', None) or error}")


def _find_task_nodes(document: yaml.Node) -> list[Any]:
    if isinstance(document, yaml.MappingNode):
        for key, value in document.value:
            if key.value == "tasks" and isinstance(value, yaml.SequenceNode):
                return list(value.value)
    return list(document.value) if isinstance(document, yaml.SequenceNode) else [document]


def _read_node(node: yaml.Node, place: str) -> FileRow | BadRow:
    try:
        _keep_text(node, set())
        data = yaml.constructor.SafeConstructor().construct_document(node)
    except (yaml.YAMLError, ValueError) as error:
        return BadRow(place, f"not YAML: {getattr(error, 'problem', None) or error}")
    return FileRow(place, data) if isinstance(data, dict) else BadRow(place, "a task is a mapping")


def _keep_text(node: yaml.Node, seen: set[int]) -> None:
    """Let `target: yes`, `target: 12:30`, `target: 010` and `target: 2024-05-01` be the text that was typed."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        is_number = node.tag in _NUMBER_TAGS and _PLAIN_NUMBER.fullmatch(node.value)
        if node.tag in _MEANT_AS_TEXT and not is_number:
            node.tag = _TEXT_TAG
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _keep_text(each, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag in _MEANT_AS_TEXT:
                key.tag = _TEXT_TAG
            if key.value not in _SETTINGS or not isinstance(value, yaml.ScalarNode):
                _keep_text(value, seen)
