"""Intervals cover the true value as often as they say; variance components are those of the analysis of variance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from grbench.statistics.intervals import Estimate, interval_of_difference, interval_of_mean
from grbench.statistics.scores import Scores, SeedVariance, pooled_seed_variance

METHODS, USERS, TABLES = 5, 60, 400


def drawn(rng: np.random.Generator, seeds: int, between: float, rest: float, methods: int = METHODS) -> list[Scores]:
    """Methods whose true mean is 0. between: variance between seeds, in units of the variance of a mean over users;
    rest: variance of what belongs to neither user nor seed."""
    users = rng.normal(size=(methods, 1, USERS))
    of_seeds = rng.normal(size=(methods, seeds, 1)) * np.sqrt(between / USERS)
    noise = rng.normal(size=(methods, seeds, USERS)) * np.sqrt(rest)
    return [Scores(values) for values in users + of_seeds + noise]


def coverage(estimates: list[Estimate]) -> float:
    """The share of the 95 % intervals that hold 0. All at once: scipy takes long to find each quantile by itself."""
    value, error, degrees = np.array([(each.value, each.error, each.degrees) for each in estimates]).T
    widths = stats.t.ppf(0.975, degrees) * error
    assert estimates[0].half_width() == pytest.approx(widths[0])
    return float(np.mean(np.abs(value) <= widths))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize(("between", "rest"), [(0, 0.3), (1, 0.3), (10, 1), (100, 0.3)])
def test_95_percent_intervals_cover_the_true_value_93_to_97_times_in_100(
    seeds: int, between: float, rest: float
) -> None:
    rng = np.random.default_rng((seeds, int(between)))
    means, differences = [], []
    for _ in range(TABLES):
        methods = drawn(rng, seeds, between, rest)
        pooled = pooled_seed_variance(methods)
        means += [interval_of_mean(scores, pooled) for scores in methods]
        differences += [
            interval_of_difference(methods[0], methods[1], pooled),
            interval_of_difference(methods[2], methods[3], pooled),
        ]
    for estimates in (means, differences):
        assert 0.93 <= coverage(estimates) <= 0.97
        assert {estimate.over for estimate in estimates} == {"users and seeds"}
    # And p is uniform where nothing differs.
    false_alarms = np.mean([estimate.p_value < 0.05 for estimate in differences])
    assert 0.03 <= false_alarms <= 0.07


@pytest.mark.parametrize(("number", "seeds"), [(4, 2), (2, 3), (1, 5)])
@pytest.mark.parametrize(("between", "rest"), [(1, 0.3), (100, 0.3)])
def test_intervals_cover_with_the_fewest_degrees_of_freedom_that_are_enough(
    number: int, seeds: int, between: float, rest: float
) -> None:
    rng = np.random.default_rng((number, int(between)))
    means = []
    for _ in range(4 * TABLES // number):
        methods = drawn(rng, seeds, between, rest, number)
        means += [interval_of_mean(scores, pooled_seed_variance(methods)) for scores in methods]
    assert {estimate.over for estimate in means} == {"users and seeds"}
    assert 0.93 <= coverage(means) <= 0.97


def test_components_are_those_of_the_two_way_analysis_of_variance() -> None:
    values = np.array([[1.0, 2.0, 6.0], [2.0, 5.0, 8.0]])
    scores = Scores(values)
    assert scores.mean == 4
    assert scores.by_user.tolist() == [1.5, 3.5, 7]
    # Seed means 3 and 5; what is left of each cell: [[.5, -.5, 0], [-.5, .5, 0]], two degrees of freedom.
    assert scores.seed_means_variance == pytest.approx(2)
    assert scores.interaction == pytest.approx(0.5)


def test_one_seed_and_no_other_method_gives_an_interval_over_users_only() -> None:
    values = np.random.default_rng(0).random((1, 40))
    estimate = interval_of_mean(Scores(values), pooled_seed_variance([Scores(values)]))
    assert estimate.over == "users"
    expected = stats.t.interval(0.95, 39, values.mean(), stats.sem(values[0]))
    assert estimate.value - estimate.half_width() == pytest.approx(expected[0])
    assert estimate.value + estimate.half_width() == pytest.approx(expected[1])


def test_a_difference_over_users_only_is_the_paired_t_test() -> None:
    first, second = np.random.default_rng(1).random((2, 1, 50))
    estimate = interval_of_difference(Scores(first), Scores(second), SeedVariance(0.0, 0.0, 0))
    judged = stats.ttest_rel(first[0], second[0])
    assert estimate.p_value == pytest.approx(judged.pvalue)
    assert estimate.half_width() == pytest.approx(judged.confidence_interval().high - estimate.value)


@pytest.mark.parametrize("users", [1, 2, 3, 5, 8])
def test_few_users_who_differ_give_no_smaller_p_than_the_exact_test(users: int) -> None:
    hits = np.zeros((1, 1_000))
    hits[0, :users] = 1
    first, second = Scores(hits), Scores(np.zeros((1, 1_000)))
    exact = stats.binomtest(users, users).pvalue  # 2 / 2^users: each of them could have differed in the other direction
    for one, other in ((first, second), (second, first)):
        assert interval_of_difference(one, other, SeedVariance(0.0, 0.0, 0)).p_value == pytest.approx(exact)
    alone = interval_of_difference(Scores(hits[:, :users]), Scores(hits[:, :users] * 0), SeedVariance(0.0, 0.0, 0))
    assert (alone.error, alone.p_value) == (0, pytest.approx(exact))


def test_two_seeds_that_differ_do_not_widen_an_interval_without_end() -> None:
    """Student's t over two seeds, .20 and .35, would give .275 +- .95."""
    rng = np.random.default_rng(2)
    method = Scores((rng.random((2, 2_000)) < [[0.20], [0.35]]).astype(float))
    others = [Scores((rng.random((2, 2_000)) < rate).astype(float)) for rate in ([[0.30], [0.24]], [[0.3], [0.36]])]
    others += [Scores((rng.random((2, 2_000)) < [[0.2], [0.22]]).astype(float)) for _ in range(2)]
    alone = interval_of_mean(method, pooled_seed_variance([method]))
    assert alone.over == "users"
    together = interval_of_mean(method, pooled_seed_variance([method, *others]))
    assert together.over == "users and seeds"
    assert alone.half_width() < together.half_width() < 0.15


def test_a_method_without_randomness_has_no_variance_between_seeds() -> None:
    row = np.random.default_rng(3).random(30)
    fixed, random = Scores(np.stack([row, row, row])), Scores(np.random.default_rng(4).random((6, 30)))
    assert fixed.is_deterministic
    pooled = pooled_seed_variance([fixed, random])
    assert pooled.degrees == 5
    estimate = interval_of_mean(fixed, pooled)
    assert estimate.error == pytest.approx(stats.sem(row))
    assert estimate.over == "users and seeds"
    assert interval_of_mean(fixed, SeedVariance(0.0, 0.0, 0)).over == "users and seeds"


def test_equal_scores_do_not_differ() -> None:
    same = Scores(np.full((3, 10), 0.5))
    estimate = interval_of_difference(same, same, SeedVariance(0.0, 0.0, 0))
    assert (estimate.value, estimate.error, estimate.p_value) == (0, 0, 1)
