"""`fuse-mcp`, `/mcp` and the adapters around them, from the agents that people run: as they install them, and for real.

The agents' own model is a chain of a `fuse-serve` whose models call the panel's tool where it is offered.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from clients.serving import ANSWER, EXAMPLES, Server, run_client, start_server, start_upstream
from workdir import Upstream

pytestmark = pytest.mark.slow

if "FUSION_CLIENTS" not in os.environ:
    pytest.skip("`make test-clients` installs what these tests need", allow_module_level=True)

NODE = Path(os.environ["FUSION_CLIENTS"]) / "npm" / "node_modules"
KEY = "rightful-key"
#: What the panel behind the tools says; the agents' own model says `ANSWER`.
FUSED = "Ask Hobart."
PANEL = f"""
models:
  one: {{model: "fake/p+text={FUSED.replace(" ", "%20")}", price_usd_per_mtok: {{prompt: 1, completion: 1}}}}
panel: [one]
chain: panel | synth
synth: {{method: copy}}
"""
QUESTION = "Ask the panel."


@pytest.fixture(scope="module")
def upstream_process() -> Iterator[Upstream]:
    with start_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def server(upstream_process: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start_server(upstream_process, tmp_path_factory.mktemp("server"), key=KEY) as server:
        yield server


def panel(upstream: Upstream, folder: Path) -> dict[str, str]:
    """Return the variables by which `fuse-mcp` finds its recipe and the stand-in."""
    (folder / "panel.yaml").write_text(PANEL)
    return {"FUSION_BASE_URL": upstream.url, "FUSION_API_KEY": "test-key", "FUSION_CONFIG": str(folder / "panel.yaml")}


def run(server: Server, upstream: Upstream, folder: Path, *command: str, **more: str) -> CompletedProcess[str]:
    """Run a client where `fuse-mcp` finds its recipe and the stand-in."""
    path = os.pathsep.join([str(NODE / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "PI_OFFLINE": "1"}
    return run_client(server, folder, *command, PATH=path, **panel(upstream, folder), **quiet, **more)


def lines_of(done: CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def given_back(upstream: Upstream) -> str:
    """Return what a tool answered, as the agent's own model has read it."""
    asked = [body["messages"] for body in upstream.bodies() if any(m["role"] == "tool" for m in body["messages"])]
    return str([message["content"] for message in asked[-1] if message["role"] == "tool"][-1])


# --- The inspector ---


@pytest.mark.parametrize("where", ["stdio", "http"])
def test_the_inspector_finds_no_fault_and_gets_an_answer(
    where: str, server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    # It hands a server that it starts no variable but those that are named.
    named = [f"-e{name}={value}" for name, value in panel(upstream, tmp_path).items()]
    target = (
        [*named, "fuse-mcp"] if where == "stdio" else [f"{server.url}/mcp", "--header", f"Authorization: Bearer {KEY}"]
    )

    listed = run(server, upstream, tmp_path, "mcp-inspector", "--cli", *target, "--method", "tools/list", "--strict")
    called = run(
        server, upstream, tmp_path, "mcp-inspector", "--cli", *target,
        "--method", "tools/call", "--tool-name", "fuse", "--tool-arg", f"question={QUESTION}",
    )  # fmt: skip

    assert json.loads("\n".join(lines_of(listed)))["tools"][0]["name"] == "fuse"
    answer = json.loads("\n".join(lines_of(called)))["structuredContent"]["answer"]
    assert answer == (FUSED if where == "stdio" else ANSWER)


@pytest.mark.parametrize("file", ["plugin/.mcp.json", "cursor_mcp.json"])
def test_settings_of_this_form_start_the_server(file: str, server: Server, upstream: Upstream, tmp_path: Path) -> None:
    options = ["--config", str(EXAMPLES / file), "--server", "fusion", "--method", "tools/list"]

    done = run(server, upstream, tmp_path, "mcp-inspector", "--cli", *options)

    assert len(json.loads("\n".join(lines_of(done)))["tools"]) == 4


# --- Claude Code ---


def test_the_plugin_is_valid(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    done = run(server, upstream, tmp_path, "claude", "plugin", "validate", "--strict", str(EXAMPLES / "plugin"))

    assert "skills: fusiontools:fuse" in "\n".join(lines_of(done))


def test_claude_code_asks_the_panel(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    ours = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_AUTH_TOKEN": KEY, "ANTHROPIC_DEFAULT_HAIKU_MODEL": "fusion"}
    # A busy machine is no failure: it does not go on without a server that is slow to start.
    ours |= {"MCP_TIMEOUT": "60000", "MCP_CONNECT_TIMEOUT_MS": "60000"}
    command = ["sh", str(EXAMPLES / "claude_code_mcp.sh"), "--model", "fusion/convenes", "-p", QUESTION]

    done = run(server, upstream, tmp_path, *command, **ours)

    assert lines_of(done)[-1] == ANSWER
    assert FUSED in given_back(upstream)


# --- Codex ---


def test_codex_reads_its_settings(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex" / "config.toml").write_text((EXAMPLES / "codex_mcp.toml").read_text())

    done = run(server, upstream, tmp_path, "codex", "mcp", "list", "--json")

    [listed] = json.loads("\n".join(lines_of(done)))
    assert listed["transport"]["command"] == "fuse-mcp"
    assert "OPENROUTER_API_KEY" in listed["transport"]["env_vars"]


def test_codex_asks_the_panel(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    named = '"FUSION_BASE_URL", "FUSION_API_KEY", "FUSION_CONFIG"'
    settings = (EXAMPLES / "codex_mcp.toml").read_text().replace("env_vars = [", f"env_vars = [{named}, ")
    (tmp_path / ".codex" / "config.toml").write_text(f'{settings}default_tools_approval_mode = "approve"\n')
    as_model = ["sh", str(EXAMPLES / "codex.sh"), "exec", "-m", "fusion/convenes", "--skip-git-repo-check", QUESTION]

    done = run(server, upstream, tmp_path, *as_model)

    assert lines_of(done)[-1] == ANSWER
    assert FUSED in given_back(upstream)


# --- Pi ---


def test_pi_installs_its_package_and_finds_the_skill(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    lines_of(run(server, upstream, tmp_path, "pi", "install", str(EXAMPLES)))

    done = run(server, upstream, tmp_path, "pi", "--model", "fusion/fusion", "--no-session", "-p", QUESTION)

    assert lines_of(done)[-1] == ANSWER
    assert "Asks a panel of language models" in str(upstream.bodies("fake/a")[-1]["messages"])
