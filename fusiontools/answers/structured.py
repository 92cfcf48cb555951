"""Votes in a form of their own: JSON values, tool calls, and what a regular expression finds."""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusiontools.answers import agreement, extract, normalize, numbers, words
from fusiontools.answers.patterns import compile_later
from fusiontools.errors import UsageError

#: How much of an answer's end is read.
REGEX_CHARS, JSON_CHARS = 2_000, 200_000
#: What a pattern may be: RE2 takes time in proportion to the text, but also to the pattern, once for each match.
PATTERN_CHARS, PATTERN_GROUPS, PATTERN_BYTES = 1_000, 20, 2**20
#: How long a pattern is looked for in one answer; one that takes longer finds nothing.
SEARCH_S = 1.0
#: In how many places JSON is looked for.
JSON_TRIES = 200
PATH_STEP = compile_later(r"\.?([^.\[\]]+)|\[(-?\d{1,9})\]")
JSON_BEGIN = compile_later(r"[{\[]")
TRAILING_COMMA = compile_later(r'("(?:\\.|[^"\\])*+"?)|,(?=\s*[}\]])', re.DOTALL)
FENCE = compile_later(r"```[a-zA-Z0-9]{0,20}\s")

#: What a pattern is made of: escapes, brackets, all else.
PATTERN_PIECE = compile_later(r"\\.|\[\^?\]?|\]|[^\\\[\]]+|.", re.DOTALL)
#: Python's classes, which in RE2 would be ASCII only.
UNICODE = {"w": r"\p{L}\p{M}\p{N}_", "d": r"\p{Nd}", "s": r"\s\v\x{85}\p{Z}"}
#: What RE2 has not, by how its error names it; without it, a search takes time in proportion to the text.
LACKING = {"(?<": "a look-behind", "(?=": "a look-ahead", "(?!": "a look-ahead", "(?P": "a back-reference"}
LACKING |= {"(?(": "a condition", "(?>": "an atomic group", "++": "a possessive repeat", "*+": "a possessive repeat"}
LACKING |= {"?+": "a possessive repeat", **{f"\\{digit}": "a back-reference" for digit in range(1, 10)}}


class Spelled(str):
    """A JSON number as it is spelled: no float has rounded it, and a long one costs nothing."""

    __slots__ = ()


DECODER = json.JSONDecoder(parse_float=Spelled, parse_int=Spelled, parse_constant=lambda name: None)


@functools.lru_cache(maxsize=32)
def compiled(pattern: str) -> Any:
    """Return a regular expression of RE2, whose search ends soon whatever the pattern and the text.

    Raises:
        UsageError: it is none, it is empty or too large, or it needs what RE2 has not.
    """
    import re2  # most votes need none

    where = f"the key 'regex:{pattern[:100]}'"
    if not pattern:
        raise UsageError(f"{where}: the regular expression is empty; write regex:RE")
    if len(pattern) > PATTERN_CHARS:
        raise UsageError(f"{where}…: it has {len(pattern)} characters; write it with at most {PATTERN_CHARS}")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES
    try:
        found = re2.compile(_for_re2(pattern), options)
    except (re2.error, UnicodeEncodeError) as error:
        said = error.args[0]
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(error)
        if "too large" in reason:
            raise UsageError(
                f"{where}: it takes too much memory; repeat less, with * or + instead of {{1,N}}"
            ) from None
        operator = reason.rpartition(": ")[2]
        if lacking := next((what for mark, what in LACKING.items() if operator.startswith(mark)), None):
            raise UsageError(
                f"{where}: {lacking} is unknown to RE2, which searches in linear time; write it without"
            ) from None
        raise UsageError(f"{where}: no regular expression: {reason}") from None
    if found.groups > PATTERN_GROUPS:
        said = f"{where}: it has {found.groups} groups, and only the first one counts; write (?:…) for the others"
        raise UsageError(said)
    return found


def _for_re2(pattern: str) -> str:
    """Return a pattern of Python's as RE2 writes it."""
    written: list[str] = []
    in_class = False
    for piece in PATTERN_PIECE.findall(pattern):
        letter = piece[1:] if piece[0] == "\\" else ""
        if letter in UNICODE:
            piece = UNICODE[letter] if in_class else f"[{UNICODE[letter]}]"
        elif letter.lower() in UNICODE and not in_class:
            piece = f"[^{UNICODE[letter.lower()]}]"
        elif letter == "Z":
            piece = r"\z"
        elif piece[0] == "[":
            in_class = True
        elif piece == "]":
            in_class = False
        written.append(piece)
    return "".join(written)


