"""What is ready to be asked: keys that are set, servers on this machine that answer, and the models they have."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fusiontools.config import readiness
from fusiontools.config.models import ENDPOINTS, Endpoint
from fusiontools.config.readiness import lacks, served_models, unused_keys
from fusiontools.config.recipe_yaml import default_choice, load_recipe

Serving = Callable[..., Endpoint]


class Ollama:
    """A server that lists these models, as Ollama does."""

    def __init__(self, models: Sequence[str]) -> None:
        body = json.dumps({"object": "list", "data": [{"id": name} for name in models]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body if self.path == "/v1/models" else b"?")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = Endpoint("ollama", f"http://127.0.0.1:{self.server.server_port}/v1", free=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Let a server with these models be the endpoint `ollama`."""
    started: list[Ollama] = []

    def start(*models: str) -> Endpoint:
        started.append(Ollama(models))
        monkeypatch.setitem(ENDPOINTS, "ollama", started[-1].endpoint)
        return started[-1].endpoint

    yield start
    for each in started:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture
def nobody() -> Iterator[Endpoint]:
    """An endpoint on this machine where nobody listens: its port is taken, so that nobody can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Endpoint("ollama", f"http://127.0.0.1:{taken.getsockname()[1]}/v1", free=True)


def test_an_endpoint_lacks_its_key_until_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lacks(ENDPOINTS["gemini"]) == "export GEMINI_API_KEY=…"
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert lacks(ENDPOINTS["gemini"]) is None


def test_a_server_on_this_machine_is_ready_where_it_answers(serving: Serving, nobody: Endpoint) -> None:
    assert lacks(serving("llama3.2")) is None
    assert lacks(nobody) == f"no server answers at {nobody.base_url.split('/')[2]}"
    assert served_models(nobody) == ()


def test_models_that_write_nothing_are_not_listed(serving: Serving) -> None:
    assert served_models(serving("nomic-embed-text", "qwen3:8b")) == ("qwen3:8b",)


@pytest.mark.parametrize(
    ("pulled", "members", "samples", "judge", "synth"),
    [
        (["a:1b"], ["a:1b"], 3, "lexical", "a:1b"),
        (["a", "b"], ["a", "b"], 1, "lexical", "a"),
        (["a", "b", "c", "d", "e"], ["a", "b", "c"], 1, "d", "d"),
    ],
)
def test_without_a_key_ollama_answers_with_the_models_it_has(
    serving: Serving, pulled: list[str], members: list[str], samples: int, judge: str, synth: str
) -> None:
    serving(*pulled)

    assert default_choice() == "ollama"
    recipe = load_recipe()
    assert [m.model for m in recipe.panel.members] == members
    assert recipe.panel.samples == samples
    assert [*(m.model for m in recipe.judge.models), recipe.judge.method][0] == judge
    assert recipe.synth.models[0].model == synth


def test_an_ollama_without_models_is_not_taken(serving: Serving) -> None:
    serving()

    assert default_choice() == "local"


def test_keys_that_no_endpoint_reads_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MISTRAL_API_KEY", "OPENAI_API_KEY", "FUSION_API_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("GROQ_API_KEY", " ")

    monkeypatch.setenv("SEARCH_ENGINE_API_KEY", "k")

    assert "MISTRAL_API_KEY" in unused_keys()
    assert not {"OPENAI_API_KEY", "FUSION_API_KEY", "GROQ_API_KEY", "SEARCH_ENGINE_API_KEY"} & {*unused_keys()}


def test_what_is_no_list_of_models_is_none(serving: Serving) -> None:
    endpoint = serving("x")

    assert readiness.served_models(Endpoint("other", endpoint.base_url + "/nothing", free=True)) == ()
