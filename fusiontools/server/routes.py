"""What the server says of itself, and the endpoints that are ours alone: models, recipes, estimates, whole records.

The OpenAPI document: `schemas/openapi.json` with every schema that it names put into it.

That file points at the schemas beside it (`chat.schema.json`, `recipe.schema.json#/$defs/model`). Whoever gets the
document has none of them. So each becomes a component, each of its definitions another one, and no reference leaves
the document.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from fusiontools.chain import estimate_calls
from fusiontools.config.models import require_key
from fusiontools.config.recipe import Recipe, summary
from fusiontools.errors import InputError, UsageError, __version__
from fusiontools.llm.http import DEPTH
from fusiontools.record import jsonl, schemas
from fusiontools.record.schemas import data_dir
from fusiontools.record.sections import DERIVED
from fusiontools.record.types import Call
from fusiontools.server import metrics
from fusiontools.server.jobs import Job, Receive, Subscriber, record_of
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, WireProtocol
from fusiontools.server.protocols.messages import Messages, count
from fusiontools.server.request import check_size, depth_of, read_body, refuse_unanswerable
from fusiontools.server.result import refusal_of, scrubbed_record, spent_on
from fusiontools.server.state import Server
from fusiontools.server.streaming import Send, send_json

_COMPONENTS = "#/components/schemas/"
_FILE = ".schema.json"
#: What a component cannot keep: where the file was, which would become where its references start from.
_HEAD = ("$schema", "$id", "$defs")


@functools.cache
def openapi_document() -> bytes:
    """Return the document as JSON."""
    whole = jsonl.loads((data_dir("schemas") / "openapi.json").read_bytes())
    whole["info"]["version"] = __version__
    missing: dict[str, tuple[str, Any]] = {}
    whole = _pointed(whole, "", missing)
    components = whole["components"]["schemas"]
    while missing:
        name, (home, found) = missing.popitem()
        if name not in components:
            components[name] = _pointed(found, home, missing)
    return jsonl.dumps(whole)


def _pointed(value: Any, home: str, missing: dict[str, tuple[str, Any]]) -> Any:
    """Return a value whose references point at components; those that are new stand in `missing` then.

    Args:
        home: the schema file that the value comes from; none for the document itself.
        missing: components that are still to be made, each with the file that it comes from.
    """
    if isinstance(value, list):
        return [_pointed(item, home, missing) for item in value]
    if not isinstance(value, dict):
        return value
    pointed = {key: _pointed(item, home, missing) for key, item in value.items()}
    if isinstance(target := value.get("$ref"), str):
        pointed["$ref"] = _component(target, home, missing)
    return pointed


def _component(target: str, home: str, missing: dict[str, tuple[str, Any]]) -> str:
    """Return where in the document a reference's target is: a schema as `chat`, its definition as `recipe_model`."""
    file, _, path = target.partition("#")
    name = file.removesuffix(_FILE) or home
    if not name:
        return target
    schema = schemas.load(name)
    if path.startswith("/$defs/"):
        definition, _, rest = path.removeprefix("/$defs/").partition("/")
        missing[f"{name}_{definition}"] = (name, schema["$defs"][definition])
        return f"{_COMPONENTS}{name}_{definition}" + (f"/{rest}" if rest else "")
    missing[name] = (name, {key: value for key, value in schema.items() if key not in _HEAD})
    return f"{_COMPONENTS}{name}{path}"


#: How long an answer is taken to be in an estimate, where nobody bounds it.
_ASSUMED_TOKENS = 800
#: Sections of a record that only a chain makes.
_MADE = ("recipe", "route", *DERIVED["route"], "calls", "degraded", "error")


@dataclass(frozen=True, slots=True)
class JsonRoute:
    """An ASGI app around a function that answers with JSON; what it refuses is said in a dialect."""

    answer: Callable[[Any, Receive, Send], Awaitable[None]]
    dialect: WireProtocol

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        try:
            await self.answer(scope, receive, send)
        except ApiError as refused:
            scope["visit"].outcome = scope["visit"].outcome or refused.code
            await send_json(send, refused.status, self.dialect.error(refused), refused.headers)


