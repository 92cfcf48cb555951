"""Where a key comes from, what wins, and what is said where it cannot be had."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recipes import SECRET, build, refusal

from fusiontools.config import api_keys
from fusiontools.config.api_keys import find_key, forget_key, keep_key, keys_file, known_keys
from fusiontools.config.models import ENDPOINTS, Endpoint, Model, environment_endpoints, require_key
from fusiontools.config.readiness import lacks
from fusiontools.config.recipe_yaml import default_choice
from fusiontools.config.stage_table import LimitOptions
from fusiontools.errors import CallFailed, UsageError
from fusiontools.llm.client import Client
from fusiontools.llm.key_mask import current_key

OPENROUTER = ENDPOINTS["openrouter"]


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    api_keys.forget_found()
    yield
    api_keys.forget_found()


@pytest.fixture
def ring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A keyring of the system: its file."""
    import file_keyring
    import keyring

    before = keyring.get_keyring()
    monkeypatch.setenv("FILE_KEYRING", str(tmp_path / "ring"))
    keyring.set_keyring(file_keyring.FileKeyring())
    yield tmp_path / "ring"
    keyring.set_keyring(before)


def printing(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({text!r})")


def test_the_environment_wins_over_a_command_and_that_over_what_was_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_key("LAB_KEY", "kept-0123456789")
    endpoint = Endpoint("lab", "https://lab.example/v1", "LAB_KEY")
    commanding = Endpoint(
        "lab", "https://lab.example/v1", "LAB_KEY", api_key_command=printing("  printed-0123  \nmore")
    )

    assert (endpoint.key(), commanding.key()) == ("kept-0123456789", "printed-0123")
    monkeypatch.setenv("LAB_KEY", "of-the-environment")
    assert (endpoint.key(), commanding.key()) == ("of-the-environment", "of-the-environment")


def test_a_key_is_kept_in_a_file_of_its_owner_alone_where_there_is_no_keyring() -> None:
    place = keep_key("OPENROUTER_API_KEY", SECRET)

    assert place == str(keys_file())
    assert keys_file().stat().st_mode & 0o777 == 0o600
    assert keys_file().parent.stat().st_mode & 0o077 == 0
    assert OPENROUTER.key() == SECRET
    assert OPENROUTER.key_place() == "in keys.json"
    assert default_choice() == "budget"
    assert forget_key("OPENROUTER_API_KEY")
    assert not forget_key("OPENROUTER_API_KEY")
    assert OPENROUTER.key() is None


def test_a_key_is_kept_in_the_keyring_where_there_is_one_and_the_file_says_so(ring: Path) -> None:
    place = keep_key("OPENROUTER_API_KEY", SECRET)

    assert place == "the keyring (file_keyring)"
    assert SECRET not in keys_file().read_text()
    assert SECRET in ring.read_text()
    assert OPENROUTER.key_place() == "in the keyring"
    assert OPENROUTER.key() == SECRET
    assert SECRET in known_keys()
    assert forget_key("OPENROUTER_API_KEY")
    assert json.loads(ring.read_text()) == {}


def test_a_keyring_that_does_not_take_a_key_leaves_it_to_the_file(ring: Path) -> None:
    ring.mkdir()

    place = keep_key("OPENROUTER_API_KEY", SECRET)

    assert "the keyring did not take it: locked" in place
    assert OPENROUTER.key() == SECRET


def test_a_key_in_a_keyring_that_is_locked_or_gone_says_what_to_do(ring: Path) -> None:
    import keyring
    from keyring.backends.fail import Keyring

    keep_key("OPENROUTER_API_KEY", SECRET)
    ring.unlink()
    ring.mkdir()
    with pytest.raises(UsageError, match=r"endpoint openrouter: .*keyring cannot be read: locked"):
        require_key(OPENROUTER)
    keyring.set_keyring(Keyring())
    with pytest.raises(UsageError, match="there is none here; export OPENROUTER_API_KEY"):
        require_key(OPENROUTER)
    with pytest.raises(CallFailed, match="there is none here") as failed:
        asyncio.run(current_key(OPENROUTER))
    assert failed.value.code == "auth"


@pytest.mark.parametrize("setting", ["keyring.backends.null.Keyring", "no.such.Keyring", "file_keyring.BrokenKeyring"])
def test_a_keyring_that_is_none_or_fails_in_its_own_words_leaves_it_to_the_file(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    import keyring.core

    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", setting)
    monkeypatch.setattr(keyring.core, "_keyring_backend", None)

    keep_key("OPENROUTER_API_KEY", SECRET)

    assert OPENROUTER.key() == SECRET
    assert SECRET in keys_file().read_text()


def test_a_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    keys_file().parent.mkdir(parents=True)
    keys_file().symlink_to(tmp_path / "dotfiles" / "keys.json")

    keep_key("OPENROUTER_API_KEY", SECRET)

    assert keys_file().is_symlink()
    assert SECRET in (tmp_path / "dotfiles" / "keys.json").read_text()


def test_a_file_that_others_may_read_is_refused_with_the_line_that_mends_it() -> None:
    keep_key("OPENROUTER_API_KEY", SECRET)
    keys_file().chmod(0o640)
    api_keys.forget_found()

    for ask in (OPENROUTER.key, default_choice, lambda: keep_key("OPENAI_API_KEY", SECRET)):
        with pytest.raises(UsageError, match=f"chmod 600 {keys_file()}"):
            ask()
    assert f"chmod 600 {keys_file()}" in str(lacks(OPENROUTER))


def test_a_file_that_is_none_of_ours_is_said_and_not_overwritten() -> None:
    keys_file().parent.mkdir(parents=True)
    keys_file().touch(0o600)
    for text in ("", "[]", '{"A": "b"}'):
        keys_file().write_text(text)
        with pytest.raises(UsageError, match="is no file of keys"):
            keep_key("OPENAI_API_KEY", SECRET)
        assert keys_file().read_text() == text


@pytest.mark.parametrize("text", ["", "two words", "schlüssel", "a\nb", "tab\tbed"])
def test_what_is_no_key_is_not_kept(text: str) -> None:
    with pytest.raises(UsageError, match="no key"):
        keep_key("OPENAI_API_KEY", text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sh", "-c", f"echo {SECRET}; echo {SECRET} >&2; exit 3"], "sh ended with status 3"),
        (["no-such-program-at-all", SECRET], "no-such-program-at-all cannot be run: No such file"),
        (["true"], "true printed nothing"),
        (["echo", "no key", SECRET], "echo printed no key"),
        (["yes", SECRET], "yes has not ended within"),
    ],
)
def test_a_command_that_gives_no_key_is_named_and_its_output_is_not(words: list[str], said: str) -> None:
    endpoint = Endpoint("lab", "https://lab.example/v1", api_key_command=tuple(words))

    with pytest.raises(UsageError) as refused:
        require_key(endpoint)

    assert f"endpoint lab: api_key_command: {said}" in refused.value.message
    assert SECRET not in refused.value.message


def test_a_command_that_does_not_end_is_ended_with_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(api_keys, "_COMMAND_S", 0.2)
    started = time.monotonic()

    with pytest.raises(UsageError, match="sh has not ended within"):
        find_key(None, ["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"])

    assert time.monotonic() - started < 20
    child = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/exe")
    while child.exists():  # a signal arrives when it does
        assert time.monotonic() - started < 20


def test_a_command_that_leaves_a_child_behind_is_not_waited_for() -> None:
    started = time.monotonic()

    assert find_key(None, ["sh", "-c", "setsid sleep 30 & echo printed-0123"]) == "printed-0123"
    assert time.monotonic() - started < 20


def test_a_command_reads_nothing_of_our_input_and_is_run_once(tmp_path: Path) -> None:
    words = ["sh", "-c", f"cat; echo x >> {tmp_path}/runs; echo printed-0123"]

    assert [find_key(None, words) for _ in range(3)] == ["printed-0123"] * 3
    assert (tmp_path / "runs").read_text() == "x\n"


def test_a_command_that_has_failed_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["sh", "-c", f"echo x >> {tmp_path}/runs; cat {tmp_path}/key"]
    for _ in range(3):
        with pytest.raises(UsageError, match="sh ended with status 1"):
            find_key(None, words)
    assert (tmp_path / "runs").read_text() == "x\n"

    (tmp_path / "key").write_text("printed-0123")
    monkeypatch.setattr(api_keys, "_FAILURE_HOLDS_S", 0.0)
    api_keys.forget_found()

    assert find_key(None, words) == "printed-0123"


def test_nobody_waits_for_a_command_but_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    ran_on: list[threading.Thread] = []
    monkeypatch.setattr(api_keys, "_run", lambda words: ran_on.append(threading.current_thread()) or "printed-0123")
    model = Model("m", "m", "lab")
    lab = Endpoint("lab", "http://127.0.0.1:9/v1", api_key_command=("pass",))

    async def ask() -> None:
        client = Client({"lab": lab}, LimitOptions(retries=0))
        try:
            messages: Any = [{"role": "user", "content": "Why?"}]
            await client.complete(client.request(model, messages, {}), model, client.ledger("panel", "r"))
        finally:
            await client.aclose()

    with pytest.raises(CallFailed) as failed:
        asyncio.run(ask())

    assert failed.value.code == "connect"
    assert ran_on
    assert threading.main_thread() not in ran_on


def test_a_recipe_says_a_command_as_a_list_or_as_words() -> None:
    listed = build("endpoints: {lab: {base_url: 'http://h/v1', api_key_command: [pass, show, 'a b']}}\npanel: [a@lab]")
    spelled = build("endpoints: {openrouter: {api_key_command: \"pass show 'a b'\"}}\npanel: [a]")

    assert listed.endpoints["lab"].api_key_command == ("pass", "show", "a b")
    assert spelled.endpoints["openrouter"].api_key_command == ("pass", "show", "a b")
    assert "cannot be split" in refusal('endpoints: {openrouter: {api_key_command: "pass \'x"}}\npanel: [a]')
    assert "needs `api_key_env`" in refusal(
        "endpoints: {me: {api: command, program: claude, api_key_command: pass x}}\npanel: [a@me]"
    )


def test_what_is_said_of_a_key_runs_no_command(tmp_path: Path) -> None:
    endpoint = Endpoint("lab", "https://lab.example/v1", api_key_command=("touch", str(tmp_path / "ran")))

    assert lacks(endpoint) is None
    assert endpoint.key_place() == "from touch"
    assert not (tmp_path / "ran").exists()


def test_no_key_goes_to_a_host_that_it_was_not_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_key("OPENROUTER_API_KEY", SECRET)
    commanding = Endpoint("lab", "https://lab.example/v1", api_key_command=printing(SECRET))
    monkeypatch.setenv("FUSION_BASE_URL", "https://elsewhere.example/v1")

    moved = environment_endpoints({**ENDPOINTS, "lab": commanding})

    assert {endpoint.key() for endpoint in moved.values()} == {None}
    monkeypatch.setenv("FUSION_BASE_URL", "https://lab.example/v1")
    assert environment_endpoints({"lab": commanding})["lab"].key() == SECRET


def test_two_that_keep_a_key_at_once_keep_both() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: keep_key(f"KEY_{n}", SECRET), range(12)))

    assert len(api_keys.kept_names()) == 12
    assert os.listdir(keys_file().parent) == [keys_file().name]  # noqa: PTH208 - also what a pattern would hide
