"""The tool `bash`: what a command may do, what comes back of it, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusiontools.errors import UsageError
from fusiontools.tools.bash import open_bash
from fusiontools.tools.sandbox import find_sandbox
from fusiontools.tools.tool import ToolContext, ToolResult
from fusiontools.tools.toolbox import Toolbox
from fusiontools.tools.watch import Bounds

#: For what must end by itself: no test waits for it.
LONG_S = 60.0
Say = Callable[..., Awaitable[ToolResult]]


def _works() -> bool:
    try:
        return bool(find_sandbox())
    except UsageError:
        return False


pytestmark = pytest.mark.skipif(not _works(), reason="no bubblewrap that works here")


def talk(script: Callable[[Say], Awaitable[Any]], bounds: Bounds = Bounds(LONG_S), **options: Any) -> Any:  # noqa: B008
    """Open the tool and have a script say commands."""

    async def main() -> Any:
        async with open_bash(bounds, **options) as tools:
            box, first = Toolbox(tools), ToolContext("r1")

            async def say(command: str, context: ToolContext = first) -> ToolResult:
                return (await box.run("bash", {"command": command}, context)).result

            return await script(say)

    return asyncio.run(main())


def result_of(command: str, bounds: Bounds = Bounds(LONG_S), **options: Any) -> ToolResult:  # noqa: B008
    result: ToolResult = talk(lambda say: say(command), bounds, **options)
    return result


def said(command: str, **options: Any) -> str:
    return result_of(command, **options).text


def test_a_command_says_its_status_and_what_it_said_on_both_streams() -> None:
    assert said("echo out; echo err >&2; exit 3") == "exit 3\nout\nerr\n"


def test_a_command_may_open_its_own_streams_anew() -> None:
    assert said("echo one; echo two > /dev/stderr; echo three | tee /dev/stdout") == "exit 0\none\ntwo\nthree\nthree\n"


def test_files_stay_for_the_next_call_and_for_nobody_else() -> None:
    async def script(say: Say) -> list[str]:
        other = ToolContext("r1", place=("b",))
        await say("echo kept > file; echo lost > /tmp/file; export X=1; cd /tmp")
        return [(await say(command, each)).text for command, each in ((LOOK, ToolContext("r2")), (LOOK, other))] + [
            (await say(LOOK)).text
        ]

    assert talk(script) == ["exit 0\n/work\n", "exit 0\n/work\n", "exit 0\n/work\nkept\n"]


LOOK = "pwd; cat file 2>/dev/null; cat /tmp/file 2>/dev/null; test -z $X"


def test_a_command_whose_result_was_kept_is_run_again_before_one_that_builds_on_it() -> None:
    async def main() -> str:
        kept: dict[bytes, bytes] = {}

        class Store:
            async def get(self, key: bytes) -> bytes | None:
                return kept.get(key)

            async def put(self, key: bytes, data: bytes, name: str) -> None:
                kept[key] = data

        text = ""
        for commands in (["echo a > file"], ["echo a > file", "cat file"]):
            async with open_bash(Bounds(LONG_S)) as tools:
                box, context = Toolbox(tools, store=Store()), ToolContext("r1")
                for command in commands:
                    text = (await box.run("bash", {"command": command}, context)).result.text
        return text

    assert asyncio.run(main()) == "exit 0\na\n"


def test_folders_are_gone_when_the_response_is_written_and_when_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def script(say: Say) -> list[int]:
        context = ToolContext("r1", place=("a",))
        await say("echo x > file", context)
        during = len(os.listdir(tmp_path))  # noqa: PTH208
        del context
        after = len(os.listdir(tmp_path))  # noqa: PTH208
        await say("echo x > file; chmod 000 .")
        return [during, after]

    assert talk(script) == [1, 0]
    assert list(tmp_path.iterdir()) == []


def test_nobody_waits_for_what_a_command_leaves_behind_and_it_ends_with_it() -> None:
    begun = time.monotonic()

    text = said("setsid sleep 300 & (setsid setsid sleep 300 &) ; echo done")

    assert text == "exit 0\ndone\n"
    assert time.monotonic() - begun < LONG_S


@pytest.mark.parametrize("how", [{}, {"wrapper": "env"}], ids=["bubblewrap", "a wrapper"])
def test_of_a_command_that_is_too_slow_nothing_runs_on(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    mark = f"77{os.getpid()}"

    def clock() -> float:
        """An hour has gone by as soon as both processes run, however long they take to begin."""
        return time.monotonic() + (3600.0 if running(f"sleep\0{mark}") == 2 else 0.0)

    monkeypatch.setattr("fusiontools.tools.watch.time", SimpleNamespace(monotonic=clock))
    result = result_of(f"echo begun; setsid sleep {mark} & sleep {mark}", Bounds(LONG_S), **how)

    assert (result.status, result.text) == (
        "timeout",
        "ended: not through after 60 s; what it said until then:\nbegun\n",
    )
    assert running(f"sleep\0{mark}") == 0


def test_a_cancelled_call_ends_its_command() -> None:
    mark = f"78{os.getpid()}"

    async def script(say: Say) -> None:
        call = asyncio.ensure_future(say(f"sleep {mark}"))
        while not running(f"sleep\0{mark}"):  # noqa: ASYNC110 - a process has no event
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    talk(script)

    assert running(f"sleep\0{mark}") == 0


def running(line: str) -> int:
    found = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found += (folder / "cmdline").read_text().startswith(line)
            except OSError:
                continue
    return found


def test_of_long_output_the_beginning_and_the_end_are_shown_and_the_rest_can_be_read() -> None:
    async def script(say: Say) -> list[str]:
        return [(await say("seq 1 100000; echo summary")).text, (await say("sed -n 50000p /output/1.txt")).text]

    first, second = talk(script)

    assert first.startswith("exit 0\n[")
    assert "of 100001 lines are shown, the beginning and the end; the rest is in /output/1.txt]\n1\n2\n" in first
    assert first.endswith("\n100000\nsummary\n")
    assert len(first) < 21_000
    assert second == "exit 0\n50000\n"


def test_long_output_is_cut_the_same_way_where_time_runs_out() -> None:
    result = result_of("seq 1 100000; sleep 300", Bounds(2.0))

    assert result.status == "timeout"
    assert result.text.endswith("\n100000\n")
    assert len(result.text) < 21_000


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("yes", "it says too much"),
        ("head -c 3000000000 /dev/zero", "it says too much"),
        ("sh -c 'while :; do sleep 30 & done'", "Cannot fork"),
        ("for i in 1 2 3 4 5 6; do (x=$(head -c 100000000 /dev/urandom | base64); sleep 30) & done; wait", "of memory"),
        ("for i in $(seq 9); do head -c 100000000 /dev/zero > f$i; done; sleep 30", "its files are too"),
    ],
)
def test_a_command_that_takes_too_much_is_ended_and_that_is_said(command: str, why: str) -> None:
    result = result_of(command, Bounds(LONG_S, memory_bytes=512 * 2**20, processes=24))

    assert result.text.startswith(("ended: ", "exit "))
    assert why in result.text


def test_processes_are_counted_where_the_system_does_not_bound_them() -> None:
    result = result_of("while :; do sleep 30 & done", Bounds(LONG_S, processes=24), wrapper="env")

    assert result.status == "refused"
    assert "more than 24 processes" in result.text


def test_no_key_of_ours_can_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-secret-of-ours")
    text = said("env; cat /proc/*/environ | tr '\\0' '\\n'")

    assert "sk-secret-of-ours" not in text
    assert {line.partition("=")[0] for line in text.splitlines()[1:] if "=" in line} <= {
        "PATH", "HOME", "LANG", "TERM", "PWD", "SHLVL", "_", "OLDPWD",
    }  # fmt: skip


def test_a_key_that_stands_in_the_output_all_the_same_is_taken_out() -> None:
    assert said("echo my sk-1234", secrets=["sk-1234"]) == "exit 0\nmy [a key stood here]\n"


def test_there_is_no_network_not_even_this_machine_s() -> None:
    text = said("exec 3<>/dev/tcp/127.0.0.1/22 && echo open; ls /sys/class/net 2>/dev/null; cat /proc/net/dev")

    assert "open" not in text
    assert [line.split(":")[0].strip() for line in text.splitlines() if ":" in line and "bash" not in line] == ["lo"]


def test_no_terminal_can_be_typed_into() -> None:
    assert "not a tty" in said("tty; true")


def test_git_works_and_its_tree_is_clean_before_and_after() -> None:
    command = (
        "git init -q . && git config user.email a@b && git config user.name a && echo x > f && git add f && "
        "git commit -qm one && git worktree add -q tree && git status --short && cd tree && git status --short"
    )

    async def script(say: Say) -> list[str]:
        return [(await say(each)).text for each in (command, "echo /tree > .git/info/exclude; git status --short")]

    assert talk(script)[1] == "exit 0\n"


def test_without_a_sandbox_it_is_refused_with_all_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bash").symlink_to("/bin/bash")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UsageError) as refusal:
        said("true")

    assert refusal.value.code == "no_sandbox"
    for words in ("the tool bash", "not installed", "apt install bubblewrap", "srt --", "--unsafe-shell"):
        assert words in refusal.value.message


def test_whoever_says_unsafe_gets_a_shell_of_his_own_rights_and_still_its_bounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-secret-of-ours")
    for name in ("bash", "env", "setsid", "sleep"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path))

    text = said("env", unsafe=True)
    late = result_of("setsid sleep 300 & echo begun; sleep 300", Bounds(1.0), unsafe=True)

    assert text.startswith("exit 0\n")
    assert "sk-secret" not in text
    assert (late.status, late.text.splitlines()[-1]) == ("timeout", "begun")


def test_any_command_can_be_the_sandbox(tmp_path: Path) -> None:
    wrapper = tmp_path / "box"
    wrapper.write_text('#!/bin/sh\ntest "$1" = -- && shift\nBOXED=yes exec "$@"\n')
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)

    assert said("echo $BOXED", wrapper=f"{wrapper} --") == "exit 0\nyes\n"


@pytest.mark.parametrize(
    ("wrapper", "why"),
    [
        ("no-such-program --", "there is no such program"),
        ("false", "exit 1"),
        ("'", "no command line"),
        ("", "no such"),
    ],
)
def test_a_sandbox_that_does_not_work_is_said(wrapper: str, why: str) -> None:
    with pytest.raises(UsageError, match="the sandbox") as refusal:
        said("true", wrapper=wrapper, unsafe=True)

    assert why in refusal.value.message
