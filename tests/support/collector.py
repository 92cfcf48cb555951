"""A collector of traces on loopback, in a process of its own: OTLP over HTTP, as OpenTelemetry's exporters send it.

    python tests/support/collector.py [--status 200]

prints its address when it listens, and ends when the pipe on its stdin closes.

    POST /v1/traces   an ExportTraceServiceRequest in protobuf, gzipped or not
    GET  /spans       what has come, as JSON: the resource's and the span's attributes, ids in hex
    POST /reset       forgets all
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SPANS: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Collector:
    """A running collector."""

    url: str

    def spans(self) -> list[dict[str, Any]]:
        """Return the spans that have come, the one that began first first."""
        with urllib.request.urlopen(f"{self.url}/spans", timeout=60) as response:  # noqa: S310
            return sorted(json.load(response), key=lambda span: span["began"])

    def reset(self) -> None:
        request = urllib.request.Request(f"{self.url}/reset", b"", method="POST")  # noqa: S310
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310


@contextlib.contextmanager
def start_collector(*options: str) -> Iterator[Collector]:
    """Run this file until the block ends."""
    with subprocess.Popen(
        [sys.executable, __file__, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield Collector(process.stdout.readline().strip())
        finally:
            process.terminate()


def read_spans(body: bytes) -> Iterator[dict[str, Any]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    for traced in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = {pair.key: plain(pair.value) for pair in traced.resource.attributes}
        for scoped in traced.scope_spans:
            for span in scoped.spans:
                yield {
                    "resource": resource, "schema": scoped.schema_url, "name": span.name, "kind": span.kind,
                    "trace": span.trace_id.hex(), "id": span.span_id.hex(), "parent": span.parent_span_id.hex(),
                    "began": span.start_time_unix_nano, "ended": span.end_time_unix_nano, "status": span.status.code,
                    "attributes": {pair.key: plain(pair.value) for pair in span.attributes},
                }  # fmt: skip


def plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [plain(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


class Handler(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.reply(200, json.dumps(SPANS).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/reset":
            SPANS.clear()
        elif self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf":
            if self.status == 200:
                SPANS.extend(read_spans(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body))
            return self.reply(self.status, b"")
        else:
            return self.reply(400, b"")
        return self.reply(200, b"")

    def reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--status", type=int, default=200)
    Handler.status = parser.parse_args().status
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
