"""`fuse-code`: a process, a stand-in for its model over HTTP, a real project, a real sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coding import CHECK, FINISH, MEND, behaviour, everything_in, forget_copies, git, project, sandbox_works
from samples import poll
from terminal import on_a_terminal, read_screen, shown, without_controls
from workdir import Run, Upstream

from fusiontools.cli.code_view import StepView

# Each is a process or more, that works for seconds.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sandbox_works(), reason="no bubblewrap that works here")]

CODER = "fake/coder"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield project(tmp_path / "root")
    forget_copies(tmp_path)


def code(*words: str) -> list[str]:
    return ["fuse-code", "-m", CODER, "--root", "root", *words]


def sessions(tmp_path: Path) -> list[list[dict[str, Any]]]:
    """Return the records of every session."""
    paths = sorted((tmp_path / "home/state/fusiontools/sessions").glob("*.jsonl"))
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in paths]


def test_a_task_is_done_checked_and_shown_step_by_step(
    run: Run, upstream: Upstream, root: Path, tmp_path: Path
) -> None:
    upstream.script(CODER, behaviour(("read", {"path": "app.py"}), MEND), behaviour(FINISH))

    result = run(code("mend", "it", "--check", CHECK))

    assert (result.status, result.text) == (0, "It is done.\n")
    assert "• edit app.py\n    --- a/app.py\n" in result.err
    assert "    -    return a - b\n    +    return a + b\n" in result.err
    assert "✗ the check before: fails" in result.err
    assert "done; check red before, green after\n  M app.py +1 -1\n  2 steps, 2 calls, $0.0020, " in result.err
    assert git(root, "status", "--short") == " M app.py\n"
    [[record]] = sessions(tmp_path)
    assert record["messages"][1] == {"role": "user", "content": "mend it"}
    assert "0.0020" in run("fuse-cost home/state/fusiontools/sessions/*.jsonl").text


def test_a_run_that_is_killed_goes_on_where_it_was(
    run: Run, upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path
) -> None:
    upstream.script(CODER, behaviour(MEND), "hang")
    with subprocess.Popen(
        code("mend it", "--check", CHECK), env=env, cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as killed:
        poll(upstream, lambda stats: (stats["requests"], stats["in_flight"]) == (2, 1))
        killed.kill()
    untouched = git(root, "status", "--short")
    upstream.script(CODER, behaviour(FINISH))

    result = run(["fuse-code", "-m", CODER, "--root", "root", "--continue", "--check", CHECK])

    assert untouched == ""
    assert (result.status, result.text) == (0, "It is done.\n")
    assert "check red before, green after" in result.err
    assert git(root, "status", "--short") == " M app.py\n"
    [[record]] = sessions(tmp_path)
    assert [call["status"] for call in record["calls"]] == ["ok", "ok"]
    assert [m["role"] for m in record["messages"]] == ["system", "user", "assistant", "tool", "assistant", "tool"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_the_project_and_says_how_to_go_on(
    run: Run, upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path, how: signal.Signals
) -> None:
    upstream.script(CODER, behaviour(MEND), behaviour(("bash", {"command": "sleep 300"})))
    before = everything_in(root)
    with subprocess.Popen(code("mend it"), env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        while "• bash sleep 300" not in said:
            said += process.stderr.readline()
        process.send_signal(how)
        said += process.communicate(timeout=30)[1]

    assert process.returncode == 128 + how
    assert "interrupted; the project is as it was" in said
    assert everything_in(root) == before
    [line] = [line for line in said.splitlines() if "goes on with it" in line]
    upstream.script(CODER, behaviour(FINISH))
    again = run([*code("go on"), "--continue", line.split("--continue ")[1].split()[0]])
    assert again.status == 0
    assert "a + b" in (root / "app.py").read_text()


def test_a_second_interrupt_leaves_at_once_and_loses_nothing(
    run: Run, upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path
) -> None:
    # Whoever stops asks git what of the work is ignored, and is kept waiting for it.
    (tmp_path / "hangs").touch()
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in *check-ignore*)\n  [ -e {tmp_path}/hangs ] && touch {tmp_path}/asked && sleep 300\n'
        'esac\nexec "$@"\n'
    )
    wrapper.chmod(0o755)
    (tmp_path / "recipe.yaml").write_text(f"panel: [fake/a]\nsandbox: {wrapper}\n")
    upstream.script(CODER, behaviour(("bash", {"command": "sed -i 's/a - b/a + b/' app.py"})), "hang")
    command = code("mend it", "-c", "recipe.yaml")
    with subprocess.Popen(command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        poll(upstream, lambda stats: (stats["requests"], stats["in_flight"]) == (2, 1))
        process.send_signal(signal.SIGINT)
        poll(upstream, lambda _: (tmp_path / "asked").exists())
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=30)[1]
    (tmp_path / "hangs").unlink()
    upstream.script(CODER, behaviour(FINISH))
    again = run([*code("-c", "recipe.yaml"), "--continue"])

    assert (process.returncode, "Traceback" in said) == (130, False)
    assert (again.status, again.text) == (0, "It is done.\n")
    assert "a + b" in (root / "app.py").read_text()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_it_copies_it_leaves_no_copy_or_the_next_start_removes_it(
    run: Run, upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "copies").mkdir(mode=0o755)
    env = {**env, "TMPDIR": str(tmp_path / "copies")}
    for folder in range(100):
        (root / f"many{folder}").mkdir()
        for number in range(100):
            (root / f"many{folder}/{number}").touch()
    with subprocess.Popen(code("mend it"), env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        poll(upstream, lambda _: any((tmp_path / "copies").glob("fuse-code-*/tree/many0/0")))
        process.send_signal(how)
        said = process.communicate(timeout=30)[1]
    left = [*(tmp_path / "copies").glob("fuse-code-*")]

    if how == signal.SIGKILL:
        assert len(left) == 1
        upstream.script(CODER, behaviour(FINISH))
        run(code("x"), env=env)
    else:
        assert process.returncode == 128 + how
        assert said.endswith("fuse-code: interrupted; the project is as it was\n")
    assert [*(tmp_path / "copies").glob("fuse-code-*")] == []
    assert upstream.stats()["requests"] == (how == signal.SIGKILL)


@pytest.mark.parametrize(
    ("words", "steps", "status", "said"),
    [
        (["x", "--max-cost-usd", "0.00001"], [], 4, "stopped by the cost limit; the project is as it was"),
        (["x", "--retries", "0"], ["status=500"], 3, "the model could not be asked; the project is as it was"),
        (["x", "--max-steps", "1"], [behaviour(MEND)], 1, "not finished after 1 step (--max-steps)"),
        (["x", "--check", "false"], [behaviour(FINISH)] * 3, 1, "not kept: the check fails; the project is as it was"),
        (["x", "--approve"], [], 2, "--approve asks on a terminal, and standard input is none"),
        ([], [], 2, 'say what to do: fuse-code "add a test for the parser"'),
        (["x", "--root", "nowhere"], [], 2, "nowhere: there is no such directory"),
        (["x", "--continue", "nosuch"], [], 2, "session 'nosuch': there is none that begins so"),
        (["x", "--fuse", "--chain", "judge"], [], 2, "needs a `panel`"),
    ],
)  # fmt: skip
def test_the_exit_status_says_what_came_of_it(
    run: Run, upstream: Upstream, root: Path, words: list[str], steps: list[str], status: int, said: str, tmp_path: Path
) -> None:
    recipe = (
        "panel: [fake/a]\nmodels: {fake/coder: {model: fake/coder, price_usd_per_mtok: {prompt: 1, completion: 1}}}"
    )
    (tmp_path / "recipe.yaml").write_text(recipe)
    upstream.script(CODER, *steps)

    result = run([*code(*words), "-c", "recipe.yaml"])

    assert (result.status, said in result.err) == (status, True), result.err
    assert git(root, "status", "--short") == ""


def test_the_embedded_model_and_a_machine_without_a_sandbox_are_refused_in_one_line(
    run: Run, root: Path, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("bash", "git"):
        (tmp_path / "bin" / program).symlink_to(f"/usr/bin/{program}")
    without = {**env, "PATH": f"{Path(sys.executable).parent}:{tmp_path}/bin"}

    embedded = run(["fuse-code", "-c", "local", "--root", "root", "x"])
    bare = run(code("x"), env=without)

    assert embedded.status == bare.status == 2
    assert len(embedded.err.splitlines()) == 1
    assert "is the embedded model, which cannot call tools; name another with -m" in embedded.err
    assert "has no sandbox: bubblewrap is not installed" in bare.err


def test_commands_reach_the_network_only_where_they_may(run: Run, upstream: Upstream, root: Path) -> None:
    port = upstream.url.split(":")[2].split("/")[0]
    look = ("bash", {"command": f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo reached"})
    upstream.script(CODER, behaviour(look), behaviour(FINISH), behaviour(look), behaviour(FINISH))

    without, reached = run(code("x")), run(code("x", "--network"))

    assert "    reached\n" not in without.err
    assert "    reached\n" in reached.err


def test_a_record_comes_out_where_one_is_asked_for(run: Run, upstream: Upstream, root: Path) -> None:
    upstream.script(CODER, behaviour(MEND), behaviour(FINISH))

    result = run([*code("-q", "--json"), "mend it"])

    [record] = result.records
    assert result.err == ""
    assert record["code"]["outcome"] == "done"
    assert record["code"]["changed"] == ["M app.py +1 -1"]


def test_the_council_and_the_chain_ask_the_panel_for_real(
    run: Run, upstream: Upstream, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text("panel: [fake/a, fake/b]\njudge: fake/judge\nsynth: fake/synth\n")
    council = ("council", {"question": "Plus or minus?", "files": ["app.py"]})
    upstream.script(CODER, behaviour(council), behaviour(FINISH))

    result = run([*code("mend it", "--fuse"), "-c", "recipe.yaml"])

    assert result.status == 0, result.err
    assert upstream.stats()["per_model"] == {"fake/a": 2, "fake/b": 2, "fake/judge": 2, "fake/synth": 2, CODER: 2}
    assert "return a - b" in str(upstream.bodies("fake/a")[1]["messages"])
    assert "<<<ADVICE " in str(upstream.bodies(CODER)[0]["messages"][1]["content"])
    assert "fake/synth says" in str(upstream.bodies(CODER)[1]["messages"][-1]["content"])


def test_a_person_says_yes_or_no_to_each_change(
    upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path
) -> None:
    upstream.script(CODER, behaviour(MEND), behaviour(("bash", {"command": "touch made"})), behaviour(FINISH))
    person, shown = os.openpty()
    os.write(person, b"n use plus\nmaybe\ny\n")
    with on_a_terminal(code("mend it", "--approve"), env, tmp_path, stdin=shown) as (ours, process):
        os.close(shown)
        screen = without_controls(read_screen(ours))
        process.wait(30)

    assert "+    return a + b" in screen
    assert screen.count("[y]es, [a]ll, [n]o and why:") == 3
    assert "the person said no: use plus" in screen
    assert git(root, "status", "--short") == "?? made\n"
    os.close(person)


def test_on_a_terminal_the_text_of_a_step_is_shown_as_it_comes_and_once(
    upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path
) -> None:
    upstream.script(CODER, "text=First%20words,%20and%20**more**.+itl=1e6")
    with on_a_terminal(code("what is it?"), env, tmp_path) as (ours, process):
        screen = ""
        while "Fir" not in without_controls(screen):
            screen += os.read(ours, 1 << 16).decode()
        process.send_signal(signal.SIGINT)
        screen += read_screen(ours)
        process.wait(30)
    upstream.script(CODER, f"{behaviour(MEND)}+text=I%20**mend**%20it.", f"{behaviour(FINISH)}+text=All%20is%20well.")
    with on_a_terminal(code("mend it"), env, tmp_path) as (ours, process):
        lines = shown(read_screen(ours)).split("\n")
        process.wait(30)

    assert "interrupted; the project is as it was" in screen
    steps = [line for line in lines if line.startswith(("I mend", "• ", "All", "It is"))]
    assert steps == ["I mend it.", "• edit app.py", "All is well.", "• finish", "It is done."]


def test_what_the_model_answers_is_shown_once_also_where_nothing_was_to_be_done(
    upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path
) -> None:
    upstream.script(CODER, "text=It%20adds.", "text=It%20adds%20twice.")
    with on_a_terminal(code("what is it?"), env, tmp_path) as (ours, process):
        lines = shown(read_screen(ours)).split("\n")
        process.wait(30)

    assert [line for line in lines if line.startswith("It adds")] == ["It adds.", "It adds twice."]


def test_all_of_what_is_asked_about_is_shown_and_nothing_in_it_hides_or_forges_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    person, typed = os.pipe()
    os.write(typed, b"n\n")
    before = os.dup(0)
    try:
        os.dup2(person, 0)
        lines = [*(f"line {n}" for n in range(1000)), "true \x1b]0;; rm -rf x\x07", "\ta\rb \ud800"]
        with os.fdopen(person) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            answer = asyncio.run(StepView(quiet=True).ask("change a\nb", "\n".join(lines)))
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(typed)
    shown = capsys.readouterr().err.split("\n")

    assert answer == ""
    assert shown[:1000] == [f"    line {n}" for n in range(1000)]
    assert shown[1000:1002] == ["    true \ufffd]0;; rm -rf x\ufffd", "            a\ufffdb \ufffd"]
    assert shown[1002] == "change a\ufffdb? [y]es, [a]ll, [n]o and why: "


def test_without_a_task_it_asks_for_one_after_the_other(
    upstream: Upstream, env: dict[str, str], root: Path, tmp_path: Path
) -> None:
    upstream.script(CODER, behaviour(MEND), behaviour(FINISH), "text=It%20adds.")
    person, shown = os.openpty()
    talk = [("task>", b"mend it\r"), ("calls,", b""), ("task>", b"what is it?\r"), ("call,", b""), ("task>", b"\x04")]
    with on_a_terminal(code(), {**env, "PROMPT_TOOLKIT_NO_CPR": "1"}, tmp_path, stdin=shown) as (ours, process):
        os.close(shown)
        screen = type_when(ours, person, talk)
        process.wait(30)

    assert process.returncode == 0
    assert "It is done." in screen
    [records] = sessions(tmp_path)
    assert [record["code"]["outcome"] for record in records] == ["done", "answered"]


def type_when(ours: int, person: int, script: list[tuple[str, bytes]]) -> str:
    """Type each text when what belongs before it has come to the screen; return all that came."""
    screen, at = "", 0
    for awaited, typed in script:
        while (found := without_controls(screen).find(awaited, at)) < 0:
            assert select.select([ours], [], [], 30)[0], f"{awaited!r} does not come: {screen[at:]}"
            screen += os.read(ours, 1 << 16).decode(errors="replace")
        at = found + len(awaited)
        os.write(person, typed)
    return without_controls(screen + read_screen(ours))
