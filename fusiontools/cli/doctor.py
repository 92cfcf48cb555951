"""`fuse-doctor`: is everything ready, and what to do about what is not; and the keys that are kept."""

from __future__ import annotations

from typing import Any

from fusiontools.cli.command import command, complete_names
from fusiontools.config.options import Settings, option
from fusiontools.config.stage_table import LimitOptions

_TOOL = "fuse-doctor"
_MOST_KEY_BYTES = 64 << 10
HELP = """\
\b
  fuse-doctor -c budget --live --max-cost-usd 0.01
  fuse-doctor --set-key openrouter

Say whether a recipe can be used here: keys, endpoints, models, tools, extras, and the folders that are written to; and
what to do about what is not ready.

Without --live nothing is asked of any model and nothing leaves this machine; a key command of the recipe is run, and a
keyring that holds one of its keys is opened. With --live each model is sent one call of a few tokens: what these cost
at most is said first, and --max-cost-usd holds.

A key that --set-key keeps stands in for its variable of the environment, which wins where it is set. NAME is an
endpoint, or the variable itself, such as TAVILY_API_KEY. It is asked for without echo, or read from standard input.

\b
Exit status:
  0    all that the recipe needs is ready
  1    some of it is not
  2    wrong usage, or a recipe that cannot be read
  3    no member of the panel can be asked
  4    a cost limit kept --live from asking everybody
"""


class DoctorOptions(Settings):
    """What `fuse-doctor` can be told."""

    live: bool = option(False, "--live", help="Ask each model for a word; what it costs at most is said first.")
    json: bool = option(False, "--json", help="Print it as JSON.")
    set_key: str | None = option(
        None, "--set-key", metavar="NAME", help="Keep a key, in the system's keyring or a file of yours."
    )
    forget_key: str | None = option(None, "--forget-key", metavar="NAME", help="Remove a kept key.")


def _endpoints() -> list[str]:
    from fusiontools.config.models import ENDPOINTS

    return [each.name for each in ENDPOINTS.values() if each.api_key_env]


def _kept() -> tuple[str, ...]:
    from fusiontools.config.api_keys import kept_names

    return kept_names()


@command(
    _TOOL,
    DoctorOptions,
    LimitOptions,
    help=HELP,
    arguments="",
    completes={"set_key": complete_names(_endpoints), "forget_key": complete_names(_kept)},
)
def main(files: tuple[str, ...], config: str | None, doctor: dict[str, Any], limit: dict[str, Any]) -> None:
    from fusiontools.cli.command import leave
    from fusiontools.errors import UsageError

    options = DoctorOptions(**doctor)
    if files:
        # It is not repeated: it may be a key.
        raise UsageError("there is a word too many; a key is never typed on a command line, --set-key asks for it")
    if options.set_key is not None:
        leave(_set_key(options.set_key, config))
    if options.forget_key is not None:
        leave(_forget_key(options.forget_key, config))
    import asyncio

    from fusiontools.cli.doctor_run import examine

    with asyncio.Runner() as runner:
        leave(runner.run(examine(config, limit, live=options.live, as_json=options.json)))


def _set_key(name: str, config: str | None) -> int:
    import os

    from fusiontools.cli.command import complain
    from fusiontools.config.api_keys import keep_key
    from fusiontools.errors import EXIT_OK

    variable = _variable_of(name, config)
    place = keep_key(variable, _read_key(variable))
    complain(_TOOL, f"{variable} is kept in {place}")
    if os.environ.get(variable, "").strip():
        complain(_TOOL, f"warning: {variable} is set in the environment, too, and that wins")
    return EXIT_OK


def _forget_key(name: str, config: str | None) -> int:
    from fusiontools.cli.command import complain
    from fusiontools.config.api_keys import forget_key
    from fusiontools.errors import EXIT_NOTHING_USABLE, EXIT_OK

    variable = _variable_of(name, config)
    forgotten = forget_key(variable)
    complain(_TOOL, f"{variable} is {'not kept any more' if forgotten else 'not kept here'}")
    return EXIT_OK if forgotten else EXIT_NOTHING_USABLE


def _variable_of(name: str, config: str | None) -> str:
    """Return the variable for which a key stands in; a name that is none is not repeated, for it may be a key.

    Raises:
        UsageError: there is no such endpoint, or it needs no key.
    """
    from fusiontools.config.api_keys import is_variable
    from fusiontools.config.environment import PREFIX
    from fusiontools.config.models import ENDPOINTS
    from fusiontools.config.recipe_yaml import load_recipe
    from fusiontools.errors import UsageError

    endpoints = {**(load_recipe(config).endpoints if config else {}), **ENDPOINTS}
    keyed = [each.name for each in endpoints.values() if each.api_key_env]
    if name in endpoints:
        if (variable := endpoints[name].api_key_env) is None:
            raise UsageError(f"the endpoint {name} has no `api_key_env`; a key can be kept for: {', '.join(keyed)}")
    elif is_variable(name):
        variable = name
    else:
        raise UsageError(
            f"that is no endpoint and no variable; a key can be kept for: {', '.join(keyed)} "
            "(an endpoint of your own with -c RECIPE)"
        )
    if variable.startswith(PREFIX):
        raise UsageError(f"{variable} is read from the environment only; FUSION_BASE_URL has taken {name} elsewhere")
    return variable


def _read_key(variable: str) -> str:
    """Return the key that a person types without echo, or that comes in on standard input."""
    import getpass
    import os
    import sys

    from fusiontools.errors import UsageError

    try:
        if os.isatty(0):
            return getpass.getpass(f"{variable} (nothing is shown): ", sys.stderr).strip()
        with open(0, "rb", closefd=False) as stdin:
            return stdin.read(_MOST_KEY_BYTES).decode().strip()
    except EOFError:
        return ""
    except (OSError, UnicodeDecodeError):
        raise UsageError("the key cannot be read: one line of visible ASCII characters is wanted") from None
