"""Attention by every kernel gives the same values and gradients."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from genmask_jax.models import attention
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


CASES = {
    "itself": (512, 512, 4, None),
    "texts": (512, 77, 4, 2),
    "odd lengths": (301, 65, 4, None),
    "odd lengths, padded": (301, 65, 4, 2),
    "causal, grouped": (512, 512, 2, "causal"),
    "causal, grouped, padded": (264, 264, 1, "causal 2"),
}
"""Numbers of queries, keys and key heads (of 4 query heads), and the mask: None, 2 (padding) or causal."""


def case(name, dtype, width=128):
    """Query, key and value, the mask, and options of `attend`."""
    length, keys, heads, mask = CASES[name]
    rng = np.random.default_rng(0)
    shapes = [(2, length, 4, width), (2, keys, heads, width), (2, keys, heads, width)]
    arrays = [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    masked = mask is not None and str(mask).endswith("2")
    return arrays, padding(keys) if masked else None, {"causal": str(mask).startswith("causal")}


def kernels(attend, arrays, mask, **options):
    """Names of the GPU's fused kernels in a function and its gradient, lowered without a card."""

    def loss(*arrays):
        return attend(*arrays, mask, **options).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arrays)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return sorted(set(re.findall(r"@?(__cudnn\$\w+)", text)))


@pytest.fixture
def cudnn(monkeypatch):
    """Stands in for the library, which only its version is asked of before a program is compiled."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)


@pytest.mark.parametrize("name", CASES)
def test_attention_is_fused_for_a_gpu_in_both_directions(cudnn, monkeypatch, name):
    arrays, mask, options = case(name, jnp.bfloat16)
    monkeypatch.setattr(attention, "tracing_for", lambda: ("gpu", (8, 0)))
    assert kernels(attention.attend, arrays, mask, **options) == [
        "__cudnn$fmhaSoftmax",
        "__cudnn$fmhaSoftmaxBackward",
    ]


def test_what_no_kernel_takes_is_left_to_matrix_products(cudnn, monkeypatch):
    ampere, turing = ("gpu", (8, 0)), ("gpu", (7, 5))
    arrays, mask, _ = case("texts", jnp.bfloat16)
    float32, _, _ = case("texts", jnp.float32)
    wide, _, _ = case("texts", jnp.bfloat16, width=256)
    odd, _, _ = case("texts", jnp.bfloat16, width=44)
    few = [arrays[0][:, :200], *arrays[1:]]
    whole = jnp.broadcast_to(padding(77)[:, None], (2, 512, 77))
    for card, given, masked in (
        (turing, arrays, mask), (ampere, float32, mask), (ampere, wide, mask), (ampere, odd, mask),
        (ampere, few, mask), (ampere, arrays, whole),
    ):  # fmt: skip
        monkeypatch.setattr(attention, "tracing_for", lambda card=card: card)
        assert kernels(attention.attend, given, masked) == []


@pytest.mark.parametrize("name", CASES)
def test_causal_attention_is_that_of_a_whole_mask(name):
    arrays, mask, options = case(name, jnp.float32, width=16)
    if not options["causal"]:
        return
    length = arrays[0].shape[1]
    whole = jnp.broadcast_to(np.tri(length, dtype=bool), (2, length, length))
    whole = whole if mask is None else whole & mask[:, None]
    ours = values_and_gradients(attend_by_xla, arrays, mask, causal=True)
    for a, b in zip(ours, values_and_gradients(attend_by_xla, arrays, whole), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_cudnn_gives_what_matrix_products_give(name):
    arrays, mask, options = case(name, jnp.bfloat16)
    ours = values_and_gradients(attend_by_xla, arrays, mask, **options)
    for a, b in zip(ours, values_and_gradients(attend_by_cudnn, arrays, mask, **options), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-2 * np.abs(a).max())
