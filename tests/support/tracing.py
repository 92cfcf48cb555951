"""Spans that stay in memory, and the tree that they make."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fusiontools.llm.spans import Traces


class Spans:
    """The spans of a test."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traces = Traces(provider, env)

    @property
    def all(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def tree(self) -> list[tuple[str, str]]:
        """Return the name of each span and of the one above it, in the order in which they began."""
        names = {span.context.span_id: span.name for span in self.all if span.context}
        return [(span.name, names.get(span.parent.span_id, "?") if span.parent else "") for span in self.all]

    def said(self) -> str:
        """Return all that the spans say, events and statuses included."""
        return "".join(span.to_json() for span in self.all)
