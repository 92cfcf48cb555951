"""Regular expressions that are compiled when they are first used.

An answer needs few of the hundred and thirty patterns of this room, and compiling them all takes 25 ms of each start.
"""

from __future__ import annotations

import re
from typing import Any


class _Pattern:
    """Stands for a compiled pattern, whose methods it takes over one by one."""

    def __init__(self, text: str, flags: int) -> None:
        self._source = (text, flags)

    def __getattr__(self, name: str) -> Any:
        # `re` keeps few of the patterns that it has compiled.
        if "_compiled" not in self.__dict__:
            self._compiled = re.compile(*self._source)
        found = getattr(self._compiled, name)
        setattr(self, name, found)
        return found


def compile_later(text: str, flags: int = 0) -> re.Pattern[str]:
    """Return what behaves as the compiled pattern; a mistake in it shows when it is first used."""
    return _Pattern(text, flags)  # type: ignore[return-value]
