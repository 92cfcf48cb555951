"""Anybody's row → a draft → a record: ours, Fusion Engine's, fusionHarness's, and what else people write.

question  `prompt`, `question`, `problem`; or `messages`, a chat request, an OpenAI Batch line
target    `target`, `answer`, `expected`: text, a number, or a list of accepted ones
options   `options`, `choices`: a list, an object by letter, or the columns A, B, C, …; the target is a letter, the text
          of an option, or its position from 0
rubric    `rubric`, `criteria`: weighted criteria in the forms in which people write them, DRACO's among them
tests     `tests`, or HumanEval's `test` with `entry_point`
grader    `grader`: a name, or an object with `name` and the grader's own options

What has no meaning here goes to `meta`; in a record, which has `messages`, it stays where it is.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.config.evaluation_options import GRADERS
from fusiontools.errors import InputError, UsageError, nearest
from fusiontools.evaluation.task import final_of
from fusiontools.record import jsonl
from fusiontools.record.params import PARAMETERS
from fusiontools.record.types import Record

LETTERS = string.ascii_uppercase
_GAP = re.compile(r"\{(question|options)\}")


class Draft(Struct, frozen=True):
    """A task before its prompt is written.

    Args:
        question: None where `data` brings its own messages.
        options: what is chosen from, in the order of the letters; mostly nothing.
        data: the rest of the record, in any of the input forms.
    """

    question: str | None
    options: Sequence[str]
    data: dict[str, Any]


class BadRow(Struct, frozen=True):
    """A row that is no task: where it stands, and why."""

    place: str
    reason: str


class Prompts(Struct, frozen=True):
    """How questions are put: templates with `{question}` and, for a choice, `{options}`."""

    plain: str
    choice: str


def typed_prompts(typed: str, known: Mapping[str, str]) -> Prompts:
    """Return the prompts that `--template` asks for: a known name, or a text with `{question}` in it.

    Raises:
        UsageError: neither.
    """
    text = known.get(typed, typed)
    if "{question}" not in text:
        raise UsageError(
            f"--template {typed[:80]!r}: no such prompt{nearest(typed, list(known))}; a text needs {{question}}"
        )
    return Prompts(text, text)


def record_of(draft: Draft, prompts: Prompts) -> Record:
    """Return the record that asks this task.

    Raises:
        InputError: what the row says is no question.
        UsageError: the prompt that was typed shows no options, and this task has some.
    """
    data = draft.data
    if draft.question is not None:
        data = {**data, "prompt": _fill(prompts.choice if draft.options else prompts.plain, draft)}
    try:
        line = jsonl.dumps(data)
    except TypeError as error:
        raise InputError(f"cannot be written as JSON: {error}", "$") from None
    return jsonl.parse(line)


def repeated(record: Record, epochs: int) -> Iterator[Record]:
    """Yield the record once for each epoch; later ones are asked anew, `meta.task` says which task they are."""
    if epochs == 1:
        yield record
        return
    meta = {**record.get("meta", {}), "task": record["id"]}
    yield {**record, "meta": meta}
    for epoch in range(1, epochs):
        yield {**record, "id": f"{record['id']}#{epoch}", "meta": meta, "epoch": epoch}


def _fill(template: str, draft: Draft) -> str:
    """Fill the template in one pass, so that no text of a task can open another gap."""
    if draft.options and "{options}" not in template:
        raise UsageError("--template: these tasks have options to choose from; the template needs {options}")
    shown = "\n".join(f"{letter}) {option}" for letter, option in zip(LETTERS, draft.options, strict=False))
    parts = {"question": draft.question or "", "options": shown}
    return _GAP.sub(lambda gap: parts[gap[1]], template)


_TEXTS = ("criterion", "text", "description", "requirement", "name")
_WEIGHTS = ("weight", "points")
_GROUPS = ("category", "section", "axis")


def criteria_of(value: Any, path: str = "$.rubric") -> list[dict[str, Any]]:
    """Return criteria as `{"criterion", "weight", "category"?}`; the weight is 1 where none is said.

    Accepts a list of criteria, texts among them, and `{"sections": [{"id", "criteria": […]}]}`.

    Raises:
        InputError: no criteria, one without a text, a weight that is no number, or no positive weight at all.
    """
    if isinstance(value, dict) and isinstance(value.get("sections"), list):
        found = [
            each
            for at, section in enumerate(value["sections"])
            for each in _read_section(section, f"{path}.sections[{at}]")
        ]
    elif isinstance(value, list):
        found = [_read_criterion(each, f"{path}[{at}]") for at, each in enumerate(value)]
    else:
        raise InputError("a rubric is a list of criteria", path)
    if not any(each["weight"] > 0 for each in found):
        raise InputError("no criterion has a positive weight: there is nothing to reach", path)
    return found


def _read_section(section: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(section, dict) or not isinstance(section.get("criteria"), list):
        raise InputError("a section is an object with `criteria`", path)
    category = section.get("id") or section.get("title")
    found = [_read_criterion(each, f"{path}.criteria[{at}]") for at, each in enumerate(section["criteria"])]
    return [{**each, "category": str(category)} if category else each for each in found]


def _read_criterion(value: Any, path: str) -> dict[str, Any]:
    data = {"criterion": value} if isinstance(value, str) else value
    if not isinstance(data, dict):
        raise InputError("a criterion is a text, or an object with `criterion` and `weight`", path)
    text = next((data[key] for key in _TEXTS if isinstance(data.get(key), str) and data[key].strip()), None)
    if text is None:
        raise InputError("this criterion has no text", path)
    weight = next((data[key] for key in _WEIGHTS if key in data), 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise InputError(f"a weight is a number, not {weight!r}", f"{path}.weight")
    category = next((data[key] for key in _GROUPS if isinstance(data.get(key), str)), None)
    return {"criterion": text, "weight": weight, **({"category": category} if category else {})}


_QUESTION = ("prompt", "question", "problem")
_ID = ("id", "task_id")
_OPTIONS = ("options", "choices")
#: Where a part of the task is looked for, by the key that it has in `meta`.
_PARTS = {
    "target": ("target", "answer", "expected"),
    "grader": ("grader",),
    "category": ("category", "subject", "domain"),
    "rubric": ("rubric", "criteria"),
    "tests": ("tests",),
    "entry_point": ("entry_point",),
}
#: Fusion Engine's names of graders, and the field's.
_GRADERS = {"exact_match": "exact", "multiple_choice": "choice", "code_exec": "code", "number": "numeric"}
#: What stays at the top of a record even where there are no messages yet.
_TOP = PARAMETERS | {"id", "custom_id", "system", "params", "epoch", "meta"}
_NEEDS = {"rubric": "rubric", "code": "tests"}


def draft_of(row: dict[str, Any]) -> Draft:
    """Return the draft that a row stands for.

    Raises:
        InputError: no question, nothing to grade by, or parts that do not fit together.
    """
    data = dict(row)
    asked = "messages" in data or isinstance(data.get("body"), dict)
    question = None if asked else _read_question(data)
    options = () if asked else _read_options(data)
    given = data.pop("meta", {})
    if not isinstance(given, dict):
        raise InputError("`meta` is an object", "$.meta")
    meta = _read_parts(data) | given
    _settle(meta, options)
    if not asked:
        meta |= {key: data.pop(key) for key in list(data) if key not in _TOP}
    return Draft(question, options, {**_identify(data), "meta": meta})


def _read_question(data: dict[str, Any]) -> str:
    key = next((key for key in _QUESTION if key in data), None)
    if key is None:
        raise InputError("no `prompt`, `question` or `messages`: not a task", "$")
    question = data.pop(key)
    if not isinstance(question, str) or not question.strip():
        raise InputError("a question is text, and not empty", f"$.{key}")
    return question


def _identify(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data with its id, as text, first; without one where there is none."""
    key = next((key for key in _ID if isinstance(data.get(key), str | int) and str(data[key])), None)
    rest = {name: value for name, value in data.items() if name != key}
    return {"id": str(data[key]), **rest} if key else rest


