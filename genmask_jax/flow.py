"""All formulas of flow matching on a straight path between data and noise.

The noise level t is 0 for clean data and **1 for pure noise**:

    x_t = (1 - t) x0 + t noise,        velocity = d x_t / d t = noise - x0,
    x0  = x_t - t velocity,            noise = x_t + (1 - t) velocity.

This is the sign convention of the public Wan 2.1 weights. The GenMask paper writes the velocity as
x0 - noise, so its one-pass mask is x0 = noise + v(noise, 1); ours is x0 = noise - velocity(noise, t = 1).

Noise levels `t` are `[B]` float32 and broadcast over the trailing axes of `[B, ...]` arrays.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "B ..."], Float[Array, "B"]], Float[Array, "B ..."]]


def _expand_to(t: Float[Array, "B"], x: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim))


def add_noise(
    x0: Float[Array, "B ..."], noise: Float[Array, "B ..."], t: Float[Array, "B"]
) -> Float[Array, "B ..."]:
    """x_t, the point at noise level `t` on the path from `x0` to `noise`."""
    t = _expand_to(t, x0)
    return (1 - t) * x0 + t * noise


def velocity_target(x0: Float[Array, "B ..."], noise: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """The velocity that the network learns to predict; it is constant along the path."""
    return noise - x0


def predict_x0(
    x_t: Float[Array, "B ..."], velocity: Float[Array, "B ..."], t: Float[Array, "B"]
) -> Float[Array, "B ..."]:
    """The clean data implied by the velocity at `x_t`."""
    return x_t - _expand_to(t, x_t) * velocity


def apply_guidance(
    conditional: Float[Array, "B ..."],
    unconditional: Float[Array, "B ..."],
    guidance_scale: Float[Array, "B"],
) -> Float[Array, "B ..."]:
    """Classifier-free guidance (Ho & Salimans 2022): scale 1 is the conditional velocity itself."""
    return unconditional + _expand_to(guidance_scale, conditional) * (conditional - unconditional)


def sampling_timesteps(num_steps: int, shift: float = 1.0) -> Float[Array, "{num_steps}+1"]:
    """Noise levels from 1 to 0. `shift` > 1 spends more steps at high noise (Esser et al. 2024)."""
    t = jnp.linspace(1.0, 0.0, num_steps + 1)
    return shift * t / (1 + (shift - 1) * t)


def integrate(
    velocity: Velocity, noise: Float[Array, "B ..."], timesteps: Float[Array, "N"], method: str
) -> Float[Array, "B ..."]:
    """Integrates the velocity from `noise` at `timesteps[0]` to data at `timesteps[-1]`.

    Args:
        velocity: (x_t, t [B]) -> velocity.
        noise: starting point, `[B, ...]`.
        timesteps: decreasing noise levels.
        method: "euler" (one evaluation per step) or "heun" (two evaluations, except in the last step, which
            is an Euler step, as in Karras et al. 2022).
    """
    batch = noise.shape[0]

    def euler(x, t, t_next):
        v = velocity(x, jnp.full((batch,), t))
        return x + (t_next - t) * v, v

    def step(x, times):
        t, t_next = times
        x_next, v = euler(x, t, t_next)
        if method == "heun":
            v_next = velocity(x_next, jnp.full((batch,), t_next))
            x_next = x + (t_next - t) * 0.5 * (v + v_next)
        return x_next, None

    if method not in ("euler", "heun"):
        raise ValueError(f"method must be 'euler' or 'heun', not {method!r}")
    x, _ = jax.lax.scan(step, noise, (timesteps[:-2], timesteps[1:-1]))
    return euler(x, timesteps[-2], timesteps[-1])[0]


def x0_trajectory(
    velocity: Velocity, noise: Float[Array, "B ..."], timesteps: Float[Array, "N"]
) -> Float[Array, "N-1 B ..."]:
    """The clean data predicted at each step of Euler's method; the last equals the result of `integrate`."""

    def step(x, times):
        t, t_next = times
        t = jnp.full((noise.shape[0],), t)
        v = velocity(x, t)
        return x + (t_next - t[0]) * v, predict_x0(x, v, t)

    return jax.lax.scan(step, noise, (timesteps[:-1], timesteps[1:]))[1]
