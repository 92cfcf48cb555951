"""Members that look things up, for real: a search engine, a small web, a panel over HTTP, and what is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from webbing import Web
from workdir import SUPPORT, Result, Run, Upstream

from fusiontools.record.schemas import check_of

QUESTION = "Merging without locks?\n"


@pytest.fixture
def recipe(tmp_path: Path, web: Web) -> str:
    path = tmp_path / "research.yaml"
    settings = {
        "search": "searxng",
        "private_hosts": [web.address],
        "panel": {"members": ["fake/a+research", "fake/b+research"], "tools": ["web_search", "web_fetch"]},
        "judge": {"model": "fake/judge+judge"},
        "synth": {"model": "fake/writer+research"},
    }
    path.write_text(json.dumps(settings))
    return str(path)


Ask = Callable[..., Result]


@pytest.fixture
def ask(run: Run, env: dict[str, str], web: Web) -> Ask:
    def asked(command: str, stdin: Any = QUESTION, **settings: Any) -> Result:
        result = run(command, stdin, env={**env, "SEARXNG_URL": f"{web.url}/searx/"}, pipefail=True, **settings)
        for record in result.records if result.out.startswith(b'{"id"') else []:
            assert check_of("record")(record)
        return result

    return asked


def test_members_search_fetch_and_cite_and_the_answer_keeps_what_it_cites(ask: Ask, web: Web, recipe: str) -> None:
    [record] = ask(f"fuse-panel -c {recipe} | fuse-judge -c {recipe} | fuse-synth -c {recipe}").records

    page = f"{web.url}/article"
    for response in record["panel"]:
        assert page in response["content"]
        assert (response["sources"][0]["url"], response["sources"][0]["how"]) == (page, "fetched")
        assert [use["name"] for use in response["tool_runs"]] == ["web_search", "web_fetch"]
    assert len(web.requests("/searx/search")) == 1
    assert len(web.requests("/article")) == 1


def test_a_replay_asks_nobody_and_gives_the_same_bytes(ask: Ask, web: Web, upstream: Upstream, recipe: str) -> None:
    bought = ask(f"fuse-panel -c {recipe}").records
    web.reset()
    upstream.reset()

    replayed = ask(f"fuse-panel -c {recipe} --offline").records

    assert [record["panel"] for record in replayed] == [record["panel"] for record in bought]
    assert (web.requests(), upstream.requests()) == ([], [])
    assert {call["replayed"] for call in replayed[0]["calls"]} == {True}


def test_an_endpoint_that_takes_no_thoughts_back_gets_none(ask: Ask, recipe: str) -> None:
    members(recipe, "fake/a+nothoughts+research+reasoning", panel={"tools": ["web_search", "web_fetch"]})

    [record] = ask(f"fuse-panel -c {recipe}").records

    assert [use["name"] for use in record["panel"][0]["tool_runs"]] == ["web_search", "web_fetch"]


def test_the_cost_report_counts_runs_of_tools(ask: Ask, recipe: str) -> None:
    result = ask(f"fuse-panel -c {recipe} | fuse-cost --by model -o json")

    [row] = [row for row in json.loads(result.out)["rows"] if row["model"] == "web_search"]
    assert (row["calls"], row["failed"]) == (2, 0)


def test_a_judge_gets_no_tool_from_a_record(ask: Ask, recipe: str, tmp_path: Path) -> None:
    spec = json.loads(Path(recipe).read_text())
    spec["judge"]["tools"] = ["web_search"]
    Path(recipe).write_text(json.dumps(spec))

    own = ask(f"fuse-panel -c {recipe} | fuse-judge -c {recipe}").records[0]
    carried = ask(f"fuse-panel -c {recipe} | fuse-judge").records[0]

    assert "no_tools" not in [note["code"] for note in own.get("degraded", [])]
    assert "no_tools" in [note["code"] for note in carried["degraded"]]


def test_a_judge_of_a_whole_chain_has_the_tools_that_its_recipe_says(ask: Ask, recipe: str) -> None:
    spec = json.loads(Path(recipe).read_text())
    spec["judge"] = {"model": "fake/judge+research", "tools": ["web_search"]}
    Path(recipe).write_text(json.dumps({**spec, "chain": "panel | judge | vote"}))

    [record] = ask(f"fuse-ask --json -c {recipe} Merging without locks", b"").records

    assert [c["model"] for c in record["calls"] if (c["stage"], c["endpoint"]) == ("judge", "tools")] == ["web_search"]


def test_web_search_on_the_command_line_is_short_for_search_and_fetch(ask: Ask, web: Web, recipe: str) -> None:
    spec = json.loads(Path(recipe).read_text())
    del spec["panel"]["tools"]
    Path(recipe).write_text(json.dumps(spec))

    plain, searched = (ask(f"fuse-panel -c {recipe} {flag}").records[0] for flag in ("", "--web-search"))

    assert "tool_runs" not in plain["panel"][0]
    assert [use["name"] for use in searched["panel"][0]["tool_runs"]] == ["web_search", "web_fetch"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [("--tools web_serch", "did you mean 'web_search'?"), ("--tools mcp:wiki", "a recipe defines them under `mcp:`")],
)
def test_a_tool_that_is_none_is_a_usage_error_before_anything_is_bought(
    ask: Ask, upstream: Upstream, recipe: str, flags: str, said: str
) -> None:
    result = ask(f"fuse-panel -c {recipe} {flags}")

    assert result.status == 2
    assert said in result.err
    assert upstream.requests() == []


def test_what_a_page_tells_a_model_to_fetch_is_not_fetched(ask: Ask, web: Web, recipe: str) -> None:
    spec = json.loads(Path(recipe).read_text())
    spec |= {"fetch": "results"}
    spec["panel"]["members"] = ["fake/a+obeys"]
    Path(recipe).write_text(json.dumps(spec))

    [record] = ask(f"fuse-panel -c {recipe}").records

    statuses = [use["status"] for use in record["panel"][0]["tool_runs"]]
    assert statuses[:2] == ["ok", "ok"]
    assert web.inner_connections() == 0


@pytest.mark.parametrize("policy", ["seen", "results", "any"])
@pytest.mark.parametrize(("question", "page"), [("Weather report?", "/forged"), ("Bread tonight?", "/hidden")])
def test_nothing_that_a_page_says_reaches_a_shell_or_an_address_of_this_machine(
    ask: Ask, web: Web, upstream: Upstream, recipe: str, question: str, page: str, policy: str
) -> None:
    members(recipe, "fake/a+obeys", fetch=policy, panel={"tools": ["web_search", "web_fetch", "bash"]})

    [record] = ask(f"fuse-panel -c {recipe}", question.split()[0]).records

    assert {use["name"] for use in record["panel"][0]["tool_runs"]} == {"web_search", "web_fetch"}
    assert {asked["target"].split("?")[0] for asked in web.requests()} == {"/searx/search", "/robots.txt", page}
    told = json.dumps(upstream.bodies()[-1]["messages"])
    assert "HIDDEN-" not in told
    assert "\\u200b" not in told
    assert all(use["status"] != "ok" for use in record["panel"][0]["tool_runs"][2:] if page == "/forged")


@pytest.mark.parametrize(("policy", "leaks"), [("seen", False), ("results", True), ("any", True)])
def test_what_a_model_writes_into_an_address_leaves_only_where_that_is_allowed(
    ask: Ask, web: Web, recipe: str, policy: str, leaks: bool
) -> None:
    members(recipe, "fake/a+leaks", fetch=policy, panel={"tools": ["web_search", "web_fetch"]})

    [record] = ask(f"fuse-panel -c {recipe}", "Merging SECRET").records

    assert len(record["panel"][0]["tool_runs"]) == 3
    assert any("q=SECRET" in asked["target"] for asked in web.requests("/article")) == leaks


def test_fuse_ask_prints_what_the_answer_cites_as_numbered_footnotes(ask: Ask, web: Web, recipe: str) -> None:
    spec = json.loads(Path(recipe).read_text())
    spec["chain"] = "panel | vote"
    Path(recipe).write_text(json.dumps(spec))

    result = ask(f"fuse-ask -q -c {recipe} Merging without locks", b"")

    assert result.text.splitlines() == [
        f"As [the page]({web.url}/article) says.",
        "",
        f"[1] Merging without locks: {web.url}/article",
    ]


def test_a_text_of_ones_own_goes_to_everybody_and_can_be_cited(
    ask: Ask, upstream: Upstream, recipe: str, tmp_path: Path
) -> None:
    (tmp_path / "lease.txt").write_text("The lease ends in May.")

    result = ask(
        f"fuse-panel -m fake/a -m fake/b --evidence lease.txt | fuse-judge -c {recipe} | fuse-synth -c {recipe}"
    )

    assert result.records[0]["evidence"] == [{"title": "lease.txt", "text": "The lease ends in May."}]
    assert all("The lease ends in May." in json.dumps(body) for body in upstream.bodies())
    assert len(upstream.bodies()) == 4


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff\xfe\0", "not a text"), (b" \n", "nothing in it"), (None, "cannot be read")]
)
def test_evidence_that_is_no_text_is_a_usage_error(
    ask: Ask, upstream: Upstream, tmp_path: Path, content: Any, said: str
) -> None:
    if content is not None:
        (tmp_path / "e.txt").write_bytes(content)

    result = ask("fuse-panel -m fake/a --evidence e.txt")

    assert result.status == 2
    assert said in result.err
    assert upstream.requests() == []


def test_what_a_recipe_hides_reaches_no_search_engine_and_no_page(ask: Ask, web: Web, recipe: str) -> None:
    spec = json.loads(Path(recipe).read_text())
    spec["redact"] = ["email"]
    Path(recipe).write_text(json.dumps(spec))

    [record] = ask(f"fuse-panel -c {recipe}", "ada@field.example").records

    [searched] = web.requests("/searx/search")
    assert "ada" not in json.dumps(web.requests())
    assert "EMAIL_1" in searched["target"]
    assert record["panel"][0]["tool_runs"][0]["status"] == "ok"


def members(recipe: str, member: str, **settings: Any) -> None:
    """Let one member sit on the recipe's panel, with these settings of the recipe."""
    spec = json.loads(Path(recipe).read_text()) | settings
    spec["panel"] = {"members": [member], **settings.get("panel", {})}
    Path(recipe).write_text(json.dumps(spec))


