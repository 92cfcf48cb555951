"""Read a chain text, such as `route | panel -m a*3 | judge | synth --refine`, into steps; errors point at the column.

The words of a step are parsed by the very options of the tool of that name. What comes after a `|` is checked as far
as the text alone decides: whether every step finds what it reads, and whether none throws away what another has made.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from fusiontools.config.options import flags_of
from fusiontools.config.stage_table import ANSWERING, RUN_GROUPS, STAGES
from fusiontools.config.templates import is_template_name
from fusiontools.errors import UsageError, nearest

#: Options of `panel` that add a layer to a panel that stands.
LAYER_STEPS = ("revise", "debate", "sequential")
#: A quote without its other half, a separator, or a word with quoted and escaped parts.
_TOKEN = re.compile(r"""\s*(?:(\|)|((?:[^\s|'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+)|(.))""", re.DOTALL)
#: Options of the tools that concern a run and not a stage.
_OF_RUN = {"-c", "--config", "-h", "--help", "--version"} | {
    name for group in RUN_GROUPS for flag in flags_of(group).values() for name in flag.names
}
_PART = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)""", re.DOTALL)


class Word(Struct, frozen=True):
    """A word of a chain text and the column where it begins, counted from 1."""

    text: str
    column: int


class Step(Struct, frozen=True):
    """One stage of a chain with the options that were said, as the shell would have parsed them."""

    name: str
    given: Mapping[str, Any]
    column: int

    @property
    def adds_layer(self) -> bool:
        """Whether this is a `panel` that goes on from the panel before it."""
        return self.name == "panel" and any(self.given.get(name) for name in LAYER_STEPS)


def parse(text: str) -> tuple[Step, ...]:
    """Return the steps of a chain.

    Raises:
        UsageError: no such stage or option, a value that cannot be, steps in an order that cannot work.
    """
    steps = tuple(_read_step(words) for words in _split_steps(text))
    _check_order(steps)
    return steps


def spell(steps: Sequence[Step], *, private: bool = True) -> str:
    """Return the text of a chain, from which `parse` reads the same steps.

    Args:
        private: whether options are in it that an operator may have written for nobody else.
    """
    return " | ".join(" ".join([step.name, *_spell_options(step, private)]) for step in steps)


def _spell_options(step: Step, private: bool) -> Iterator[str]:
    for name, flag in flags_of(STAGES[step.name].options).items():
        value = step.given.get(name)
        if value is None or (flag.private and not private and not _is_public(name, value)):
            continue
        if isinstance(value, bool):
            on, _, off = flag.names[-1].partition("/")
            yield from [on] if value else [off] if off else []
            continue
        for item in value if flag.multiple else (value,):
            word = _quote(str(item))
            # What begins with a dash would be taken for another option.
            dashed = word.startswith(("-", "'-"))
            yield f"{flag.names[-1]}={word}" if dashed else f"{flag.names[0]} {word}"


def _is_public(name: str, value: Any) -> bool:
    """Return whether a private option says nothing private: a template by its name, and not a file of somebody's."""
    return name == "template" and is_template_name(value)


def _quote(word: str) -> str:
    return word if re.fullmatch(r"[\w@%+=:,./*~-]+", word, re.ASCII) else shlex.quote(word)


def _split_steps(text: str) -> list[list[Word]]:
    """Return the words of each step."""
    pieces: list[list[Word]] = [[]]
    separators: list[int] = []
    for found in _TOKEN.finditer(text.rstrip()):
        column = found.start(found.lastindex or 0) + 1
        if found[1]:
            pieces.append([])
            separators.append(column)
        elif found[2]:
            pieces[-1].append(Word(_PART.sub(_unquote, found[2]), column))
        else:
            raise _error(column, f"{found[3]} has no other half" if found[3] in "'\"" else f"{found[3]} ends the text")
    for i, words in enumerate(pieces):
        if not words:
            at = separators[i] if i < len(separators) else len(text.rstrip()) or 1
            raise _error(
                at, "a stage is missing here" if separators else f"the chain is empty; stages: {_stage_names()}"
            )
    return pieces


def _unquote(part: re.Match[str]) -> str:
    if part[2] is not None:
        return re.sub(r"\\([\"\\$`])", r"\1", part[2])
    return str(part[1] if part[1] is not None else part[3])


def _read_step(words: Sequence[Word]) -> Step:
    from fusiontools.config.click_options import Mistyped, parse_words

    first, *rest = words
    name = first.text.removeprefix("fuse-")
    if name not in STAGES:
        raise _error(first.column, f"no stage is called {first.text!r}{nearest(name, list(STAGES))}")
    try:
        given = parse_words(STAGES[name].options, [word.text for word in rest])
    except Mistyped as error:
        message = str(error)
        if found := _OF_RUN & set(error.option_names):
            message = f"{found.pop()} belongs to the run, not to a step: give it to the tool that runs the chain"
        column = _find_column(error.option_names, message, first, rest)
        raise _error(column, f"{name}: {message[:1].lower()}{message[1:]}") from None
    return Step(name, given, first.column)


def _find_column(option_names: Sequence[str], message: str, first: Word, rest: Sequence[Word]) -> int:
    """Return the column of the word that an error is about: the option it names, else a word it repeats."""
    for word in rest:
        if any(word.text == name or word.text.startswith(f"{name}=") for name in option_names):
            return word.column
    if option_names and (short := [word for word in rest if word.text[:2] in option_names]):
        return short[0].column
    for word in rest:
        if not word.text.startswith("-") and re.search(rf"(?<![^\s(]){re.escape(word.text)}(?![^\s)])", message):
            return word.column
    return first.column


def _check_order(steps: Sequence[Step]) -> None:
    """Refuse what cannot work, or would pay for something that the next step throws away."""
    has_panel = any(step.name == "panel" and not step.adds_layer for step in steps)
    panel_stands = judged = False
    answered_by = ""
    for i, step in enumerate(steps):
        if step.name == "route" and i:
            raise _error(step.column, "`route` decides what is asked: it comes first")
        if step.name == "panel" and not step.adds_layer:
            if panel_stands:
                raise _error(step.column, "a second `panel` throws the first away; `panel --revise` adds a layer to it")
            if i and steps[i - 1].name != "route":
                raise _error(step.column, f"`panel` asks anew and throws away what `{steps[i - 1].name}` has made")
            panel_stands = True
            continue
        if (step.adds_layer or STAGES[step.name].needs) and has_panel and not panel_stands:
            raise _error(step.column, f"`{step.name}` reads a panel, and `panel` comes only after it")
        if answered_by and not (step.name == "synth" and step.given.get("refine")):
            raise _error(step.column, f"`{step.name}` throws away the answer of `{answered_by}`")
        if step.adds_layer and judged:
            raise _error(step.column, "a new layer throws away the analysis; judge after the last layer")
        if step.name == "judge" and judged:
            raise _error(step.column, "a second `judge` throws the first away; `judge -m a -m b` asks several")
        judged = judged or step.name == "judge"
        answered_by = step.name if step.name in ANSWERING else answered_by


def _stage_names() -> str:
    return ", ".join(STAGES)


def _error(column: int, what: str) -> UsageError:
    return UsageError(f"column {column}: {what}", code="chain")
