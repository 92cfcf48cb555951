"""The real Claude Code and Codex as members of a panel, before our own endpoint: no key, no network but loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients.serving import ANSWER, Server, start_server, start_upstream
from workdir import Upstream

pytestmark = pytest.mark.slow

if "FUSION_CLIENTS" not in os.environ:
    pytest.skip("`make test-clients` installs what these tests need", allow_module_level=True)

NODE = Path(os.environ["FUSION_CLIENTS"]) / "npm" / "node_modules" / ".bin"
TOLD = "You are terse: 'so' \"it\" is."
#: Where each asks our server, and of which model: the second fails after it was asked.
RECIPE = """
endpoints:
  claude: {{api: command, program: claude, env: [ANTHROPIC_BASE_URL, ANTHROPIC_AUTH_TOKEN, FUSION_SERVER]}}
  codex:
    api: command
    program: codex
    args: [{arguments}]
panel: {{members: [{members}], system: "You are terse: 'so' \\"it\\" is."}}
limits: {{retries: 0}}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with start_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(upstream, tmp_path_factory.mktemp("server")) as server:
        yield server


def ask(server: Server, folder: Path, *members: str, question: str = "What is the capital?") -> list[dict[str, Any]]:
    """Return the responses of these members, asked from inside a session of Claude Code, in a directory with traps."""
    settings = {"model_provider": "fusion", "model_providers.fusion.name": "fusion"}
    settings |= {"model_providers.fusion.base_url": f"{server.url}/v1", "model_providers.fusion.wire_api": "responses"}
    arguments = ", ".join(f"-c, '{name}=\"{value}\"'" for name, value in settings.items())
    (folder / "plan.yaml").write_text(RECIPE.format(arguments=arguments, members=", ".join(members)))
    trap = {"apiKeyHelper": "touch sprung", "hooks": {"SessionStart": [{"hooks": [{"type": "command", "command": "touch sprung"}]}]}}  # fmt: skip  # noqa: E501
    (folder / ".claude").mkdir()
    (folder / ".claude" / "settings.json").write_text(json.dumps(trap))
    (folder / ".mcp.json").write_text(json.dumps({"mcpServers": {"trap": {"command": "touch", "args": ["sprung"]}}}))
    environment = {
        "PATH": os.pathsep.join([str(NODE), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "CLAUDECODE": "1",
        "ANTHROPIC_API_KEY": "not-to-be-used",
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_AUTH_TOKEN": "none",
    }
    (folder / "home").mkdir()
    command = ["fuse-panel", "-c", "plan.yaml", "--no-journal"]
    done = subprocess.run(
        command, cwd=folder, env=environment, input=question, capture_output=True, text=True, timeout=240, check=False
    )
    [record] = [json.loads(line) for line in done.stdout.splitlines()]
    assert not (folder / "sprung").exists()
    calls = {call["member"]: call for call in record["calls"]}
    return [{**response, "call": calls[response["member"]]} for response in record["panel"]]


def asked(upstream: Upstream) -> list[dict[str, Any]]:
    """Return what the members of our server's panel were sent."""
    return upstream.bodies("fake/a")


def test_claude_code_and_codex_answer(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    upstream.reset()

    claude, codex = ask(server, tmp_path, "fusion@claude", "{name: codex, model: fusion, endpoint: codex}")

    assert (claude["content"], codex["content"]) == (ANSWER, ANSWER)
    assert claude["call"]["cost_usd"] > 0
    assert codex["call"]["usage"]["prompt_tokens"] > 0
    assert codex["call"]["cost_usd"] is None
    said = [json.dumps(body["messages"]) for body in asked(upstream)]
    assert len(said) == 2
    assert all(json.dumps(TOLD)[1:-1] in text for text in said)


def test_neither_is_offered_a_tool_that_touches_the_machine(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    upstream.reset()

    ask(server, tmp_path, "fusion@claude", "{name: codex, model: fusion, endpoint: codex}")

    offered = {tool["function"]["name"] for body in asked(upstream) for tool in body.get("tools") or ()}
    assert not offered & {"Bash", "Read", "Write", "Edit", "exec_command", "write_stdin", "shell", "apply_patch"}


def test_a_prompt_may_have_two_megabytes(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    upstream.reset()

    [codex] = ask(server, tmp_path, "{name: codex, model: fusion, endpoint: codex}", question="word " * 150_000)

    assert codex.get("content") == ANSWER, codex


@pytest.mark.parametrize("where", ["claude", "codex"])
def test_what_fails_is_no_answer(where: str, server: Server, tmp_path: Path) -> None:
    [response] = ask(server, tmp_path, f"fusion/fails@{where}")

    assert "content" not in response
    assert response["error"]["code"] in ("program", "upstream", "empty", "bad_request")
