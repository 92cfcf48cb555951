"""One process's server: everything that its requests share, opened from options and closed again."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import Struct

from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.purses import Purses, default_purses_path
from fusiontools.llm.state.shared import State, machine_state
from fusiontools.llm.state.store import KeptCalls
from fusiontools.server.answer_cache import Cache
from fusiontools.server.catalog import Catalog, open_catalog
from fusiontools.server.jobs import ConcurrencyLimiter, JobRunner
from fusiontools.server.metrics import Metrics
from fusiontools.server.middleware import Access, DailyBudgets, RateLimiter, hosts_for, is_loopback, takes_page_keys
from fusiontools.server.plan import Planner
from fusiontools.server.protocols.exchange import StreamStyle
from fusiontools.server.response_store import ResponseStore
from fusiontools.server.runs_under_way import RunsUnderWay
from fusiontools.server.serve_options import ServeOptions

_CALLS_OF_A_REQUEST = 4
_STORE_H = 24.0
KEYS_VARIABLE = "FUSION_SERVER_API_KEYS"
#: What others call it.
KEY_VARIABLE = "FUSION_SERVER_API_KEY"


@dataclass(frozen=True, slots=True)
class ServerArguments:
    """What a person typed: all that a worker needs to open its server.

    Args:
        config: the recipe that `fusion` means.
        limit: options of `LimitOptions`.
        journal: options of the journal.
        run: the name under which workers count what all requests cost together.
        folder: what the workers of this server share; None where there is one.
    """

    config: str | None
    options: ServeOptions
    limit: Mapping[str, Any] = field(default_factory=dict)
    journal: Mapping[str, Any] = field(default_factory=dict, repr=False)  # a URL in it may hold a password
    run: str = "run"
    folder: Path | None = None


class Server(Struct, frozen=True):
    """What all requests of this process share."""

    options: ServeOptions
    planner: Planner
    runner: JobRunner
    rate_limiter: RateLimiter
    daily_budgets: DailyBudgets
    cache: Cache
    responses: ResponseStore
    metrics: Metrics
    access: Access
    style: StreamStyle
    limits: LimitOptions
    started: int
    reopen: Callable[[], Catalog]
    runs: RunsUnderWay

    @property
    def catalog(self) -> Catalog:
        """What can be asked."""
        return self.planner.catalog

    def offer_anew(self) -> None:
        """Offer what the keys that are there now allow; what is under way goes on as it was planned."""
        self.planner.offer(self.reopen())
        self.client.endpoints = self.catalog.endpoints

    @property
    def client(self) -> Client:
        """The way to every model."""
        return self.runner.client


def open_server(
    typed: ServerArguments,
    journal: KeptCalls | None = None,
    state: State | None = None,
    warn: Callable[[str], None] | None = None,
) -> Server:
    """Open a worker's server; what bounds all workers together is counted together, or shared out among them.

    Args:
        state: what is shared with other servers, where anything is.
        warn: says to a person what goes wrong and does not stop the server; a logger by default.

    Raises:
        UsageError: a recipe that cannot be, an address that is open to others without a key.
    """
    options = typed.options
    keys = server_keys()
    require_safe(options.host, keys)
    reopen = functools.partial(
        open_catalog, typed.config, options, typed.limit, keys_may_come=options.open and takes_page_keys(options)
    )
    catalog = reopen()
    limits = _limits(catalog, typed.limit, options.max_in_flight)
    metrics = Metrics(typed.folder)
    limiter = ConcurrencyLimiter(
        _share(options.max_in_flight, options), options.max_queue // options.workers, options.queue_s
    )
    limiter.watch(metrics.set_in_flight, metrics.set_queued)
    ceilings = [options.max_request_cost_usd, options.max_day_cost_usd, limits.max_cost_usd]
    ceilings += [recipe.limits.max_record_cost_usd for recipe in catalog.recipes.values()]
    limited = any(usd is not None for usd in ceilings)
    day_usd = options.max_day_cost_usd
    budget = typed.journal.get("budget")
    if budget is not None and limits.max_cost_usd is None:
        raise UsageError(f"--budget {budget}: say how much is in it: --max-cost-usd USD")
    # A day is that of all servers of a user, a server's money and what it learns of prices that of all its workers.
    shared = day_usd is not None or budget is not None or (limited and options.workers > 1)
    purses = Purses(default_purses_path() if shared else None) if state is None else state.purses()
    # Workers of one server keep to its limits together, wherever else anything is shared.
    beside = state or (machine_state(warn) if options.workers > 1 else None)
    client = Client(
        catalog.endpoints,
        limits,
        journal,
        beside,
        replay=bool(typed.journal.get("replay")),
        offline=bool(typed.journal.get("offline")),
        shares=False,  # two callers may never find out about each other
        purses=purses,
        run=typed.run if budget is None else f"budget {budget}",
    )
    for home in {model.endpoint for model in catalog.models.values()}:
        endpoint = catalog.endpoints[home]
        may_come = endpoint.api_key_env and endpoint.key() is None  # or the catalog would have refused it
        if not (endpoint.embedded or may_come):
            client.backend_of(home)  # an address that cannot be is found now, not by the first client
    return Server(
        options=options,
        planner=Planner(catalog, options, limited),
        runner=JobRunner(
            client,
            limiter,
            metrics,
            options.max_request_cost_usd,
            joined=options.cache_s > 0,
            drafts=options.progress == "draft",
        ),
        rate_limiter=RateLimiter(
            options.rate_per_min,
            state=beside,
            name="rate" if state is not None else f"rate {typed.run}",
            workers=options.workers,
        ),
        daily_budgets=DailyBudgets(day_usd, purses),
        cache=Cache(options.cache_s, options.cache_entries, most_bytes=int(options.cache_mib * 2**20), state=state),
        responses=ResponseStore(_store_h(options), int(options.store_mib * 2**20)),
        metrics=metrics,
        access=Access(
            keys,
            hosts_for(options.host, options.allow_hosts, keys),
            frozenset(origin.rstrip("/") for origin in options.allow_origins),
            int(options.max_body_mib * 2**20),
        ),
        style=StreamStyle(options.keepalive, options.progress),
        limits=limits,
        started=int(time.time()),
        reopen=reopen,
        runs=RunsUnderWay(typed.folder),
    )


def server_keys() -> tuple[bytes, ...]:
    """Return the keys that may ask this server."""
    keys: list[bytes] = []
    for variable in (KEYS_VARIABLE, KEY_VARIABLE):
        own = [key.strip().encode() for key in os.environ.get(variable, "").split(",") if key.strip()]
        if any(len(key) < 8 for key in own):
            raise UsageError(f"{variable}: a key has fewer than 8 characters; make one with `openssl rand -hex 24`")
        keys += own
    return tuple(dict.fromkeys(keys))


def require_safe(host: str, keys: tuple[bytes, ...]) -> None:
    """Raise `UsageError` for an address that others can reach where everybody may ask."""
    if not keys and not is_loopback(host):
        raise UsageError(
            f"--host {host}: others can reach this address, and anybody could spend your money: "
            f"export {KEYS_VARIABLE}=KEY[,KEY…] first (make one with `openssl rand -hex 24`)"
        )


def _limits(catalog: Catalog, typed: Mapping[str, Any], in_flight: int) -> LimitOptions:
    limits = catalog.recipes[catalog.default].limits
    if "max_concurrency" in typed or limits.max_concurrency != LimitOptions().max_concurrency:
        return limits
    # What bounds a server is the requests in job, each with a panel of several calls.
    return limits.replace(max_concurrency=max(limits.max_concurrency, _CALLS_OF_A_REQUEST * in_flight))


def _store_h(options: ServeOptions) -> float:
    """Return for how many hours responses are kept: the next turn may come to another process, which has none of them.

    Raises:
        UsageError: several processes are to keep them.
    """
    if options.workers > 1 and options.store_h:
        raise UsageError("--store: responses are kept in the memory of one process; leave out --workers")
    if options.store_h is None:
        return 0.0 if options.workers > 1 else _STORE_H
    return options.store_h


def _share(whole: int, options: ServeOptions) -> int:
    return max(1, whole // options.workers)
