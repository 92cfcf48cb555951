"""Patterns that are compiled when they are first used."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from fusiontools import answers
from fusiontools.answers.patterns import compile_later

ROOM = Path(answers.__file__).parent


@pytest.mark.parametrize("module", [path.stem for path in sorted(ROOM.glob("*.py")) if path.stem != "__init__"])
def test_every_pattern_of_the_room_can_be_compiled(module: str) -> None:
    late = type(compile_later(""))
    found = [
        value for value in vars(import_module(f"fusiontools.answers.{module}")).values() if isinstance(value, late)
    ]

    for each in found:
        assert re.compile(each.pattern, each.flags & ~re.UNICODE)  # type: ignore[attr-defined]


def test_a_late_pattern_behaves_as_the_compiled_one() -> None:
    late = compile_later("(a)(B)?", re.IGNORECASE)

    assert late.sub(r"\1", "xAb") == "xA"
    assert late.fullmatch("ab")
    assert late.findall("ab a") == [("a", "b"), ("a", "")]


def test_a_mistake_in_a_pattern_shows_when_it_is_first_used() -> None:
    late = compile_later("(")

    with pytest.raises(re.error):
        late.search("")
