"""Qwen2.5-VL as an instruction encoder, and the complete model with its output projection.

Both take inputs that `prompts.py` prepares:

    input_ids        int32 [B, L]           tokens, padded on the right
    attention_mask   bool  [B, L]           False for padding
    positions        int32 [B, L, 3]        frame, row and column of each token
    output_index     int32 [B, K]           tokens whose states are used
    output_mask      bool  [B, K]           False for padding

and for a prompt with P images

    image_index      int32 [B, L]           index of the image token at this position; -1 for words
    patches          uint8 [B, P, S, 588]   see `QwenVision` for this and the following
    patch_positions  int32 [B, P, S, 2]
    windows          int32 [B, P, S]
    order            int32 [B, P, T]
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from genmask_jax.instruction.base import Embedded, InstructionEncoder
from genmask_jax.instruction.qwen.config import QwenConfig
from genmask_jax.instruction.qwen.text import QwenText
from genmask_jax.instruction.qwen.vision import QwenVision
from genmask_jax.models.layers import linear_factory

Inputs = dict[str, Array]


def _vision(config: QwenConfig, **options) -> QwenVision | None:
    return QwenVision(config.vision, config.text.hidden_size, **options) if config.vision.depth else None


def embed(text: QwenText, vision: QwenVision | None, inputs: Inputs) -> Float[Array, "B L D"]:
    """Embeds words with the token embedding, and images with the vision tower."""
    x = text.embed(inputs["input_ids"])
    if vision is None or "patches" not in inputs:
        return x
    batch, images = inputs["patches"].shape[:2]
    names = ("patches", "patch_positions", "windows", "order")
    vision_inputs = (inputs[name].reshape(batch * images, *inputs[name].shape[2:]) for name in names)
    tokens = vision(*vision_inputs).reshape(batch, -1, x.shape[-1])
    index = inputs["image_index"][..., None]
    return jnp.where(index >= 0, jnp.take_along_axis(tokens, jnp.maximum(index, 0), axis=1), x)


class QwenEncoder(InstructionEncoder):
    """Encodes prompts with images as the hidden states of one layer; has no layers above it."""

    def __init__(
        self,
        config: QwenConfig,
        layer: int,
        *,
        train_layers: int = 0,
        lora_rank: int = 0,
        remat: str = "none",
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        """`layer` is from 1 to the depth; only the last one is normed. For the rest see `QwenText`."""
        self.text_dim = config.text.hidden_size
        options = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.vision = _vision(config, **options)
        self.text = QwenText(
            dataclasses.replace(config.text, depth=layer),
            normed=layer == config.text.depth,
            train_layers=train_layers,
            lora_rank=lora_rank,
            remat=remat,
            **options,
        )

    def __call__(self, inputs: Inputs) -> Embedded:
        """Returns `text_embeds` and `text_mask`. For the inputs see the docstring of this module."""
        return self.together(inputs)[0]

    def together(self, *batches: Inputs) -> list[Embedded]:
        """Like `__call__`, for batches of different lengths, with and without images."""
        states = self.text.together(
            *((embed(self.text, self.vision, b), b["positions"], b["attention_mask"]) for b in batches)
        )
        return [
            (jnp.take_along_axis(x, b["output_index"][..., None], axis=1), b["output_mask"])
            for x, b in zip(states, batches, strict=True)
        ]


class Qwen(nnx.Module):
    """The complete model, as in public weights; generates text (`decoding.py`)."""

    def __init__(self, config: QwenConfig, *, dtype=jnp.float32, param_dtype=jnp.float32, rngs: nnx.Rngs):
        options = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.vision = _vision(config, **options)
        self.text = QwenText(config.text, **options)
        linear = linear_factory(dtype, param_dtype, rngs)
        size = (config.text.hidden_size, config.text.vocab_size)
        self.lm_head = None if config.text.tied else linear(*size, False)

    def logits(self, states: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """float32 logits of the next token, from the normed states of the last layer."""
        if self.lm_head is not None:
            return self.lm_head(states).astype(jnp.float32)
        return (states @ self.text.embed_tokens[...].astype(states.dtype).T).astype(jnp.float32)

    def __call__(self, inputs: Inputs) -> Float[Array, "B L V"]:
        """Logits at every position."""
        x = embed(self.text, self.vision, inputs)
        return self.logits(self.text(x, inputs["positions"], inputs["attention_mask"]))


def abstract_state(config: QwenConfig) -> nnx.State:
    """Shapes of all parameters; nothing is allocated."""
    return nnx.eval_shape(lambda: nnx.state(Qwen(config, rngs=nnx.Rngs(0))))