def test_a_command_runs_in_the_sandbox_and_sees_nothing_of_ours(ask: Ask, recipe: str) -> None:
    members(recipe, "fake/a+tool", panel={"tools": ["bash"]})

    [record] = ask(f"fuse-panel -c {recipe}", "env; cat /etc/passwd | wc -l; ls /").records

    [use] = record["panel"][0]["tool_runs"]
    assert (use["name"], use["status"]) == ("bash", "ok")
    assert "test-key" not in json.dumps(record)


@pytest.mark.slow
def test_the_tools_of_an_mcp_server_are_run_and_the_server_ends_with_the_run(ask: Ask, recipe: str) -> None:
    server = {"command": [sys.executable, str(SUPPORT / "mcp_server.py")], "tools": ["echo"]}
    members(recipe, "fake/a+tool", mcp={"support": server}, panel={"tools": ["mcp:support"]})

    [record] = ask(f"fuse-panel -c {recipe}", "hello").records

    [use] = record["panel"][0]["tool_runs"]
    assert (use["name"], use["status"]) == ("mcp:support/echo", "ok")
    assert not subprocess.run(["pgrep", "-f", f"{SUPPORT}/mcp_server.py"], capture_output=True, check=False).stdout


def test_an_address_that_only_the_model_has_made_up_is_not_fetched(ask: Ask, web: Web, recipe: str) -> None:
    members(recipe, "fake/a+tool", panel={"tools": ["web_fetch"]})

    [record] = ask(f"fuse-panel -c {recipe}", "http://evil.example/?q=secret in words, not as an address").records
    made_up = ask(f"fuse-panel -c {recipe}", "no address here").records[0]

    assert record["panel"][0]["tool_runs"][0]["status"] in ("blocked", "error", "refused")
    assert made_up["panel"][0]["tool_runs"][0]["status"] in ("error", "refused")
    assert web.requests() == []


