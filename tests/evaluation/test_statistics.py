"""The statistics of a report, against tables, against theory, against scipy, and against members of known skill."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from graded import World
from hypothesis import given
from hypothesis import strategies as st
from paired import FEW, as_scores, pair, rate

from fusiontools.evaluation.report.statistics import (
    Draws,
    PairedDifference,
    compare_paired,
    difference_seen,
    draw_together,
    holm,
    mcnemar,
    means,
    quantile,
    resampled_means,
    tasks_needed,
    wilson,
)

scores = st.sampled_from([0.0, 0.25, 0.5, 1.0])
columns = st.lists(scores, min_size=1, max_size=30)


# Twice the sum of binomial(n, i) for i up to the smaller, over 2 to the n.
@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (0, 0, 1), (1, 0, 1), (1, 1, 1), (5, 0, 2 / 32), (6, 0, 2 / 64), (8, 1, 2 * 10 / 512), (1, 8, 2 * 10 / 512),
        (10, 2, 2 * (1 + 12 + 66) / 4096), (15, 5, 2 * (1 + 20 + 190 + 1140 + 4845 + 15504) / 2**20),
    ],
)  # fmt: skip
def test_mcnemar_is_exact(wins: int, losses: int, p: float) -> None:
    assert mcnemar(wins, losses) == pytest.approx(p, rel=1e-12)


def test_mcnemar_of_thousands_of_tasks_is_still_exact() -> None:
    assert mcnemar(2100, 1900) == pytest.approx(math.erfc((200 - 1) / math.sqrt(2 * 4000)), rel=1e-2)


# Wilson 1927; the numbers are those of Newcombe 1998, Statistics in Medicine 17, table I.
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)


def test_holm_gives_the_known_values() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_a_p_keeps_the_order_and_stays_under_bonferroni(ps: list[float]) -> None:
    adjusted = holm(ps)

    assert all(p <= q <= min(1, len(ps) * p) for p, q in zip(ps, adjusted, strict=True))
    assert [q for _, q in sorted(zip(ps, adjusted, strict=True))] == sorted(adjusted)


def test_a_quantile_is_one_of_the_numbers() -> None:
    assert quantile([5, 1, 4, 2, 3], 0.5) == 3
    assert quantile(range(1, 101), 0.95) == 95
    assert quantile([7], 0.95) == 7


SHARES = [(right, n) for n in (1, 7, 40, 1_000) for right in sorted({0, 1, n // 3, n})]
SOME = [0.0, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.1, 0.9, 0.4]


@pytest.fixture
def stats() -> Any:
    import scipy.stats  # it takes a second, in every process of tests that reads this file

    return scipy.stats


@pytest.mark.parametrize(("right", "n"), SHARES)
def test_wilson_is_scipy_s(right: int, n: int, stats: Any) -> None:
    expected = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")

    assert wilson(right, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (5, 5), (9, 2), (3, 30), (400, 460)])
def test_mcnemar_is_scipy_s_binomial_test_of_the_tasks_that_differ(wins: int, losses: int, stats: Any) -> None:
    assert mcnemar(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, rel=1e-9)


def test_holm_is_its_definition_over_scipy_s_ranks(stats: Any) -> None:
    """scipy has no Holm: here it is its definition, over the ranks that scipy gives."""
    ps = [0.011, 0.02, 0.004, 0.9, 0.04, 0.04]
    ranks = stats.rankdata(ps, method="ordinal")

    stepped = [max((len(ps) - r + 1) * q for q, r in zip(ps, ranks, strict=True) if q <= p) for p in ps]

    assert holm(ps) == pytest.approx([min(1.0, p) for p in stepped])


def test_resampled_means_spread_as_scipy_s_bootstrap_does(stats: Any) -> None:
    [drawn] = resampled_means([SOME], Draws(0, 20_000))

    expected = stats.bootstrap((SOME,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))

    low, high = (quantile(drawn, share) for share in (0.025, 0.975))
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.01)
    assert np.std(drawn) == pytest.approx(expected.standard_error, rel=0.02)


def test_signs_by_lot_are_scipy_s_permutation_test_of_pairs(stats: Any) -> None:
    a, b = SOME, [0.2, 0.0, 0.3, 0.5, 0.1, 0.7, 0.5, 0.9, 1.0, 0.2, 0.8, 0.3, 0.4, 0.4]

    expected = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", vectorized=False, n_resamples=20_000
    )

    assert pair(a, b, Draws(0, 20_000)).p == pytest.approx(expected.pvalue, abs=0.01)


def test_resampled_means_spread_as_a_bootstrap_in_plain_python_does() -> None:
    rng = random.Random(3)
    expected = sorted(sum(rng.choices(SOME, k=len(SOME))) / len(SOME) for _ in range(20_000))

    [drawn] = resampled_means([SOME], Draws(0, 20_000))

    for share in (0.01, 0.025, 0.5, 0.975, 0.99):
        assert quantile(drawn, share) == pytest.approx(quantile(expected, share), abs=0.01)


def test_draws_that_fill_several_chunks_are_those_of_one_stream() -> None:
    """More numbers than one chunk holds, against the same stream read number by number: equal to the last digit."""
    n, times = 7_001, 40
    column = [i / 10_000 for i in range(n)]
    words = iter(np.random.SFC64([0, 32, n]).random_raw(times * (n + 1) // 2).tolist())

    totals = []
    for _ in range(times):
        halves = [half for word in itertools.islice(words, (n + 1) // 2) for half in (word & 0xFFFFFFFF, word >> 32)]
        totals.append(sum(half * n >> 32 for half in halves[:n]))

    [drawn] = resampled_means([column], Draws(0, times))
    assert drawn == [round(total / 10_000 / n, 9) for total in sorted(totals)]


def test_signs_are_drawn_bit_by_bit() -> None:
    """The bits of a stream that holds a row for each draw, the first bit of each byte first."""
    n, times = 70, 5
    column = np.array([float(i) for i in range(n)])
    off = (column - column.mean()) / math.sqrt(((column - column.mean()) ** 2).sum())
    rows = np.random.SFC64([3, 1, n]).random_raw((times, 2)).astype("<u8")

    expected = []
    for row in rows:
        bits = [byte >> (7 - bit) & 1 for byte in row.tobytes() for bit in range(8)][:n]
        expected.append([sum(value if bit else -value for value, bit in zip(off.tolist(), bits, strict=True))])

    assert draw_together(column[:, None], Draws(3, times)).tolist() == pytest.approx(np.array(expected), abs=1e-7)


def test_the_stream_is_the_same_in_every_version_and_on_every_machine() -> None:
    assert np.random.SFC64([0, 32, 7_001]).random_raw(2).tolist() == [7733777364262089073, 5884702699872773303]


def test_another_seed_draws_something_else() -> None:
    column = [0.0, 0.3, 0.9, 1.0]

    assert resampled_means([column], Draws(1, 200)) == resampled_means([column], Draws(1, 200))
    assert resampled_means([column], Draws(1, 200)) != resampled_means([column], Draws(2, 200))


def test_what_else_is_asked_changes_no_draw() -> None:
    column, other = [0.0, 0.3, 0.9, 1.0], [0.5, 0.5, 0.1, 0.2]

    assert resampled_means([column, other], FEW)[0] == resampled_means([column], FEW)[0]


@given(columns, st.randoms())
def test_the_order_of_tasks_changes_nothing(column: list[float], rng: random.Random) -> None:
    other = [rng.choice([0.0, 0.5, 1.0]) for _ in column]
    shuffled = list(zip(column, other, strict=True))
    rng.shuffle(shuffled)

    again = pair([a for a, _ in shuffled], [b for _, b in shuffled])

    first = pair(column, other)
    assert again == first
    assert again.interval == first.interval
    assert means([[a for a, _ in shuffled]], FEW) == means([column], FEW)


@given(columns)
def test_a_mean_lies_in_its_interval_and_the_interval_between_0_and_1(column: list[float]) -> None:
    [mean] = means([column], FEW)

    assert mean is not None
    assert 0 <= mean.interval[0] <= mean.mean <= mean.interval[1] <= 1


@given(columns, st.data())
def test_turned_round_a_comparison_says_the_opposite(column: list[float], data: st.DataObject) -> None:
    other = data.draw(st.lists(scores, min_size=len(column), max_size=len(column)))

    one, turned = pair(column, other), pair(other, column)

    assert (one.mean, one.wins, one.losses) == (pytest.approx(-turned.mean), turned.losses, turned.wins)
    assert one.p == pytest.approx(turned.p, abs=0.12)


def test_nothing_that_differs_is_no_proof_that_nothing_does() -> None:
    few, many = pair([1.0] * 10, [1.0] * 10), pair([1.0] * 1000, [1.0] * 1000)

    assert few.p == many.p == 1
    assert few.lower() < -0.1 < 0.1 < few.upper()
    assert -0.01 < many.lower() < 0 < many.upper() < 0.01


def test_tasks_that_one_of_two_was_not_asked_are_not_compared() -> None:
    found = pair([1.0, math.nan, 0.0], [0.0, 1.0, math.nan])

    assert (found.tasks, found.wins, found.losses) == (1, 1, 0)
    assert compare_paired([([1.0, math.nan], [math.nan, 1.0])], FEW) == [None]
    assert means([[math.nan]], FEW) == [None]


def test_signs_by_lot_give_the_share_of_all_sign_patterns() -> None:
    a, b = [0.9, 0.8, 0.4, 0.7, 0.2, 0.6], [0.5, 0.3, 0.1, 0.9, 0.1, 0.2]
    differences = [x - y for x, y in zip(a, b, strict=True)]
    patterns = list(itertools.product((1, -1), repeat=len(a)))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]

    found = pair(a, b, Draws(0, 20_000))

    exact = sum(total >= abs(sum(differences)) - 1e-9 for total in sums) / len(patterns)
    assert not found.binary
    assert found.p == pytest.approx(exact, abs=0.01)


def covers(found: PairedDifference, truth: float) -> bool:
    return found.lower() <= truth <= found.upper()


@pytest.mark.parametrize(("tasks", "world"), [(30, World(mended=0.3, broken=0.1)), (150, World(mended=0.2))])
def test_intervals_of_differences_cover_the_truth(tasks: int, world: World) -> None:
    rng = random.Random(tasks)
    draws = [world.draw(tasks, rng) for _ in range(400)]

    found = compare_paired([(as_scores(fused), as_scores(members["a"])) for fused, members in draws], FEW)

    assert 0.925 <= rate([covers(each, world.lift) for each in found if each]) <= 0.99


def test_intervals_of_scores_cover_the_skill() -> None:
    world, rng = World(), random.Random(5)
    skills = world.skills

    hits = []
    for _ in range(400):
        _, members = world.draw(40, rng)
        found = means([as_scores(members[name]) for name in skills], FEW)
        hits += [
            mean.interval[0] <= skills[mean_of] <= mean.interval[1]
            for mean_of, mean in zip(skills, found, strict=True)
            if mean
        ]

    assert 0.93 <= rate(hits) <= 0.98


def test_intervals_of_scores_between_0_and_1_cover_their_mean() -> None:
    rng = random.Random(6)
    found = means([[rng.betavariate(2, 1) for _ in range(25)] for _ in range(400)], FEW)

    assert 0.925 <= rate([mean.interval[0] <= 2 / 3 <= mean.interval[1] for mean in found if mean]) <= 0.99


def test_repeated_tasks_are_no_new_tasks() -> None:
    """The same 40 tasks thrice, their noise small: as if they were independent, intervals would be far too short."""
    rng = random.Random(7)
    once = [[rng.betavariate(1, 1) for _ in range(40)] for _ in range(400)]

    def hit(columns: list[list[float]]) -> float:
        return rate([m.interval[0] <= 0.5 <= m.interval[1] for m in means(columns, FEW) if m])

    assert hit([column * 3 for column in once]) < 0.85
    assert 0.91 <= hit(once) <= 0.99


@pytest.mark.parametrize("world", [World(mended=0.3, broken=0.2), World(mended=0.1, broken=0.1 * 0.4 / 0.6)])
def test_where_nothing_is_better_nothing_is_found_more_often_than_the_level_allows(world: World) -> None:
    rng = random.Random(11)
    assert world.lift == pytest.approx(0)

    found = []
    for _ in range(600):
        fused, members = world.draw(120, rng)
        wins = sum(f > m for f, m in zip(fused, members["a"], strict=True))
        losses = sum(f < m for f, m in zip(fused, members["a"], strict=True))
        found.append(mcnemar(wins, losses) < 0.05)

    assert rate(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(found))


def test_signs_by_lot_find_nothing_where_nothing_is() -> None:
    rng = random.Random(12)
    pairs = [([rng.random() for _ in range(25)], [rng.random() for _ in range(25)]) for _ in range(600)]

    found = [each.p < 0.05 for each in compare_paired(pairs, FEW) if each]

    assert rate(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(found))
    assert rate(found) >= 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", [World(mended=0.35, broken=0.1), World(mended=0.3, broken=0.05), World(mended=0.4, broken=0.2)]
)
def test_a_true_lift_is_found_as_often_as_the_power_says(world: World) -> None:
    """With the number of tasks that the report asks for, 4 times of 5."""
    tasks = tasks_needed(world.lift, world.differing, binary=True)
    assert tasks is not None
    rng = random.Random(13)

    found = []
    for _ in range(500):
        fused, members = world.draw(tasks, rng)
        wins = sum(f > m for f, m in zip(fused, members["a"], strict=True))
        losses = sum(f < m for f, m in zip(fused, members["a"], strict=True))
        found.append(mcnemar(wins, losses) < 0.05)

    assert 0.75 <= rate(found) <= 0.87


def test_a_true_lift_between_0_and_1_is_found_as_often_as_the_power_says() -> None:
    size, spread = 0.1, 0.3
    tasks = tasks_needed(size, spread**2 + size**2, binary=False)
    assert tasks is not None
    rng = random.Random(14)
    pairs = [([rng.gauss(size, spread) for _ in range(tasks)], [0.0] * tasks) for _ in range(500)]

    assert 0.75 <= rate([each.p < 0.05 for each in compare_paired(pairs, FEW) if each]) <= 0.87


def test_the_difference_that_was_to_be_seen_needs_just_as_many_tasks() -> None:
    for tasks, squared, binary in ((100, 0.3, True), (500, 0.1, True), (80, 0.04, False)):
        size = difference_seen(tasks, squared, binary=binary)

        assert size is not None
        assert tasks_needed(size, squared, binary=binary) == tasks


def test_few_tasks_show_no_difference_at_all() -> None:
    assert difference_seen(3, 0.3, binary=True) is None
    assert tasks_needed(0.0, 0.3, binary=True) is None
    assert tasks_needed(1e-9, 0.3, binary=False) is None


@given(st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_a_larger_difference_needs_fewer_tasks(one: float, other: float) -> None:
    small, large = sorted((one, other))

    fewer, more = (tasks_needed(size, 0.6, binary=True) for size in (large, small))

    assert fewer is not None
    assert more is not None
    assert fewer <= more
