"""A stand-in for the batch APIs of five providers on loopback, in a process of its own, as strict as the real ones.

    python tests/support/batch_upstream.py

prints its root URL when it listens, and ends when the pipe on its stdin closes. Beneath the root are `/openai/v1`,
`/mistral/v1`, `/openrouter/api/v1`, `/anthropic/v1` and `/gemini`; what each takes and refuses stands in
`batch_apis.py`. What a model answers stands in its name, as `fake_models.py` reads it. A job makes its calls when it
ends: at the look at it that `Settings.looks` counts, or when a test says so.

    GET  /control           jobs, how often each call was made, every request so far, whether one is held
    POST /control           {"set": {…}} changes `Settings`; {"end": {…}} ends every job that is under way, with these
                            settings; {"release": true} lets go what is held; {"reset": true} forgets everything
    POST /v1/chat/completions, beneath each of them: the same models at once
"""

from __future__ import annotations

import json
import random
import re
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import batch_apis
import fake_models
import orjson
from batch_apis import FakeJob

KEY = "test-key"


@dataclass
class Settings:
    """What happens to jobs."""

    #: The look at a job at which it has ended; 0 is none.
    looks: int = 1
    #: So many looks find a job that is being checked, where an API has a word for that.
    checks: int = 1
    #: How: completed, expired, cancelled, or failed.
    how: str = "completed"
    #: The share of the calls that are made by then, and how many of these are in no result.
    share: float = 1.0
    lost: int = 0
    #: Why the next job is refused, once it is looked at.
    faults: list[dict[str, Any]] = field(default_factory=list)
    #: How the next requests to create a job are refused: [status, message].
    refusals: list[list[Any]] = field(default_factory=list)
    #: So many calls may wait in jobs; more are refused once the job is looked at.
    queue: int = 10**9
    #: So many looks a job takes to end that is cancelled.
    cancelling: int = 1
    #: So many looks find no job.
    absent: int = 0
    #: The status with which these are told so.
    absent_status: int = 404
    #: So many jobs are in no list.
    unlisted: int = 0
    max_lines: int = 50_000
    max_bytes: int = 200_000_000
    #: A request that is held: [method, pattern of its path, when]: before or after it is done; or it is never done.
    hold: list[str] = field(default_factory=list)


class Book:
    """What all requests share."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.released = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.settings = Settings()
        self.files: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, FakeJob] = {}
        self.made: Counter[str] = Counter()
        self.direct: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.log: list[str] = []
        self.holding = False
        self.released.set()
        self.released = threading.Event()

    def control(self, said: dict[str, Any]) -> None:
        if said.get("reset"):
            self.reset()
        if said.get("release"):
            self.holding, self.settings.hold = False, []
            self.released.set()
            self.released = threading.Event()
        for name, value in said.get("set", {}).items():
            assert name in {f.name for f in fields(Settings)}, name
            setattr(self.settings, name, value)
        if "end" in said:
            settings = Settings(**{**asdict(self.settings), **said["end"]})
            for job in self.jobs.values():
                if job.state == "under way":
                    self.end(job, settings)

    def told(self) -> dict[str, Any]:
        return {
            "jobs": [
                {
                    "id": j.id,
                    "api": j.api,
                    "model": j.model,
                    "calls": len(j.lines),
                    "state": j.state,
                    "said": j.said,
                    "lines": j.lines[:9],
                }
                for j in self.jobs.values()
            ],
            "made": self.made,
            "direct": self.direct,
            "log": self.log,
            "holding": self.holding,
        }

    def look(self, job: FakeJob) -> None:
        """Count a look; end the job where it is time."""
        job.looks += 1
        job.checking = job.looks < self.settings.checks
        if job.state == "cancelling":
            self.settings.cancelling -= 1
        if job.state == "cancelling" and self.settings.cancelling <= 0:
            self.end(job, Settings(how="cancelled", share=self.settings.share))
        elif job.state == "under way" and not job.checking and self.settings.looks and job.looks >= self.settings.looks:
            self.end(job, self.settings)

    def end(self, job: FakeJob, settings: Settings) -> None:
        waiting = sum(len(other.lines) for other in self.jobs.values() if other.state in ("under way", "cancelling"))
        if waiting > settings.queue:
            job.faults = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None}]
        job.faults = job.faults or self.settings.faults
        self.settings.faults = []
        if job.faults:
            job.state = "failed"
            return
        job.state = settings.how
        count = round(len(job.lines) * settings.share)
        shuffled = random.Random(job.id).sample(range(len(job.lines)), len(job.lines))
        for nth, at in enumerate(shuffled):
            line = job.lines[at]
            if nth >= count:
                if settings.how != "completed":
                    batch_apis.leave(job, line, settings.how)
                continue
            self.made[line["custom_id"]] += 1
            self.asked[job.model] += 1
            if nth >= settings.lost:
                batch_apis.make(job, line, self.asked[job.model])


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    book: Book

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        if parts.path == "/control":
            with self.book.lock:
                if method == "POST":
                    self.book.control(json.loads(body))
                self._send(200, orjson.dumps(self.book.told()))
            return
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        held = self._holds(method, parts.path)
        if held in ("before", "never"):
            self._hold()
        if held == "never":
            self.close_connection = True
            return
        with self.book.lock:
            self.book.log.append(f"{method} {parts.path}")
            try:
                status, said, headers = self._work(method, parts.path, query, body)
            except batch_apis.Refused as refused:
                status, said, headers = refused.status, refused.body, {}
        if held == "after":
            self._hold()
        self._send(status, said if isinstance(said, bytes) else orjson.dumps(said), headers)

    def _work(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any, dict[str, str]]:
        _, name, rest = path.split("/", 2)
        api = batch_apis.APIS[name]
        asked = {key.lower(): value for key, value in self.headers.items()}
        if rest.endswith("chat/completions") and method == "POST":
            request = fake_models.check(body)
            self.book.direct[request["model"]] += 1
            answer = fake_models.answer(request, self.book.direct[request["model"]])
            return answer.status, b"".join(piece for _, piece in fake_models.body(answer)), {}
        api.admit(asked, KEY)
        for wanted, pattern, work in api.routes:
            if wanted == method and (found := re.fullmatch(pattern, f"/{rest}")):
                return batch_apis.whole(work(self.book, *found.groups(), query=query, body=body, headers=asked))
        raise batch_apis.Refused(404, {"error": {"message": f"Not found: {method} {path}"}})

    def _holds(self, method: str, path: str) -> str:
        hold = self.book.settings.hold
        return hold[2] if hold and hold[0] == method and re.search(hold[1], path) else ""

    def _hold(self) -> None:
        self.book.settings.hold = []
        self.book.holding = True
        self.book.released.wait(60)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {"content-type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client has gone


def main() -> None:
    Handler.book = Book()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