def _read_parts(data: dict[str, Any]) -> dict[str, Any]:
    """Take out of the data what says how a task is graded; a record's own `answer` is none of that."""
    meta: dict[str, Any] = {}
    for part, names in _PARTS.items():
        for name in names:
            if name in data and not (name == "answer" and isinstance(data[name], dict)):
                meta[part] = data.pop(name)
                break
    if "tests" not in meta and isinstance(data.get("test"), str) and isinstance(meta.get("entry_point"), str):
        meta["tests"] = f"{data.pop('test')}\n\ncheck({meta['entry_point']})\n"
    return {part: value for part, value in meta.items() if value is not None}


def _settle(meta: dict[str, Any], options: Sequence[str]) -> None:
    """Check the parts of a task against each other, and name the grader where only one fits."""
    if "rubric" in meta:
        meta["rubric"] = criteria_of(meta["rubric"])
    if "tests" in meta and not isinstance(meta["tests"], str):
        raise InputError("`tests` is Python text that raises where the answer is wrong", "$.tests")
    fitting = "rubric" if "rubric" in meta else "code" if "tests" in meta else "choice" if options else None
    grader = _read_grader(meta.pop("grader", None)) or fitting
    if grader is not None:
        meta["grader"] = grader
    name = grader["name"] if isinstance(grader, dict) else grader
    if (needed := _NEEDS.get(name or "")) and needed not in meta:
        raise InputError(f"the grader {name!r} needs `{needed}`", "$")
    if not needed and "target" not in meta:
        raise InputError("no `target`, `rubric` or `tests`: nothing to grade by", "$")
    if not needed and name != "json":
        meta["target"] = final_of(meta["target"])
        _check_target(meta["target"])
    if options and name == "choice":
        meta["target"] = _find_letter(meta["target"], options)
    if "category" in meta:
        meta["category"] = str(meta["category"])


