"""What the server counts, for Prometheus; the home of prometheus_client."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from fusiontools.record.types import Call, Record

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)


class Metrics:
    """All counters of one process.

    Label values are of a small set: routes, stages and outcomes; never a model's name that a client made up, a key or
    a text.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("fusion_requests", "Requests answered.", ["route", "outcome"], registry=registry)
        self._latency = Histogram("fusion_request_seconds", "From the request to the end of its answer.", ["route"], buckets=_SECONDS, registry=registry)  # fmt: skip  # noqa: E501
        self._first = Histogram("fusion_first_token_seconds", "From the request to the first piece of a streamed answer.", ["route"], buckets=_SECONDS, registry=registry)  # fmt: skip  # noqa: E501
        self._calls = Counter("fusion_upstream_calls", "Attempts at models.", ["stage", "outcome"], registry=registry)
        self._call_latency = Histogram("fusion_upstream_call_seconds", "Latency of attempts at models.", ["stage"], buckets=_SECONDS, registry=registry)  # fmt: skip  # noqa: E501
        self._tokens = Counter("fusion_tokens", "Tokens of all calls.", ["stage", "kind"], registry=registry)
        self._cost = Counter("fusion_cost_usd", "Dollars spent, as far as known.", ["stage"], registry=registry)
        self._unknown = Counter(
            "fusion_unknown_cost_calls", "Calls whose cost nobody knows.", ["stage"], registry=registry
        )
        self._members = Counter("fusion_members", "Panel responses.", ["outcome"], registry=registry)
        self._degraded = Counter(
            "fusion_degraded", "Things that did not go as asked.", ["stage", "code"], registry=registry
        )
        self._cache = Counter("fusion_cache", "Look-ups in the response cache.", ["outcome"], registry=registry)
        self._in_flight = Gauge("fusion_in_flight", "Requests that are worked on.", registry=registry, multiprocess_mode="livesum")  # fmt: skip  # noqa: E501
        self._queued = Gauge("fusion_queued", "Requests that wait for a place.", registry=registry, multiprocess_mode="livesum")  # fmt: skip  # noqa: E501
        self._child = cache(_child)

    def set_in_flight(self, count: int) -> None:
        """Say how many requests are worked on."""
        self._in_flight.set(count)

    def set_queued(self, count: int) -> None:
        """Say how many requests wait for a place."""
        self._queued.set(count)

    def count_request(self, route: str, outcome: str, latency_s: float | None) -> None:
        """Count a request that has ended; its latency is None where it never came in whole."""
        self._child(self._requests, route, outcome).inc()
        if latency_s is not None:
            self._child(self._latency, route).observe(latency_s)

    def note_first_token(self, route: str, latency_s: float) -> None:
        """Note when a streamed answer began."""
        self._child(self._first, route).observe(latency_s)

    def count_call(self, call: Call) -> None:
        """Count an attempt at a model."""
        stage, status = call["stage"], call["status"]
        self._child(self._calls, stage, "replayed" if call["replayed"] else status).inc()
        if call["replayed"]:
            return
        self._child(self._call_latency, stage).observe(call["latency_s"])
        if call["cost_usd"] is None:
            self._child(self._unknown, stage).inc()
        elif call["cost_usd"]:
            self._child(self._cost, stage).inc(call["cost_usd"])
        usage: Any = call["usage"] or {}
        for kind, count in usage.items():
            if count:
                self._child(self._tokens, stage, kind.removesuffix("_tokens")).inc(count)

    def count_record(self, record: Record) -> None:
        """Count what a finished record tells."""
        for response in record.get("panel", []):
            self._child(self._members, response["error"]["code"] if "error" in response else "ok").inc()
        for note in record.get("degraded", []):
            self._child(self._degraded, note["stage"], note["code"]).inc()

    def count_lookup(self, outcome: str) -> None:
        """Count a look into the cache: `hit`, `joined` or `miss`."""
        self._child(self._cache, outcome).inc()

    def text(self) -> bytes:
        """Return everything in Prometheus' words, of all workers where there are several."""
        if (folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR")) is not None:
            _forget_dead(Path(folder))
            everybody = CollectorRegistry()
            everybody.register(_AllWorkers(Path(folder)))
            return generate_latest(everybody)
        return generate_latest(self.registry)


class _AllWorkers(Collector):
    """The figures of all workers; a file that was just made has no size yet, and the library cannot read it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the figures, added up."""
        files = [str(file) for file in self._folder.glob("*.db") if _has_figures(file)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
        return merged


def _has_figures(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # that of a dead worker, which another one has taken away
        return False


def _forget_dead(folder: Path) -> None:
    """Count no longer what workers that have died were at work on; the file of each is named by its process."""
    for file in folder.glob("gauge_livesum_*.db"):
        process = int(file.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process)  # type: ignore[no-untyped-call]


def _child(metric: Any, *labels: str) -> Any:
    """Return a metric's child; finding it takes longer than counting."""
    return metric.labels(*labels)
