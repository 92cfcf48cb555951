"""Which addresses a text mentions: a model may be let follow those, and cannot then write what it knows into others."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from fusiontools.record.clean import clean
from fusiontools.tools.addresses import plain_name

_REST = r"[^\s<>\"`\\^{}|\[\]]"
_MENTIONED = re.compile(
    rf"https?://{_REST}+|(?<![\w@./-])[\w-]{{1,63}}(?:\.[\w-]{{1,63}})+(?::\d{{1,5}})?(?:[/?]{_REST}*)?", re.IGNORECASE
)
#: What may end a sentence or close a bracket behind an address, or belong to it.
_AROUND = ".,;:!?)}'*_~…。，、»”’"
_USUAL_PORTS = {"http": 80, "https": 443}

#: An address as two of them are compared: host, port where it is unusual, path, query.
Compared = tuple[str, int | None, str, str]


def mentioned(texts: Iterable[str]) -> set[Compared]:
    """Return the addresses in these texts, in every reading of where one ends."""
    found: set[Compared] = set()
    for text in texts:
        for match in _MENTIONED.finditer(text.replace("\\_", "_")):
            found |= _all_readings(match[0])
    return found


def without_repeated(text: str, arguments: Mapping[str, Any]) -> str:
    """Return what a tool said without the addresses that its call brought: those the model itself wrote."""
    written = [clean(each) for each in _texts_in(arguments)]
    own = mentioned(written)
    return _MENTIONED.sub(lambda match: " " if own & _all_readings(match[0]) else match[0], text) if own else text


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _texts_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts_in(each)


def compared(url: str) -> Compared | None:
    """Return an address as it is compared, without its fragment and its scheme; None where it is none."""
    try:
        split = urlsplit(url if "://" in url else f"//{url}", "https")
        host, port = plain_name(split.hostname or ""), split.port
    except ValueError:
        return None
    unusual = None if port in (None, _USUAL_PORTS.get(split.scheme)) else port
    return host, unusual, unquote(split.path).rstrip("/"), unquote(split.query)


def plain_site(url: str) -> str:
    """Return the host of an address, `www.` or not."""
    read = compared(url)
    return read[0].removeprefix("www.") if read else ""


def _all_readings(written: str) -> set[Compared]:
    """Return what an address may be, wherever it ends."""
    found = _readings(written)
    while written and written[-1] in _AROUND:
        written = written[:-1]
        found |= _readings(written)
    return found


def _readings(written: str) -> set[Compared]:
    read = {compared(written), compared(html.unescape(written))} - {None}
    return {one for one in read if one is not None and one[0]}
