"""Text, token by token: one compiled program with a static cache, from the prompt to the last token."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from genmask_jax.instruction.qwen.config import WriteConfig
from genmask_jax.instruction.qwen.encoder import Inputs, Qwen, embed


def write(
    model: Qwen, inputs: Inputs, key: Key[Array, ""], config: WriteConfig, stop_ids: tuple[int, ...]
) -> Int[Array, "B N"]:
    """What the model writes after each prompt; to be traced under jit.

    The loop ends when all have written a stop token, or `config.max_new_tokens`.

    Args:
        model: whole.
        inputs: prompts, see `encoder.py`.
        key: of what is drawn, where `config.temperature` is not 0.
        config: how tokens are chosen.
        stop_ids: tokens that end a text; the last of them fills up what comes after.
    """
    mask = inputs["attention_mask"]
    batch, length = mask.shape
    places = length + config.max_new_tokens
    place = np.arange(places)
    padded = jnp.pad(mask, [(0, 0), (0, config.max_new_tokens)])
    stop = jnp.array(stop_ids)

    causal = place <= np.arange(length)[:, None]
    states, cache = model.text.extend(
        embed(model.text, model.vision, inputs),
        inputs["positions"],
        causal & padded[:, None],
        model.text.empty_cache(batch, places),
        jnp.int32(0),
    )
    last = jnp.take_along_axis(states, mask.sum(1)[:, None, None] - 1, axis=1)[:, 0]
    token = choose(model.logits(last), jax.random.fold_in(key, 0), config)
    tokens = jnp.full((batch, config.max_new_tokens), stop_ids[-1]).at[:, 0].set(token)
    # A picture's positions count fewer than its tokens.
    following = jnp.where(mask[..., None], inputs["positions"], -1).max((1, 2))

    def goes_on(carry: Any) -> Array:
        count, _, done, _ = carry
        return (count < config.max_new_tokens) & ~done.all()

    def step(carry: Any) -> Any:
        count, tokens, done, cache = carry
        seen = padded | ((place >= length) & (place < length + count))
        position = jnp.broadcast_to((following + count)[:, None, None], (batch, 1, 3))
        x = model.text.embed(tokens[:, count - 1][:, None])
        states, cache = model.text.extend(x, position, seen[:, None], cache, length + count - 1)
        token = choose(model.logits(states[:, 0]), jax.random.fold_in(key, count), config)
        token = jnp.where(done, stop[-1], token)
        return count + 1, tokens.at[:, count].set(token), done | jnp.isin(token, stop), cache

    carry = (jnp.int32(1), tokens, jnp.isin(token, stop), cache)
    return jax.lax.while_loop(goes_on, step, carry)[1]


def choose(logits: Float[Array, "B V"], key: Key[Array, ""], config: WriteConfig) -> Int[Array, "B"]:
    """The next token: the likeliest, or drawn from the likeliest that together have `top_p`."""
    if config.temperature == 0:
        return logits.argmax(-1)
    logits = logits / config.temperature
    ordered = jnp.sort(logits, axis=-1, descending=True)
    before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)
    least = jnp.where(before < config.top_p, ordered, jnp.inf).min(-1, keepdims=True)
    return jax.random.categorical(key, jnp.where(logits >= least, logits, -jnp.inf))
