"""What the server counts, for Prometheus; the home of prometheus_client, which says it when somebody asks."""

from __future__ import annotations

import os
import secrets
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from mmap import mmap
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from fusiontools.errors import FAILURE_CODES
from fusiontools.record import jsonl
from fusiontools.record.types import Call, Record

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
#: Where seconds are counted, each with all that are fewer; and the place of their sum.
_BUCKETS, _SUM = [*map(floatToGoString, (*_SECONDS, float("inf")))], "sum"
#: Several times as many figures as there are, and as many bytes as they take with their keys.
_MOST, _FILE_BYTES = 4096, 2**18
#: The place of what there is no room for; no key leads to it.
_NOWHERE = _MOST - 1


class MetricSpec(NamedTuple):
    """One metric: its name, as which kind of figure it is told, its labels, and what it counts."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    about: str


#: Label values are of a small set: routes, stages and outcomes; never a model's name that a client made up, a key or a
#: text.
METRICS = (
    MetricSpec("fusion_requests", "counter", ("route", "outcome"), "Requests answered."),
    MetricSpec("fusion_request_seconds", "histogram", ("route",), "From the request to the end of its answer."),
    MetricSpec(
        "fusion_first_token_seconds",
        "histogram",
        ("route",),
        "From the request to the first piece of a streamed answer.",
    ),
    MetricSpec("fusion_upstream_calls", "counter", ("stage", "outcome"), "Attempts at models."),
    MetricSpec("fusion_upstream_call_seconds", "histogram", ("stage",), "Latency of attempts at models."),
    MetricSpec("fusion_tokens", "counter", ("stage", "kind"), "Tokens of all calls."),
    MetricSpec("fusion_cost_usd", "counter", ("stage",), "Dollars spent, as far as known."),
    MetricSpec("fusion_unknown_cost_calls", "counter", ("stage",), "Calls whose cost nobody knows."),
    MetricSpec("fusion_members", "counter", ("outcome",), "Panel responses."),
    MetricSpec("fusion_degraded", "counter", ("stage", "code"), "Things that did not go as asked."),
    MetricSpec("fusion_cache", "counter", ("outcome",), "Look-ups in the response cache."),
    MetricSpec("fusion_in_flight", "gauge", (), "Requests that are worked on."),
    MetricSpec("fusion_queued", "gauge", (), "Requests that wait for a place."),
)
_OUTCOMES = frozenset(("ok", *FAILURE_CODES))
_GAUGES = frozenset(spec.name for spec in METRICS if spec.kind == "gauge")

#: A metric's name and the values of its labels; for a histogram, and the bucket.
Key = tuple[str, ...]


class Figures(dict[Key, int]):
    """Where in `numbers` each figure stands; a new one begins at 0, and is not told where there is no room for it.

    Those of a worker are in a file, which the others read and which outlives its process.

    Args:
        folder: what the workers of this server share; None where this is the only process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self._folder, self._end = folder, 8 * _MOST
        self._file: Any = bytearray(_FILE_BYTES)
        if folder is not None:
            path = folder / f"{os.getpid()}-{secrets.token_hex(8)}.figures"
            with path.open("xb+") as file:
                file.write(self._file)  # all of it, so that no disk is full later
                file.flush()
                self._file = mmap(file.fileno(), _FILE_BYTES)
        #: The numbers; behind them in the file are their keys, a line each.
        self.numbers = memoryview(self._file)[: 8 * _MOST].cast("d")

    def __missing__(self, key: Key) -> int:
        line = jsonl.dumps(key) + b"\n"
        if len(self) == _NOWHERE or self._end + len(line) > _FILE_BYTES:
            return _NOWHERE
        self._file[self._end : self._end + len(line)] = line
        self._end += len(line)
        place = self[key] = len(self)
        return place

    def sums(self) -> dict[Key, float]:
        """Return all numbers, those of all workers added up; of one that has died, what it was at work on is over."""
        if self._folder is None:
            return {key: self.numbers[place] for key, place in self.items()}
        sums: dict[Key, float] = {}
        for path in sorted(self._folder.glob("*.figures")):
            alive = _is_alive(int(path.name.partition("-")[0]))
            for key, value in _figures_in(path.read_bytes()):
                if alive or key[0] not in _GAUGES:
                    sums[key] = sums.get(key, 0.0) + value
        return sums


