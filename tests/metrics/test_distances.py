import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.distances import frechet_distance, inception_score, kernel_distance
from pipeline.scene.errors import InputError


def exact_sample(rng, mean, covariance, n=40):
    """Samples whose own mean and unbiased covariance are these, to rounding."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T).reshape(len(mean), -1))).T
    return white @ np.linalg.cholesky(np.asarray(covariance, float)).T + mean


def by_hand(a, b):
    """The formula as it is usually written, eigenvalues of the product included."""
    s, t = np.cov(a.T), np.cov(b.T)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(s @ t).real, 0)).sum()
    return np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * roots


def test_frechet_of_gaussians_on_a_line() -> None:
    rng = np.random.default_rng(0)
    a, b = exact_sample(rng, [1.0], [[4.0]]), exact_sample(rng, [4.0], [[25.0]])
    assert frechet_distance(a, b) == pytest.approx(3**2 + (5 - 2) ** 2)


def test_frechet_of_commuting_covariances_is_the_gap_of_their_roots() -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    s, t = turn @ np.diag([1, 4, 9]) @ turn.T, turn @ np.diag([16, 4, 1]) @ turn.T
    a, b = exact_sample(rng, [0, 0, 0], s), exact_sample(rng, [1, 2, 2], t, n=61)
    assert frechet_distance(a, b) == pytest.approx(9 + (1 - 4) ** 2 + 0 + (3 - 1) ** 2)


def test_frechet_of_two_covariances_that_do_not_commute() -> None:
    s, t = np.array([[2.0, 1], [1, 2]]), np.diag([1.0, 4])
    # tr (S T)^(1/2) of a 2x2 product is sqrt(tr + 2 sqrt(det)): det S T = 12, tr S T = 10
    expected = 4 + 5 - 2 * np.sqrt(10 + 2 * np.sqrt(12))
    rng = np.random.default_rng(2)
    assert frechet_distance(exact_sample(rng, [0, 0], s), exact_sample(rng, [0, 0], t)) == pytest.approx(expected)


def test_frechet_of_a_set_and_itself_is_zero_and_a_shift_is_its_square() -> None:
    a = np.random.default_rng(3).normal(size=(90, 48)) * np.geomspace(1e-3, 10, 48)
    assert frechet_distance(a, a[::-1]) < 1e-10
    assert frechet_distance(a, a + 0.25) == pytest.approx(48 * 0.0625)


def test_frechet_of_features_without_full_rank() -> None:
    a = np.random.default_rng(4).normal(size=(50, 2))
    flat = np.concatenate([a, a[:, :1] + a[:, 1:], np.zeros((50, 1))], 1)
    assert frechet_distance(flat, flat) < 1e-10
    assert frechet_distance(flat, flat + np.array([0, 0, 0, 3.0])) == pytest.approx(9)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_frechet_is_symmetric_and_equals_the_usual_formula(d, seed) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) for n in (d + 5, d + 9))
    value = frechet_distance(a, b)
    assert value == pytest.approx(frechet_distance(b, a))
    if d > 1:
        assert value == pytest.approx(by_hand(a, b), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("n", [7, 8])
def test_frechet_refuses_fewer_samples_than_it_needs(n) -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(InputError, match=f"more samples than features, found {n} of dimension 8"):
        frechet_distance(rng.normal(size=(30, 8)), rng.normal(size=(n, 8)))
    assert np.isfinite(frechet_distance(rng.normal(size=(30, 8)), rng.normal(size=(9, 8))))


def brute_mmd(a, b):
    """Term by term, over ordered pairs of different samples within a set and all pairs between the sets."""

    def k(x, y):
        return (sum(u * v for u, v in zip(x, y, strict=True)) / len(x) + 1) ** 3

    n, m = len(a), len(b)
    within_a = sum(k(x, y) for x, y in itertools.permutations(a, 2)) / (n * (n - 1))
    within_b = sum(k(x, y) for x, y in itertools.permutations(b, 2)) / (m * (m - 1))
    return within_a + within_b - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_on_whole_sets_equals_brute_force() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)) + 0.5
    mean, std = kernel_distance(a, b, rng, subsets=3, subset_size=9)
    assert mean == pytest.approx(brute_mmd(a, b))
    assert std == pytest.approx(0, abs=1e-12)


def test_kernel_distance_by_hand() -> None:
    a, b = np.array([[1.0], [1.0]]), np.array([[0.0], [0.0]])
    assert kernel_distance(a, b, np.random.default_rng(0), 1, 2)[0] == 8 + 1 - 2 * 1


def test_kernel_distance_is_unbiased_and_knows_its_spread() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=(3000, 3)), rng.normal(size=(3000, 3))
    mean, std = kernel_distance(a, b, rng, subsets=300, subset_size=40)
    assert std > 0
    assert abs(mean) < 4 * std / np.sqrt(300)
    far, _ = kernel_distance(a, b + 1, rng, subsets=20, subset_size=40)
    assert far > 10 * std


def test_kernel_distance_follows_its_generator() -> None:
    a, b = np.random.default_rng(8).normal(size=(2, 50, 3))
    first, again, other = (kernel_distance(a, b, np.random.default_rng(seed), 5, 20) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("size", [1, 21])
def test_kernel_distance_refuses_subsets_that_cannot_be(size) -> None:
    a = np.random.default_rng(9).normal(size=(30, 3))
    with pytest.raises(InputError, match=f"2 to 20 samples.*found {size}"):
        kernel_distance(a, a[:20], np.random.default_rng(0), 5, size)
    with pytest.raises(InputError, match="at least one subset"):
        kernel_distance(a, a, np.random.default_rng(0), 0, 5)


def test_inception_score_is_one_where_all_look_alike_and_k_where_all_differ() -> None:
    assert inception_score(np.full((40, 5), 0.2)) == (pytest.approx(1), pytest.approx(0, abs=1e-12))
    assert inception_score(np.tile(np.eye(5), (20, 1)))[0] == pytest.approx(5)
    assert inception_score(np.tile([[1.0, 0, 0]], (20, 1)))[0] == pytest.approx(1)


def test_inception_score_by_its_definition() -> None:
    p = np.random.default_rng(10).dirichlet(np.ones(4), size=21)
    parts = [p[:11], p[11:]]  # the first part takes the odd one
    expected = [np.exp(np.mean([(x * np.log(x / part.mean(0))).sum() for x in part])) for part in parts]
    assert inception_score(p, splits=2) == (pytest.approx(np.mean(expected)), pytest.approx(np.std(expected)))


def test_inception_score_refuses_what_is_no_probability_or_too_few() -> None:
    p = np.random.default_rng(11).dirichlet(np.ones(4), size=9)
    with pytest.raises(InputError, match="1 to 9 parts"):
        inception_score(p)
    for bad in (p * 2, p - 0.5, np.where(p > 0.5, np.nan, p)):
        with pytest.raises(InputError, match="sum to one"):
            inception_score(bad, splits=1)


def test_feature_sets_that_do_not_match() -> None:
    a = np.random.default_rng(12).normal(size=(30, 3))
    for b in (a[:, :2], a[0], a[:0]):
        with pytest.raises(InputError, match="of equal width"):
            frechet_distance(a, b)
    with pytest.raises(InputError, match="second feature set: expected finite"):
        kernel_distance(a, np.full((30, 3), np.inf), np.random.default_rng(0), 1, 5)
