"""Every failure that a user can meet: its code, its words, and the exit status it leads to.

FusionError
├── UsageError          the command line, the recipe or the environment is wrong: exit 2
├── InputError          one input line or record is wrong: reported with its place, the rest goes on
├── CallFailed          a model was asked and gave nothing usable; retried, then data in the record
└── StageFailed         a stage could not do its part; degrades, or becomes the record's `error`

Every `message` is for a person: what failed, why, and what to do where something can be done.
"""

from __future__ import annotations

__version__ = "0.1.0"

EXIT_OK = 0
EXIT_SOME_FAILED = 1
EXIT_USAGE = 2
EXIT_NOTHING_USABLE = 3
EXIT_BUDGET = 4
EXIT_CONDITION = 5
EXIT_INTERRUPTED = 130


class FusionError(Exception):
    """The root: carries a stable `code` for programs and a `message` for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class UsageError(FusionError):
    """The command, the recipe or the environment asks for something that cannot be."""

    def __init__(self, message: str, code: str = "usage") -> None:
        super().__init__(code, message)


class InputError(FusionError):
    """One line of input cannot be used; `path` is the JSON path of the fault, where there is one."""

    def __init__(self, message: str, path: str = "", code: str = "bad_input") -> None:
        super().__init__(code, f"{path}: {message}" if path else message)
        self.path = path


class CallFailed(FusionError):
    """One attempt at an upstream gave nothing usable.

    Args:
        code: one of the codes in the README's table (`timeout`, `rate_limited`, `empty`, …).
        message: the endpoint's own words where it had any.
        status: the HTTP status, where there was one.
        retryable: whether the same request may succeed a little later.
        retry_after_s: how long the endpoint asked us to wait.
        cost_usd: what the failed attempt cost, where the endpoint said so.
        param: the request parameter that the endpoint refused, where it named one.

    `adapted` is set by a backend that has learned from the refusal: the same request now goes out differently.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
        usage: dict[str, int] | None = None,
        cost_usd: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(code, message)
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.usage = usage
        self.cost_usd = cost_usd
        self.param = param
        self.adapted = False


class StageFailed(FusionError):
    """A stage has no result for this record."""


def nearest(word: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?` with the nearest known word, else the list of the known ones."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
