"""What a model said that was asked for a verdict: the one reader of judges, duels, picks, routers and graders.

Strict out, lenient in: thoughts are dropped, and of the JSON objects in the rest, mended where that can be done, the
last one of the wanted shape counts: what stands before it is a draft or a quotation. A response is named by its label.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fusiontools.answers.patterns import compile_later
from fusiontools.record import jsonl

_SHOWN_CHARS = 120
#: In how many places of one reply broken JSON is mended at most; each takes time in proportion to the text.
_MOST_MENDED = 6
#: What is longer, or has more braces, is no slip of a judge; mending it may take minutes.
_MENDED_CHARS, _MENDED_BRACES = 100_000, 400
#: How deep in lists and under keys the object may stand.
_DEPTH = 4
#: A brace before a key: prose has braces, too.
_BEGIN = compile_later(r"\{\s*(?:[\"'“”]|[A-Za-z_]\w*\s*:)")
_QUOTED = compile_later(r"\"(?:\\.|[^\"\\])*+\"|[{}]", re.DOTALL)
#: The fields of an object that say which response is meant.
_NAMES = ("model", "response", "label", "name", "id", "letter")
_PLACE = compile_later(r"\s*(?:#?\d{1,3}(?:[.):]|(?=\s))|[-*•])\s*")
_CALLED = r"(?:responses?|models?|answers?|options?|candidates?|members?|labels?)[\s_#:-]*"
_LEADING = compile_later(
    rf"\W*(?:the\s+)?({_CALLED})?[(\[*_\"'`]*([A-Za-z]{{1,2}})(?![A-Za-z0-9]|['’][a-z])", re.IGNORECASE
)
_WORD = compile_later(r"[A-Za-z]+")
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
#: What joins two labels into one place of a ranking.
_JOINED = compile_later(r"\W*(?:(?:and|or|und|oder|et|y)\b|vs\b|[/&+=~|≈,])\W*", re.IGNORECASE)
#: What follows a letter that is a name; behind other words, `A` is an article and `I` the judge.
_SAYS = frozenset({"is", "was", "has", "gives", "wins", "says", "because", "since", "as", "with", "for", "by"})
_SAYS |= {"then", "over", "first", "second", "last", "best", "worst", "being", "does", "covers", "beats"}


def object_in(reply: str, *keys: str) -> dict[str, Any]:
    """Return the last object in a reply that has one of these keys; an empty one where there is none."""
    return find_object(reply, lambda data: any(key in data for key in keys)) or {}


def find_object(reply: str, wanted: Callable[[Mapping[str, Any]], bool]) -> dict[str, Any] | None:
    """Return the last object of the wanted shape in a reply: alone or amid prose, in a list, under a key.

    Where an object is begun behind it and cut off, only that one counts: what stands above it is a draft.
    """
    try:
        return _last(jsonl.loads(reply), wanted)
    except ValueError:
        pass
    text = _without_thoughts(reply)
    found: Any = None
    cut_off = False
    at = mended = 0
    while begun := _BEGIN.search(text, at):
        start, at = begun.start(), begun.end()
        data, end = _decode(text, start)
        strict = end is not None
        if end is None:
            if mended == _MOST_MENDED:
                break
            mended += 1
            end = _end_of(text, start)
            data = _mend(text[start:end])
        fits = _last(data, wanted)
        if end is None:
            # It may be a whole one, in which a quotation mark is missing: then others come behind it.
            found, cut_off = (found, True) if cut_off else (fits, True)
        elif fits is not None:
            found, cut_off, at = fits, False, end
        elif strict:
            at = end
    return None if found is None else _writable(found)


def _without_thoughts(reply: str) -> str:
    # Most replies are JSON and nothing else, and a tool starts without that room.
    from fusiontools.answers.extract import drop_thoughts

    return drop_thoughts(reply)


def _last(data: Any, wanted: Callable[[Mapping[str, Any]], bool], depth: int = 0) -> dict[str, Any] | None:
    """Return the last object of the wanted shape in what was read."""
    if isinstance(data, str) and depth == 0:
        # JSON in a JSON string.
        return find_object(data, wanted) if "{" in data else None
    if isinstance(data, dict) and wanted(data):
        return data
    if not isinstance(data, dict | list) or depth == _DEPTH:
        return None
    inside = data.values() if isinstance(data, dict) else data
    found = [fits for each in inside if isinstance(each, dict | list) and (fits := _last(each, wanted, depth + 1))]
    return found[-1] if found else None


def _decode(text: str, start: int) -> tuple[Any, int | None]:
    """Return the strict JSON that begins here, and where it ends."""
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, None


def _end_of(text: str, start: int) -> int | None:
    """Return the end of what stands between two braces; None where the second is missing."""
    depth = 0
    for match in _QUOTED.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0 and match[0] == "}":
            return match.end()
    return None


def _mend(text: str) -> Any:
    if len(text) > _MENDED_CHARS or text.count("{") > _MENDED_BRACES:
        return None
    import json_repair

    try:
        return json_repair.loads(text.rstrip().removesuffix("```"))
    except (ValueError, RecursionError):
        return None


def _writable(data: dict[str, Any]) -> dict[str, Any]:
    """Return the object without halves of emojis: `\\ud83d` is fine with this parser, and with no writer of UTF-8."""
    return json.loads(json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))  # type: ignore[no-any-return]


def said_in(reply: str, key: str) -> Any:
    """Return what a reply says under this key, or the reply itself where it is one word; else nothing."""
    said = object_in(reply, key).get(key)
    if said is not None:
        return said.strip() if isinstance(said, str) else said
    words = _without_thoughts(reply).strip(" \t\r\n*`\"'.").split()
    return words[0] if len(words) == 1 and words[0].isalpha() else ""


def truth_in(reply: str, key: str) -> bool | None:
    """Return the yes or no that a reply says under this key, or all in all (`met`, `not met`); None for neither."""
    said = object_in(reply, key).get(key)
    if isinstance(said, bool):
        return said
    words = said if isinstance(said, str) else _without_thoughts(reply) if said is None else ""
    plain = " ".join(re.findall(r"\w+", words.casefold().replace("_", " ")))
    return {**_TRUTHS, key: True, f"un{key}": False, f"not {key}": False}.get(plain)


def unreadable(reply: str, wanted: str) -> str:
    """Say that a reply is not what was asked for, and show how it begins."""
    return f"the reply {wanted}: {' '.join(reply.split())[:_SHOWN_CHARS]!r}"


def label_in(said: Any, labels: Mapping[str, Any]) -> str:
    """Return the label that `A`, `Response A`, `response_a`, `B (fuller than A)` or `{"model": "B", …}` names.

    The field that names it, else the label it begins with, else the only one it speaks of; what names no response, or
    two, stays as it is.
    """
    if isinstance(said, str) and said in labels:
        return said  # as nearly all are given
    if isinstance(said, dict):
        named = [said[key] for key in _NAMES if isinstance(said.get(key), str)]
        if named:
            return next((label for text in named if (label := _label_of(text, labels))), "")
        # A reason speaks of others: only a value that is nothing but a label names one.
        found = {each.strip().upper() for each in said.values() if isinstance(each, str)} & labels.keys()
        return found.pop() if len(found) == 1 else ""
    if isinstance(said, list):
        return ""
    text = str(said).strip()
    return _label_of(text, labels) or text


def labels_in(said: Any, labels: Mapping[str, Any]) -> list[str]:
    """Return all responses that are named: in a list, or in a text that lists nothing else."""
    if isinstance(said, list):
        return [label for item in said for label in labels_in(item, labels)]
    if isinstance(said, str) and said not in labels and not _label_of(said, labels):
        words = [word for word in re.split(r"\W+|_|\band\b", re.sub(_CALLED, " ", said, flags=re.IGNORECASE)) if word]
        if len(words) > 1 and all(word.upper() in labels for word in words):
            return [word.upper() for word in words]
    return [label_in(said, labels)]


def _label_of(text: str, labels: Mapping[str, Any]) -> str:
    """Return the one label that a text names; nothing where it names none, or cannot be told."""
    text = text.strip()
    if text.upper() in labels:
        return text.upper()
    leading = _LEADING.match(text)
    if leading is not None and leading[2].upper() in labels:
        rest = text[leading.end() :]
        if _is_name(leading, rest):
            return "" if _names_another(rest, labels) else leading[2].upper()
        if leading[2].isupper():
            # "A fuller answer", or "A fuller, B shorter": that cannot be told.
            return ""
    named = {word for word in _WORD.findall(text) if word in labels}
    return named.pop() if len(named) == 1 else ""


def _is_name(leading: re.Match[str], rest: str) -> bool:
    """Say whether the letter that a text begins with is a label, and no word."""
    if leading[1] is not None:
        return True
    following = _WORD.match(rest.lstrip()) if rest[:1].isspace() else None
    if leading[2].islower():
        return following is None and not rest[:1].isalnum()
    return following is None or following[0].casefold() in _SAYS or leading[2] not in ("A", "I")


def _names_another(rest: str, labels: Mapping[str, Any]) -> bool:
    """Say whether a second label stands in the same place: `A and B`, `A/B`, `A = Response B`."""
    joined = _JOINED.match(rest)
    other = _LEADING.match(rest, joined.end()) if joined else None
    if joined is None or other is None or other[2].upper() not in labels or not (other[1] or other[2].isupper()):
        return False
    return _is_name(other, rest[other.end() :])


def ranked(said: Any, labels: Mapping[str, int]) -> tuple[list[int], list[str]]:
    """Return panel positions, best first, and the places that name no response, or more than one."""
    found: list[int] = []
    unread: list[str] = []
    for place in _places(said):
        while isinstance(place, list) and len(place) == 1:
            place = place[0]
        position = labels.get(label_in(place, labels))
        if position is None:
            unread.append(str(place))
        elif position not in found:
            found.append(position)
    return found, unread


def _places(said: Any) -> list[Any]:
    """Return the places of a ranking that is a list, an object by place (`{"1": "B"}`), or a text."""
    if isinstance(said, dict) and said and all(str(key).isdigit() for key in said):
        return [said[key] for key in sorted(said, key=int)]
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], str):
        said = said[0]
    if isinstance(said, list):
        if dict not in map(type, said):
            return said
        numbers = [item.get("rank", item.get("place")) if isinstance(item, dict) else None for item in said]
        numbered = all(isinstance(number, int) for number in numbers) and len(set(numbers)) == len(numbers)
        if not numbered:
            return said
        return [item for _, item in sorted(zip(numbers, said, strict=True), key=lambda pair: pair[0] or 0)]
    if not isinstance(said, str):
        return []
    pieces = re.split(r"\s*(?:[>≻→;\n])\s*", said.strip())
    if len(pieces) == 1:
        pieces = re.split(r"\s*,\s*", said.strip())
    if len(pieces) == 1 and all(len(word) <= 2 for word in said.split()):
        pieces = said.split()
    return [piece for piece in (_PLACE.sub("", piece, count=1) for piece in pieces) if piece]
