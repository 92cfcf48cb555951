"""`fuse-mcp` as a process: the wire, its end, and the programs that it starts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asking_mcp import ERAS, stdio
from rawhttp import eventually
from serving import RECIPE
from workdir import Run, Upstream

HANGS = "panel: [fake/a+hang, fake/b+hang]\njudge: fake/judge\nsynth: fake/synth\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path / "r.yaml"


class Wire:
    """A running `fuse-mcp` whose wire is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._number = 0

    def ask(self, method: str, params: Any = None) -> int:
        """Send a request; returns its number."""
        self._number += 1
        self._send({"jsonrpc": "2.0", "id": self._number, "method": method, "params": params or {}})
        return self._number

    def tell(self, method: str, params: Any = None) -> None:
        self._send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def answer(self) -> Any:
        """Read the next line, which is a message or an error of ours."""
        return json.loads(self.process.stdout.readline())  # type: ignore[union-attr]

    def begin(self) -> None:
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        self.ask("initialize", hello)
        assert self.answer()["result"]["serverInfo"]["name"] == "fusiontools"
        self.tell("notifications/initialized")

    def fuse(self, question: str = "Why?") -> int:
        return self.ask("tools/call", {"name": "fuse", "arguments": {"question": question}})

    def _send(self, message: Any) -> None:
        self.process.stdin.write(json.dumps(message) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]


def with_program(folder: Path, code: str) -> str:
    """Return a recipe whose first member is a program with this code."""
    (folder / "member.py").write_text(code)
    command = json.dumps([sys.executable, str(folder / "member.py")])
    head = f"endpoints: {{program: {{api: command, command: {command}}}}}\npanel: [m@program, fake/b]\n"
    return head + "judge: fake/judge\nsynth: fake/synth\n"


@contextmanager
def wired(env: Mapping[str, str], folder: Path, recipe: str, *options: str) -> Iterator[Wire]:
    (folder / "r.yaml").write_text(recipe)
    with subprocess.Popen(
        ["fuse-mcp", "-c", "r.yaml", *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(env), cwd=folder,
    ) as process:  # fmt: skip
        try:
            wire = Wire(process)
            wire.begin()
            yield wire
        finally:
            process.kill()


def under_way(upstream: Upstream, count: int) -> None:
    eventually(lambda: upstream.stats()["in_flight"] == count, f"{count} calls under way")


def ends_soon(process: subprocess.Popen[str]) -> int:
    return process.wait(60)  # a second or two, but where the machine is busy; what hangs waits for much more


def ask(env: Mapping[str, str], folder: Path, *options: str, era: str = "auto", **arguments: Any) -> Any:
    async def run() -> Any:
        async with stdio(env, folder, *options, era=era) as client:
            return await client.call_tool("fuse", {"question": "Why?", **arguments})

    return asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("era", ERAS)
def test_another_process_is_answered_from_the_journal(
    env: dict[str, str], upstream: Upstream, recipe: Path, era: str
) -> None:
    first, second = (ask(env, recipe.parent, "-c", "r.yaml", era=era).structured_content for _ in range(2))

    assert first["cost_usd"] > 0 == second["cost_usd"]
    assert first["answer"] == second["answer"]
    assert upstream.stats()["per_model"]["fake/a"] == 1


def test_the_wire_holds_messages_only_whatever_programs_print(
    env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    noisy = "import sys; print(sys.stdin.read()[:3], 'says a program'); print('hm', file=sys.stderr)"

    with wired(env, tmp_path, with_program(tmp_path, noisy)) as wire:
        number = wire.fuse()
        done = wire.answer()

    assert done["id"] == number
    assert done["result"]["structuredContent"]["panel"][0] == {"member": "m", "status": "ok"}


def test_a_call_that_is_taken_back_gets_no_answer_and_its_members_stop(
    env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    with wired(env, tmp_path, HANGS) as wire:
        number = wire.fuse()
        under_way(upstream, 2)
        ping = wire.ask("ping")
        assert wire.answer() == {"jsonrpc": "2.0", "id": ping, "result": {}}

        wire.tell("notifications/cancelled", {"requestId": number, "reason": "enough"})
        eventually(lambda: upstream.stats()["aborted"] == 2, "two calls cut off")
        ping = wire.ask("ping")

        assert wire.answer()["id"] == ping
        assert upstream.stats()["in_flight"] == 0


@pytest.mark.parametrize(
    "how", ["eof", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGINT"))]
)
def test_it_ends_at_once_in_the_middle_of_a_fusion(
    env: dict[str, str], upstream: Upstream, tmp_path: Path, how: str
) -> None:
    with wired(env, tmp_path, HANGS) as wire:
        wire.fuse()
        under_way(upstream, 2)

        if how == "eof":
            wire.process.stdin.close()  # type: ignore[union-attr]
        else:
            wire.process.send_signal(getattr(signal, how))

        assert ends_soon(wire.process) == {"eof": 0, "SIGTERM": 128 + signal.SIGTERM, "SIGINT": 130}[how]
        assert "Traceback" not in wire.process.stderr.read()  # type: ignore[union-attr]
    eventually(lambda: upstream.stats()["in_flight"] == 0, "nothing under way")


@pytest.mark.slow
def test_a_program_ends_with_it(env: dict[str, str], upstream: Upstream, tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(1000)"

    with wired(env, tmp_path, with_program(tmp_path, code)) as wire:
        wire.fuse()
        eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", "the program")
        pid = int((tmp_path / "pid").read_text())

        wire.process.stdin.close()  # type: ignore[union-attr]
        ends_soon(wire.process)

    eventually(lambda: not _lives(pid), "its end")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has looked for yet has ended.
    return "Z" not in subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout


@pytest.mark.slow
def test_who_reads_no_more_ends_it_quietly(env: dict[str, str], upstream: Upstream, tmp_path: Path) -> None:
    with wired(env, tmp_path, RECIPE) as wire:
        wire.process.stdout.close()  # type: ignore[union-attr]
        wire.ask("ping")

        assert ends_soon(wire.process) == 0
        assert wire.process.stderr.read() == ""  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["file.txt"], "reads no files"),
        (["--no-journal", "--replay"], "--no-journal contradicts"),
    ],
)
def test_what_cannot_be_is_said_on_standard_error(run: Run, args: list[str], says: str) -> None:
    result = run(["fuse-mcp", *args])

    assert (result.status, result.out) == (2, b"")
    assert says in result.err


@pytest.mark.slow
def test_it_works_with_the_embedded_model(env: dict[str, str], upstream: Upstream, tmp_path: Path) -> None:
    alone = {name: value for name, value in env.items() if name not in ("FUSION_BASE_URL", "FUSION_API_KEY")}

    async def run() -> Any:
        async with stdio(alone, tmp_path, "-c", "local") as client:
            result: Any = await client.call_tool("fuse", {"question": "What is the capital of France?"})
            while result.structured_content["status"] == "running":
                result = await client.call_tool("fuse_result", {"handle": result.structured_content["handle"]})
            return result.structured_content

    done = asyncio.run(run())

    assert done["answer"]
    assert all(member["status"] == "ok" for member in done["panel"])
