"""Random weights, for benchmarks at sizes whose published weights are not available."""

from typing import Any

import jax
import numpy as np


def random_weights(shapes: Any, dtype: Any) -> Any:
    """Noise scaled to preserve activations' variance, drawn on the host per layer; vectors are ones."""
    rng = np.random.default_rng(0)

    def leaf(x: Any) -> jax.Array:
        values: Any = np.ones(x.shape, dtype)
        if values.ndim > 1:
            for layer in values if values.ndim > 2 else (values,):
                layer[:] = rng.standard_normal(layer.shape, np.float32) * layer.shape[-2] ** -0.5
        return jax.device_put(values)

    return jax.tree.map(leaf, shapes)
