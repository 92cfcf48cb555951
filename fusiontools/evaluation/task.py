"""Read what a record's `meta` wants of its texts: which grader, with which options, held against what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from fusiontools.answers import agreement, normalize
from fusiontools.answers.keys import asks_code, check_key, vote_keys
from fusiontools.answers.words import options_of
from fusiontools.config.evaluation_options import GRADERS
from fusiontools.errors import StageFailed, UsageError, nearest
from fusiontools.evaluation.rubric import Criterion, read_rubric
from fusiontools.record import jsonl

#: What else each grader can be named, in `meta.grader`: `{"name": "numeric", "tolerance": 0.01}`.
OWN_OPTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "numeric": {"tolerance": (int, float), "relative": (int, float)},
    "contains": {"all": bool},
    "regex": {"pattern": str},
    "json": {"path": str},
}
#: The graders that ask a model.
ASKING = ("rubric", "pairwise")
_MONEY = "$€£¥₹"
_LETTER = re.compile(r"[A-Z]")


class Code(Struct, frozen=True):
    """A program that is wanted: what checks it, what stands before it, and what it must define."""

    tests: str
    prompt: str = ""
    entry_point: str = ""


class Task(Struct, frozen=True):
    """What the texts of one record are held against.

    Args:
        targets: the accepted answers as text; any of them is right.
        vote_key: how `fuse-vote` would read these texts; nothing where there is no vote over them.
    """

    grader: str
    question: str
    targets: tuple[str, ...] = ()
    options: Mapping[str, Any] = {}
    code: Code | None = None
    rubric: tuple[Criterion, ...] = ()

    @property
    def vote_key(self) -> str:
        if self.grader in ASKING or self.grader == "code":
            return ""
        own = {"numeric": "number", "choice": "choice", "json": self.json_key}
        if self.grader == "regex" and "pattern" in self.options:
            return f"regex:{self.options['pattern']}"
        return own.get(self.grader, "auto")

    @property
    def json_key(self) -> str:
        return f"json:{self.options.get('path', '$')}"


def task_of(meta: Any, question: str, wanted: str | None = None) -> Task:
    """Return what the texts are held against.

    Args:
        wanted: the grader that was typed; it goes before the one that the task names.

    Raises:
        StageFailed: `no_target` where there is nothing to hold them against, `bad_task` where it cannot be read.
    """
    meta = meta if isinstance(meta, Mapping) else {}
    grader, options = _read_grader(meta.get("grader"), wanted)
    targets = _list_targets(meta.get("target"), as_it_is=grader == "json")
    if grader == "auto":
        grader = _choose_grader(meta, targets, question)
    _check_options(grader, options)
    task = Task(
        grader,
        question,
        tuple(_text_of(target, as_json=grader == "json") for target in targets),
        options,
        _read_code(meta) if grader == "code" else None,
        read_rubric(meta.get("rubric")) if grader == "rubric" else (),
    )
    _check_targets(task)
    return task


def _read_grader(named: Any, wanted: str | None) -> tuple[str, Mapping[str, Any]]:
    """Return the grader's name and the options that the task has for it."""
    own: dict[str, Any] = {}
    if isinstance(named, Mapping):
        own = {key: value for key, value in named.items() if key != "name"}
        named = named.get("name", "auto")
    if named is None:
        named = "auto"
    if wanted is not None:
        return wanted, own if wanted == named else {}
    if named not in GRADERS:
        raise StageFailed("bad_task", f"meta.grader: there is no grader {named!r}{nearest(str(named), list(GRADERS))}")
    return str(named), own


def final_of(target: Any) -> Any:
    """Return what stands behind `####` where a target is a worked solution that ends so, as the rows of GSM8K are."""
    if not isinstance(target, str):
        return target
    worked, mark, final = target.rstrip().rpartition("\n####")
    return final.strip() if mark and worked.strip() and normalize.is_number_like(normalize.fold(final)) else target


