"""The page at `/docs`: what `/openapi.json` says, for a person, without a script and without another host."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from html import escape
from typing import Any

from fusiontools.record import jsonl

#: What the page may load: nothing but its own style.
HEADERS = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
}
_STYLE = "body{font:16px/1.5 sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}code{font-size:.95em}"


@functools.cache
def docs_page(document: bytes) -> bytes:
    """Return the page for an OpenAPI document."""
    openapi = jsonl.loads(document)
    title = f"{openapi['info']['title']} {openapi['info']['version']}"
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    intro = f'<h1>{escape(title)}</h1><p>The whole of it, for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
    body = "".join(
        _operation(path, verb, said) for path, verbs in openapi["paths"].items() for verb, said in verbs.items()
    )
    return f"{head}<style>{_STYLE}</style><body>{intro}{body}</body></html>".encode()


def _operation(path: str, verb: str, said: dict[str, Any]) -> str:
    lines = [f"<h2><code>{verb.upper()} {escape(path)}</code></h2>", f"<p>{escape(said['summary'])}.</p>"]
    if "description" in said:
        lines.append(f"<p>{escape(said['description'])}</p>")
    lines.append(f"<ul>{''.join(_parts(said))}</ul>")
    return "".join(lines)


def _parts(said: dict[str, Any]) -> Iterator[str]:
    for kind, content in said.get("requestBody", {}).get("content", {}).items():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        yield f"<li>takes <code>{escape(kind)}</code> {escape(name)}</li>"
    for status, response in said["responses"].items():
        words = response.get("description") or response.get("$ref", "").rpartition("/")[2].replace("_", " ")
        yield f"<li>{escape(status)}: {escape(words)}</li>"
