"""Random weights for benchmarks."""

from typing import Any

import jax
import numpy as np


def random_weights(shapes: Any, dtype: Any) -> Any:
    """Ones for vectors; for matrices, normal noise that preserves the variance of activations."""
    rng = np.random.default_rng(0)

    def leaf(x: Any) -> jax.Array:
        values: Any = np.ones(x.shape, dtype)
        if values.ndim > 1:
            for layer in values if values.ndim > 2 else (values,):
                layer[:] = rng.standard_normal(layer.shape, np.float32) * layer.shape[-2] ** -0.5
        return jax.device_put(values)

    return jax.tree.map(leaf, shapes)
