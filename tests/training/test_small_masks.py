"""Weights of small objects' masks."""

import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax.training.objective import small_mask_weights


def test_the_inside_of_a_small_object_weighs_more_and_nothing_else_does():
    masks = np.zeros((4, 40, 40), np.uint8)
    masks[0, :8, :8] = 1  # 0.04 of the image
    masks[1, :, :20] = 1
    masks[3, 0, 0] = 1
    weights = np.asarray(small_mask_weights(jnp.asarray(masks), (10, 10), 8.0))
    inside = np.zeros((10, 10), bool)
    inside[:2, :2] = True
    np.testing.assert_allclose(weights[0][inside], 0.1 / 0.04, rtol=1e-6)
    np.testing.assert_array_equal(weights[0][~inside], 1)
    np.testing.assert_array_equal(weights[1:3], 1)
    assert weights[3, 0, 0] == pytest.approx(1 + 8 / 16)  # a sixteenth of a latent, at the largest weight
    assert weights[3].sum() == pytest.approx(100 + 8 / 16)
