"""`fuse-doctor`: what is ready, what to do about what is not, and the keys that are kept."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from mistakes import SECRET
from samples import lines, panelled, question
from terminal import everything
from workdir import ROOT, SUPPORT, Result, Run, Upstream

from fusiontools.cli.doctor_run import EXTRAS

FRIENDS = """
endpoint: there
endpoints: {{there: {{base_url: "{url}", api_key_env: THERE_KEY{more}}}}}
panel: [fake/a, {{model: fake/b, price_usd_per_mtok: {{prompt: 1, completion: 1}}}}]
judge: fake/judge
synth: {synth}
"""


@pytest.fixture
def env(env: dict[str, str]) -> dict[str, str]:
    """No key, and no address that takes every call elsewhere."""
    return {name: value for name, value in env.items() if not name.startswith("FUSION_")}


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """The one file in which a key may stand is looked at in the tests themselves."""


@pytest.fixture
def friends(upstream: Upstream, tmp_path: Path) -> str:
    return recipe(upstream, tmp_path)


def recipe(upstream: Upstream, folder: Path, more: str = "", synth: str = "fake/synth") -> str:
    (folder / "friends.yaml").write_text(FRIENDS.format(url=upstream.url, more=more, synth=synth))
    return "friends.yaml"


def found(result: Result) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(result.out)
    assert data["status"] == result.status
    return data


def test_a_missing_key_is_said_once_with_what_to_do(run: Run, friends: str, upstream: Upstream) -> None:
    result = run(["fuse-doctor", "-c", friends])

    assert result.status == 3
    assert result.text.endswith(
        "friends cannot be used:\n  4 models at there: export THERE_KEY=…, or fuse-doctor --set-key there\n"
    )
    assert upstream.requests() == []


def test_all_that_a_recipe_needs_is_ready_and_nothing_was_asked(
    run: Run, env: dict[str, str], friends: str, upstream: Upstream
) -> None:
    result = run(["fuse-doctor", "-c", friends, "--json"], env={**env, "THERE_KEY": SECRET})

    data = found(result)
    assert (result.status, result.err, data["ready"]) == (0, "", True)
    assert [(m["model"], m["stages"]) for m in data["models"]] == [
        ("fake/a", ["panel"]),
        ("fake/b", ["panel"]),
        ("fake/judge", ["judge"]),
        ("fake/synth", ["synth"]),
    ]
    assert {e["endpoint"]: e["key"] for e in data["endpoints"]}["there"] == "THERE_KEY is set"
    assert {k["kind"] for k in data["kept"]} == {"journal", "log", "sessions", "weights", "other"}
    assert SECRET not in result.text
    assert upstream.requests() == []


def test_live_says_the_price_first_and_asks_each_model_once(
    run: Run, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    name = recipe(upstream, tmp_path, synth="fake/synth+status=401")

    result = run(["fuse-doctor", "-c", name, "--live", "--json"], env={**env, "THERE_KEY": SECRET})

    data = found(result)
    assert result.status == 1
    assert result.err.startswith("fuse-doctor: --live: 4 calls, at most $0.0000")
    assert ", and 3 of unknown price" in result.err
    live = {m["model"]: m["live"] for m in data["models"]}
    assert [live[model].split(" in ")[0] for model in ("fake/a", "fake/b", "fake/judge")] == ["answered"] * 3
    assert live["fake/synth+status=401"].startswith("auth: ")
    assert live["fake/synth+status=401"].endswith(" (the key: THERE_KEY is set)")
    assert sorted(body["model"] for body in upstream.bodies()) == sorted(live)
    assert {body["max_tokens"] for body in upstream.bodies()} == {16}
    assert not (tmp_path / "home" / "state" / "fusiontools" / "journal.db").exists()


def test_a_cost_limit_holds_for_live_calls(run: Run, env: dict[str, str], friends: str, upstream: Upstream) -> None:
    free = ["fuse-doctor", "-c", friends, "--live", "--max-cost-usd", "0"]

    result = run(free, env={**env, "THERE_KEY": SECRET})

    assert result.status == 4
    assert result.text.count("not asked: ") >= 4
    assert upstream.requests() == []


def test_a_model_that_thinks_past_the_few_tokens_is_there(
    run: Run, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    name = recipe(upstream, tmp_path, synth="fake/synth+empty")

    result = run(["fuse-doctor", "-c", name, "--live"], env={**env, "THERE_KEY": SECRET})

    assert (result.status, "friends is ready" in result.text) == (0, True)


def test_a_kept_key_is_sent_and_forgotten(
    run: Run, env: dict[str, str], friends: str, upstream: Upstream, tmp_path: Path
) -> None:
    keys = tmp_path / "home" / "config" / "fusiontools" / "keys.json"
    kept = run(["fuse-doctor", "-c", friends, "--set-key", "there"], f"{SECRET}\n")
    asked = run(["fuse-panel", "-c", friends], lines([question("q1")]))
    forgotten = run(["fuse-doctor", "-c", friends, "--forget-key", "there"])
    again = run(["fuse-doctor", "-c", friends, "--forget-key", "there"])

    assert (kept.status, kept.out, kept.err) == (0, b"", f"fuse-doctor: THERE_KEY is kept in {keys}\n")
    assert asked.status == 0
    assert {r["headers"]["authorization"] for r in upstream.requests()} == {f"Bearer {SECRET}"}
    assert (forgotten.status, forgotten.err) == (0, "fuse-doctor: THERE_KEY is not kept any more\n")
    assert (again.status, again.err) == (3, "fuse-doctor: THERE_KEY is not kept here\n")
    state = [path for path in (tmp_path / "home" / "state").rglob("*") if path.is_file()]
    assert state
    assert not any(SECRET.encode() in path.read_bytes() for path in [*state, keys])


def test_the_systems_keyring_is_taken_where_there_is_one(
    run: Run, env: dict[str, str], friends: str, upstream: Upstream, tmp_path: Path
) -> None:
    ring = {
        "PYTHON_KEYRING_BACKEND": "file_keyring.FileKeyring",
        "PYTHONPATH": str(SUPPORT),
        "FILE_KEYRING": str(tmp_path / "ring"),
    }

    kept = run(["fuse-doctor", "-c", friends, "--set-key", "there"], SECRET, env={**env, **ring})
    seen = run(["fuse-doctor", "-c", friends], env={**env, **ring})
    asked = run(["fuse-panel", "-c", friends], lines([question("q1")]), env={**env, **ring})
    elsewhere = run(["fuse-doctor", "-c", friends])

    assert kept.err == "fuse-doctor: THERE_KEY is kept in the keyring (file_keyring)\n"
    assert "in the keyring" in seen.text
    assert (seen.status, asked.status) == (0, 0)
    assert {r["headers"]["authorization"] for r in upstream.requests()} == {f"Bearer {SECRET}"}
    assert elsewhere.status == 3
    assert "there is none here; export THERE_KEY=…" in elsewhere.text


def test_a_key_is_typed_without_echo(env: dict[str, str], tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = ["fuse-doctor", "--set-key", "openrouter"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=tmp_path, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        while b"nothing is shown" not in shown:
            shown += os.read(ours, 1 << 10)
        os.write(ours, f"{SECRET}\n".encode())
        screen = shown.decode() + everything(ours)
    os.close(ours)

    assert process.returncode == 0
    assert "OPENROUTER_API_KEY is kept in" in screen
    assert SECRET not in screen
    assert SECRET in (tmp_path / "home" / "config" / "fusiontools" / "keys.json").read_text()


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["--set-key", SECRET], "", "that is no endpoint and no variable; a key can be kept for: openrouter,"),
        (["--set-key", "openrouter", SECRET], "", "a key is never typed on a command line"),
        (["--set-key", "openrouter"], "", "this is no key"),
        (["--set-key", "openrouter"], f"{SECRET} {SECRET}", "this is no key"),
        (["--set-key", "openrouter"], b"\xff\xfe", "the key cannot be read"),
        (["--set-key", "ollama"], SECRET, "has no `api_key_env`"),
        (["--set-key", "FUSION_API_KEY"], SECRET, "is read from the environment only"),
    ],
)
def test_what_cannot_be_kept_is_said_and_never_repeated(
    run: Run, tmp_path: Path, words: list[str], stdin: str | bytes, said: str
) -> None:
    result = run(["fuse-doctor", *words], stdin)

    assert (result.status, result.out) == (2, b"")
    assert said in result.err
    assert SECRET not in result.err
    assert not (tmp_path / "home" / "config" / "fusiontools" / "keys.json").exists()


def test_a_file_of_keys_that_nobody_needs_stops_nobody(run: Run, upstream: Upstream, tmp_path: Path) -> None:
    keys = tmp_path / "home" / "config" / "fusiontools" / "keys.json"
    keys.parent.mkdir(parents=True)
    keys.write_text("{}")
    keys.chmod(0o644)
    keyless = (
        f"endpoints: {{there: {{base_url: '{upstream.url}'}}}}\nendpoint: there\npanel: [fake/a]\njudge: fake/judge\n"
    )
    (tmp_path / "keyless.yaml").write_text(keyless)

    judged_well = run(["fuse-judge", "-c", "keyless.yaml"], lines([panelled("q1")]))
    needing = run(["fuse-ask", "Why?"])

    assert (judged_well.status, judged_well.err) == (0, "")
    assert (needing.status, needing.err.count("\n")) == (2, 1)
    assert f"chmod 600 {keys}" in needing.err


def test_a_key_command_is_run_by_the_doctor_and_its_failure_is_named(
    run: Run, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    good = recipe(upstream, tmp_path, f", api_key_command: [echo, {SECRET}]")
    ready = run(["fuse-doctor", "-c", good])
    asked = run(["fuse-panel", "-c", good], lines([question("q1")]))
    bad = recipe(upstream, tmp_path, f", api_key_command: \"sh -c 'echo {SECRET}; exit 7'\"")
    broken = run(["fuse-doctor", "-c", bad])
    refused = run(["fuse-panel", "-c", bad], lines([question("q1")]))

    assert (ready.status, asked.status) == (0, 0)
    assert "from echo" in ready.text
    assert {r["headers"]["authorization"] for r in upstream.requests()} == {f"Bearer {SECRET}"}
    assert broken.status == 3
    assert "api_key_command: sh ended with status 7" in broken.text
    assert (refused.status, "sh ended with status 7" in refused.err) == (2, True)
    assert SECRET not in ready.text + broken.text + refused.err + asked.text


def test_a_tool_that_members_may_use_and_that_is_not_there_is_said(
    run: Run, env: dict[str, str], upstream: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "tooled.yaml").write_text(
        f"endpoints: {{there: {{base_url: '{upstream.url}'}}}}\nendpoint: there\nsynth: fake/s\n"
        "mcp: {gone: {command: [no-such-server]}}\npanel: {members: [fake/a], tools: ['mcp:gone']}\n"
    )

    result = run(["fuse-doctor", "-c", "tooled.yaml", "--json"])

    assert result.status == 1
    assert [tool["tool"] for tool in found(result)["tools"]] == ["mcp:gone"]
    assert "no-such-server" in found(result)["tools"][0]["todo"]


def test_a_folder_that_cannot_be_written_is_a_problem(
    run: Run, env: dict[str, str], friends: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    result = run(["fuse-doctor", "-c", friends], env={**env, "THERE_KEY": SECRET, "XDG_STATE_HOME": f"{tmp_path}/file"})

    assert result.status == 1
    assert result.text.endswith(
        f"friends is not all ready:\n  {tmp_path}/file cannot be written, so the journal is not kept; mend it, "
        "or set XDG_STATE_HOME\n"
    )


def test_the_list_of_extras_is_the_projects() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    assert {*EXTRAS} == {*extras} - {"all"}
    for name, (package, _) in EXTRAS.items():
        assert any(package.replace("_", "-") in text.replace("_", "-") for text in extras[name])
