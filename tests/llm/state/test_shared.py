"""`--state` and `--budget` as a person types them: real tools against a real store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from stores import StoreServer
from workdir import Run, Upstream

from fusiontools.llm.state.sqlite_store import network_of

RECIPE = """
models:
  m: {model: fake/a+cost=1, price_usd_per_mtok: {prompt: 0, completion: 1000}}
panel: [m]
"""
PANEL = ["fuse-panel", "-q", "-c", "priced.yaml", "--max-tokens", "1000"]
NAMES = ("one", "two")
QUESTIONS = "".join(json.dumps({"id": str(i), "prompt": f"Question {i}?"}) + "\n" for i in range(4))


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path) -> None:
    (tmp_path / "priced.yaml").write_text(RECIPE)


def test_runs_that_name_a_budget_have_it_together(run: Run, upstream: Upstream, state_url: str) -> None:
    command = [*PANEL, "--state", state_url, "--budget", "team", "--max-cost-usd", "3"]

    first = run(command, QUESTIONS)
    second = run(command, QUESTIONS)
    other = run([*PANEL, "--state", state_url, "--budget", "mine", "--max-cost-usd", "1"], QUESTIONS)

    assert (first.status, second.status, other.status) == (4, 4, 4)
    assert upstream.stats()["requests"] == 3 + 0 + 1


def test_a_budget_without_a_store_is_that_of_this_machine(run: Run, upstream: Upstream) -> None:
    command = [*PANEL, "--budget", "team", "--max-cost-usd", "2"]

    ends = [run(command, QUESTIONS).status for _ in range(2)]

    assert ends == [4, 4]
    assert upstream.stats()["requests"] == 2


def test_what_one_machine_bought_another_replays(run: Run, upstream: Upstream, redis_server: StoreServer) -> None:
    command = [*PANEL, "--replay", "--state", redis_server.own()]

    first = run(command, QUESTIONS)
    second = run(command, QUESTIONS)

    assert (first.status, second.status, upstream.stats()["requests"]) == (0, 0, 4)
    assert [r["calls"][0]["replayed"] for r in second.records] == [True] * 4


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_programs_in_python_share_a_state_and_a_budget_with_the_tools(
    run: Run, upstream: Upstream, redis_server: StoreServer, env: dict[str, str], tmp_path: Path, by: str
) -> None:
    url = redis_server.own()
    # One after the other, so that it is the last question for which there is no money.
    run([*PANEL, "-j", "1", "--state", url, "--budget", "team", "--max-cost-usd", "3"], QUESTIONS)
    limited = RECIPE + "limits: {max_cost_usd: 3}\nchain: panel --max-tokens 1000\n"
    (tmp_path / "limited.yaml").write_text(limited)
    (tmp_path / "own.py").write_text(
        "import asyncio, json, sys, fusiontools\n"
        "async def main():\n"
        "    recipe = fusiontools.load_recipe('limited.yaml')\n"
        "    options = json.loads(sys.argv[1])\n"
        "    async with fusiontools.open_runtime(recipe, budget='team', replay=True, **options) as runtime:\n"
        "        for text in ('Question 0?', 'Another?'):\n"
        "            record = await fusiontools.chain_of(recipe)(fusiontools.question(text), runtime)\n"
        "            print([call['replayed'] for call in record.get('calls', [])], record['panel'][0].get('error'))\n"
        "asyncio.run(main())\n"
    )
    told = {"state": url} if by == "argument" else {}
    around = env if by == "argument" else {**env, "FUSION_STATE": url}

    done = run([sys.executable, "own.py", json.dumps(told)], env=around)

    found, refused = done.text.splitlines()
    assert found == "[True] None", done.err
    assert "'budget'" in refused
    assert upstream.stats()["requests"] == 3


def test_runs_at_the_same_time_make_a_call_once(run: Run, upstream: Upstream, state_url: str, tmp_path: Path) -> None:
    (tmp_path / "priced.yaml").write_text(RECIPE.replace("fake/a", "fake/a+slow=0.3"))
    (tmp_path / "q.jsonl").write_text(QUESTIONS)
    panel = " ".join([*PANEL, "--replay", "--state", f"'{state_url}'", "q.jsonl"])

    both = run(f"{panel} > one.jsonl & {panel} > two.jsonl; wait $!; status=$?; wait; exit $status")

    assert both.status == 0, both.err
    records = [[json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()] for name in NAMES]
    answers = [[record["panel"][0]["content"] for record in each] for each in records]
    assert answers[0] == answers[1]
    calls = [call for each in records for record in each for call in record["calls"]]
    assert upstream.stats()["requests"] == 4, (upstream.stats(), calls, both.err)


def test_a_store_that_is_away_is_said_and_stops_no_call_but_for_a_budget(run: Run) -> None:
    away = "redis://me:sesame@127.0.0.1:1/0"

    free = run([*PANEL, "--state", away], QUESTIONS)
    limited = run([*PANEL, "--state", away, "--budget", "b", "--max-cost-usd", "9"], QUESTIONS)

    assert (free.status, limited.status) == (0, 3)
    assert free.err.count("redis://me:***@127.0.0.1:1/0") == 2  # that it is away, and at the end what it lacks
    assert "4 finished calls are not in the journal" in free.err
    assert "nothing more is bought" in limited.text
    assert "sesame" not in free.err + limited.err + free.text + limited.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--budget", "b"], "--budget b: say how much is in it: --max-cost-usd USD"),
        (["--state", "there.db"], "write sqlite:PATH, redis://HOST:PORT/0 or postgresql://HOST/NAME"),
        (["--state", "sqlite:x.db", "--journal", "y.db"], "leave one of them out"),
        (["--state", "sqlite:x.db", "--no-journal", "--replay"], "--no-journal contradicts"),
        (["--state", "sqlite:/proc/none/x.db"], "cannot be written"),
    ],
)
def test_what_cannot_be_is_said(run: Run, options: list[str], said: str) -> None:
    refused = run([*PANEL, *options], QUESTIONS)

    assert (refused.status, refused.text) == (2, "")
    assert said in refused.err
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "url", "extra"), [("redis", "redis://h", "redis"), ("psycopg", "postgresql://h/d", "postgres")]
)
def test_a_package_that_is_missing_is_named_with_its_extra(run: Run, package: str, url: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from fusiontools.llm.state.shared import open_state\n"
        "from fusiontools.errors import UsageError\n"
        f"try: open_state({url!r})\nexcept UsageError as error: print(error.message)"
    )

    assert f"[{extra}]" in run([sys.executable, "-c", code]).text


# --- Upkeep ---


def test_what_is_old_in_a_shared_journal_is_pruned_where_it_is_said(
    run: Run, env: dict[str, str], redis_server: StoreServer
) -> None:
    here = {**env, "FUSION_STATE": redis_server.own()}
    run(PANEL, QUESTIONS, env=here)

    untouched = run("fuse-log clear journal --yes", env=here)
    young = run("fuse-log prune journal --shared --older 1d", env=here)
    gone = run("fuse-log clear journal --shared --yes", env=here)

    assert untouched.err == "fuse-log: there is nothing to remove\n"
    assert young.err == "fuse-log: there is nothing to remove\n"
    assert (gone.status, gone.err) == (0, "fuse-log: 4 finished calls in the journal removed\n")


@pytest.mark.parametrize(
    ("state", "words", "said"),
    [
        ("", "journal", "FUSION_STATE names no state"),
        ("redis://me:sesame@127.0.0.1:1/0", "journal", "redis://me:***@127.0.0.1:1/0"),
        ("redis://127.0.0.1:1", "log", "fuse-log clear journal --shared"),
    ],
)
def test_upkeep_that_cannot_be_is_said(run: Run, env: dict[str, str], state: str, words: str, said: str) -> None:
    refused = run(f"fuse-log clear {words} --shared --yes", env={**env, "FUSION_STATE": state})

    assert refused.status == 2
    assert said in refused.err
    assert "sesame" not in refused.err


def test_the_doctor_says_where_the_state_is_and_whether_it_answers(
    run: Run, env: dict[str, str], redis_server: StoreServer
) -> None:
    there = redis_server.own()
    ready = run(["fuse-doctor", "-c", "priced.yaml"], env={**env, "FUSION_STATE": there})
    gone = {**env, "FUSION_STATE": "redis://me:sesame@127.0.0.1:1/0"}
    away = run(["fuse-doctor", "-c", "priced.yaml", "--json"], env=gone)

    assert there in ready.text
    assert "redis 7" in ready.text or "valkey" in ready.text
    assert away.status == 1
    assert json.loads(away.text)["state"] == {"place": "redis://me:***@127.0.0.1:1/0", "answers": None}
    assert "until then no budget is spent" in away.text
    assert "sesame" not in away.text + away.err


def test_a_file_system_of_other_machines_is_known() -> None:
    mounts = "disk / ext4 rw 0 0\nthere:/srv /srv nfs4 rw 0 0\nx /srv/me/my\\040own ext4 rw 0 0\n"

    assert network_of(Path("/srv/me/journal.db"), mounts) == "nfs4"
    assert network_of(Path("/srv/me/my own/journal.db"), mounts) is None
    assert network_of(Path("/var/journal.db"), mounts) is None
