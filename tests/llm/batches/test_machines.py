"""Batch jobs of several machines that share a state: what one has sent, each of them fetches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from batching import CREATES, Batch, Provider, kill_at, questions
from stores import StoreServer

from fusiontools.llm.state.shared import open_state

KINDS = ["redis", pytest.param("postgres", marks=pytest.mark.slow), pytest.param("cluster", marks=pytest.mark.slow)]


@pytest.fixture(params=KINDS)
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, str]]:
    """The environments of two machines: each has a home of its own, and they share a state."""
    server: StoreServer = request.getfixturevalue(f"{request.param}_server")
    url = server.own()
    return [{"XDG_STATE_HOME": str(tmp_path / name), "FUSION_STATE": url} for name in ("one", "other")]


def once(provider: Provider, count: int) -> bool:
    return Counter(provider.made.values()) == {1: count} and not provider.direct


def test_one_machine_fetches_what_another_has_sent(
    batch: Batch, provider: Provider, machines: list[dict[str, str]]
) -> None:
    one, other = machines
    provider.set(looks=0)
    sent = batch("fuse-panel --batch submit", environment=one)
    early = batch("fuse-panel --batch collect", environment=other)
    again = batch("fuse-panel --batch submit", environment=other)
    provider.end()

    done = [batch("fuse-panel --batch collect", environment=each) for each in (other, one)]

    assert [sent.status, early.status, again.status] == [75, 75, 75]
    assert "3 records wait for 1 batch job (3 calls)" in early.err
    assert [each.status for each in done] == [0, 0], done[0].err + done[1].err
    assert done[0].out == done[1].out
    assert all(call["cost_source"] == "upstream" for record in done[1].records for call in record["calls"])
    assert provider.jobs() == [3]
    assert once(provider, 3)


def test_what_failed_for_one_machine_has_failed_for_all_and_is_tried_as_often(
    batch: Batch, provider: Provider, machines: list[dict[str, str]]
) -> None:
    one, other = machines
    tries, members = "fuse-panel --retries 1 --batch", ["fake/a+status=500", "fake/b"]
    for each in (one, other):
        batch(f"{tries} submit", count=1, members=members, environment=each)

    done = batch(f"{tries} collect", count=1, members=members, environment=one)

    assert done.status == 0, done.err
    assert [call["status"] for call in done.records[0]["calls"]].count("upstream") == 2
    assert provider.jobs() == [1, 1, 1]


@pytest.mark.slow
def test_a_job_that_a_dead_machine_left_half_sent_is_found_by_another(
    batch: Batch, provider: Provider, machines: list[dict[str, str]], there: Mapping[str, str], tmp_path: Path
) -> None:
    one, other = machines
    batch("fuse-panel --help")  # writes the recipe
    hold = ("POST", CREATES["openai"], "after")
    kill_at(provider, hold, ["fuse-panel", "--batch"], questions(3), tmp_path, {**there, **one})

    done = batch("fuse-panel --batch", environment=other)

    assert (done.status, len(done.records)) == (0, 3), done.err
    assert once(provider, 3)


def test_money_that_is_set_aside_for_a_job_is_settled_once(
    batch: Batch, provider: Provider, machines: list[dict[str, str]]
) -> None:
    one = machines[0]
    priced = {"model": "fake/a+nocost", "price_usd_per_mtok": {"prompt": 1000, "completion": 1000}}
    budget = "--budget both --max-cost-usd 100"
    provider.set(looks=0)
    batch(f"fuse-panel {budget} --batch submit", members=[priced], environment=one)
    provider.end()

    done = [batch(f"fuse-panel {budget} --batch collect", members=[priced], environment=each) for each in machines]
    costs = sum(call["cost_usd"] for record in done[1].records for call in record["calls"])

    async def spent_usd() -> float:
        state = open_state(one["FUSION_STATE"], pytest.fail)
        try:
            return await state.store.committed_usd("budget both")
        finally:
            await state.aclose()

    assert [each.status for each in done] == [0, 0]
    assert asyncio.run(spent_usd()) == pytest.approx(costs)


def test_no_job_is_sent_while_the_state_is_away(batch: Batch, provider: Provider, tmp_path: Path) -> None:
    away = {"XDG_STATE_HOME": str(tmp_path / "one"), "FUSION_STATE": "redis://127.0.0.1:1"}

    done = batch("fuse-panel --batch", environment=away)

    assert (done.status, done.out) == (75, b"")
    assert "the state, where batch jobs are noted, is away" in done.err
    assert done.err.endswith("come again\n")
    assert provider.jobs() == []
