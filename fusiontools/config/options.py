"""Options, declared once: the same dataclass field serves the command line, the recipe, the chain text and a request.

A field made with `option()` knows its flags, its help and its bounds. `click_options.py` makes click options of the
fields, `recipe_yaml.py` reads them from YAML, and `make schemas` writes them into `schemas/recipe.schema.json`.
A field without flags exists in recipes only.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Protocol, Self, TypeVar, dataclass_transform

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
        bare: what it is where it is said without a value; None where it must have one.
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
    bare: str | None = None


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
    bare: str | None = None,
) -> Any:
    """Declare an option as a dataclass field."""
    flag = Flag(names, help, metavar, choices, minimum, maximum, multiple, most, model, recipe, private, bare)
    return field(default=default, metadata={"flag": flag})


@dataclass_transform(frozen_default=True, field_specifiers=())
class Settings:
    """What a person can set: a frozen dataclass for each subclass, compared by its values.

    The methods are here once. `dataclass` would write and compile six for each class, and all of them together would
    be a quarter of what a tool takes to start.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False, match_args=False)(cls)

    def __init__(self, *values: Any, **said: Any) -> None:
        declared = {f.name: f for f in fields(self)}
        said = dict(zip(declared, values, strict=False)) | said
        unknown = said.keys() - declared.keys()
        if len(values) > len(declared) or unknown:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown)) or 'so many fields'}")
        for name, each in declared.items():
            if name in said or each.default is not MISSING:
                continue  # a default is the class's own
            if each.default_factory is MISSING:
                raise TypeError(f"{type(self).__name__} needs {name}")
            said[name] = each.default_factory()
        self.__dict__.update(said)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in fields(self))})"

    def __eq__(self, other: object) -> bool:
        return self._values() == other._values() if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._values())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete {name}")

    def replace(self, **changes: Any) -> Self:
        """Return the same settings with some of them changed."""
        return type(self)(**{**{f.name: getattr(self, f.name) for f in fields(self)}, **changes})

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))


def flags_of(cls: type) -> dict[str, Flag]:
    """Return the flags of an options class by field name, in order of declaration."""
    return {f.name: f.metadata["flag"] for f in fields(cls) if f.metadata.get("flag") and f.metadata["flag"].names}


def drop_unsaid(options: Settings) -> dict[str, Any]:
    """Return the options that differ from their defaults, as plain data."""
    return {
        f.name: getattr(options, f.name)
        for f in fields(options)
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
