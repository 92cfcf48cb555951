"""What is counted, in one process and in several that share a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fusiontools.server.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    """Return what a server says, each figure by its name and the values of its labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {" ".join([s.name, *s.labels.values()]): s.value for family in families for s in family.samples}


def test_seconds_are_counted_with_all_that_are_fewer() -> None:
    metrics = Metrics()
    for seconds in (0.05, 0.06, 400.0):
        metrics.note_first_token("chat", seconds)

    told = samples(metrics)

    bounds = ("0.05", "0.1", "320.0", "+Inf")
    assert [told[f"fusion_first_token_seconds_bucket {bound} chat"] for bound in bounds] == [1, 2, 2, 3]
    assert told["fusion_first_token_seconds_count chat"] == 3
    assert told["fusion_first_token_seconds_sum chat"] == 400.11


def test_codes_that_a_client_makes_up_are_one_outcome() -> None:
    metrics = Metrics()
    panel = [{"error": {"code": code}} for code in ("timeout", "x" * 300_000, *map(str, range(5_000)))]

    metrics.count_record({"panel": [*panel, {"content": "x"}]})  # type: ignore[typeddict-item]

    told = {name: value for name, value in samples(metrics).items() if name.startswith("fusion_members")}
    assert told == {
        "fusion_members_total ok": 1,
        "fusion_members_total timeout": 1,
        "fusion_members_total other": 5_001,
    }


@pytest.mark.parametrize("length", [1, 500], ids=["many", "many and long"])
def test_what_there_is_no_room_for_is_not_told_and_harms_nothing(length: int, tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.count_lookup("hit")

    for number in range(5_000):
        metrics.count_request(str(number) * length, "ok", None)
    metrics.count_lookup("hit")

    told = samples(metrics)
    assert told["fusion_cache_total hit"] == 2
    counted = [value for name, value in told.items() if name.startswith("fusion_requests")]
    assert 0 < len(counted) < 5_000
    assert {*counted} == {1}


def test_what_has_no_labels_is_told_before_anything_is_counted() -> None:
    assert samples(Metrics()) == {"fusion_in_flight": 0, "fusion_queued": 0}


def test_the_figures_of_all_workers_are_added_up_whichever_is_asked(tmp_path: Path) -> None:
    one, other = Metrics(tmp_path), Metrics(tmp_path)
    one.count_lookup("hit")
    other.count_lookup("miss")
    other.count_lookup("hit")
    other.set_in_flight(3)
    one.set_in_flight(2)

    told = samples(one)

    assert told == samples(other)
    assert told == {
        "fusion_cache_total hit": 2,
        "fusion_cache_total miss": 1,
        "fusion_in_flight": 5,
        "fusion_queued": 0,
    }


def test_what_a_worker_counted_outlives_it_and_what_it_was_at_work_on_does_not(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom fusiontools.server.metrics import Metrics\n"
        "metrics = Metrics(pathlib.Path(sys.argv[1]))\n"
        "metrics.count_lookup('hit')\nmetrics.set_in_flight(7)\nos.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path], check=False)

    told = samples(Metrics(tmp_path))

    assert killed.returncode == -9
    assert told == {"fusion_cache_total hit": 1, "fusion_in_flight": 0, "fusion_queued": 0}


def test_a_worker_that_has_just_begun_spoils_no_figures(tmp_path: Path) -> None:
    (tmp_path / "1-a.figures").touch()  # as it stands until its first numbers are written
    metrics = Metrics(tmp_path)
    metrics.count_lookup("hit")

    assert samples(metrics)["fusion_cache_total hit"] == 1
