"""The page's routes: what they send, to whom, and the keys that the page may bring."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from serving import RECIPE, Server
from workdir import Run, Serve, Upstream

import fusiontools

PAGE = {"accept": "text/html,application/xhtml+xml"}


def test_a_browser_gets_the_page_and_a_client_the_words(server: Server) -> None:
    page, words = server.get("/", headers=PAGE), server.get("/")

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert words.json()["name"] == "fuse-serve"
    assert (page.headers["vary"], words.headers["vary"]) == ("accept", "accept")


def test_what_the_page_may_do_stands_in_its_head(server: Server) -> None:
    for path in ("/", "/page/files/app.js", "/page/files/icon.svg"):
        head = server.get(path, headers=PAGE).headers
        policy = dict(part.strip().partition(" ")[::2] for part in head["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'",) * 3
        assert policy["img-src"] == "'self' data:"
        assert policy["require-trusted-types-for"] == "'script'"
        assert policy["frame-ancestors"] == "'none'"
        assert head["x-content-type-options"] == "nosniff"


def test_a_file_that_is_known_is_not_sent_again(server: Server) -> None:
    first = server.get("/page/files/app.js")

    again = server.get("/page/files/app.js", headers={"if-none-match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert first.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["../routes.py", "..%2froutes.py", "%2e%2e/state.py", "/etc/passwd", "nowhere.js", ""])
def test_nothing_but_the_pages_own_files_is_sent(server: Server, path: str) -> None:
    assert server.get(f"/page/files/{path}").status_code == 404


def test_without_a_page_there_is_none(standing: Serve) -> None:
    server = standing("--no-page")

    assert server.get("/", headers=PAGE).json()["name"] == "fuse-serve"
    for path in ("/page/files/app.js", "/page/state"):
        assert server.get(path).status_code == 404


def test_behind_keys_the_page_comes_and_says_nothing_of_the_server(standing: Serve) -> None:
    server = standing(env={"FUSION_SERVER_API_KEYS": "key-of-the-server"})

    assert server.get("/", headers=PAGE).status_code == 200
    assert server.get("/page/files/app.js").status_code == 200
    assert server.get("/page/state").status_code == 401
    assert server.get("/").status_code == 401
    assert server.get("/page/state", headers={"authorization": "Bearer key-of-the-server"}).status_code == 200


def test_a_page_of_another_name_or_origin_is_told_nothing(server: Server) -> None:
    assert server.get("/", headers={**PAGE, "host": "evil.example"}).status_code == 400
    assert server.get("/page/state", headers={"origin": "https://evil.example"}).status_code == 403


def test_the_page_is_small_plain_files_which_name_no_host_and_make_no_html_of_texts() -> None:
    files = [path for path in (Path(fusiontools.__file__).parent / "server/page").iterdir() if path.is_file()]

    assert {path.suffix for path in files} == {".js", ".css", ".html", ".svg"}
    for path in files:
        text = path.read_text()
        assert text.count("\n") <= 400, path.name
        assert not re.search("innerHTML|outerHTML|insertAdjacentHTML|document.write|eval\\(|new Function", text), (
            path.name
        )
        hosts = set(re.findall(r"https?://([\w.-]+\w)", text)) - {"www.w3.org"}
        assert hosts == set(), path.name


# --- Keys ---


def keyless(upstream: Upstream) -> str:
    return f"{RECIPE}endpoint: mine\nendpoints: {{mine: {{base_url: '{upstream.url}', api_key_env: MY_KEY}}}}\n"


NO_KEY = {"FUSION_BASE_URL": "", "BROWSER": "true"}


def test_a_key_that_is_brought_is_used_shown_to_nobody_and_taken_once(serve: Serve, upstream: Upstream) -> None:
    server = serve("--open", "--log", recipe=keyless(upstream), env=NO_KEY)
    [lacking] = [e for e in server.get("/page/state").json()["endpoints"] if e["needed"]]
    assert (lacking["name"], lacking["takes_key"]) == ("mine", True)
    assert server.chat().status_code == 502

    brought = server.post("/page/key", {"endpoint": "mine", "key": " sk-of-mine-1 "})

    assert brought.json() == {"endpoint": "mine"}
    assert server.chat().status_code == 200
    assert upstream.requests()[-1]["headers"]["authorization"] == "Bearer sk-of-mine-1"
    assert server.post("/page/key", {"endpoint": "mine", "key": "sk-another"}).status_code == 400
    said = server.get("/page/state").text + server.get("/v1/config").text + server.get("/metrics").text + server.said()
    assert "sk-of-mine-1" not in said


def test_the_page_is_opened_once(serve: Serve, tmp_path: Path) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    browser.chmod(0o755)

    server = serve("--open", env={"BROWSER": str(browser)})

    for _ in range(500):
        if opened.exists() and server.get("/health").status_code == 200:
            break
        time.sleep(0.02)
    assert opened.read_text().split() == [server.url]


@pytest.mark.parametrize("key", ["", "  ", "with space", "ümlaut", "x" * 513, 7, None, "a\nb"])
def test_what_is_no_key_is_refused_and_not_repeated(standing: Serve, upstream: Upstream, key: object) -> None:
    server = standing("--open", recipe=keyless(upstream), env=NO_KEY)

    refused = server.post("/page/key", {"endpoint": "mine", "key": key})

    assert refused.status_code == 400
    assert not isinstance(key, str) or len(key.strip()) < 3 or key not in refused.text


@pytest.mark.parametrize("options", [("--no-page-keys",), ("--host", "0.0.0.0"), ("--allow-host", "fusion.example")])  # noqa: S104
def test_where_others_could_bring_keys_nobody_may(serve: Serve, options: tuple[str, ...]) -> None:
    server = serve(*options, env={"FUSION_SERVER_API_KEYS": "key-of-the-server"})
    shown = {"authorization": "Bearer key-of-the-server"}

    refused = server.post("/page/key", {"endpoint": "openrouter", "key": "sk-mine"}, shown)

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "page_keys_off")
    assert server.get("/page/state", headers=shown).json()["page_keys"] is False


def test_another_origin_that_may_ask_questions_may_bring_no_key(serve: Serve) -> None:
    server = serve("--allow-origin", "https://app.example")
    origin = {"origin": "https://app.example"}

    assert server.chat(headers=origin).status_code == 200
    assert server.post("/page/key", {"endpoint": "openrouter", "key": "sk-mine"}, origin).status_code == 403


def test_without_open_a_missing_key_is_said_at_once(
    run: Run, upstream: Upstream, tmp_path: object, env: dict[str, str]
) -> None:
    result = run(
        ["sh", "-c", f'printf %s "{keyless(upstream)}" > r.yaml; exec fuse-serve -c r.yaml --port 0'],
        env={**env, **NO_KEY},
    )

    assert result.status == 2
    assert "endpoint mine needs a key" in result.err


def test_open_without_a_page_cannot_be(run: Run) -> None:
    result = run(["fuse-serve", "--open", "--no-page"])

    assert (result.status, "--no-page" in result.err) == (2, True)
