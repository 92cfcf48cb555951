"""What `examples/clients` gives to other programs, held to those programs' formats where they cannot be run here."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from serving import Server

from fusiontools.cli.mcp import main

CLIENTS = Path(__file__).parents[2] / "examples" / "clients"
SKILLS = sorted(CLIENTS.glob("**/SKILL.md"))
#: What the specification of agent skills knows.
KEYS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}


def read(name: str) -> Any:
    return json.loads((CLIENTS / name).read_text())


# Skills: agentskills.io, specification


@pytest.mark.parametrize("path", SKILLS, ids=lambda path: path.parent.name)
def test_a_skill_is_one(path: Path) -> None:
    front = re.match(r"\A---\n(.*?)\n---\n\n", path.read_text(), re.DOTALL)
    assert front is not None
    said = yaml.safe_load(front[1])

    assert said.keys() <= KEYS
    assert said["name"] == path.parent.name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", said["name"])
    assert len(said["name"]) <= 64
    assert 0 < len(said["description"]) <= 1024
    assert len(said.get("compatibility", "")) <= 500
    assert not re.search(r"[<>]", said["description"])
    assert len(path.read_text().splitlines()) < 500


def test_there_is_a_skill() -> None:
    assert [path.parent.name for path in SKILLS] == ["fuse"]


# Servers of MCP


def servers() -> dict[str, Any]:
    """Return what starts the server, by file."""
    codex = tomllib.loads((CLIENTS / "codex_mcp.toml").read_text())
    return {
        "plugin": read("plugin/.mcp.json")["mcpServers"],
        "codex": codex["mcp_servers"],
        "cursor": read("cursor_mcp.json")["mcpServers"],
        "zed": read("zed_settings.json")["context_servers"],
    }


@pytest.mark.parametrize("client", servers())
def test_a_client_is_told_a_command_that_there_is(client: str) -> None:
    [(name, server)] = servers()[client].items()

    assert (name, server["command"]) == ("fusion", "fuse-mcp")
    main.command.make_context("fuse-mcp", list(server["args"]))  # type: ignore[attr-defined]


def test_the_plugin_and_the_package_name_what_there_is() -> None:
    package = read("package.json")

    assert re.fullmatch(r"[a-z0-9-]+", read("plugin/.claude-plugin/plugin.json")["name"])
    assert "pi-package" in package["keywords"]
    for named in (*package["pi"]["extensions"], *package["pi"]["skills"]):
        assert (CLIENTS / named).exists()


# The server as a provider of models


def test_zed_is_told_where_the_server_is() -> None:
    [provider] = read("zed_settings.json")["language_models"]["openai_compatible"].values()

    assert provider["api_url"] == "http://127.0.0.1:8383/v1"
    for model in provider["available_models"]:
        assert model.keys() >= {"name", "max_tokens"}


def test_open_webui_finds_the_models(server: Server, tmp_path: Path) -> None:
    asks = 'exec curl -sSf -H "authorization: Bearer $OPENAI_API_KEY" "$OPENAI_API_BASE_URL/models"'
    (tmp_path / "open-webui").write_text(f'#!/bin/sh\n[ "$1" = serve ] && {asks}\n')
    (tmp_path / "open-webui").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "FUSION_SERVER": server.url}

    shown = subprocess.run(
        ["sh", str(CLIENTS / "open_webui.sh"), "serve"], env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip

    assert json.loads(shown.stdout)["data"][0]["id"] == "fusion"
