"""Open the state that processes share: `--state URL`, or `FUSION_STATE`.

`sqlite:PATH` is the journal's file on this machine, with the money beside it, as it is without a URL; `redis://…` (or
`rediss://`) is Redis or Valkey, `postgresql://…` PostgreSQL. In these `?namespace=NAME` keeps several apart.
A URL may hold a password: what is shown of it is `place`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.errors import UsageError
from fusiontools.llm.journal import Journal, default_path, open_journal
from fusiontools.llm.purses import Purses, default_purses_path
from fusiontools.llm.state.address import VARIABLE, masked
from fusiontools.llm.state.flights import Flights
from fusiontools.llm.state.remote_journal import RemoteJournal
from fusiontools.llm.state.store import CallStore, KeptCalls, Store


class State(Struct):
    """What a process has open of the state that it shares.

    Args:
        store: turns, limits, money and values; each of its methods is one atomic step.
        journal: finished calls.
        flights: the turns at calls that this process holds.
        say_away: told why the store cannot be reached; it is said once, until it can be.
    """

    store: Store
    journal: KeptCalls | None
    flights: Flights
    say_away: Callable[[str], None]

    @property
    def place(self) -> str:
        """Where it is, for a person."""
        return self.store.place

    def purses(self) -> Purses:
        """Return the money that is counted there."""
        return Purses(store=self.store, say_away=self.say_away)

    async def aclose(self) -> None:
        """Close all of it but the journal, which is closed first."""
        await self.flights.aclose()
        await self.store.aclose()


def open_state(url: str, warn: Callable[[str], None] | None = None, *, keeps: bool = True) -> State:
    """Open the state that a URL names; a store that is away is told of when it is needed.

    Args:
        warn: told in words what goes wrong and does not stop the run; a logger by default.
        keeps: False opens no journal.

    Raises:
        UsageError: no such URL, a file that cannot be opened, a package that is missing.
    """
    warn = warn or logging.getLogger("fusiontools").warning
    scheme, colon, rest = url.partition(":")
    if scheme == "sqlite" and colon:
        from fusiontools.llm.state.sqlite_store import SqliteStore, network_of

        path = Path(rest).expanduser() if rest else default_path()
        mounts = Path("/proc/self/mounts")
        if mounts.exists() and (kind := network_of(path.absolute(), mounts.read_text(errors="replace"))):
            warn(
                f"warning: {path} lies on a network file system ({kind}), where SQLite loses what machines write at "
                "the same time: share a state between machines with redis:// or postgresql://"
            )
        file = Journal(path, warn) if keeps else None
        store = SqliteStore(path)
        say_away = _said_once(warn)
        return State(store, file, Flights(store, say_away), say_away)
    remote = _remote_store(scheme, url)
    journal = RemoteJournal(remote, warn)
    return State(remote, journal if keeps else None, Flights(remote, journal.say_away), journal.say_away)


def machine_state(warn: Callable[[str], None] | None = None) -> State:
    """Open what processes of this machine and user share without a URL, beside the journal.

    Raises:
        UsageError: the file cannot be written.
    """
    from fusiontools.llm.state.sqlite_store import SqliteStore

    store = SqliteStore(default_path())
    say_away = _said_once(warn or logging.getLogger("fusiontools").warning)
    return State(store, None, Flights(store, say_away), say_away)


def _said_once(warn: Callable[[str], None]) -> Callable[[str], None]:
    said = False

    def say_away(reason: str) -> None:
        nonlocal said
        if not said:
            said = True
            warn(f"warning: the state {reason}; what is shared there is done without, but for money")

    return say_away


def _remote_store(scheme: str, url: str) -> CallStore:
    if scheme in ("redis", "rediss"):
        from fusiontools.llm.state.redis_store import RedisStore

        return RedisStore(url)
    if scheme in ("postgresql", "postgres"):
        from fusiontools.llm.state.postgres_store import PostgresStore

        return PostgresStore(url)
    raise UsageError(
        f"{VARIABLE} or --state: {masked(url)!r}: write sqlite:PATH, redis://HOST:PORT/0 or postgresql://HOST/NAME"
    )


def open_kept(
    given: Mapping[str, Any], warn: Callable[[str], None], *, unasked: bool = True
) -> tuple[KeptCalls | None, State | None]:
    """Open the journal that the options of a tool name, and the state that is shared, where any is.

    Args:
        given: the options of `JournalOptions` that somebody chose.
        unasked: whether calls are kept where none of these options says so.

    Raises:
        UsageError: options that contradict each other, a journal or a state that cannot be opened.
    """
    url = chosen_state(given.get("state"))
    asked = {name: value for name, value in given.items() if name not in ("state", "budget")}
    if url is None:
        return (open_journal(asked, warn) if asked or unasked else None), None
    if asked.get("journal"):
        raise UsageError("--journal names a file, and --state (or FUSION_STATE) has a journal: leave one of them out")
    if asked.get("no_journal"):
        open_journal(asked, warn)  # which says what contradicts it
    state = open_state(url, warn, keeps=bool(asked or unasked) and not asked.get("no_journal"))
    return state.journal, state


def open_budget(name: str | None, limit_usd: float | None, state: State | None) -> tuple[Purses, str]:
    """Return where the money of a run is counted, and under which name; in this process alone without a name.

    Args:
        name: what was typed as `--budget`.

    Raises:
        UsageError: it has no limit, or there is nowhere to count.
    """
    if name is None:
        return Purses(), "run"
    if limit_usd is None:
        raise UsageError(f"--budget {name}: say how much is in it: --max-cost-usd USD")
    return Purses(default_purses_path()) if state is None else state.purses(), f"budget {name}"


def chosen_state(typed: str | None) -> str | None:
    """Return the URL that was typed, else that of the environment; None where neither is there."""
    return typed or os.environ.get(VARIABLE, "").strip() or None
