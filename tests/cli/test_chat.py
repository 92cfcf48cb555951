"""`fuse-chat`: what a person types, sees and keeps; on a terminal of its own where that matters."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from samples import poll
from terminal import everything, on_a_terminal, shown
from workdir import Run, Upstream

from fusiontools.cli.ask_command import AskedOptions
from fusiontools.cli.chat_commands import COMMANDS
from fusiontools.cli.chat_run import ChatLoop, Setting
from fusiontools.errors import UsageError
from fusiontools.record.schemas import check_record
from fusiontools.runs.session import Session, new_session, open_session

COPY = "panel -m fake/a | synth --method copy"
_PATIENCE_S = 30.0


def sessions(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "state" / "fusiontools" / "sessions").glob("*.jsonl"))


def turns(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- Without a terminal ---


def test_a_pipe_gets_one_answer_in_plain_text(run: Run, tmp_path: Path) -> None:
    result = run(["fuse-chat", "--chain", "panel -m fake/a+text=Yes. | synth --method copy"], "Is it?")

    assert (result.status, result.text, result.err) == (0, "Yes.\n", "")
    [record] = turns(sessions(tmp_path)[0])
    check_record(record)
    assert record["answer"]["content"] == "Yes."


def test_a_conversation_goes_on_in_another_process_and_in_fuse_ask(
    run: Run, upstream: Upstream, tmp_path: Path
) -> None:
    run(["fuse-chat", "--chain", COPY, "-s", "Be kind.", "One?"])

    second = run(["fuse-chat", "--chain", COPY, "--continue", "-q", "--", "Two?"])
    third = run(["fuse-ask", "--chain", COPY, "--continue", "and", "why?"])

    assert (second.status, third.status) == (0, 0), second.err + third.err
    asked = upstream.bodies("fake/a")[-1]["messages"]
    assert [m["role"] for m in asked] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [m["content"] for m in asked if m["role"] == "user"] == ["One?", "Two?", "and why?"]
    [path] = sessions(tmp_path)
    assert [record["id"] for record in turns(path)] == [f"{path.stem}-{n}" for n in (1, 2, 3)]
    cost = run(f"fuse-cost -o json < {path}")
    assert json.loads(cost.out)["records"] == 3
    again = run(f"fuse-synth -m fake/s < {path}")
    assert (again.status, len(again.records)) == (0, 3), again.err


def test_which_conversation_is_said_by_how_its_id_begins(run: Run, tmp_path: Path) -> None:
    run(["fuse-chat", "--chain", COPY, "One?"])
    [path] = sessions(tmp_path)
    run(["fuse-chat", "--chain", COPY, "Another?"])

    run(["fuse-chat", "--chain", COPY, "--continue", path.stem[:8], "Two?"])
    fork = run(["fuse-chat", "--chain", COPY, "--continue", path.stem, "--fork", "Three?"])
    listed = run(["fuse-chat", "--sessions"])

    assert fork.status == 0, fork.err
    assert len(turns(path)) == 2
    assert sorted(len(turns(each)) for each in sessions(tmp_path)) == [1, 2, 3]
    assert listed.text.count("One?") == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--continue"], "there is no session to go on with"),
        (["--continue", "nothing"], "there is none that begins so"),
        (["--fork"], "--fork goes with --continue"),
        (["-p", "a=b", "Why?"], "-p goes with --template"),
        (["--template", "none", "Why?"], "--template none: there is no "),
        (["-a", "nowhere.png", "Why?"], "-a nowhere.png: cannot be read: No such file"),
        ([], "the question is empty"),
    ],
)
def test_what_cannot_be_is_said_before_anybody_is_asked(
    args: list[str], said: str, run: Run, upstream: Upstream
) -> None:
    result = run(["fuse-chat", "--chain", COPY, *args])

    assert (result.status, result.out) == (2, b"")
    assert said in result.err
    assert upstream.stats()["requests"] == 0


def test_a_conversation_that_is_open_elsewhere_is_left_alone(run: Run, tmp_path: Path) -> None:
    run(["fuse-chat", "--chain", COPY, "One?"])
    [path] = sessions(tmp_path)

    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = run(["fuse-chat", "--chain", COPY, "--continue", "", "Two?"])

    assert refused.status == 2
    assert "another process has it open; --fork goes on with a copy" in refused.err


def test_no_session_keeps_no_file(run: Run, tmp_path: Path) -> None:
    assert run(["fuse-chat", "--chain", COPY, "--no-session", "One?"]).status == 0
    assert sessions(tmp_path) == []


def test_no_session_keeps_nothing_on_a_terminal_either(env: dict[str, str], tmp_path: Path) -> None:
    with on_a_terminal(["fuse-chat", "--chain", COPY, "--no-session", "One?"], env, tmp_path, out=subprocess.DEVNULL, stdin=subprocess.DEVNULL) as (ours, process):  # fmt: skip  # noqa: E501
        everything(ours)
        assert process.wait() == 0

    assert sessions(tmp_path) == []


def test_a_session_that_is_a_folder_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "talk.jsonl").mkdir()

    for more in ([], ["--fork"]):
        refused = run(["fuse-chat", "--chain", COPY, "--continue", "./talk.jsonl", *more, "--", "Why?"])
        assert refused.status == 2
        assert "Is a directory" in refused.err


# --- The commands ---


@pytest.fixture
def talk(env: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ChatLoop]:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def begin(session: Session | None = None, limit: Mapping[str, Any] | None = None, **options: Any) -> ChatLoop:
        given = AskedOptions(**{"chain": COPY, "quiet": True, "plain": True, **options})
        return ChatLoop(Setting(given, None, {}, limit or {}, {}), session or new_session())

    return begin


def do(chat: ChatLoop, *lines: str) -> list[Any]:
    """Type these lines; return the records of the conversation."""

    async def type_all() -> None:
        for line in lines:
            await chat._take(line, COMMANDS)
        await chat._close_client()

    asyncio.run(type_all())
    return list(chat.session.records)


def test_what_is_behind_an_answer_is_shown(talk: Callable[..., ChatLoop], capfd: pytest.CaptureFixture[str]) -> None:
    chat = talk(chain="panel -m fake/a+text=Red -m fake/b+text=Blue | judge -m fake/judge | synth -m fake/s+text=Both")

    do(chat, "Which?", "/panel", "/analysis", "/cost", "/stats", "/sources", "/chain", "/help")

    out = capfd.readouterr().out
    for words in ("Both", "Red", "Blue", "contradictions", "fake/judge", "tokens in", "1 answered", "nothing was looked up", "/retry [MODEL]"):  # fmt: skip  # noqa: E501
        assert words in out


def test_a_question_asked_again_is_another_record_of_the_same_turn(
    talk: Callable[..., ChatLoop], upstream: Upstream
) -> None:
    records = do(talk(), "One?", "Two?", "/retry fake/b", "/retry", "Three?")

    assert [record["answer"]["model"] for record in records] == ["fake/a", "fake/a", "fake/b", "fake/a", "fake/a"]
    said = [m["content"] for m in records[-1]["messages"] if m["role"] == "user"]
    assert said == ["One?", "Two?", "Three?"]
    assert records[-1]["messages"][3]["content"] == records[3]["answer"]["content"]


def test_an_edited_question_takes_the_place_of_the_last_one(talk: Callable[..., ChatLoop]) -> None:
    chat = talk()
    do(chat, "One?", "Too?", "/edit")
    assert chat.editing == "Too?"

    records = do(chat, "Two?")

    assert [m["content"] for m in records[-1]["messages"] if m["role"] == "user"] == ["One?", "Two?"]
    assert chat.editing is None


def test_the_system_prompt_can_be_set_and_taken_away(talk: Callable[..., ChatLoop]) -> None:
    first, second = do(talk(system="Be kind."), "One?", "/system Be brief.", "Two?")
    assert [m["content"] for m in (first["messages"][0], second["messages"][0])] == ["Be kind.", "Be brief."]

    [third] = do(talk(system="Be kind."), "/system -", "One?")
    assert [m["role"] for m in third["messages"]] == ["user"]


def test_what_is_attached_goes_with_the_next_question_only(talk: Callable[..., ChatLoop], tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    (tmp_path / "notes.txt").write_text("a ``` fence\n")

    first, second = do(talk(), "/attach cat.png", "/attach notes.txt", "Look:", "And?")

    picture, text = first["messages"][-1]["content"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert text["text"] == "Look:\n\nnotes.txt:\n\n````\na ``` fence\n````"
    assert second["messages"][-1]["content"] == "And?"


def test_what_is_typed_on_the_command_line_goes_with_the_first_question_or_with_all(
    talk: Callable[..., ChatLoop], tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("Hello.\n")
    (tmp_path / "law.txt").write_text("Thou shalt.\n")
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8))
    chat = talk(texts=("notes.txt",), attachments=("cat.png",), evidence=("law.txt",), max_tokens=9)
    assert chat._take_options(()) is None

    first, second = do(chat, "Look:", "And?")

    picture, text = first["messages"][-1]["content"]
    assert picture["type"] == "image_url"
    assert text["text"] == "Look:\n\nnotes.txt:\n\n```\nHello.\n```"
    assert second["messages"][-1]["content"] == "And?"
    assert [record["evidence"][0]["text"] for record in (first, second)] == ["Thou shalt.\n"] * 2
    assert [record["params"] for record in (first, second)] == [{"max_tokens": 9}] * 2


def test_a_prompt_file_begins_a_conversation_with_its_system_prompt(
    talk: Callable[..., ChatLoop], tmp_path: Path
) -> None:
    (tmp_path / "review.md").write_text("# system\nBe {{how}}.\n# user\nReview:\n")
    chat = talk(template="./review.md", values=("how=brief",))

    question = chat._take_options(("x = 1",))

    assert question == {"role": "user", "content": "Review:\n\nx = 1"}
    assert chat.system == "Be brief."


def test_a_compacted_turn_is_put_differently_with_its_summary(
    talk: Callable[..., ChatLoop], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with new_session() as begun:
        do(talk(begun, models=("fake/a",), chain="panel | synth --method copy"), "word " * 20_000, "And?")
    [path] = sessions(tmp_path)
    with open_session(str(path)) as session:
        chat = talk(session)
        do(chat, "/edit")
        assert chat.editing == "And?"
        asyncio.run(chat._greet(None))
        assert "> And?" in capfd.readouterr().out

        edited, again = do(chat, "Why?", "/retry")[-2:]

    said = edited["messages"][-1]["content"]
    assert said.startswith("[Earlier in this conversation, summarised by fake/a:]")
    assert said.endswith("[End of the summary.]\n\nWhy?")
    assert again["messages"] == edited["messages"]


def test_a_cost_limit_holds_over_all_recipes_of_a_conversation(
    talk: Callable[..., ChatLoop], tmp_path: Path, env: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        model = f"{{model: fake/{name}+nocost, price_usd_per_mtok: {{prompt: 1000, completion: 1000}}}}"
        (tmp_path / f"{name}.yaml").write_text(
            f"endpoint: e\nendpoints: {{e: {{base_url: '{env['FUSION_BASE_URL']}'}}}}\nmodels: {{{name}: {model}}}\n"
            f"panel: {name}\nsynth: {{method: copy}}\nchain: panel | synth\n"
        )
    chat = talk(limit={"max_cost_usd": 4.14}, chain=None)

    records = do(chat, "/recipe ./a.yaml", "One?", "/recipe ./b.yaml", "Two?", "/chain panel | pick", "Three?")

    spent = [sum(call["cost_usd"] or 0 for call in record.get("calls", [])) for record in records]
    assert spent[0] > 0.04
    assert spent[1:] == [0, 0]
    assert [record["error"]["code"] for record in records[1:]] == ["budget", "budget"]
    assert "the budget is spent" in capfd.readouterr().err


def test_a_conversation_is_saved_as_text_or_as_records_and_nothing_is_overwritten(
    talk: Callable[..., ChatLoop], tmp_path: Path
) -> None:
    chat = talk(chain="panel -m fake/a+text=Yes. | synth --method copy")
    do(chat, "Is it?", "/save talk.md", "/save talk.jsonl")

    assert (tmp_path / "talk.md").read_text() == "## Question\n\nIs it?\n\n## Answer\n\nYes.\n"
    assert [record["answer"]["content"] for record in turns(tmp_path / "talk.jsonl")] == ["Yes."]
    with pytest.raises(UsageError, match="exists already"):
        do(chat, "/save talk.md")


def test_a_new_conversation_begins_without_the_old_one(talk: Callable[..., ChatLoop], tmp_path: Path) -> None:
    records = do(talk(), "One?", "/reset", "Two?")

    assert [m["content"] for m in records[-1]["messages"]] == ["Two?"]
    assert len(sessions(tmp_path)) == 2


def test_another_recipe_or_chain_holds_from_then_on_and_a_wrong_one_changes_nothing(
    talk: Callable[..., ChatLoop],
) -> None:
    chat = talk()
    for wrong in ("/recipe nowhere", "/chain panel | nowhere", "/nothing"):
        with pytest.raises(UsageError):
            do(chat, wrong)

    first, second = do(chat, "One?", "/chain panel -m fake/b | synth --method copy", "Two?")
    assert (first["answer"]["model"], second["answer"]["model"]) == ("fake/a", "fake/b")
    do(chat, "/recipe vote")
    assert (chat.recipe.name, chat.options.chain) == ("vote", None)


def test_two_slashes_begin_a_question_with_one(talk: Callable[..., ChatLoop]) -> None:
    [record] = do(talk(), "//etc is what?")

    assert record["messages"][-1]["content"] == "/etc is what?"


def test_a_turn_without_an_answer_is_kept_and_not_sent_on(
    talk: Callable[..., ChatLoop], upstream: Upstream, capfd: pytest.CaptureFixture[str]
) -> None:
    upstream.script("fake/a", "status=400", "")

    failed, second = do(talk(), "One?", "Two?")

    assert failed["error"]["code"] == "all_failed"
    assert "no answer: all_failed" in capfd.readouterr().err
    assert [m["content"] for m in second["messages"]] == ["Two?"]


def test_a_long_conversation_is_made_shorter_by_who_writes(talk: Callable[..., ChatLoop]) -> None:
    chat = talk(models=("fake/a",), chain="panel | synth --method copy")
    long = "word " * 20_000

    records = do(chat, long, "And?", "Then?")

    assert "compaction" not in records[0]
    assert records[1]["compaction"]["model"] == "fake/a"
    assert len(records[0]["messages"][0]["content"]) > 90_000
    assert len(json.dumps(records[2]["messages"])) < 10_000


# --- On a terminal ---


class Terminal:
    """A terminal with fuse-chat on it."""

    def __init__(self, ours: int, process: subprocess.Popen[bytes]) -> None:
        self.ours, self.process, self.raw = ours, process, ""
        self._told = 0

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, pattern: str, count: int = 1) -> str:
        """Return all that came, once this stands there so often."""
        end = time.monotonic() + _PATIENCE_S
        while len(re.findall(pattern, text := shown(self.raw))) < count:
            assert time.monotonic() < end, text
            self._read()
        return text

    def wait_for_raw(self, text: str, since: int = 0) -> None:
        """Return once this was written, wherever it stands."""
        end = time.monotonic() + _PATIENCE_S
        while text not in self.raw[since:]:
            assert time.monotonic() < end, self.raw
            self._read()

    def wait_for_end(self) -> int:
        end = time.monotonic() + _PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, shown(self.raw)
            self._read()
        return int(self.process.returncode)

    def _read(self) -> None:
        if select.select([self.ours], [], [], 0.05)[0]:
            try:
                self.raw += os.read(self.ours, 1 << 16).decode(errors="replace")
            except OSError:
                return
            while self._told < self.raw.count("\x1b[6n"):  # where is the cursor?
                self._told += 1
                self.type("\x1b[1;1R")


@contextmanager
def terminal(args: Sequence[str], env: Mapping[str, str], cwd: Path, rows: int = 24) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 100, 0, 0))

    def lead() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    with subprocess.Popen(
        args, stdin=theirs, stdout=theirs, stderr=theirs, env={"TERM": "xterm", **env}, cwd=cwd, preexec_fn=lead
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(ours, process)
        finally:
            process.kill()
            os.close(ours)


@pytest.mark.slow
def test_an_answer_is_stopped_and_the_conversation_goes_on(
    env: dict[str, str], tmp_path: Path, upstream: Upstream
) -> None:
    slow = "panel -m fake/a+text=" + "+".join(["word%20" * 40, "itl=0.05"]) + " | synth --method copy"
    with terminal(["fuse-chat", "--chain", slow], env, tmp_path) as screen:
        screen.wait_for(">")
        screen.type("One?\r")
        screen.wait_for("word word word")
        screen.type("and typed meanwhile\x03")
        screen.wait_for("stopped; what stands above is kept")
        screen.wait_for("> and typed meanwhile")
        screen.type("\x15/chain panel -m fake/b+text=Done. | synth --method copy\r")
        screen.wait_for(r"synth --method copy\s+>")
        screen.type("Two?\r")
        screen.wait_for(r"Done\.")
        screen.wait_for(r"word for word.*\s+>")
        screen.type("\x04")
        assert screen.wait_for_end() == 0

    stopped, second = turns(sessions(tmp_path)[0])
    check_record(stopped)
    assert stopped["answer"]["finish_reason"] == "interrupted"
    assert stopped["answer"]["content"].startswith("word word word")
    assert stopped["calls"][-1]["status"] == "cancelled"
    assert [m["role"] for m in second["messages"]] == ["user", "assistant", "user"]
    assert second["messages"][1]["content"] == stopped["answer"]["content"]
    assert second["answer"]["content"] == "Done."


@pytest.mark.slow
def test_a_kill_loses_the_turn_under_way_at_most(env: dict[str, str], tmp_path: Path, upstream: Upstream) -> None:
    upstream.script("fake/a", "", "hang")
    with terminal(["fuse-chat", "--chain", COPY], env, tmp_path) as screen:
        screen.wait_for(">")
        screen.type("One?\r")
        screen.wait_for(r"word for word.*\s+>")
        screen.type("Two?\r")
        poll(upstream, lambda stats: stats["in_flight"] == 1)
        screen.process.send_signal(signal.SIGKILL)
        screen.process.wait()

    [path] = sessions(tmp_path)
    assert [record["messages"][-1]["content"] for record in turns(path)] == ["One?"]
    open_session(str(path)).close()


@pytest.mark.slow
def test_several_lines_and_the_names_of_commands_and_files(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("Hello.")
    with terminal(["fuse-chat", "--chain", COPY, "-q"], env, tmp_path) as screen:
        screen.wait_for(">")
        screen.type("/att")
        screen.wait_for(r"(?m)^ +/attach ")
        screen.type("\t")
        screen.wait_for("> /attach")
        screen.type(" not")
        screen.wait_for(r"(?m)^ +notes\.txt")
        screen.type("\t")
        screen.wait_for(r"> /attach notes\.txt")
        screen.type("\r")
        screen.wait_for(r"\[notes\.txt\] >")
        screen.type("One\x1b\rTwo\r")
        screen.wait_for("fake/a says")
        screen.type("\x04")
        screen.wait_for_end()

    [record] = turns(sessions(tmp_path)[0])
    assert record["messages"][-1]["content"] == "One\nTwo\n\nnotes.txt:\n\n```\nHello.\n```"


@pytest.mark.slow
def test_a_signal_at_any_time_leaves_a_conversation_that_goes_on(env: dict[str, str], tmp_path: Path, run: Run) -> None:
    slow = "panel -m fake/a+itl=0.01 | synth --method copy"
    chance = random.Random(7)
    with terminal(["fuse-chat", "--chain", slow], env, tmp_path) as screen:
        screen.wait_for(">")
        for number in range(20):
            screen.type(f"\x15Question {number}?\r")
            waited = time.monotonic() + chance.uniform(0, 0.4)
            while time.monotonic() < waited:
                screen._read()
            screen.process.send_signal(signal.SIGINT)
            before = len(screen.raw)
            screen.type("/stats\r")
            screen.wait_for_raw("sent on", before)
        screen.type("\x15\x04")
        assert screen.wait_for_end() == 0

    [path] = sessions(tmp_path)
    for record in turns(path):
        check_record(record)
    assert run(["fuse-ask", "--chain", COPY, "--continue", "And", "now?"]).status == 0
    said = [message["role"] for message in turns(path)[-1]["messages"]]
    assert said == ["user", "assistant"] * (len(said) // 2) + ["user"]


@pytest.mark.slow
def test_a_key_that_is_pasted_on_the_first_run_is_kept_and_used(env: dict[str, str], tmp_path: Path) -> None:
    alone = {name: value for name, value in env.items() if not name.startswith("FUSION_BASE") and name != "FUSION_API_KEY"}  # fmt: skip  # noqa: E501
    with terminal(["fuse-chat"], alone, tmp_path) as screen:
        screen.wait_for("key:")
        screen.type("sk-or-v1-pasted")
        screen.wait_for(r"key: \*{15}")
        screen.type("\r")
        screen.wait_for("kept in ")
        screen.wait_for(r"panel \| judge \| synth .*\s+>")
        screen.type("\x04")
        assert screen.wait_for_end() == 0

    assert "sk-or-v1-pasted" not in screen.raw
    kept = tmp_path / "home" / "config" / "fusiontools" / "keys.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "sk-or-v1-pasted" in kept.read_text()


@pytest.mark.slow
def test_who_comes_back_from_the_shell_still_types_unseen(env: dict[str, str], tmp_path: Path) -> None:
    slow = "panel -m fake/a+itl=0.05+text=" + "word%20" * 40 + " | synth --method copy"
    with terminal(["fuse-chat", "--chain", slow, "-q"], env, tmp_path) as screen:
        screen.wait_for(">")
        screen.type("One?\r")
        screen.wait_for("word word")
        # What a shell does around Ctrl-Z and fg.
        screen.process.send_signal(signal.SIGSTOP)
        cooked = termios.tcgetattr(screen.ours)
        cooked[3] |= termios.ECHO | termios.ICANON
        termios.tcsetattr(screen.ours, termios.TCSANOW, cooked)
        screen.process.send_signal(signal.SIGCONT)
        end = time.monotonic() + _PATIENCE_S
        while termios.tcgetattr(screen.ours)[3] & termios.ECHO:
            assert time.monotonic() < end
        screen.wait_for(r"word\s+>")
        screen.type("\x04")
        assert screen.wait_for_end() == 0


@pytest.mark.slow
def test_ctrl_c_at_the_prompt_leaves_when_it_is_said_twice(env: dict[str, str], tmp_path: Path) -> None:
    with terminal(["fuse-chat", "--chain", COPY], env, tmp_path) as screen:
        screen.wait_for(">")
        screen.type("something\x03")
        screen.wait_for("Ctrl-C again or Ctrl-D leaves")
        screen.wait_for(">", 2)
        screen.type("\x03")
        assert screen.wait_for_end() == 0

    assert sessions(tmp_path) == []


@pytest.mark.slow
def test_every_line_of_a_long_answer_stands_there_once_in_a_low_window(env: dict[str, str], tmp_path: Path) -> None:
    lines = [f"- point {number:03} 日本語 👩\u200d👩\u200d👧 café" for number in range(200)]
    paragraphs = "Points:\n\n" + "\n\n".join("\n".join(lines[at : at + 10]) for at in range(0, 200, 10))
    ask = ["fuse-chat", "--chain", "panel -m fake/a+echo+itl=0.002 | synth --method copy", "--", paragraphs]
    with terminal(ask, {**env, "TERM": "linux"}, tmp_path, rows=10) as screen:
        screen.wait_for("point 060")
        screen.resize(10, 90)
        screen.wait_for(r"word for word")
        screen.type("\x04")
        screen.wait_for_end()

    final = shown(screen.raw)
    assert [final.count(f"point {number:03}") for number in range(200)] == [1] * 200


@pytest.mark.slow
def test_what_a_model_writes_steers_no_terminal(env: dict[str, str], tmp_path: Path) -> None:
    evil = "a%1B]52;c;aGk=%07b%C2%9B31mc%1B]8;;http://x%1B%5Cd"
    with terminal(["fuse-chat", "--chain", f"panel -m fake/a+text={evil} | synth --method copy", "-q"], env, tmp_path) as screen:  # fmt: skip  # noqa: E501
        screen.wait_for(">")
        screen.type("One?\r/panel\r")
        screen.wait_for("abcd", 2)
        screen.type("\x04")
        screen.wait_for_end()

    assert "\x1b]" not in screen.raw
    assert "\x9b" not in screen.raw
    assert turns(sessions(tmp_path)[0])[0]["answer"]["content"].startswith("a\x1b]52")
