"""How long an endpoint asks us to wait, as its headers say it.

`Retry-After` counts first, in seconds or as a date. Else the `x-ratelimit-…` of whatever is used up: OpenAI and Groq
say durations (`6m0s`, `120ms`), Anthropic a time, OpenRouter and others seconds or milliseconds since 1970. A wait that
nobody can mean is none.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping

#: No endpoint means a longer wait than this.
_LONGEST_WAIT_S = 365 * 86_400.0
_REMAINING = re.compile(r"(?:x-|anthropic-)?ratelimit-(?:(?P<before>[a-z-]+)-)?remaining(?:-(?P<behind>[a-z-]+))?$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|d|h|m|s)")
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
#: A number above it counts from 1970 and not from now: in seconds, above the second one in milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12


def wait_asked_for(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the endpoint wants to be asked again, or None where it does not say."""
    try:
        said = _retry_after_s(headers)
        return said if said is not None else _sane(max(_resets_s(headers), default=math.nan))
    except (ArithmeticError, LookupError, TypeError, ValueError, OSError):
        return None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    if (ms := headers.get("retry-after-ms")) and ms.replace(".", "", 1).isdecimal():
        return _sane(float(ms) / 1000)
    said = headers.get("retry-after")
    if not said:
        return None
    if said.replace(".", "", 1).isdecimal():
        return _sane(float(said))
    from email.utils import parsedate_to_datetime

    return _sane(max(0.0, parsedate_to_datetime(said).timestamp() - time.time()))


def _resets_s(headers: Mapping[str, str]) -> list[float]:
    """Return when each limit of which nothing remains begins anew, in seconds from now."""
    found = []
    for name, remaining in headers.items():
        match = _REMAINING.match(name.lower())
        if match is None or not remaining.strip().isdecimal() or int(remaining) > 0:
            continue
        reset = headers.get(name.lower().replace("remaining", "reset"))
        if reset is not None and (wait_s := _until(reset.strip())) is not None:
            found.append(wait_s)
    return found


def _until(reset: str) -> float | None:
    if reset.replace(".", "", 1).isdecimal():
        number = float(reset)
        if number < _EPOCH_S:
            return number
        return max(0.0, (number / 1000 if number > _EPOCH_MS else number) - time.time())
    parts = _DURATION.findall(reset)
    if parts and "".join(number + unit for number, unit in parts) == reset:
        return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    from datetime import datetime

    return max(0.0, datetime.fromisoformat(reset).timestamp() - time.time())


def _sane(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds <= _LONGEST_WAIT_S else None
