"""A `fuse-serve` before the stand-in upstream, with a recipe for each thing that a client may meet."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clients.calling_upstream import calling
from workdir import Upstream

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples" / "clients"
ANSWER = "Canberra."
#: What the file `shapes.py` is to hold after an edit.
EDITED = "def surface(a, b):\n    return a * b\n"
QUESTION: list[dict[str, Any]] = [{"role": "user", "content": "What is the capital of Australia?"}]
READY = "fuse-serve: listening on "


@dataclass(frozen=True)
class Server:
    """A running `fuse-serve`.

    Args:
        url: without `/v1`.
        key: what it asks for; empty where it asks for none.
    """

    url: str
    process: subprocess.Popen[str]
    key: str = ""


def fusion(*calls: tuple[str, dict[str, Any]], text: str = ANSWER) -> str:
    """Return a recipe that makes these calls where they are offered, names a capital in a form, and says this text."""
    manner = f"+text={quote(text, safe='')}+form={quote(json.dumps({'city': 'Canberra'}), safe='')}"
    member, synth = (f"fake/{name}{manner}{calling(*calls)}" for name in ("b", "synth"))
    return f"panel: {{members: [fake/a, '{member}']}}\njudge: fake/judge\nsynth: '{synth}'\n"


#: What the models of `fusion` call where it is offered: the tools of the SDKs' tests and examples, and of the agents.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("weather", {"city": "Canberra"}),
    ("capital", {"country": "Australia"}),
    ("bash", {"command": "cat notes.txt"}),
    ("Bash", {"command": "cat notes.txt", "description": "Read the notes"}),
    ("exec_command", {"cmd": "cat notes.txt"}),
]
#: What agents call the server of the panel's tools; Claude Code names the plugin, too.
CONVENING = ("fusion", "plugin_fusiontools_fusion")
#: All of `fails` is paid for. The first is what `fusion` means, the others are called `fusion/NAME`.
RECIPES = {
    "answers": fusion(*CALLS),
    "calls_twice": fusion(("weather", {"city": "Canberra"}), ("weather", {"city": "Hobart"})),
    "fields": fusion(text=f"[[ ## city ## ]]\n{ANSWER}\n\n[[ ## completed ## ]]"),
    "convenes": fusion(*((f"mcp__{name}__fuse", {"question": "Who knows?"}) for name in CONVENING)),
    "edits": fusion(text=f"shapes.py\n```\n{EDITED}```\n"),
    "hangs": "panel: {members: [fake/a+hang, fake/b+hang]}\njudge: fake/judge\nsynth: fake/synth\n",
    "stalls": "panel: {members: [fake/a, fake/b]}\njudge: fake/judge\nsynth: fake/synth+itl=1000000\n",
    "fails": "panel: {members: [fake/a+empty, fake/b+empty]}\njudge: fake/judge\nsynth: fake/synth\n",
}


@contextlib.contextmanager
def start_upstream(*options: str) -> Iterator[Upstream]:
    """Run the stand-in whose models call tools until the block ends."""
    command = [sys.executable, str(HERE / "calling_upstream.py"), "--record", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Upstream(process.stdout.readline().strip())
        finally:
            process.terminate()


@contextlib.contextmanager
def start_server(upstream: Upstream, directory: Path, *options: str, key: str = "") -> Iterator[Server]:
    """Run `fuse-serve` with all `RECIPES` until the block ends; with a key, for those who have it."""
    files = [directory / f"{name}.yaml" for name in RECIPES]
    for file in files:
        file.write_text(RECIPES[file.stem])
    command = ["fuse-serve", "-c", str(files[0]), "--port", "0", "--drain", "0", "--retries", "0"]
    command += [*options, *(argument for file in files[1:] for argument in ("--recipe", str(file)))]
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "FUSION_BASE_URL": upstream.url,
        "FUSION_API_KEY": "test-key",
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        **({"FUSION_SERVER_API_KEYS": f"another-key,{key}"} if key else {}),
    }
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=directory, env=environment
    ) as process:
        try:
            yield Server(address_said(process), process, key)
        finally:
            process.terminate()


def address_said(process: subprocess.Popen[str]) -> str:
    """Return the address that the server says it listens on."""
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(READY):
            # Read on, as a full pipe would stop the server; what it says helps who reads a failure.
            threading.Thread(target=shutil.copyfileobj, args=(process.stderr, sys.stderr), daemon=True).start()
            return line.removeprefix(READY).strip()
    raise AssertionError("fuse-serve did not start: " + "".join(said))


def run_client(server: Server, directory: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a client in this directory until it ends; `more` are further variables of its environment."""
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "FUSION_SERVER": server.url,
        **({"FUSION_SERVER_KEY": server.key} if server.key else {}),
        **more,
    }
    return subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
