"""Attention by every kernel gives the same values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genmask_jax.models.attention import attend_by_cudnn, attend_by_splash, attend_by_xla


def inputs(length, keys, dtype, width=128):
    rng = np.random.default_rng(0)
    shapes = [(2, length, 2, width), (2, keys, 2, width), (2, keys, 2, width)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def padding(keys):
    """A mask that leaves out the last keys, of the second example more than of the first."""
    return jnp.arange(keys) < jnp.array([[keys - 3], [keys // 2]])


def values_and_gradients(attend, arrays, mask, **options):
    weights = jnp.cos(jnp.arange(arrays[0].size).reshape(arrays[0].shape))

    def loss(*arrays):
        out = attend(*arrays, mask, **options)
        return (out.astype(jnp.float32) * weights).sum(), out

    gradients, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
    return [np.asarray(x, np.float32) for x in (out, *gradients)]


@pytest.mark.parametrize(("length", "keys", "masked"), [(256, 256, False), (300, 70, True)])
def test_splash_gives_what_matrix_products_give(length, keys, masked):
    """In the kernels' interpreter, with lengths that are whole tiles and that are not."""
    arrays, mask = inputs(length, keys, jnp.float32), padding(keys) if masked else None
    ours = values_and_gradients(attend_by_xla, arrays, mask)
    for a, b in zip(ours, values_and_gradients(attend_by_splash, arrays, mask, interpret=True), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(a).max())


def test_splash_can_be_lowered_for_a_tpu():
    """With its gradient; what the TPU's own compiler then makes of it is not seen here."""
    arrays = inputs(1024, 70, jnp.bfloat16)

    def loss(*arrays):
        return attend_by_splash(*arrays, padding(70)).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arrays)
    assert traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == 3


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("length", "keys", "masked"), [(512, 512, False), (512, 389, True), (301, 65, False)]
)
def test_cudnn_gives_what_matrix_products_give(length, keys, masked):
    arrays, mask = inputs(length, keys, jnp.bfloat16), padding(keys) if masked else None
    ours = values_and_gradients(attend_by_xla, arrays, mask)
    for a, b in zip(ours, values_and_gradients(attend_by_cudnn, arrays, mask), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2 * np.abs(a).max())
