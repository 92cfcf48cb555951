"""What a tool says of batch jobs, and how `--batch` is typed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from batching import Provider, questions, recipe
from workdir import Run

from fusiontools.cli.batch_run import describe
from fusiontools.runs.batch_rounds import BatchProgress


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (BatchProgress(2, 100, 40, 90.0, None), "2 batch jobs: 40 of 100 calls done, about 1:30 left"),
        (BatchProgress(1, 1, 0, None, None), "1 batch job: 0 of 1 call done, nobody says how long it takes"),
        (BatchProgress(1, 9, 0, None, 0.0), "1 batch job: 0 of 9 calls done, 0:00 left at most"),
    ],
)
def test_progress_says_how_long_it_may_take(progress: BatchProgress, said: str) -> None:
    assert describe(progress) == said


def at(provider: Provider) -> dict[str, str]:
    return {"FUSION_BASE_URL": f"{provider.url}/openai/v1", "FUSION_API_KEY": "test-key"}


def test_a_window_is_what_is_left_of_it() -> None:
    assert "59:5" in describe(BatchProgress(1, 9, 0, None, time.time() + 3599))


@pytest.mark.parametrize("words", ["--batch 'Why?'", "'Why?' --batch", "--batch -- 'Why?'", "--batch wait 'Why?'"])
def test_batch_takes_the_next_word_only_where_it_is_one_of_its_own(
    run: Run, provider: Provider, env: dict[str, str], tmp_path: Path, words: str
) -> None:
    there = {**env, **at(provider)}
    (tmp_path / "fusion.yaml").write_text("endpoints: {openrouter: {batch: {api: openai, poll_s: 0.02}}}\npanel: [a]\n")

    done = run(f"fuse-ask {words} < /dev/null", env=there)

    assert done.status == 0, done.err
    assert done.text.startswith("a says")
    assert provider.jobs() == [1]


def test_nothing_that_comes_in_is_nothing_to_submit(
    run: Run, provider: Provider, env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "fusion.yaml").write_text(recipe(provider))

    done = run("fuse-panel --batch submit", env={**env, "FAKE_KEY": "test-key"})

    assert (done.status, "nothing came in" in done.err) == (3, True)


def test_waiting_ends_when_nobody_reads_any_more(
    run: Run, provider: Provider, env: dict[str, str], tmp_path: Path
) -> None:
    provider.set(looks=0)
    (tmp_path / "fusion.yaml").write_text("endpoints: {openrouter: {batch: {api: openai, poll_s: 0.02}}}\npanel: [a]\n")

    done = run("fuse-panel --batch | true", questions(1), env={**env, **at(provider)})

    assert done.status == 0
