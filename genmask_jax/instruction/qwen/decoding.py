"""Autoregressive text generation with a static cache, as one compiled program."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from genmask_jax.instruction.qwen.config import WriteConfig
from genmask_jax.instruction.qwen.encoder import Inputs, Qwen, embed


def write(
    model: Qwen, inputs: Inputs, keys: Key[Array, "B"], config: WriteConfig, stop_ids: tuple[int, ...]
) -> Int[Array, "B N"]:
    """Generates a text for each prompt. Call it under jit.

    The loop ends when every text has a stop token, or after `config.max_new_tokens`.

    Args:
        model: the complete model.
        inputs: prompts, see `encoder.py`.
        keys: random keys, one per prompt; unused if `config.temperature` is 0.
        config: options of generation.
        stop_ids: tokens that end a text; the last one pads the rest of the row.

    Returns:
        int32 tokens `[B, max_new_tokens]`.
    """
    mask = inputs["attention_mask"]
    batch, length = mask.shape
    cache_size = length + config.max_new_tokens
    slot = jnp.arange(cache_size)
    prompt_mask = jnp.pad(mask, [(0, 0), (0, config.max_new_tokens)])
    stop = jnp.array(stop_ids)

    causal = slot <= jnp.arange(length)[:, None]
    states, cache = model.text.extend(
        embed(model.text, model.vision, inputs),
        inputs["positions"],
        causal & prompt_mask[:, None],
        model.text.empty_cache(batch, cache_size),
        jnp.int32(0),
    )
    last = jnp.take_along_axis(states, mask.sum(1)[:, None, None] - 1, axis=1)[:, 0]
    row = jnp.arange(batch)
    present = jnp.zeros((batch, model.text.config.vocab_size), bool)
    present = present.at[row[:, None], inputs["input_ids"]].max(mask)
    token = choose(model.logits(last), present, _fold(keys, 0), config)
    tokens = jnp.full((batch, config.max_new_tokens), stop_ids[-1]).at[:, 0].set(token)
    # An image spans fewer positions than it has tokens.
    next_position = jnp.where(mask[..., None], inputs["positions"], -1).max((1, 2))

    def should_continue(carry: Any) -> Array:
        count, _, _, done, _ = carry
        return (count < config.max_new_tokens) & ~done.all()

    def step(carry: Any) -> Any:
        count, tokens, present, done, cache = carry
        key_mask = prompt_mask | ((slot >= length) & (slot < length + count))
        position = jnp.broadcast_to((next_position + count)[:, None, None], (batch, 1, 3))
        x = model.text.embed(tokens[:, count - 1][:, None])
        states, cache = model.text.extend(x, position, key_mask[:, None], cache, length + count - 1)
        present = present.at[row, tokens[:, count - 1]].set(True)
        token = choose(model.logits(states[:, 0]), present, _fold(keys, count), config)
        token = jnp.where(done, stop[-1], token)
        return count + 1, tokens.at[:, count].set(token), present, done | jnp.isin(token, stop), cache

    carry = (jnp.int32(1), tokens, present, jnp.isin(token, stop), cache)
    return jax.lax.while_loop(should_continue, step, carry)[1]


def _fold(keys: Key[Array, "B"], count: Int[Array, ""] | int) -> Key[Array, "B"]:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, count)


def choose(
    logits: Float[Array, "B V"], present: Bool[Array, "B V"], keys: Key[Array, "B"], config: WriteConfig
) -> Int[Array, "B"]:
    """Chooses the next token of each text: the most likely, or sampled from the most likely ones.

    Args:
        logits: logits of the next token.
        present: which tokens of the vocabulary occur in the prompt or the text.
        keys: random keys.
        config: see `WriteConfig`.
    """
    penalised = jnp.where(logits < 0, logits * config.repetition_penalty, logits / config.repetition_penalty)
    logits = jnp.where(present, penalised, logits)
    if config.temperature == 0:
        return logits.argmax(-1)
    logits = logits / config.temperature
    descending = jnp.sort(logits, axis=-1, descending=True)
    mass_before = jnp.cumsum(jax.nn.softmax(descending), axis=-1) - jax.nn.softmax(descending)
    threshold = jnp.where(mass_before < config.top_p, descending, jnp.inf).min(-1, keepdims=True)
    return jax.vmap(jax.random.categorical)(keys, jnp.where(logits >= threshold, logits, -jnp.inf))
