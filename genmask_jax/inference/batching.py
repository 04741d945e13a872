"""Fixed-size batches for jitted samplers: the last one is filled up, so that nothing is compiled twice."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np


def fixed_batches(count: int, batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Index arrays `[batch_size]` over range(count), and how many are real; the rest repeat the last."""
    for start in range(0, count, batch_size):
        real = min(batch_size, count - start)
        yield np.minimum(np.arange(start, start + batch_size), count - 1), real


def stack_inputs(rows: Sequence[Any]) -> Any:
    """Rows of one structure as arrays with a leading batch axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def example_keys(seed: int, indices: np.ndarray) -> np.ndarray:
    """Noise seeds uint32 `[B, 2]`, one an example: what is drawn for it does not depend on its batch."""
    return np.stack([np.full(len(indices), seed, np.uint32), indices.astype(np.uint32)], axis=1)


def example_noise(seeds: jax.Array, draw: int, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise `[B, *shape]` from `example_keys`; `draw` numbers repeated draws."""

    def one(pair):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(pair[0]), pair[1]), draw)
        return jax.random.normal(key, shape)

    return jax.vmap(one)(seeds)
