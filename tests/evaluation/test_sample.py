"""Samples: the same for the same seed, and smaller ones within larger ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fusiontools.evaluation.tasks.rows import (
    BadRow,
)
from fusiontools.evaluation.tasks.sample import Chooser

ids = st.lists(st.text("abcdef0123456789", min_size=1, max_size=4), max_size=40)


def tasks_named(names: list[str], category: str = "x") -> list[Any]:
    return [{"id": name, "messages": [], "meta": {"category": category, "at": at}} for at, name in enumerate(names)]


@given(ids, st.integers(0, 5), st.integers(1, 45), st.integers(1, 45))
def test_a_smaller_sample_is_the_beginning_of_a_larger_one(names: list[str], seed: int, one: int, two: int) -> None:
    tasks = tasks_named(names)
    less, more = sorted((one, two))

    small = list(Chooser(number=less, seed=seed).of(tasks))
    large = list(Chooser(number=more, seed=seed).of(tasks))

    assert small == large[:less]


@given(ids, st.integers(0, 5), st.integers(1, 45))
def test_a_sample_takes_no_task_twice_and_none_that_is_not_there(names: list[str], seed: int, number: int) -> None:
    tasks = tasks_named(names)

    sample = list(Chooser(number=number, seed=seed).of(tasks))

    positions = [task["meta"]["at"] for task in sample]  # type: ignore[index]
    assert len(set(positions)) == len(sample) == min(number, len(tasks))
    assert all(tasks[at] == task for at, task in zip(positions, sample, strict=True))


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=30), st.randoms(), st.integers(1, 30))
def test_a_sample_does_not_depend_on_the_order_of_the_file(names: set[str], random: Any, number: int) -> None:
    one = sorted(names)
    other = random.sample(one, len(one))

    samples = [[t["id"] for t in Chooser(number=number).of(tasks_named(order))] for order in (one, other)]  # type: ignore[index]

    assert samples[0] == samples[1]


def test_another_seed_is_another_sample() -> None:
    tasks = tasks_named([str(n) for n in range(200)])

    samples = {tuple(t["id"] for t in Chooser(number=10, seed=seed).of(tasks)) for seed in range(20)}  # type: ignore[index]

    assert len(samples) == 20


def test_a_sample_favours_no_part_of_the_file() -> None:
    tasks = tasks_named([f"t/{n}" for n in range(100)])

    drawn = Counter(
        task["meta"]["at"] // 25  # type: ignore[index]
        for seed in range(200)
        for task in Chooser(number=10, seed=seed).of(tasks)
    )

    # 2,000 draws in four quarters: 500 each, with a standard deviation of about 19.
    assert all(400 < count < 600 for count in drawn.values())


def test_bad_rows_take_no_place_in_a_sample() -> None:
    mixed = [BadRow("f:1", "why"), *tasks_named(["a", "b"]), BadRow("f:4", "why")]

    chosen = list(Chooser(number=2).of(mixed))

    assert sum(isinstance(each, BadRow) for each in chosen) == 2
    assert len(chosen) == 4
