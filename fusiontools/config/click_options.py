"""Options as click options: what a shell parses from its arguments, a chain text parses from its words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from fusiontools.config.options import Flag, flags_of
from fusiontools.config.stage_table import LimitOptions, StageOptions

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class FiniteRange(click.FloatRange):
    """A number between bounds, which `nan` passes unseen and `inf` where there is no upper one: neither is any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number that can be used.", param, ctx)
        return number


#: Returns what a shell is offered for what is typed so far.
Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]
_KINDS = {"int": int, "float": float, "bool": bool}
#: The click type of a number, and what an error calls it.
_RANGES: dict[object, tuple[Any, str]] = {int: (click.IntRange, "whole number"), float: (FiniteRange, "number")}


class Mistyped(Exception):
    """Words that are no options; `option_names` are the spellings of the option that is wrong, where it is one."""

    def __init__(self, message: str, option_names: Sequence[str]) -> None:
        super().__init__(message)
        self.option_names = option_names


def parse_words(group: type, words: Sequence[str]) -> dict[str, Any]:
    """Return the options that words give, as a shell's arguments would.

    Raises:
        Mistyped: no such option, a value that cannot be, a word that belongs nowhere.
    """
    command = click.Command("", params=[*click_options(group)], add_help_option=False)
    try:
        context = command.make_context("", list(words))
    except click.UsageError as error:
        named, param = getattr(error, "option_name", None), getattr(error, "param", None)
        names = [named] if named else [*param.opts, *param.secondary_opts] if param is not None else []
        raise Mistyped(" ".join(error.format_message().split()).rstrip("."), names) from None
    return given_of(group, context.params)


def click_options(group: type, completes: Mapping[str, Completer] | None = None) -> list[click.Option]:
    """Return the click options of a group; what is not typed is None, or an empty tuple.

    Args:
        completes: what a shell is offered for an option's value, where that is not what its metavar says.
    """
    kinds, defaults = kinds_of(group), group()
    in_recipes = issubclass(group, StageOptions | LimitOptions)
    options = []
    for name, flag in flags_of(group).items():
        attributes = _attributes(flag, kinds[name])
        if completes and name in completes:
            attributes["shell_complete"] = completes[name]
        default = getattr(defaults, name)
        if default not in (None, False, ()) and kinds[name] is not bool:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            or_recipe = "the recipe's, else " if in_recipes and flag.recipe else ""
            attributes["help"] += f"  [default: {or_recipe}{shown}]"
        options.append(click.Option([*flag.names, name], **attributes))
    return options


def _attributes(flag: Flag, kind: object) -> dict[str, Any]:
    """Return what click is told of an option."""
    attributes: dict[str, Any] = {"help": flag.help, "default": None, "metavar": flag.metavar}
    if flag.choices:
        attributes |= {"type": click.Choice(flag.choices), "metavar": None}
    elif kind is bool:
        attributes |= {"is_flag": True, "metavar": None}
    elif kind in _RANGES:
        in_range, called = _RANGES[kind]
        attributes["type"] = in_range(min=flag.minimum, max=flag.maximum)
        attributes["type"].name = called
    elif {"FILE", "PATH"} & {*(flag.metavar or "").split("|")}:
        attributes["shell_complete"] = complete_files
    if flag.multiple:
        attributes["multiple"] = True
    if flag.bare is not None:
        attributes |= {"is_flag": False, "flag_value": flag.bare}
    return attributes


def heading_of(group: type) -> str:
    """Return the heading under which `--help` lists a group: the one it declares, else what its tool is called."""
    return str(getattr(group, "HEADING", group_name(group).capitalize()))


def group_name(group: type) -> str:
    """Return a group's short name: `panel` for `PanelOptions`."""
    return group.__name__.removesuffix("Options").lower()


def kinds_of(group: type) -> dict[str, object]:
    """Return what each option is where it is said: a whole number, a number, a switch, or else text.

    The annotation's first word says it: to evaluate all of them would load every class that is named in one.
    """
    return {field.name: _KINDS.get(str(field.type).partition(" ")[0], str) for field in fields(group)}


def given_of(group: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the group's options that were typed."""
    names = flags_of(group)
    return {name: values[name] for name in names if values[name] is not None and values[name] != ()}


def complete_files(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell complete the names of files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="file")]
