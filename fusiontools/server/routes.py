"""What the server says of itself, and the endpoints that are ours alone: models, recipes, estimates, whole records."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterator, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace
from starlette.routing import Route

from fusiontools.config.chain_syntax import spell
from fusiontools.config.models import require_ready
from fusiontools.config.recipe import Recipe, summary, without_private
from fusiontools.config.tool_options import TOOLS_ENDPOINT
from fusiontools.errors import InputError, UsageError, __version__, nearest
from fusiontools.llm.completion import DEPTH
from fusiontools.record import jsonl, schemas
from fusiontools.record.params import PARAMETERS
from fusiontools.record.sections import DERIVED
from fusiontools.record.types import Call
from fusiontools.runs.costs import estimate_calls
from fusiontools.server import metrics
from fusiontools.server.fuse_stream import say_run, show, wait_for, with_question_of_record
from fusiontools.server.jobs import Exchange, Job, record_of
from fusiontools.server.plan import ALIASES
from fusiontools.server.protocols.chat import Chat
from fusiontools.server.protocols.exchange import ApiError, ChatRequest, ResponseMeta
from fusiontools.server.protocols.messages import count
from fusiontools.server.request import (
    JsonRoute,
    Receive,
    RequestLog,
    Send,
    check_size,
    depth_of,
    new_id,
    read_body,
    refuse_unanswerable,
    send_json,
    speaks_anthropic,
)
from fusiontools.server.result import cost_of, error_of, sum_spending

if TYPE_CHECKING:
    from fusiontools.server.state import Server

#: What a component cannot keep: where the file was, which would become where its references start from.
_HEAD = ("$schema", "$id", "$defs")
#: What the page at `/docs` may load: nothing but its own style.
_PAGE_HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
}
_PAGE_STYLE = "body{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}code{font-size:.95em}"


@functools.cache
def openapi_document() -> bytes:
    """Return the OpenAPI document as JSON: `schemas/openapi.json` with every schema that it names put into it.

    That file points at the schemas beside it (`recipe.schema.json#/$defs/model`), which whoever gets the document does
    not have. So each becomes a component, each of its definitions another one, and no reference leaves the document.
    """
    missing: dict[str, tuple[str, Any]] = {}

    def point(value: Any, home: str, resolver: Any) -> Any:
        """Return a value of the file `home` whose references point at components; their targets are `missing` then."""
        if isinstance(value, list):
            return [point(item, home, resolver) for item in value]
        if not isinstance(value, dict):
            return value
        pointed = {key: point(item, home, resolver) for key, item in value.items()}
        target = value.get("$ref")
        if isinstance(target, str) and not target.startswith("#/components/"):
            file, _, pointer = target.partition("#")
            file = file.removesuffix(".schema.json") or home
            name = "_".join([file, *(part for part in pointer.split("/") if part not in ("", "$defs"))])
            missing[name] = (file, resolver.lookup(target))
            pointed["$ref"] = f"#/components/schemas/{name}"
        return pointed

    whole = jsonl.loads((schemas.data_dir("schemas") / "openapi.json").read_bytes())
    whole["info"]["version"] = __version__
    whole = point(whole, "", schemas.registry().resolver(schemas.load("record")["$id"]))
    components = whole["components"]["schemas"]
    while missing:
        name, (file, found) = missing.popitem()
        if name not in components:
            kept = {key: value for key, value in found.contents.items() if key not in _HEAD}
            components[name] = point(kept, file, found.resolver)
    return jsonl.dumps(whole)


#: How long an answer is taken to be in an estimate, where nobody bounds it.
_ASSUMED_TOKENS = 800
#: What a body of `/fuse` may say.
_QUESTION = (
    "id",
    "meta",
    "recipe",
    "prompt",
    "messages",
    "params",
    "fusion",
    "plugins",
    "stream",
    "record",
    *sorted(PARAMETERS),
)
#: What of it is no part of a chat request.
_OF_RECORD = ("id", "meta", "recipe", "prompt", "params", "stream", "record")
_KINDS = {str: "text", dict: "object", bool: "truth value"}
#: Sections of a record that only a chain makes.
_MADE = ("recipe", "route", *DERIVED["route"], "calls", "degraded", "error")


class Routes(Struct, frozen=True):
    """The JSON routes of one server."""

    server: Server

    def routes(self) -> list[Route]:
        """Return where each page is."""
        pages: list[tuple[str, str, Any]] = [
            ("GET", "/", self.front),
            ("GET", "/v1/models", self.models),
            ("GET", "/v1/models/{name:path}", self.model),
            ("GET", "/recipes", self.recipes),
            ("GET", "/recipes/{name}", self.recipe),
            # As other servers of this kind call them.
            ("GET", "/panels", self.recipes),
            ("GET", "/panels/{name}", self.recipe),
            ("GET", "/v1/config", self.config),
            ("GET", "/docs", self.docs),
            ("GET", "/health", self.health),
            ("GET", "/ready", self.ready),
            ("GET", "/metrics", self.metrics),
            ("GET", "/openapi.json", self.openapi),
            ("POST", "/v1/messages/count_tokens", self.count_tokens),
            ("POST", "/v1/estimate", self.estimate),
            ("POST", "/fuse", self.fuse),
            ("POST", "/fuse/{run}/stop", self.stop),
        ]
        return [Route(path, JsonRoute(answer), methods=[method]) for method, path, answer in pages]

    async def front(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say what this is, to a person and to clients that look whether anybody is there."""
        await send_json(send, 200, {"name": "fuse-serve", "models": "/v1/models", "openapi": "/openapi.json"}, {})

    async def models(self, scope: Any, receive: Receive, send: Send) -> None:
        """List what can be asked."""
        listed = self._listing(scope)
        if speaks_anthropic(scope):
            ends = {"has_more": False, "first_id": listed[0]["id"], "last_id": listed[-1]["id"]}
            await send_json(send, 200, {"data": listed, **ends}, {})
            return
        # Codex takes a list without `models` for broken. What it finds there it believes, down to its own instructions,
        # which nobody can say but Codex: for a model that is not in it, it keeps them.
        codex: dict[str, Any] = {"models": []} if b"client_version=" in scope["query_string"] else {}
        await send_json(send, 200, {"object": "list", "data": listed, **codex}, {})

    async def model(self, scope: Any, receive: Receive, send: Send) -> None:
        """Describe one model."""
        name = scope["path_params"]["name"]
        for entry in self._listing(scope):
            if entry["id"] == name:
                await send_json(send, 200, entry, {})
                return
        raise self.server.catalog.unknown(name)

    def _listing(self, scope: Any) -> list[dict[str, Any]]:
        """Return the models as the client's protocol has them."""
        catalog, started = self.server.catalog, self.server.started
        return catalog.anthropic_listing(started) if speaks_anthropic(scope) else catalog.listing(started)

    async def recipes(self, scope: Any, receive: Receive, send: Send) -> None:
        """List the recipes."""
        catalog = self.server.catalog
        entries = [
            {"model": f"fusion/{name}", **_describe(recipe, self._chain_of(name))}
            for name, recipe in catalog.recipes.items()
        ]
        await send_json(send, 200, {"object": "list", "default": catalog.default, "data": entries}, {})

    async def recipe(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show one recipe as a record carries it: models and endpoint names, no URL and no key."""
        catalog, name = self.server.catalog, scope["path_params"]["name"]
        recipe = catalog.recipes[catalog.require_recipe(name)]
        stages = summary(recipe) if self.server.options.show_recipes else without_private(summary(recipe))
        await send_json(send, 200, {**_describe(recipe, self._chain_of(name)), "stages": stages}, {})

    def _chain_of(self, name: str) -> str:
        """Return a recipe's chain as clients see it."""
        return spell(self.server.catalog.chains[name].steps, private=self.server.options.show_recipes)

    async def health(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say that the process lives, and what it offers."""
        recipes = list(self.server.catalog.recipes)
        await send_json(send, 200, {"status": "ok", "version": __version__, "recipes": recipes}, {})

    async def ready(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say whether a question would be taken now."""
        recipe = self.server.catalog.recipes[self.server.catalog.default]
        try:
            for member in recipe.panel.members:
                # A command that prints a key may take its time.
                await asyncio.to_thread(require_ready, recipe.endpoints[member.endpoint])
            self.server.runner.limiter.refuse_if_full()
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

    async def docs(self, scope: Any, receive: Receive, send: Send) -> None:
        """Describe it to a person."""
        await send_json(send, 200, _docs_page(openapi_document()), _PAGE_HEADERS)

    async def config(self, scope: Any, receive: Receive, send: Send) -> None:
        """Show what `fusion` is, and what a request may change of it."""
        name = self.server.catalog.default
        described = _describe(self.server.catalog.recipes[name], self._chain_of(name))
        await send_json(send, 200, {**described, "overrides": self.server.options.overrides}, {})

    async def count_tokens(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say about how many tokens a request of the Messages API has."""
        body = await read_body(scope, receive, self.server.options)
        await self.server.rate_limiter.take(scope["log"].caller)
        await send_json(send, 200, {"input_tokens": count(body)}, {})

    async def estimate(self, scope: Any, receive: Receive, send: Send) -> None:
        """Say what a chat request would cost: the chain itself runs, without calls."""
        request = Chat().read(await read_body(scope, receive, self.server.options))
        check_size(request, self.server.options)
        plan = self.server.planner.plan(request)
        refuse_unanswerable(request)
        await self.server.rate_limiter.take(scope["log"].caller)
        recipe, chain = self.server.planner.chain_of(request)
        record = record_of(request, plan)
        try:
            calls = await estimate_calls(recipe, chain, record, _ASSUMED_TOKENS)
            least = await estimate_calls(recipe, chain, record, _ASSUMED_TOKENS, agreed=True)
        except (InputError, UsageError) as error:
            raise ApiError(400, "invalid_request", error.message) from error
        await send_json(send, 200, _sum_up(recipe, chain.text, calls, least), {})

    async def fuse(self, scope: Any, receive: Receive, send: Send) -> None:
        """Take a question through a chain and show the whole record."""
        server = self.server
        log: RequestLog = scope["log"]
        body = with_question_of_record(await read_body(scope, receive, server.options))
        request = question_of(body)
        check_size(request, server.options)
        DEPTH.set(depth_of(scope, server.options.max_depth) + 1)
        log.model = request.model[:100]
        plan = server.planner.plan(request)
        refuse_unanswerable(request)
        await server.rate_limiter.take(log.caller)
        budget = await server.daily_budgets.of(log.caller)
        server.runner.limiter.refuse_if_full()
        job = Job(server.runner.work(request, plan, budget, body))
        if request.stream:
            exchange = Exchange(request, ResponseMeta(new_id(), int(time.time()), request.model), plan, job, log)
            await say_run(exchange, body, server, scope["peer"], send)
            return
        record = await wait_for(job, scope["peer"])
        if record is None:
            log.outcome = "gone"
            return
        status, headers = 200, {"x-fusion-latency-s": f"{time.monotonic() - log.started:.4f}"}
        if "answer" not in record:
            refused = error_of(record)
            status, headers = refused.status, {**headers, **refused.headers}
        log.outcome, log.cost_usd = (
            ("ok" if status == 200 else "failed"),
            cost_of(record.get("calls", [])),
        )
        await send_json(send, status, show(record, request, plan, body, server), {**headers, **log.cost_header()})

    async def stop(self, scope: Any, receive: Receive, send: Send) -> None:
        """Cut a member of a stream's panel off; the others go on."""
        body = await read_body(scope, receive, self.server.options)
        if not isinstance(member := body.get("member"), str) or len(body) > 1:
            raise ApiError(400, "invalid_request", "say one `member`, as the events name it in `model`", "member")
        await self.server.runs.stop(scope["log"].caller, scope["path_params"]["run"], member)
        await send_json(send, 200, {"stopped": member}, {})


def question_of(body: dict[str, Any]) -> ChatRequest:
    """Read a body of `/fuse`: `messages` or `prompt`, with what a chat request may say beside them.

    Raises:
        ApiError: it is no question, or brings sections along that only a chain makes.
    """
    body = _with_fusion_keys(body)
    forbidden = [key for key in _MADE if key in body and key != "recipe"]
    if forbidden:
        why = f"`{forbidden[0]}` is made by the chain; send a question alone"
        raise ApiError(400, "invalid_request", why, forbidden[0])
    fields = {key: value for key, value in body.items() if key not in _OF_RECORD}
    if "messages" not in body and isinstance(body.get("prompt"), str):
        fields["messages"] = [{"role": "user", "content": body["prompt"]}]
    for key, kind in (("id", str), ("meta", dict), ("params", dict), ("recipe", str), ("stream", bool)):
        if key in body and not isinstance(body[key], kind):
            raise ApiError(400, "invalid_request", f"$.{key}: is no {_KINDS[kind]}", key)
    if body.get("id") == "":
        raise ApiError(400, "invalid_request", "$.id: is empty", "id")
    _refuse_unknown(body)
    fusion = fields.get("fusion")
    if "recipe" in body and (fusion is None or isinstance(fusion, dict)):
        fields["fusion"] = {"recipe": body["recipe"], **(fusion or {})}
    request = Chat().read({**body.get("params", {}), **fields, "stream": body.get("stream", False)})
    return replace(request, over_panel="record" in body, reads_along=request.stream)


#: What other servers of this kind take beside the prompt, and we in `fusion`.
_MOVED = (*ALIASES, "web_search")


def _with_fusion_keys(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body of `/fuse` with what other servers of this kind take beside the prompt where we take it."""
    moved = {key: body[key] for key in _MOVED if body.get(key) is not None}
    panel = body.get("panel")
    if isinstance(panel, str) or (
        isinstance(panel, list) and panel and all(isinstance(member, str) for member in panel)
    ):
        # Where a panel has a name it is a recipe.
        moved["recipe" if isinstance(panel, str) else "panel"] = panel
    kept = {key: value for key, value in body.items() if key not in _MOVED and not (key == "panel" and key in moved)}
    if isinstance(panel, str):
        del kept["panel"]
    if not moved or not isinstance(fusion := body.get("fusion") or {}, dict):
        return kept
    return {**kept, "fusion": {**moved, **fusion}}


def _refuse_unknown(body: Mapping[str, Any]) -> None:
    """Refuse what is no part of a question: whoever says it expects something of it."""
    for key, value in body.items():
        if key in _QUESTION or value in (None, False):
            continue
        near = nearest(key, [*_QUESTION, *schemas.load("fusion")["properties"]])
        where = "; say it in `fusion`" if key in schemas.load("fusion")["properties"] else near
        raise ApiError(400, "invalid_request", f"$.{key[:100]}: unknown here{where}", key[:100])


def _describe(recipe: Recipe, chain: str) -> dict[str, Any]:
    members = [{"model": m.name, "samples": recipe.panel.times_asked(m)} for m in recipe.panel.members]
    return {
        "name": recipe.name,
        "description": recipe.description,
        "chain": chain,
        "tool_fusion": recipe.tool_fusion,
        "panel": members,
        "judge": [model.name for model in recipe.judge.models],
        "synth": [model.name for model in recipe.synth.models],
    }


def _sum_up(recipe: Recipe, chain: str, calls: list[Call], least: list[Call]) -> dict[str, Any]:
    spent = sum_spending(calls)
    stages: dict[str, dict[str, Any]] = {}
    for stage in dict.fromkeys(call["stage"] for call in calls):
        own = [call for call in calls if call["stage"] == stage]
        stages[stage] = {"calls": len(own), "cost_usd": cost_of(own)}
    return {
        "recipe": recipe.name,
        "chain": chain,
        "calls": len(calls),
        "models": list(dict.fromkeys(call["model"] for call in calls if call["endpoint"] != TOOLS_ENDPOINT)),
        "input_tokens": spent.prompt_tokens,
        "max_output_tokens": spent.completion_tokens,
        "cost_usd": spent.cost_usd,
        "least": {"calls": len(least), "cost_usd": cost_of(least)},
        "stages": stages,
    }


@functools.cache
def _docs_page(document: bytes) -> bytes:
    """Return what an OpenAPI document says, for a person: without a script and without another host."""
    openapi = jsonl.loads(document)
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    intro = f'<h1>{escape(title)}</h1><p>The whole of it, for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
    body = "".join(
        _describe_operation(path, verb, said)
        for path, verbs in openapi["paths"].items()
        for verb, said in verbs.items()
    )
    return f"{head}<style>{_PAGE_STYLE}</style><body>{intro}{body}</body></html>".encode()


def _describe_operation(path: str, verb: str, said: dict[str, Any]) -> str:
    lines = [f"<h2><code>{verb.upper()} {escape(path)}</code></h2>", f"<p>{escape(said['summary'])}.</p>"]
    if "description" in said:
        lines.append(f"<p>{escape(said['description'])}</p>")
    lines.append(f"<ul>{''.join(_list_parts(said))}</ul>")
    return "".join(lines)


def _list_parts(said: dict[str, Any]) -> Iterator[str]:
    for kind, content in said.get("requestBody", {}).get("content", {}).items():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        yield f"<li>takes <code>{escape(kind)}</code> {escape(name)}</li>"
    for status, response in said["responses"].items():
        words = response.get("description") or response.get("$ref", "").rpartition("/")[2].replace("_", " ")
        yield f"<li>{escape(status)}: {escape(words)}</li>"
