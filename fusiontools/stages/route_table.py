"""A learned table of routes: which kind of question gets which treatment, as `fuse-tune` found it in graded records.

A question is seen as hashed words, pairs of words and parts of words; its kind is the nearest centre. No model is asked
and nothing but the table's file is read.

Source  Zhang et al. 2025, Avengers-Pro, arXiv:2508.12631 (clusters of questions, each with the model that scores best)
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.config.learned_file import read_learned
from fusiontools.errors import UsageError
from fusiontools.record import jsonl

#: How many numbers a question comes to.
DIMENSIONS = 512
#: So much of a question is looked at: its beginning, and its end.
_HEAD_CHARS, _TAIL_CHARS = 1_500, 500
_PART = 4
_KIND = "fusiontools route table"
VERSION = 1


class Treatment(Struct, frozen=True):
    """What questions of one kind get.

    Args:
        to: `fuse`, `vote` or `solo`.
        model: who answers alone, as a recipe writes a model.
        reason: what the records said for it.
    """

    to: str
    reason: str
    model: Mapping[str, Any] | None = None


class RouteTable(Struct, frozen=True):
    """Centres of kinds of questions, each of length 1, with what each kind gets."""

    centres: Sequence[Mapping[int, float]]
    treatments: Sequence[Treatment]

    def treat(self, question: str) -> Treatment:
        """Return what a question gets."""
        seen = question_features(question)
        near = [sum(weight * centre.get(place, 0.0) for place, weight in seen.items()) for centre in self.centres]
        return self.treatments[max(range(len(near)), key=lambda i: near[i])]


def question_features(question: str) -> dict[int, float]:
    """Return what is seen of a question: few of `DIMENSIONS` numbers, together of length 1; none without a word."""
    if len(question) > _HEAD_CHARS + _TAIL_CHARS:
        question = f"{question[:_HEAD_CHARS]} {question[-_TAIL_CHARS:]}"
    words = "".join(char if char.isalnum() else " " for char in question.casefold()).split()
    seen = [*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))]
    seen += [f"_{word[i : i + _PART]}" for word in words for i in range(max(1, len(word) - _PART + 1))]
    counts: dict[int, float] = {}
    for each in seen:
        number = zlib.crc32(each.encode("utf-8", "surrogatepass"))
        place = number % DIMENSIONS
        # Half of them count below zero, so that those that fall into one place by chance make up for each other.
        counts[place] = counts.get(place, 0.0) + (1.0 if number & 1 << 20 else -1.0)
    length = math.sqrt(sum(count * count for count in counts.values()))
    return {place: count / length for place, count in counts.items() if count} if length else {}


def write_route_table(table: RouteTable) -> bytes:
    """Return a table as the text of its file."""
    kinds = [
        {"centre": {str(place): round(weight, 5) for place, weight in centre.items()}, "to": each.to}
        | ({"model": dict(each.model)} if each.model else {})
        | {"reason": each.reason}
        for centre, each in zip(table.centres, table.treatments, strict=True)
    ]
    return jsonl.dumps({"kind": _KIND, "version": VERSION, "dimensions": DIMENSIONS, "kinds": kinds}) + b"\n"


@functools.lru_cache(8)
def load_route_table(path: str) -> RouteTable:
    """Read a table.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    data = read_learned("--table", path, _KIND, "no table of routes; `fuse-tune --table FILE` writes one")
    if (data.get("version"), data.get("dimensions")) != (VERSION, DIMENSIONS):
        raise UsageError(f"--table {path}: of another version; let fuse-tune write it anew")
    try:
        centres = [{int(place): float(w) for place, w in kind["centre"].items()} for kind in data["kinds"]]
        treatments = [Treatment(str(k["to"]), str(k["reason"]), k.get("model")) for k in data["kinds"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"--table {path}: cannot be read: {error!r}") from error
    if not treatments or any(each.to not in ("fuse", "vote", "solo") for each in treatments):
        raise UsageError(f"--table {path}: says for some questions neither fuse, vote nor solo")
    return RouteTable(centres, treatments)