def _list_targets(target: Any, *, as_it_is: bool) -> list[Any]:
    """Return the accepted answers; a list is a list of them, but for JSON, where it is the answer itself."""
    accepted = target if isinstance(target, list) and not as_it_is else [target]
    accepted = accepted if as_it_is else [final_of(one) for one in accepted]
    return [one for one in accepted if one is not None and (not isinstance(one, str) or one.strip())]


def _text_of(target: Any, *, as_json: bool) -> str:
    """Return a target as text; for JSON, text that is none is a JSON string."""
    if isinstance(target, str) and (not as_json or _is_json(target)):
        return target
    return jsonl.dumps(target).decode()


def _is_json(text: str) -> bool:
    try:
        jsonl.loads(text)
    except ValueError:
        return False
    return True


def _choose_grader(meta: Mapping[str, Any], targets: list[Any], question: str) -> str:
    """Return the grader that suits what the task brings along."""
    for key, grader in (("tests", "code"), ("rubric", "rubric")):
        if meta.get(key):
            return grader
    if targets and all(isinstance(target, dict | list) for target in targets):
        return "json"
    asked = agreement.ask(question)
    options = options_of(asked.text)
    if targets and all(_is_letter_of(target, options) for target in targets):
        return "choice"
    if targets and all(map(_is_number, targets)) and not asks_code(asked):
        return "numeric"
    return "exact"


def _is_letter_of(target: Any, options: Mapping[str, str]) -> bool:
    return isinstance(target, str) and bool(_LETTER.fullmatch(target.strip())) and target.strip().lower() in options


def _is_number(target: Any) -> bool:
    """Say whether a target is a number and nothing else; `$18` and `50%` are."""
    if not isinstance(target, str):
        return isinstance(target, int | float) and not isinstance(target, bool)
    bare = normalize.fold(target).strip().strip(_MONEY + "%").strip()
    return normalize.rational(bare) is not None


def _check_options(grader: str, options: Mapping[str, Any]) -> None:
    known = OWN_OPTIONS.get(grader, {})
    for name, value in options.items():
        if name not in known:
            hint = nearest(name, list(known)) if known else f"; {grader} has no options"
            raise StageFailed("bad_task", f"meta.grader: there is no option {name!r}{hint}")
        numeric = not isinstance(value, bool) or known[name] is bool
        if not (isinstance(value, known[name]) and numeric) or (isinstance(value, int | float) and value < 0):
            raise StageFailed("bad_task", f"meta.grader: {name}: {value!r} is not what this option takes")


def _check_targets(task: Task) -> None:
    if task.grader in ("code", "rubric"):
        return
    if not task.targets:
        raise StageFailed("no_target", "the task has no `meta.target` to hold the texts against")
    key = task.vote_key if task.grader in ("numeric", "choice", "json") else ""
    try:
        if task.grader == "regex":
            check_key(f"regex:{task.options.get('pattern', task.targets[0])}")
            for target in task.targets if "pattern" not in task.options else ():
                check_key(f"regex:{target}")
        kept = vote_keys(task.targets, "json:$" if task.grader == "json" else key, task.question)[1] if key else []
        if task.grader == "json":
            check_key(key)
    except UsageError as error:
        raise StageFailed("bad_task", f"meta.grader: {error.message}") from error
    for target, read in zip(task.targets, kept, strict=False):
        if read is None:
            raise StageFailed("bad_task", f"meta.target: {target[:80]!r} is nothing that {task.grader} can compare")


def _read_code(meta: Mapping[str, Any]) -> Code:
    texts = {key: meta.get(key) or "" for key in ("tests", "prompt", "entry_point")}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise StageFailed("bad_task", f"meta.{key}: text is wanted, this is {type(value).__name__}")
    if not texts["tests"].strip():
        raise StageFailed("no_target", "the task has no `meta.tests` to hold the programs against")
    return Code(**texts)
