"""Options, declared once: the same dataclass field serves the command line, the recipe and the chain text.

A field made with `option()` knows its flags, its help and its bounds. `flags.py` turns fields into click options,
`recipe_file.py` reads the same fields from YAML, and a test holds `schemas/recipe.schema.json` equal to them.
A field without flags exists in recipes only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from fusiontools.record.types import Record

Options = TypeVar("Options")
#: Gives the options that hold for one record: typed flags first, then the record's own recipe, then the defaults.
OptionsFor = Callable[["Record"], Options]


@dataclass(frozen=True, slots=True)
class Flag:
    """How an option is typed by a person."""

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    multiple: bool = False
    #: Whether the text names a model.
    model: bool = False
    #: Whether a recipe may say it for every use of the stage; what makes a step another one is said in the chain.
    recipe: bool = True


def option(
    default: Any = MISSING,
    *names: str,
    help: str = "",  # noqa: A002 - click's own word
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    multiple: bool = False,
    model: bool = False,
    recipe: bool = True,
) -> Any:
    """Declare an option as a dataclass field."""
    flag = Flag(names, help, metavar, choices, minimum, maximum, multiple, model, recipe)
    return field(default=default, metadata={"flag": flag})


def flags_of(cls: type) -> dict[str, Flag]:
    """Return the flags of an options class by field name, in order of declaration."""
    return {f.name: f.metadata["flag"] for f in fields(cls) if f.metadata.get("flag") and f.metadata["flag"].names}


def given_only(options: object) -> dict[str, Any]:
    """Return the options that differ from their defaults, as plain data."""
    return {
        f.name: getattr(options, f.name)
        for f in fields(options)  # type: ignore[arg-type]
        if getattr(options, f.name) != (f.default if f.default_factory is MISSING else f.default_factory())
    }


def fixed(options: Options) -> OptionsFor[Options]:
    """Return the same options for every record."""
    return lambda record: options


def merged(options: Options, given: Mapping[str, Any]) -> Options:
    """Return the options with the ones that were typed put over them."""
    from dataclasses import replace

    return replace(options, **given) if given else options  # type: ignore[type-var]