def _figures_in(data: bytes) -> Iterator[tuple[Key, float]]:
    keys = data[8 * _MOST :].split(b"\n")[:-1]
    if keys:  # else its worker has just begun
        for key, value in zip(keys, memoryview(data)[: 8 * _MOST].cast("d"), strict=False):
            yield tuple(jsonl.loads(key)), value


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):  # its number is another user's by now
        return False
    return True


class Metrics(Collector):
    """All counters of one process, or of all workers of a server.

    Args:
        folder: what the workers share; None where this is the only process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._places = Figures(folder)
        self._values = self._places.numbers

    def set_in_flight(self, count: int) -> None:
        """Say how many requests are worked on."""
        self._values[self._places["fusion_in_flight",]] = count

    def set_queued(self, count: int) -> None:
        """Say how many requests wait for a place."""
        self._values[self._places["fusion_queued",]] = count

    def count_request(self, route: str, outcome: str, latency_s: float | None) -> None:
        """Count a request that has ended; its latency is None where it never came in whole."""
        self._values[self._places["fusion_requests", route, outcome]] += 1
        if latency_s is not None:
            self._note_seconds("fusion_request_seconds", route, latency_s)

    def note_first_token(self, route: str, latency_s: float) -> None:
        """Note when a streamed answer began."""
        self._note_seconds("fusion_first_token_seconds", route, latency_s)

    def count_call(self, call: Call) -> None:
        """Count an attempt at a model."""
        values, places, stage = self._values, self._places, call["stage"]
        if call["replayed"]:
            values[places["fusion_upstream_calls", stage, "replayed"]] += 1
            return
        values[places["fusion_upstream_calls", stage, call["status"]]] += 1
        self._note_seconds("fusion_upstream_call_seconds", stage, call["latency_s"])
        if (cost_usd := call["cost_usd"]) is None:
            values[places["fusion_unknown_cost_calls", stage]] += 1
        elif cost_usd:
            values[places["fusion_cost_usd", stage]] += cost_usd
        usage: Any = call["usage"] or {}
        for kind, count in usage.items():
            if count:
                values[places["fusion_tokens", stage, kind.removesuffix("_tokens")]] += count

    def count_record(self, record: Record) -> None:
        """Count what a finished record tells."""
        values, places = self._values, self._places
        for response in record.get("panel", []):
            outcome = response["error"]["code"] if "error" in response else "ok"
            # A record that a client has sent may hold any code.
            values[places["fusion_members", outcome if outcome in _OUTCOMES else "other"]] += 1
        for note in record.get("degraded", []):
            values[places["fusion_degraded", note["stage"], note["code"]]] += 1

    def count_lookup(self, outcome: str) -> None:
        """Count a look into the cache: `hit`, `joined` or `miss`."""
        self._values[self._places["fusion_cache", outcome]] += 1

    def text(self) -> bytes:
        """Return everything in Prometheus' words, of all workers where there are several."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as prometheus_client wants them."""
        sums = self._places.sums()
        for spec in METRICS:
            own = {key[1:]: value for key, value in sums.items() if key[0] == spec.name}
            if spec.kind == "histogram":
                yield _histogram(spec, own)
                continue
            family = (CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily)(
                spec.name, spec.about, labels=spec.labels
            )
            for labels, value in (own or ({} if spec.labels else {(): 0.0})).items():
                family.add_metric(labels, value)
            yield family

    def _note_seconds(self, name: str, label: str, seconds: float) -> None:
        self._values[self._places[name, label, _BUCKETS[bisect_left(_SECONDS, seconds)]]] += 1
        self._values[self._places[name, label, _SUM]] += seconds


def _histogram(spec: MetricSpec, figures: dict[Key, float]) -> Metric:
    family = HistogramMetricFamily(spec.name, spec.about, labels=spec.labels)
    for label in dict.fromkeys(label for label, _ in figures):
        count, buckets = 0.0, []
        for bound in _BUCKETS:
            count += figures.get((label, bound), 0.0)
            buckets.append((bound, count))
        family.add_metric([label], buckets, figures.get((label, _SUM), 0.0))
    return family
