"""The files by which a server is run for others: each is held against our own options, and against its own tool."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from fusiontools.cli.serve import main as serve
from fusiontools.config import recipe_yaml
from fusiontools.config.environment import VARIABLES
from fusiontools.errors import __version__

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "examples" / "compose"
UNIT = ROOT / "examples" / "systemd" / "fuse-serve.service"
CONTAINERFILE = (ROOT / "Containerfile").read_text()
#: Variables that mean something to Python, to its libraries, to a shell, or to OpenTelemetry.
OTHERS = {"PATH", "HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "PYTHONUNBUFFERED", "OTEL_EXPORTER_OTLP_ENDPOINT"}
#: What would name a secret.
SECRET = re.compile(r"(?i)(api_?key|token|password)\w*[=:][ \t]*[^\s$]")


def options_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what `fuse-serve` takes these arguments for; it refuses what it does not know."""
    command: click.Command = serve.command  # type: ignore[attr-defined]
    return command.make_context("fuse-serve", list(arguments)).params


def instructions(name: str) -> list[str]:
    """Return what an instruction of the Containerfile says, each time."""
    whole = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", CONTAINERFILE))
    return re.findall(rf"(?m)^{name} (.*)$", whole)


# --- Container ---


def test_a_container_runs_as_nobody_has_a_health_check_and_no_secret() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert len(instructions("HEALTHCHECK")) == 1
    assert not SECRET.search(CONTAINERFILE)
    assert options_of(json.loads(instructions("CMD")[-1]))["log"] is True
    names = {pair.split("=")[0] for pair in shlex.split(instructions("ENV")[0])}
    assert names <= OTHERS | set(VARIABLES)


def test_what_a_container_is_built_from_is_there_and_sent_to_the_builder() -> None:
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}

    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]

    assert set(copied) == sent
    assert all((ROOT / name).exists() for name in copied)


def builder() -> str:
    """Return a builder that works here, or skip."""
    for name in ("podman", "buildah", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True).returncode == 0:
            return name
    pytest.skip("no podman, buildah or docker works here")


def base_for(name: str) -> str:
    """Return what the image is built on: `$FUSION_TEST_BASE`, else its own base, where that can be had; or skip."""
    base = os.environ.get("FUSION_TEST_BASE") or instructions("ARG")[0].removeprefix("BASE=")
    here = subprocess.run([name, "inspect", "--type", "image", base], capture_output=True).returncode == 0
    if not here and subprocess.run([name, "pull", base], capture_output=True, timeout=300).returncode != 0:
        pytest.skip(f"{base} is not here and cannot be fetched ($FUSION_TEST_BASE names another)")
    return base


def inside(name: str, image: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a new container of an image, as its own user."""
    if name != "buildah":
        words = [name, "run", "--rm", "--entrypoint", command[0], image, *command[1:]]
        return subprocess.run(words, capture_output=True, text=True)
    made = subprocess.run([name, "from", image], capture_output=True, text=True, check=True).stdout.strip()
    try:
        return subprocess.run([name, "run", made, "--", *command], capture_output=True, text=True)
    finally:
        subprocess.run([name, "rm", made], capture_output=True, check=True)


@pytest.mark.slow
def test_the_image_is_built_and_its_server_runs_as_nobody_and_asks_for_keys() -> None:
    name, image = builder(), "localhost/fusiontools-of-tests:latest"
    # What the builder needs on this machine (a network, certificates) is in $FUSION_TEST_BUILD.
    more = os.environ.get("FUSION_TEST_BUILD", "")
    make = ["make", "image", f"BUILDER={name}", f"IMAGE={image}", f"BASE={base_for(name)}", f"BUILD_ARGS={more}"]

    built = subprocess.run(make, cwd=ROOT, capture_output=True, text=True)

    assert built.returncode == 0, built.stderr[-3000:]
    assert inside(name, image, "fuse-serve", "--version").stdout == f"fuse-serve {__version__}\n"
    assert inside(name, image, "sh", "-c", "id -u; touch made && ls").stdout == "10001\nmade\n"
    unsafe = inside(name, image, "fuse-serve", "--log")
    assert unsafe.returncode != 0
    assert "export FUSION_SERVER_API_KEYS=" in unsafe.stderr


# --- Compose ---


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]


def test_the_servers_of_the_example_differ_in_nothing_but_their_state(services: dict[str, Any]) -> None:
    one, two = ({**services[name], "volumes": []} for name in ("server-1", "server-2"))

    assert one == two
    assert services["server-1"]["volumes"] != services["server-2"]["volumes"]


def test_the_commands_of_the_example_are_taken(services: dict[str, Any]) -> None:
    server = services["server-1"]
    options = options_of(server["command"])

    assert recipe_yaml.load_recipe(options["config"])
    assert float(server["stop_grace_period"].removesuffix("s")) > options["drain_s"]
    assert server["environment"].keys() <= OTHERS | set(VARIABLES)
    assert server["environment"]["FUSION_STATE"] == "redis://redis:6379/0"
    assert services["redis"]["command"][0] == "redis-server"


def test_the_example_names_only_what_it_has_and_holds_no_secret(services: dict[str, Any]) -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    whole = yaml.safe_load(text)

    for service in services.values():
        assert set(service.get("depends_on", [])) <= services.keys()
        assert set(service["networks"]) <= whole["networks"].keys()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (COMPOSE / source).is_file() if source.startswith("./") else source in whole["volumes"]
    assert not SECRET.search(text)
    assert not SECRET.search((COMPOSE / "secrets.env.example").read_text())
    assert (ROOT / ".gitignore").read_text().split().count("secrets.env") == 1


def test_the_proxy_asks_the_servers_of_the_example(services: dict[str, Any]) -> None:
    caddyfile = (COMPOSE / "Caddyfile").read_text()
    (asked,) = re.findall(r"reverse_proxy (.*) \{", caddyfile)

    assert asked.split() == [f"{name}:8383" for name in services if name.startswith("server")]
    assert "flush_interval -1" in caddyfile
    assert "health_uri /ready" in caddyfile


@pytest.mark.skipif(not shutil.which("caddy"), reason="caddy is not installed")
@pytest.mark.parametrize("domain", ["localhost", "fusion.example.org"])
def test_caddy_takes_its_file(domain: str, tmp_path: Path) -> None:
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(COMPOSE / "Caddyfile")]
    env = {**os.environ, "SITE_DOMAIN": domain, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}

    done = subprocess.run(command, capture_output=True, text=True, env=env)

    assert done.returncode == 0, done.stderr


# --- systemd ---


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text()):
        found.setdefault(name, []).append(value)
    return found


def test_the_command_of_the_unit_is_taken_and_has_time_to_drain() -> None:
    program, *arguments = shlex.split(settings()["ExecStart"][0])
    options = options_of(arguments)

    assert program == "/usr/local/lib/fusion/bin/fuse-serve"
    assert float(settings()["TimeoutStopSec"][0]) > options["drain_s"]
    assert recipe_yaml.load_recipe(options["config"])
    assert not SECRET.search(re.sub(r"(?m)^#.*\n", "", UNIT.read_text()))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_unit_and_finds_little_that_it_could_do(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(
        UNIT.read_text().replace("/usr/local/lib/fusion/bin/fuse-serve", f"{Path(sys.executable).parent}/fuse-serve")
    )

    taken = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit)], capture_output=True, text=True
    )

    assert (taken.returncode, taken.stderr) == (0, "")
    assert judged.returncode == 0, judged.stdout[-1500:]  # an exposure of at most 1.5 of 10