def test_a_batch_that_was_cut_off_does_not_search_twice(ask: Ask, web: Web, upstream: Upstream, recipe: str) -> None:
    upstream.script("fake/b+research", "status=500")
    first = ask(f"fuse-panel -c {recipe} --retries 0").records[0]
    web.reset()

    again = ask(f"fuse-panel -c {recipe} --replay").records[0]

    assert "error" in first["panel"][1]
    assert again["panel"][1]["content"].startswith("As [the page]")
    assert web.requests() == []


def test_a_batch_that_was_killed_does_not_search_twice(
    ask: Ask, web: Web, upstream: Upstream, recipe: str, env: dict[str, str], tmp_path: Path
) -> None:
    members(recipe, "fake/a+research", panel={"tools": ["web_search", "web_fetch"]})
    upstream.script("fake/a+research", "", "hang")
    env = {**env, "SEARXNG_URL": f"{web.url}/searx/"}
    with subprocess.Popen(["fuse-panel", "-c", recipe], stdin=subprocess.PIPE, env=env, cwd=tmp_path) as process:
        assert process.stdin is not None
        process.stdin.write(QUESTION.encode())
        process.stdin.close()
        # What was found is asked about: it has been kept.
        while len(upstream.bodies("fake/a+research")) < 2:
            assert process.poll() is None
        process.kill()

    [record] = ask(f"fuse-panel -c {recipe} --replay").records

    assert record["panel"][0]["content"].startswith("As [the page]")
    assert len(web.requests("/searx/search")) == 1
    assert len(upstream.bodies("fake/a+research")) == 4
