"""Timestep sampling: one distribution for masks, one for images (t = 0 is clean data, t = 1 is pure noise).

Masks survive noise that destroys an image, so moderate noise teaches little about *which* pixels belong to
an object. Masks are therefore trained at the extremes (see the GenMask paper, section on timestep sampling).

Each distribution is a function `(key, shape, **parameters) -> t`, float32 in [0, 1]. The values of its
parameters are fields of `TimestepDistribution`.
"""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

SEGMENT, GENERATE = 0, 1
"""Values of the per-example `task` array."""


def uniform(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """t ~ U(0, 1)."""
    return jax.random.uniform(key, shape)


def logit_normal(key: PRNGKeyArray, shape: tuple[int, ...], mean: float, std: float) -> Float[Array, "..."]:
    """t = sigmoid(n), n ~ N(mean, std): moderate noise, for images (Esser et al. 2024)."""
    return jax.nn.sigmoid(mean + std * jax.random.normal(key, shape))


def long_tail(key: PRNGKeyArray, shape: tuple[int, ...], a: float) -> Float[Array, "..."]:
    """The paper's distribution for masks: t = 1 - s with s = min(1, a sqrt(u / (1 - u))), u ~ U(0, 1).

    s, the distance from pure noise, has density 2 a^2 s / (s^2 + a^2)^2 and median a. The tail beyond s = 1
    (0.25 % of draws at a = 0.05) is clipped to clean data.
    """
    u = jax.random.uniform(key, shape)
    return 1 - jnp.minimum(1.0, a * jnp.sqrt(u / (1 - u)))


def bimodal(key: PRNGKeyArray, shape: tuple[int, ...], a: float, low_share: float) -> Float[Array, "..."]:
    """Both extremes: like `long_tail`, but t becomes 1 - t with probability `low_share`.

    With `low_share` 0, this is the paper's distribution. Near clean data, a mask can be refined.
    """
    t_key, side_key = jax.random.split(key)
    t = long_tail(t_key, shape, a)
    return jnp.where(jax.random.uniform(side_key, shape) < low_share, 1 - t, t)


DISTRIBUTIONS = {function.__name__: function for function in (uniform, logit_normal, long_tail, bimodal)}


@dataclasses.dataclass(frozen=True)
class TimestepDistribution:
    """The name of a distribution, and its parameters; those that it does not use are ignored.

    name: a function of this module: "uniform", "logit_normal", "long_tail" or "bimodal".
    mean, std: of the logit of t, for "logit_normal".
    a: median distance from pure noise, for "long_tail" and "bimodal".
    low_share: share of timesteps near clean data, for "bimodal".
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    a: float = 0.05
    low_share: float = 0.1

    @property
    def low_level(self) -> float | None:
        """The median of the timesteps near clean data; None if the distribution hardly has such timesteps."""
        return self.a if self.name == "bimodal" and self.low_share else None

    def sample(self, key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Samples timesteps of this shape."""
        function = DISTRIBUTIONS[self.name]
        names = list(inspect.signature(function).parameters)[2:]
        return function(key, shape, **{name: getattr(self, name) for name in names})


def sample_timesteps(
    key: PRNGKeyArray,
    task: Int[Array, "..."],
    segment: TimestepDistribution,
    generate: TimestepDistribution,
) -> Float[Array, "..."]:
    """Timesteps of a batch, each from the distribution of its example's task (SEGMENT or GENERATE)."""
    segment_key, generate_key = jax.random.split(key)
    return jnp.where(
        task == SEGMENT, segment.sample(segment_key, task.shape), generate.sample(generate_key, task.shape)
    )