def _read_grader(value: Any) -> Any:
    """Return the grader under the name that `fuse-grade` knows; None where the task leaves it open."""
    if value is None or value == "auto":
        return None
    name = value.get("name") if isinstance(value, dict) else value
    if not isinstance(name, str):
        raise InputError("a grader is a name, or an object with `name`", "$.grader")
    known = _GRADERS.get(name, name)
    if known not in GRADERS:
        raise InputError(f"there is no grader {name!r}{nearest(name, [*GRADERS, *_GRADERS])}", "$.grader")
    return {**value, "name": known} if isinstance(value, dict) else known


def _check_target(value: Any) -> None:
    each = value if isinstance(value, list) else [value]
    if not each or any(isinstance(one, bool) or not isinstance(one, str | int | float) for one in each):
        raise InputError(
            "a target is text, a number, or a list of accepted ones; any JSON with the grader json", "$.target"
        )


def _read_options(data: dict[str, Any]) -> Sequence[str]:
    key = next((key for key in _OPTIONS if key in data), None)
    if key is None:
        columns = [letter for letter in LETTERS if isinstance(data.get(letter), str)]
        if len(columns) < 2 or columns != list(LETTERS[: len(columns)]):
            return ()
        return [data.pop(letter) for letter in columns]
    given = data.pop(key)
    if isinstance(given, dict):
        given = given.get("text") or [given[letter] for letter in sorted(given)]
    if not isinstance(given, list) or not 2 <= len(given) <= len(LETTERS):
        raise InputError(f"options are a list of 2 to {len(LETTERS)}", f"$.{key}")
    return [str(option) for option in given]


def _find_letter(target: Any, options: Sequence[str]) -> str:
    """Return the letter of the right option; a number that could be a position or a text must be said clearly."""
    letters = LETTERS[: len(options)]
    by_text = [letter for letter, option in zip(letters, options, strict=True) if option == str(target)]
    if isinstance(target, int):
        by_position = [letters[target]] if 0 <= target < len(options) else []
        if by_text and by_position and by_text != by_position:
            raise InputError(f"{target} is a position and an option's text; give the letter", "$.target")
        by_text = by_text or by_position
    elif isinstance(target, str) and target.strip().upper() in list(letters) and not by_text:
        return target.strip().upper()
    if len(by_text) != 1:
        raise InputError(f"{target!r} is not one of the {len(options)} options", "$.target")
    return by_text[0]