def by_pattern(pattern: Any, text: str) -> str | None:
    """Return what the first group (or all) of the last match says."""
    last = None
    give_up = time.monotonic() + SEARCH_S
    for match in pattern.finditer(searched(text)):
        last = match
        if time.monotonic() > give_up:
            return None
    value = None if last is None else last[1] if pattern.groups else last[0]
    return value_key(value) if value else None


def searched(text: str) -> str:
    """Return the end of an answer, in which a pattern is looked for."""
    return extract.drop_thoughts(text).strip()[-REGEX_CHARS:].encode("utf-8", "replace").decode()


def steps_of(path: str) -> list[str | int]:
    """Read `result.items[0].name`; a `$` before it is the whole.

    Raises:
        UsageError: it is no such path.
    """
    rest = path.removeprefix("$")
    found = list(PATH_STEP.finditer(rest))
    if not path or "".join(match[0] for match in found) != rest:
        raise UsageError(f"the key 'json:{path}': no path; write names and positions: json:result.items[0].name")
    return [match[1] if match[1] is not None else int(match[2]) for match in found]


def by_path(steps: Sequence[str | int], text: str) -> str | None:
    """Return what stands at the path, in the last JSON of the text that has something there."""
    for value in reversed(list(_values(text))):
        for step in steps:
            value = _at(value, step)
        if value is not None:
            return value_key(value) if isinstance(value, str) else _loose_key(value)
    return None


def whole_key(text: str) -> str | None:
    """Return the key of a text that is one JSON object or list, fences and thoughts apart."""
    if "{" not in text and "[" not in text:
        return None
    body = extract.drop_thoughts(text).strip()
    if opening := FENCE.match(body):
        body = body[opening.end() :].removesuffix("```").strip()
    if not (body.startswith(("{", "[")) and body.endswith(("}", "]"))):
        return None
    values = list(_values(body))
    return _loose_key(values[0]) if len(values) == 1 and isinstance(values[0], dict | list) else None


def value_key(value: str) -> str | None:
    """Return the key of a value that is known to be the answer: a number where it is nothing but one, else text."""
    if isinstance(value, Spelled):
        return _number(value)
    folded = extract.folded_of(value).strip()
    if extract.refuses(folded, ""):
        return None
    nothing = agreement.ask("")
    number = numbers.read(folded, nothing.words, stated=True)
    if number is not None and number.grade == numbers.ALONE:
        return numbers.keys_of([number], "")[0]
    return words.key_of(folded, nothing) or None


def calls_key(calls: Sequence[Mapping[str, Any]]) -> str:
    """Return what tool calls vote for: their names and arguments as canonical JSON, in whatever order they stand."""
    said = []
    for call in calls:
        name, text = call["function"]["name"], call["function"]["arguments"]
        try:
            arguments = canonical(DECODER.decode(text or "{}"))
        except (ValueError, RecursionError):
            arguments = canonical(text)
        said.append(f'{{"name":{canonical(name)},"arguments":{arguments}}}')
    return extract.cut_key(f"[{','.join(sorted(said))}]")


def canonical(value: Any) -> str:
    """Return JSON on one line, keys sorted, each number in its one spelling."""
    if isinstance(value, Spelled):
        return _number(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _number(spelled: Spelled) -> str:
    return numbers.spell(normalize.canonical(spelled.lower()))


def _values(text: str) -> Iterator[Any]:
    """Yield the JSON values in a text: the text itself where it is one, else every object and list in it."""
    text = extract.drop_thoughts(text)[-JSON_CHARS:].strip()
    try:
        yield DECODER.decode(text)
    except (ValueError, RecursionError):
        yield from _values_amid(TRAILING_COMMA.sub(lambda match: match[1] or "", text))


def _values_amid(text: str) -> Iterator[Any]:
    at = 0
    for _ in range(JSON_TRIES):
        begun = JSON_BEGIN.search(text, at)
        if begun is None:
            return
        try:
            value, at = DECODER.raw_decode(text, begun.start())
        except (ValueError, RecursionError):
            at = begun.end()
        else:
            yield value


def _at(value: Any, step: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(str(step))
    if isinstance(value, list) and re.fullmatch(r"-?\d{1,9}", str(step)):
        position = int(step)
        return value[position] if -len(value) <= position < len(value) else None
    return None


def _loose_key(value: Any) -> str | None:
    try:
        return canonical(_loose(value))
    except RecursionError:
        return None


def _loose(value: Any) -> Any:
    """Return a JSON value in which strings that say the same are the same, and numbers in quotes are numbers."""
    if isinstance(value, dict):
        return {key: _loose(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_loose(each) for each in value]
    if not isinstance(value, str) or isinstance(value, Spelled):
        return value
    key = value_key(value) or value.strip()
    return Spelled(key) if normalize.rational(key) else key