@dataclass(frozen=True, slots=True)
class Routes:
    """The pages of one server."""

    server: Server

    def routes(self) -> list[Route]:
        """Return where each page is."""
        pages: list[tuple[str, str, Any]] = [
            ("GET", "/", self.front),
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{name:path}", self.model),
            ("GET", "/recipes", self.recipes),
            ("GET", "/recipes/{name}", self.recipe),
            ("GET", "/health", self.health),
            ("GET", "/ready", self.ready),
            ("GET", "/metrics", self.metrics),
            ("GET", "/openapi.json", self.openapi),
            ("POST", "/v1/estimate", self.estimate),
            ("POST", "/fuse", self.fuse),
        ]
        routes = [Route(path, JsonRoute(answer, Chat()), methods=[method]) for method, path, answer in pages]
        return [*routes, Route("/v1/messages/count_tokens", JsonRoute(self.count_tokens, Messages()), methods=["POST"])]

    async def front(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say what this is, to a person and to clients that look whether anybody is there."""
        await send_json(send, 200, {"name": "fuse-serve", "models": "/v1/models", "openapi": "/openapi.json"}, {})

    async def models(self, scope: Any, receive: Receive, send: Send) -> None:
        """List what can be asked."""
        listed = self.server.menu.listing(self.server.started)
        # `has_more` and the ids are for clients that speak Anthropic's protocol.
        ends = {"has_more": False, "first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
        await send_json(send, 200, {"object": "list", "data": listed, **ends}, {})

    async def model(self, scope: Any, receive: Receive, send: Send) -> None:
        """Describe one model."""
        name = scope["path_params"]["name"]
        for entry in self.server.menu.listing(self.server.started):
            if entry["id"] == name:
                await send_json(send, 200, entry, {})
                return
        raise self.server.menu.unknown(name)

    async def recipes(self, scope: Any, receive: Receive, send: Send) -> None:
        """List the recipes."""
        menu = self.server.menu
        told = [
            {"model": f"fusion/{name}", **_told(recipe, menu.chains[name].text)}
            for name, recipe in menu.recipes.items()
        ]
        await send_json(send, 200, {"object": "list", "default": menu.default, "data": told}, {})

    async def recipe(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show one recipe as a record carries it: models and endpoint names, no URL and no key."""
        menu, name = self.server.menu, scope["path_params"]["name"]
        recipe = menu.recipes[menu.known_recipe(name)]
        await send_json(send, 200, {**_told(recipe, menu.chains[name].text), "stages": summary(recipe)}, {})

    async def health(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say that the process lives."""
        await send_json(send, 200, {"status": "ok"}, {})

    async def ready(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say whether a question would be taken now."""
        recipe = self.server.menu.recipes[self.server.menu.default]
        try:
            for member in recipe.panel.members:
                require_key(recipe.endpoints[member.endpoint])
            self.server.kitchen.gate.refuse_if_full()
        except UsageError as error:
            await send_json(send, 503, {"status": "no_key", "detail": error.message}, {})
        except ApiError as refused:
            await send_json(send, 503, {"status": "busy"}, refused.headers)
        else:
            await send_json(send, 200, {"status": "ready"}, {})

    async def metrics(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show all counters."""
        await send_json(send, 200, self.server.metrics.text(), {"content-type": metrics.CONTENT_TYPE})

    async def openapi(self, scope: Any, receive: Receive, send: Send) -> None:
        """Describe all of this."""
        await send_json(send, 200, openapi_document(), {})

    async def count_tokens(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say about how many tokens a request of the Messages API has."""
        body = await read_body(receive, self.server)
        self.server.rates.take(scope["visit"].caller)
        await send_json(send, 200, {"input_tokens": count(body)}, {})

    async def estimate(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say what a chat request would cost: the chain itself runs, without calls."""
        asked = Chat().read(await read_body(receive, self.server))
        check_size(asked, self.server)
        order = self.server.orders.take(asked)
        refuse_unanswerable(asked)
        self.server.rates.take(scope["visit"].caller)
        recipe, chain = self.server.orders.chain_of(asked)
        record = record_of(asked, order)
        try:
            calls = await estimate_calls(recipe, chain, record, _ASSUMED_TOKENS)
        except (InputError, UsageError) as error:
            raise ApiError(400, "invalid_request", error.message) from error
        await send_json(send, 200, _estimated(recipe, chain.text, calls), {})

    async def fuse(self, scope: Any, receive: Receive, send: Send) -> None:
        """Take a question through a chain and show the whole record."""
        visit = scope["visit"]
        visit.outcome = "refused"
        try:
            await self._fuse(scope, receive, send)
        except ApiError as refused:
            visit.outcome = refused.code
            raise
        finally:
            self.server.metrics.request("fuse", visit.outcome, time.monotonic() - visit.started)

    async def _fuse(self, scope: Any, receive: Receive, send: Send) -> None:
        server, visit = self.server, scope["visit"]
        body = await read_body(receive, server)
        asked = question_of(body)
        check_size(asked, server)
        DEPTH.set(depth_of(scope, server.options.max_depth) + 1)
        visit.model = asked.model[:100]
        order = server.orders.take(asked)
        refuse_unanswerable(asked)
        server.rates.take(visit.caller)
        purse = server.purses.of(visit.caller)
        server.kitchen.gate.refuse_if_full()
        flight = Job(server.kitchen.work(asked, order, purse, body))
        async with Subscriber(flight, receive) as listener:
            while not (listener.gone or listener.finished):
                await listener.more()
            if listener.gone:
                visit.outcome = "gone"
                return
        record: Any = flight.task.result()
        status, headers = 200, {"x-fusion-latency-s": f"{time.monotonic() - visit.started:.4f}"}
        if "answer" not in record:
            refused = refusal_of(record)
            status, headers = refused.status, {**headers, **refused.headers}
        visit.outcome, visit.cost_usd = (
            ("ok" if status == 200 else "failed"),
            spent_on(record.get("calls", [])).cost_usd,
        )
        if visit.cost_usd is not None:
            headers["x-fusion-cost-usd"] = f"{visit.cost_usd:.8f}"
        await send_json(send, status, scrubbed_record(record), headers)


def question_of(body: dict[str, Any]) -> ChatRequest:
    """Read a body of `/fuse`: `messages` or `prompt`, with what a chat request may say beside them.

    Raises:
        Refused: it is no question, or brings sections along that only a chain makes.
    """
    made = [key for key in _MADE if key in body and key != "recipe"]
    if made:
        raise ApiError(400, "invalid_request", f"`{made[0]}` is made by the chain; send a question alone", made[0])
    said = {key: value for key, value in body.items() if key not in ("id", "meta", "recipe", "prompt", "params")}
    if "messages" not in body and isinstance(body.get("prompt"), str):
        said["messages"] = [{"role": "user", "content": body["prompt"]}]
    for key, kind in (("id", str), ("meta", dict), ("params", dict), ("recipe", str)):
        if key in body and not isinstance(body[key], kind):
            raise ApiError(400, "invalid_request", f"$.{key}: is no {'text' if kind is str else 'object'}", key)
    if body.get("id") == "":
        raise ApiError(400, "invalid_request", "$.id: is empty", "id")
    fusion = said.get("fusion")
    if "recipe" in body and (fusion is None or isinstance(fusion, dict)):
        said["fusion"] = {"recipe": body["recipe"], **(fusion or {})}
    return Chat().read({**body.get("params", {}), **said, "stream": False})


def _told(recipe: Recipe, chain: str) -> dict[str, Any]:
    members = [{"model": m.name, "samples": m.samples * recipe.panel.samples_of()} for m in recipe.panel.members]
    return {
        "name": recipe.name,
        "description": recipe.description,
        "chain": chain,
        "tool_fusion": recipe.tool_fusion,
        "panel": members,
        "judge": [model.name for model in recipe.judge.models],
        "synth": [model.name for model in recipe.synth.models],
    }


def _estimated(recipe: Recipe, chain: str, calls: list[Call]) -> dict[str, Any]:
    spent = spent_on(calls)
    stages: dict[str, dict[str, Any]] = {}
    for stage in dict.fromkeys(call["stage"] for call in calls):
        own = [call for call in calls if call["stage"] == stage]
        stages[stage] = {"calls": len(own), "cost_usd": spent_on(own).cost_usd}
    return {
        "recipe": recipe.name,
        "chain": chain,
        "calls": len(calls),
        "models": list(dict.fromkeys(call["model"] for call in calls)),
        "input_tokens": spent.prompt_tokens,
        "max_output_tokens": spent.completion_tokens,
        "cost_usd": spent.cost_usd,
        "stages": stages,
    }
