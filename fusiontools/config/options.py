"""Options, declared once: the same dataclass field serves the command line, the recipe, the chain text and a request.

A field made with `option()` knows its flags, its help and its bounds. `click_options.py` makes click options of the
fields, `recipe_yaml.py` reads them from YAML, and `make schemas` writes them into `schemas/recipe.schema.json`.
A field without flags exists in recipes only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from fusiontools.record.types import Record

Options = TypeVar("Options")
Options_co = TypeVar("Options_co", covariant=True)


class OptionsFor(Protocol[Options_co]):
    """Gives the options that hold for one record; `config/resolve.py` says which those are."""

    def __call__(self, record: Record) -> Options_co:
        """Return the options."""

    def recipe_of(self, record: Record) -> dict[str, Any] | None:
        """Return what the record shall keep of its recipe from this stage on; None leaves it as it is."""


@dataclass(frozen=True, slots=True)
class Flag:
    """How an option is typed by a person.

    Args:
        minimum: of a number; of a text's length.
        multiple: it may be said more than once.
        most: how many may be said, where that is bounded.
        model: the text names a model.
        recipe: a recipe may say it for every use of the stage; what makes a step another one is said in the chain.
        private: it may hold what an operator wrote for nobody else: prompts, commands, paths. A server shows it to no
            client unless it is told to.
    """

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    multiple: bool = False
    most: int | None = None
    model: bool = False
    recipe: bool = True
    private: bool = False


def option(
    default: Any = MISSING,
    *names: str,
    help: str = "",  # noqa: A002 - click's own word
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    multiple: bool = False,
    most: int | None = None,
    model: bool = False,
    recipe: bool = True,
    private: bool = False,
) -> Any:
    """Declare an option as a dataclass field."""
    flag = Flag(names, help, metavar, choices, minimum, maximum, multiple, most, model, recipe, private)
    return field(default=default, metadata={"flag": flag})


def flags_of(cls: type) -> dict[str, Flag]:
    """Return the flags of an options class by field name, in order of declaration."""
    return {f.name: f.metadata["flag"] for f in fields(cls) if f.metadata.get("flag") and f.metadata["flag"].names}


def drop_unsaid(options: object) -> dict[str, Any]:
    """Return the options that differ from their defaults, as plain data."""
    return {
        f.name: getattr(options, f.name)
        for f in fields(options)  # type: ignore[arg-type]
        if getattr(options, f.name) != (f.default if f.default_factory is MISSING else f.default_factory())
    }


class _Fixed(Generic[Options]):
    def __init__(self, options: Options) -> None:
        self.options = options

    def __call__(self, record: Record) -> Options:
        return self.options

    def recipe_of(self, record: Record) -> None:
        return None


def fixed(options: Options) -> OptionsFor[Options]:
    """Return the same options for every record."""
    return _Fixed(options)


def merge_options(options: Options, given: Mapping[str, Any]) -> Options:
    """Return the options with the ones that were typed put over them."""
    from dataclasses import replace

    return replace(options, **given) if given else options  # type: ignore[type-var]
