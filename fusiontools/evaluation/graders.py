r"""Grade a text by code: what it gives as its answer is read as `fuse-vote` reads it, then held against the target.

exact     the same words, or the same yes or no; Markdown, case, articles and punctuation apart
          (`fuse-vote` also joins what says the same in other words; a grade that did would pass wrong answers)
numeric   the same number with the same unit, where both name one; `tolerance` and `relative` allow for a distance
choice    the same letter, or the words of its option
json      the same value, at `path`
regex     the target is found in the last 2,000 characters; with `pattern`, what that finds is the target
contains  the target stands somewhere as whole words; with `all`, all of the targets do
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from msgspec import Struct

from fusiontools.answers import normalize
from fusiontools.answers.extract import cut_key, drop_thoughts, strip_markdown
from fusiontools.answers.keys import literal_keys, vote_keys
from fusiontools.answers.structured import compiled, searched, value_key
from fusiontools.evaluation.task import Task

#: What a target that is no integer forgives without a tolerance: the last digits of a float.
_FLOAT_SLACK = Fraction(1, 10**12)
_EDGE = re.compile(rf"[\w{normalize.MARKS}]")


class TextScore(Struct, frozen=True):
    """How a text fared, and the answer that was read out of it, None where it gives none."""

    score: float
    said: str | None


def score_text(task: Task, text: str) -> TextScore:
    """Grade one text; of several targets, any may be met."""
    if task.grader == "contains":
        return _find_words(task, text)
    if task.grader == "regex":
        return _match_pattern(task, text)
    said: str | None = None
    for target in task.targets:
        wanted, read = _read_keys(task, target, text)
        if read is not None and (wanted == read or _is_near(task, wanted, read)):
            return TextScore(1.0, read)
        said = said if said is not None else read
    return TextScore(0.0, said)


def read_votes(task: Task, texts: Sequence[str]) -> list[str | None]:
    """Return what each text votes for, among these."""
    if not task.vote_key:
        return [None] * len(texts)
    return vote_keys(texts, task.vote_key, task.question)[1]


def _read_keys(task: Task, target: str, text: str) -> tuple[str | None, str | None]:
    """Read target and text as one kind; together, so that a number without a unit has the other's."""
    if task.grader == "json":
        return vote_keys([target], "json:$")[1][0], vote_keys([text], task.json_key)[1][0]
    if task.grader != "exact":
        first, second = vote_keys([target, text], task.vote_key, task.question)[1]
        return first, second
    kind, (first, second) = vote_keys([target, text], "auto", task.question)
    if kind != "yes_no":
        first, second = literal_keys([target, text], task.question)
    return first, second


def _is_near(task: Task, wanted: str | None, read: str) -> bool:
    """Say whether two numbers of one unit are near enough."""
    if task.grader != "numeric" or wanted is None:
        return False
    (value, unit), (other, its_unit) = _split_unit(wanted), _split_unit(read)
    if value is None or other is None or unit != its_unit:
        return False
    allowed = max(
        Fraction(str(task.options.get("tolerance", 0))),
        Fraction(str(task.options.get("relative", 0))) * abs(value),
        _FLOAT_SLACK * abs(value) if value.denominator > 1 else 0,
    )
    return abs(value - other) <= allowed


def _split_unit(key: str) -> tuple[Fraction | None, str]:
    number, _, unit = key.partition(" ")
    if number.endswith("%"):
        number, unit = number[:-1], "%"
    pair = normalize.rational(number)
    return (Fraction(*pair) if pair else None), unit


def _match_pattern(task: Task, text: str) -> TextScore:
    pattern = task.options.get("pattern")
    if pattern is not None:
        found = vote_keys([text], f"regex:{pattern}")[1][0]
        return TextScore(float(found is not None and found in map(value_key, task.targets)), found)
    end = searched(text)
    for target in task.targets:
        if match := compiled(target).search(end):
            return TextScore(1.0, cut_key(match[0]) or None)
    return TextScore(0.0, None)


def _find_words(task: Task, text: str) -> TextScore:
    visible = _flatten(drop_thoughts(text))
    found = [target for target in task.targets if _word_pattern(target).search(visible)]
    enough = len(found) == len(task.targets) if task.options.get("all") else bool(found)
    return TextScore(float(enough), cut_key(", ".join(found)) if found else None)


def _flatten(text: str) -> str:
    """Return a text on one line, folded, without Markdown."""
    return " ".join(map(strip_markdown, normalize.fold(text).split("\n")))


def _word_pattern(target: str) -> re.Pattern[str]:
    """Return what finds a target as whole words; `3` is no part of `3.5` or `1,300`, `def` none of `definitely`."""
    plain = _flatten(target)
    before = after = ""
    if _is_bounded(plain[:1]):
        before = r"(?<!\w)" + (r"(?<!\d[.,'])(?<!-)" if plain[:1].isdigit() else "")
    if _is_bounded(plain[-1:]):
        after = r"(?!\w)" + (r"(?![.,']\d)" if plain[-1:].isdigit() else "")
    return re.compile(f"{before}{re.escape(plain)}{after}" if plain else r"(?!)")


def _is_bounded(char: str) -> bool:
    """Say whether a word that begins or ends so has an end: in scripts without spaces there is none to be seen."""
    return bool(_EDGE.match(char)) and not normalize.UNSPACED_RUN.match(char)
