"""From which agreement on a vote is answered, as `fuse-calibrate` fitted it, and for which panel that holds."""

from __future__ import annotations

import functools
import hashlib
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import asdict

from fusiontools.config.learned_file import read_learned
from fusiontools.config.stage_table import VoteOptions
from fusiontools.errors import UsageError
from fusiontools.record import jsonl
from fusiontools.record.types import Record
from fusiontools.stages.ballot import weights_of

_KIND = "fusiontools threshold"
#: What of a panel's options changes nothing about who says what.
_BESIDE = ("baselines", "quorum", "grace_s", "prompt_cache", "logprobs")


class Threshold(Struct, frozen=True):
    """A fitted threshold.

    Args:
        risk: the share of wrong answers that is allowed.
        of: of which questions: all that are asked, or those that are answered.
        agreement: the least share of the votes; above 1 nothing is answered.
        confidence: how sure it is that the risk holds; None where it holds on average.
        panel: what `panel_digest` says of the panels that it was fitted on.
        questions: on how many different ones.
        answered: the share of these that is answered.
        wrong: the share of these (or of those answered) that is answered wrongly.
    """

    risk: float
    of: Literal["asked", "answered"]
    agreement: float
    confidence: float | None
    panel: str
    questions: int
    answered: float
    wrong: float

    def as_bytes(self) -> bytes:
        """Return the text of its file."""
        return jsonl.dumps({"kind": _KIND, "version": 1} | asdict(self)) + b"\n"


@functools.lru_cache(8)
def load_threshold(path: str) -> Threshold:
    """Read a threshold.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    data = read_learned("--threshold", path, _KIND, "no threshold; fuse-calibrate writes one")
    names = Threshold.__struct_fields__
    if data.get("version") != 1 or not data.keys() >= {*names} or not _is_number(data["agreement"]):
        raise UsageError(f"--threshold {path}: of another version, or changed by hand; fit it anew")
    return Threshold(**{name: data[name] for name in names})


def panel_digest(record: Record, options: VoteOptions) -> str:
    """Return 16 hex digits that stand for who was asked, how, and how the votes are counted."""
    recipe: Any = record.get("recipe")
    panel = recipe.get("panel") if isinstance(recipe, dict) else None
    said: Any
    if isinstance(panel, dict):
        said = {key: value for key, value in panel.items() if key not in _BESIDE}
    else:
        said = sorted(f"{each['member']}#{each['sample']}" for each in record.get("panel", []))
    how = {"panel": said, "key": options.key, "weights": dict(sorted(weights_of(options).items()))}
    if options.wants_logprobs:
        how |= {"weighing": options.weighing, "drop_lowest": options.drop_lowest}
    return hashlib.sha256(jsonl.canonical(how)).hexdigest()[:16]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
