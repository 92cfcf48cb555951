"""Where traces go: opened as the environment says, and sent before a process ends.

Nothing is imported unless a collector is named, or the program that uses the library has a provider of its own. Spans
leave on a thread of the SDK: a collector that is slow or gone delays and fails nothing.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fusiontools.errors import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from fusiontools.llm.spans import Traces

#: What is at least so long may be a key.
_KEY_CHARS = 8
#: How long the end of a process waits for a collector.
_FLUSH_S = 2.0


def wants_traces(env: Mapping[str, str]) -> bool:
    """Return whether the environment asks for traces, in OpenTelemetry's own variables."""
    exporter = env.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    named = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return bool(named) or exporter in ("otlp", "console")


def open_traces(service: str, warn: Callable[[str], None]) -> Traces | None:
    """Return where spans are told; None where nobody asks for any.

    Args:
        service: what this process is called, where the environment says nothing else.
        warn: told once of what keeps spans from being told or from arriving; nothing else comes of that.
    """
    known = sys.modules.get("opentelemetry.trace")
    provider: Any = known.get_tracer_provider() if known is not None else None
    if not hasattr(provider, "force_flush"):  # else that of whoever uses the library, or ours, opened before
        if not wants_traces(os.environ):
            return None
        try:
            provider = _open_provider(service, warn)
        except ImportError:
            warn("traces are asked for (OTEL_…) and cannot be told: pip install 'fusiontools[otel]'")
            return None
        except ValueError as error:
            warn(f"no traces are told: {error}")
            return None
    from fusiontools.llm.spans import Traces

    return Traces(provider, os.environ)


def flush_traces() -> None:
    """Send what has not been sent, for at most two seconds: before a process ends, however it does."""
    known = sys.modules.get("opentelemetry.trace")
    flush = getattr(known.get_tracer_provider(), "force_flush", None) if known is not None else None
    if flush is not None:
        # On a thread, because the SDK bounds the whole export by ten seconds and takes no shorter time.
        sending = threading.Thread(target=flush, name="flush-traces", daemon=True)
        sending.start()
        sending.join(_FLUSH_S)


def _open_provider(service: str, warn: Callable[[str], None]) -> TracerProvider:
    """Return the provider of this process, made after the environment.

    Raises:
        ValueError: it asks for what is not spoken here.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    _hear_failures(warn)
    exporter: SpanExporter
    if os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        exporter = ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    else:
        for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if os.environ.get(variable, "http/protobuf") != "http/protobuf":
                raise ValueError(f"{variable}={os.environ[variable]}: http/protobuf alone is spoken (port 4318)")
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    # At exit nothing is waited for but by `flush_traces`.
    provider = TracerProvider(
        resource=resource.merge(Resource({"service.version": __version__})), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    _flush_at_exit(provider)
    return provider


def _flush_at_exit(provider: TracerProvider) -> None:
    """Have a program that uses the library wait for its spans as our tools do: a little, and no longer."""
    wanted, done, process = threading.Event(), threading.Event(), os.getpid()

    def work() -> None:
        wanted.wait()
        provider.force_flush()
        done.set()

    def flush() -> None:
        if os.getpid() == process:
            wanted.set()
            done.wait(_FLUSH_S)

    # It waits from now on, because no thread begins once an interpreter ends.
    threading.Thread(target=work, name="last-traces", daemon=True).start()
    atexit.register(flush)


def _hear_failures(warn: Callable[[str], None]) -> None:
    """Say the first thing that each part of the SDK complains of, and nothing after it."""
    said: set[str] = set()

    class First(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name not in said:
                said.add(record.name)
                what = record.getMessage().split("\n")[0]
                refused = re.search(r"\[Errno -?\d+\] ([\w ,-]+)", what)
                what = f"no collector at {_collector()}: {refused[1]}" if refused else _without_keys(what)[:300]
                warn(f"warning: traces: {what}; this is said once, and the run goes on")

    logger = logging.getLogger("opentelemetry")
    logger.addHandler(First(logging.WARNING))
    logger.propagate = False


def _collector() -> str:
    """Return where the collector is, for a person: host and port, and no password."""
    env = os.environ
    named = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return urlsplit(named or "//localhost:4318").netloc.rpartition("@")[2]


def _without_keys(what: str) -> str:
    """Return what the SDK says without the headers for the collector, which it repeats where it cannot read them."""
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        for part in re.split(r"[=,\s]+", os.environ.get(variable, "")):
            what = what.replace(part, "…") if len(part) >= _KEY_CHARS else what
    return what
