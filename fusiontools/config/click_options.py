"""Options as click options: what a shell parses from its arguments, a chain text parses from its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import click

from fusiontools.config.options import Flag, flags_of
from fusiontools.config.stage_table import STAGES, LimitOptions

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_NUMBERS: dict[Any, tuple[Any, str]] = {
    int: (click.IntRange, "whole number"),
    float: (click.FloatRange, "number"),
}


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


def click_options(group: type) -> list[click.Option]:
    """Return the click options of a group; what is not typed is None, or an empty tuple."""
    flags, hints = flags_of(group), get_type_hints(group)
    in_recipes = group in (*STAGES.values(), LimitOptions)
    return [
        _click_option(field, flags[field.name], _kind(hints[field.name]), in_recipes)
        for field in fields(group)
        if field.name in flags
    ]


def heading_of(group: type) -> str:
    """Return the heading under which `--help` lists a group: the one it declares, else what its tool is called."""
    return str(getattr(group, "HEADING", group_name(group).capitalize()))


def group_name(group: type) -> str:
    """Return a group's short name: `panel` for `PanelOptions`."""
    return group.__name__.removesuffix("Options").lower()


def given_of(group: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the group's options that were typed."""
    names = flags_of(group)
    return {name: values[name] for name in names if values[name] is not None and values[name] != ()}


def complete_files(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell complete the names of files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="file")]


def _click_option(field: Field[Any], flag: Flag, kind: Any, in_recipes: bool) -> click.Option:
    attributes: dict[str, Any] = {"help": flag.help, "default": None, "metavar": flag.metavar}
    if flag.choices:
        attributes |= {"type": click.Choice(flag.choices), "metavar": None}
    elif kind is bool:
        attributes |= {"is_flag": True, "metavar": None}
    elif kind in _NUMBERS:
        made, name = _NUMBERS[kind]
        attributes["type"] = made(min=flag.minimum, max=flag.maximum)
        attributes["type"].name = name
    elif {"FILE", "PATH"} & {*(flag.metavar or "").split("|")}:
        attributes["shell_complete"] = complete_files
    if flag.multiple:
        attributes["multiple"] = True
    shown = field.default
    if shown not in (None, False, ()) and kind is not bool:
        default = f"{shown:g}" if isinstance(shown, float) else str(shown)
        or_recipe = "the recipe's, else " if in_recipes and flag.recipe else ""
        attributes["help"] += f"  [default: {or_recipe}{default}]"
    return click.Option([*flag.names, field.name], **attributes)


def _kind(hint: Any) -> Any:
    """Return the type of a field's value where there is one: `int` of `int | None`."""
    kinds = get_args(hint)
    return next(kind for kind in kinds if kind is not NoneType) if NoneType in kinds else hint
