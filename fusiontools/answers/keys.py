"""From a key as it is typed to one vote for each text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fusiontools.answers import agreement, numbers, structured, words
from fusiontools.answers.extract import Result, cut, result_of
from fusiontools.answers.numbers import Quantity
from fusiontools.errors import UsageError, nearest

#: A question for a name in digits: there, 3.10 is not 3.1, and 007 is not 7.
_CODED = (
    r"(?:version|release|id|identifier|hash|serial|(?:zip|post|area|error|status|product|country) ?code|postcode"
    r"|(?:phone|telephone|room|serial|model|part|flight) number|ip|isbn|pin|password)"
)
ASKS_CODE = re.compile(
    rf"\b(?:what|which)(?: is)?(?: [\w+#]+){{0,3}} (?:{_CODED}|code)\b"
    rf"(?! (?:print|output|return|do|produce|evaluate|compute|give)s?\b)(?<!this code)|\b{_CODED}\W*$"
)
KINDS = ("auto", "number", "choice", "text", "json:PATH", "regex:RE")


def check_key(key: str) -> None:
    """Refuse a key that cannot be.

    Raises:
        UsageError: an unknown kind, a bad path, a bad regular expression, or one that may never come to an end.
    """
    kind, colon, rest = key.partition(":")
    if kind == "json" and colon:
        structured.steps_of(rest)
    elif kind == "regex" and colon:
        structured.compiled(rest)
    elif key not in KINDS[:4]:
        raise UsageError(f"there is no key {key!r}{nearest(key, list(KINDS))}")


def vote_keys(texts: Sequence[str], key: str = "auto", question: str = "") -> tuple[str, list[str | None]]:
    """Read all answers to a question as votes.

    Args:
        key: `number`, `choice`, `text`, `json:PATH`, `regex:RE`; for `auto`, the one kind that more than half of those
            who say anything can be read as. Whoever cannot be read as the others abstains.

    Returns:
        The kind (number, choice, yes_no, text, json or regex), and each text's canonical key, None where it abstains;
        never an empty one.

    Raises:
        UsageError: the key cannot be.
    """
    check_key(key)
    kind, _, rest = key.partition(":")
    if kind == "regex":
        pattern = structured.compiled(rest)
        read = [structured.by_pattern(pattern, text) for text in texts]
    elif kind == "json":
        steps = structured.steps_of(rest)
        read = [structured.by_path(steps, text) for text in texts]
    else:
        kind, read = _by_kind(kind, texts, agreement.ask(question))
    return kind, [cut(found) if found else None for found in read]


def _by_kind(kind: str, texts: Sequence[str], asked: agreement.Question) -> tuple[str, list[str | None]]:
    """Read all results as one kind; under `auto`, as the first that suits."""
    results = [result_of(text, asked.text) for text in texts]
    options = words.options_of(asked.text)
    if kind == "auto":
        return _suiting(texts, results, asked)
    if kind == "number":
        return kind, numbers.keys_of([_number(each, asked) for each in results], asked.text)
    if kind == "choice":
        return kind, [words.letter_of(each, options, asked.text) if each else None for each in results]
    return kind, _as_text(results, asked)


def _suiting(
    texts: Sequence[str], results: Sequence[Result | None], asked: agreement.Question
) -> tuple[str, list[str | None]]:
    """Read all results as the first kind that suits more than half of those that say anything."""
    half = len([each for each in results if each]) / 2
    options = words.options_of(asked.text)
    whole = [structured.whole(text) for text in texts]
    letters = [words.letter_of(each, options, asked.text) if each else None for each in results]
    verdicts = [words.verdict_of(each, asked) if each else None for each in results]
    for kind, read in (("json", whole), ("choice", letters), ("yes_no", verdicts)):
        if sum(map(bool, read)) > half:
            return kind, read
    if ASKS_CODE.search(asked.text):
        return "text", [words.literal_of(each.pieces[0], asked) if each else None for each in results]
    counted = [_number(each, asked) for each in results]
    enough = numbers.NEW if asked.number or not numbers.WHEN.isdisjoint(asked.words) else numbers.ALONE
    if len([number for number in counted if number and number.grade >= enough]) > half:
        return "number", numbers.keys_of(counted, asked.text)
    return "text", _as_text(results, asked)


def _as_text(results: Sequence[Result | None], asked: agreement.Question) -> list[str | None]:
    return [words.key_of(each.pieces[0], asked) if each else None for each in results]


def _number(result: Result | None, asked: agreement.Question) -> Quantity | None:
    for piece in result.all_pieces if result else ():
        if found := numbers.read(piece, asked.words, stated=bool(result and result.stated)):
            return found
    return None
