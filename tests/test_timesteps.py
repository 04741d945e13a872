"""Timestep distributions: quantiles and densities that the paper's formulas give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax.timesteps import (
    DISTRIBUTIONS,
    GENERATE,
    SEGMENT,
    TimestepDistribution,
    bimodal,
    logit_normal,
    long_tail,
    sample_timesteps,
    uniform,
)

KEY, N = jax.random.key(1), (200_000,)


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
def test_every_law_stays_in_range(name):
    t = TimestepDistribution(name, a=0.5, low_share=0.3).sample(KEY, N)
    assert t.shape == N
    assert t.dtype == jnp.float32
    assert float(t.min()) >= 0
    assert float(t.max()) <= 1


@pytest.mark.parametrize("a", [0.05, 0.1, 0.5])
def test_long_tail_quantiles(a):
    s = 1 - np.asarray(long_tail(KEY, N, a))
    for u in (0.1, 0.5, 0.9):
        expected = min(1.0, a * np.sqrt(u / (1 - u)))
        assert np.quantile(s, u) == pytest.approx(expected, rel=0.03)
    # P(s > 1) = a^2 / (1 + a^2): 0.25 % at 0.05, 1 % at 0.1, 20 % at 0.5; clipped to clean data.
    assert (s == 1).mean() == pytest.approx(a**2 / (1 + a**2), rel=0.15)


def test_long_tail_keeps_nine_of_ten_masks_above_085():
    assert (long_tail(KEY, N, 0.05) > 0.85).mean() == pytest.approx(0.9, abs=0.005)


def test_long_tail_density_peaks_where_the_formula_says():
    s = 1 - np.asarray(long_tail(KEY, (2_000_000,), 0.05))
    density, edges = np.histogram(s, bins=100, range=(0, 0.2))
    peak = edges[density.argmax()] + 0.001
    assert peak == pytest.approx(0.05 / np.sqrt(3), abs=0.006)
    assert density.max() / 2_000_000 / 0.002 == pytest.approx(12.99, rel=0.03)


def test_bimodal_is_long_tail_with_a_mirrored_share():
    t = bimodal(KEY, N, 0.05, 0.2)
    assert (t < 0.5).mean() == pytest.approx(0.2, abs=0.01)
    low = np.asarray(t)[np.asarray(t) < 0.5]
    assert np.median(low) == pytest.approx(0.05, rel=0.05)
    np.testing.assert_array_equal(bimodal(KEY, N, 0.05, 0.0), long_tail(jax.random.split(KEY)[0], N, 0.05))


@pytest.mark.parametrize("a", [0.01, 0.05])
def test_the_low_level_is_in_the_middle_of_what_is_trained_near_clean_data(a):
    distribution = TimestepDistribution("bimodal", a=a, low_share=0.2)
    t = np.asarray(distribution.sample(KEY, N))
    assert np.median(t[t < 0.5]) == pytest.approx(distribution.low_level, rel=0.05)
    # A mask refined at 0.3 is one that next to no draw has shown.
    assert np.mean((t > 0.2) & (t < 0.4)) < 0.02 < np.mean((t > a / 2) & (t < 2 * a))
    for one_sided in (
        TimestepDistribution("bimodal", low_share=0.0),
        TimestepDistribution("long_tail"),
        TimestepDistribution("uniform"),
        TimestepDistribution("logit_normal"),
    ):
        assert one_sided.low_level is None


def test_logit_normal_and_uniform_quantiles():
    t = logit_normal(KEY, N, 0.0, 1.0)
    assert np.quantile(t, 0.8413) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.005)
    assert np.quantile(t, 0.5) == pytest.approx(0.5, abs=0.005)
    assert np.quantile(logit_normal(KEY, N, 1.0, 0.5), 0.5) == pytest.approx(1 / (1 + np.exp(-1)), abs=0.005)
    assert np.quantile(uniform(KEY, N), 0.25) == pytest.approx(0.25, abs=0.005)


def test_a_batch_draws_by_task_inside_jit():
    task = jnp.tile(jnp.array([SEGMENT, GENERATE]), 50_000)
    draw = jax.jit(
        lambda key, task: sample_timesteps(
            key, task, TimestepDistribution("long_tail"), TimestepDistribution("logit_normal")
        )
    )
    t = np.asarray(draw(KEY, task))
    assert np.median(t[0::2]) == pytest.approx(0.95, abs=0.005)
    assert np.median(t[1::2]) == pytest.approx(0.5, abs=0.01)
    assert abs(np.corrcoef(t[0::2], t[1::2])[0, 1]) < 0.02
