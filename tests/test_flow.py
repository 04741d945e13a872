"""The path between data and noise: identities, and samplers on a case that can be solved by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax import flow


@pytest.fixture
def pair():
    keys = jax.random.split(jax.random.key(0), 3)
    x0, noise = (jax.random.normal(key, (5, 4, 4, 2)) for key in keys[:2])
    return x0, noise, jax.random.uniform(keys[2], (5,))


def test_velocity_leads_back_to_data_and_noise(pair):
    x0, noise, t = pair
    x_t, velocity = flow.add_noise(x0, noise, t), flow.velocity_target(x0, noise)
    np.testing.assert_allclose(flow.predict_x0(x_t, velocity, t), x0, atol=1e-5)
    np.testing.assert_allclose(x_t + (1 - t).reshape(-1, 1, 1, 1) * velocity, noise, atol=1e-5)


def test_ends_of_the_path(pair):
    x0, noise, _ = pair
    np.testing.assert_array_equal(flow.add_noise(x0, noise, jnp.zeros(5)), x0)
    np.testing.assert_array_equal(flow.add_noise(x0, noise, jnp.ones(5)), noise)


def test_a_mask_takes_one_step_from_noise(pair):
    x0, noise, _ = pair
    velocity = flow.velocity_target(x0, noise)
    np.testing.assert_allclose(flow.predict_x0(noise, velocity, jnp.ones(5)), noise - velocity, atol=1e-6)


def test_velocity_is_the_derivative_of_the_path(pair):
    x0, noise, t = pair
    _, slope = jax.jvp(lambda t: flow.add_noise(x0, noise, t), (t,), (jnp.ones(5),))
    np.testing.assert_allclose(slope, flow.velocity_target(x0, noise), atol=1e-5)


def gaussian_velocity(std):
    """Exact E[noise - x0 | x_t] when x0 ~ N(0, std^2)."""

    def velocity(x, t):
        t = t.reshape(-1, 1)
        return x * (t - (1 - t) * std**2) / ((1 - t) ** 2 * std**2 + t**2)

    return velocity


@pytest.mark.parametrize(("method", "tolerance"), [("euler", 0.04), ("heun", 0.004)])
def test_samplers_reach_the_data_distribution(method, tolerance):
    noise = jnp.linspace(-3, 3, 32)[:, None]
    samples = flow.integrate(gaussian_velocity(0.5), noise, flow.sampling_timesteps(50), method)
    np.testing.assert_allclose(samples, 0.5 * noise, atol=3 * tolerance)


def test_heun_is_closer_than_euler():
    noise = jnp.linspace(-3, 3, 32)[:, None]
    error = {
        method: jnp.abs(
            flow.integrate(gaussian_velocity(0.5), noise, flow.sampling_timesteps(10), method) - 0.5 * noise
        ).max()
        for method in ("euler", "heun")
    }
    assert error["heun"] < 0.3 * error["euler"]


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match="euler"):
        flow.integrate(gaussian_velocity(1.0), jnp.zeros((1, 1)), flow.sampling_timesteps(2), "midpoint")


def test_guidance_extrapolates():
    conditional, unconditional = jnp.ones((2, 3)), jnp.zeros((2, 3))
    np.testing.assert_array_equal(
        flow.apply_guidance(conditional, unconditional, jnp.ones(len(conditional))), conditional
    )
    np.testing.assert_array_equal(
        flow.apply_guidance(conditional, unconditional, jnp.full(len(conditional), 3.0)), 3 * conditional
    )


def test_sampling_timesteps_fall_from_one_to_zero_and_shift_towards_noise():
    plain, shifted = flow.sampling_timesteps(10), flow.sampling_timesteps(10, 3.0)
    assert plain[0] == shifted[0] == 1
    assert plain[-1] == shifted[-1] == 0
    assert (np.diff(shifted) < 0).all()
    assert (shifted[1:-1] > plain[1:-1]).all()
