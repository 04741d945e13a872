"""The language model of Qwen2.5-VL, and of Qwen2.5 (with equal positions on all axes), with a static cache.

Reference: transformers' `Qwen2_5_VLTextModel`. Sequences are padded on the right.
"""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from genmask_jax.instruction.qwen.config import QwenTextConfig
from genmask_jax.instruction.qwen.layers import (
    GatedMLP,
    Table,
    frequencies,
    rotary_table,
    rotate_halves,
)
from genmask_jax.models.attention import attend
from genmask_jax.models.layers import RMSNorm, linear_factory, scan_blocks, stack

Cache = tuple[Float[Array, "N B M K d"], Float[Array, "N B M K d"]]
"""Keys and values of all N layers, with M slots."""


class TextBlock(nnx.Module):
    """Grouped-query attention and a gated MLP, both pre-normed."""

    def __init__(self, config: QwenTextConfig, *, linear):
        size, width = config.hidden_size, config.hidden_size // config.num_heads
        self.config = config
        self.input_norm = RMSNorm(size, eps=config.eps)
        self.q_proj = linear(size, size, True)
        self.k_proj = linear(size, config.num_kv_heads * width, True)
        self.v_proj = linear(size, config.num_kv_heads * width, True)
        self.o_proj = linear(size, size, False)
        self.mlp_norm = RMSNorm(size, eps=config.eps)
        self.mlp = GatedMLP(size, config.ffn_size, use_bias=False, linear=linear)

    def __call__(
        self, x: Float[Array, "B L D"], table: Table, mask: Bool[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        query, key, value = self.project(x, table)
        return self.finish(x, attend(query, key, value, mask, causal=True))

    def project(self, x: Float[Array, "B L D"], table: Table) -> tuple[Array, Array, Array]:
        """Queries, keys and values `[B, L, heads, D]`, the first two rotated by their positions."""
        x = self.input_norm(x)
        heads = (self.config.num_heads, self.config.num_kv_heads, self.config.num_kv_heads)
        projections = zip((self.q_proj, self.k_proj, self.v_proj), heads, strict=True)
        query, key, value = (project(x).reshape(*x.shape[:2], n, -1) for project, n in projections)
        return rotate_halves(query, table), rotate_halves(key, table), value

    def finish(self, x: Float[Array, "B L D"], attended: Float[Array, "B L H d"]) -> Float[Array, "B L D"]:
        """Applies the part of the block that follows attention."""
        x = x + self.o_proj(attended.reshape(x.shape))
        return x + self.mlp(self.mlp_norm(x))


class QwenText(nnx.Module):
    """Token embeddings, blocks, and the final norm.

    blocks: the layers below `top_blocks`; None if there are none.
    top_blocks: the last `train_layers` layers, which are trained; None if there are none.
    """

    def __init__(
        self,
        config: QwenTextConfig,
        *,
        normed: bool = True,
        train_layers: int = 0,
        lora_rank: int = 0,
        remat: str = "none",
        dtype,
        param_dtype,
        rngs: nnx.Rngs,
    ):
        """See `QwenInstructionConfig`.

        Args:
            config: shape of the model.
            normed: whether there is a final norm.
            train_layers: number of layers in `top_blocks`, in float32.
            lora_rank: rank of adapters on every projection of the blocks; 0 for none.
            remat: gradient checkpointing policy, a name in `REMAT`.
            dtype, param_dtype: dtypes of matrix products and of frozen weights.
            rngs: random number generators of the weights.
        """
        self.config, self.dtype, self.remat = config, dtype, remat
        init = nnx.initializers.normal(0.02)
        self.embed_tokens = nnx.Param(
            init(rngs.params(), (config.vocab_size, config.hidden_size), param_dtype)
        )

        def make_blocks(depth: int, param_dtype) -> nnx.Module:
            make = lambda rngs: TextBlock(  # noqa: E731
                config, linear=linear_factory(dtype, param_dtype, rngs, lora_rank)
            )
            return stack(make, depth, rngs)

        num_below = config.depth - train_layers
        self.blocks = make_blocks(num_below, param_dtype) if num_below else None
        self.top_blocks = make_blocks(train_layers, jnp.float32) if train_layers else None
        self.norm = RMSNorm(config.hidden_size, eps=config.eps) if normed else None

    def embed(self, input_ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Token embeddings."""
        return self.embed_tokens[...][input_ids].astype(self.dtype)

    def table(self, positions: Int[Array, "B L 3"]) -> Table:
        """Rotary table of tokens at (frame, row, column); the three are equal for words."""
        config = self.config
        all_frequencies = frequencies(config.hidden_size // config.num_heads, config.rope_theta)
        parts = np.split(all_frequencies, np.cumsum(config.mrope_section)[:-1])
        return rotary_table(positions, tuple(parts))

    def __call__(
        self, x: Float[Array, "B L D"], positions: Int[Array, "B L 3"], mask: Bool[Array, "B L"]
    ) -> Float[Array, "B L D"]:
        """Returns the states after the last block, and after the norm if any; `mask` is False for padding."""
        return self.together((x, positions, mask))[0]

    def together(self, *inputs: tuple[Array, Array, Array]) -> list[Float[Array, "B L D"]]:
        """Like `__call__`, for several batches of different shapes: a tuple of arguments each."""
        xs = [x for x, _, _ in inputs]
        arguments = [(self.table(positions), mask) for _, positions, mask in inputs]
        for blocks in filter(None, (self.blocks, self.top_blocks)):
            streams = [(x, *rest) for x, rest in zip(xs, arguments, strict=True)]
            xs = scan_blocks(blocks, *streams, remat=self.remat)
        return [self.norm(x) if self.norm else x for x in xs]

    def empty_cache(self, batch_size: int, size: int) -> Cache:
        """An empty cache for sequences of up to `size` tokens."""
        config = self.config
        width = config.hidden_size // config.num_heads
        shape = (config.depth, batch_size, size, config.num_kv_heads, width)
        return jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)

    def extend(
        self,
        x: Float[Array, "B L D"],
        positions: Int[Array, "B L 3"],
        mask: Bool[Array, "B L M"],
        cache: Cache,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "B L D"], Cache]:
        """Like `__call__`, and writes the tokens' keys and values to the cache, starting at `slot`.

        `mask` is True for the slots that a token attends to.
        """
        table = self.table(positions)
        assert self.norm is not None  # a model that generates text has all layers
        assert self.blocks is not None
        graph, state = nnx.split(self.blocks)

        def body(carry: Any, layer: Any) -> tuple[Any, None]:
            x, keys, values = carry
            index, block = layer[0], cast(TextBlock, nnx.merge(graph, layer[1]))
            query, key, value = block.project(x, table)
            keys = jax.lax.dynamic_update_slice(keys, key[None], (index, 0, slot, 0, 0))
            values = jax.lax.dynamic_update_slice(values, value[None], (index, 0, slot, 0, 0))
            return (block.finish(x, attend(query, keys[index], values[index], mask)), keys, values), None

        layers = (jnp.arange(self.config.depth), state)
        (x, keys, values), _ = jax.lax.scan(body, (x, *cache), layers)
        return self.norm(x), (keys, values)
