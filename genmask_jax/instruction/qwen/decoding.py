"""Text generation, token by token: one compiled program with a static cache, from prompt to last token."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from genmask_jax.instruction.qwen.config import WriteConfig
from genmask_jax.instruction.qwen.encoder import Inputs, Qwen, embed


def write(
    model: Qwen, inputs: Inputs, keys: Key[Array, "B"], config: WriteConfig, stop_ids: tuple[int, ...]
) -> Int[Array, "B N"]:
    """Generates text after each prompt. Call this under jit.

    The loop ends when every text has a stop token, or after `config.max_new_tokens`.

    Args:
        model: the whole model.
        inputs: prompts, see `encoder.py`.
        keys: random keys, one per prompt; unused if `config.temperature` is 0.
        config: how tokens are chosen.
        stop_ids: tokens that end a text; the last of them fills the rest of the row.
    """
    mask = inputs["attention_mask"]
    batch, length = mask.shape
    places = length + config.max_new_tokens
    place = jnp.arange(places)
    padded = jnp.pad(mask, [(0, 0), (0, config.max_new_tokens)])
    stop = jnp.array(stop_ids)

    causal = place <= jnp.arange(length)[:, None]
    states, cache = model.text.extend(
        embed(model.text, model.vision, inputs),
        inputs["positions"],
        causal & padded[:, None],
        model.text.empty_cache(batch, places),
        jnp.int32(0),
    )
    last = jnp.take_along_axis(states, mask.sum(1)[:, None, None] - 1, axis=1)[:, 0]
    row = jnp.arange(batch)
    present = jnp.zeros((batch, model.text.config.vocab_size), bool)
    present = present.at[row[:, None], inputs["input_ids"]].max(mask)
    token = choose(model.logits(last), present, _fold(keys, 0), config)
    tokens = jnp.full((batch, config.max_new_tokens), stop_ids[-1]).at[:, 0].set(token)
    # An image spans fewer positions than it has tokens.
    following = jnp.where(mask[..., None], inputs["positions"], -1).max((1, 2))

    def goes_on(carry: Any) -> Array:
        count, _, _, done, _ = carry
        return (count < config.max_new_tokens) & ~done.all()

    def step(carry: Any) -> Any:
        count, tokens, present, done, cache = carry
        seen = padded | ((place >= length) & (place < length + count))
        position = jnp.broadcast_to((following + count)[:, None, None], (batch, 1, 3))
        x = model.text.embed(tokens[:, count - 1][:, None])
        states, cache = model.text.extend(x, position, seen[:, None], cache, length + count - 1)
        present = present.at[row, tokens[:, count - 1]].set(True)
        token = choose(model.logits(states[:, 0]), present, _fold(keys, count), config)
        token = jnp.where(done, stop[-1], token)
        return count + 1, tokens.at[:, count].set(token), present, done | jnp.isin(token, stop), cache

    carry = (jnp.int32(1), tokens, present, jnp.isin(token, stop), cache)
    return jax.lax.while_loop(goes_on, step, carry)[1]


def _fold(keys: Key[Array, "B"], count: Int[Array, ""] | int) -> Key[Array, "B"]:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, count)


def choose(
    logits: Float[Array, "B V"], present: Bool[Array, "B V"], keys: Key[Array, "B"], config: WriteConfig
) -> Int[Array, "B"]:
    """The next token: the most likely, or sampled from the most likely that together have `top_p`.

    Args:
        logits: the model's.
        present: which tokens of the vocabulary already occur.
        keys: random keys.
        config: see `WriteConfig`.
    """
    penalised = jnp.where(logits < 0, logits * config.repetition_penalty, logits / config.repetition_penalty)
    logits = jnp.where(present, penalised, logits)
    if config.temperature == 0:
        return logits.argmax(-1)
    logits = logits / config.temperature
    ordered = jnp.sort(logits, axis=-1, descending=True)
    before = jnp.cumsum(jax.nn.softmax(ordered), axis=-1) - jax.nn.softmax(ordered)
    least = jnp.where(before < config.top_p, ordered, jnp.inf).min(-1, keepdims=True)
    return jax.vmap(jax.random.categorical)(keys, jnp.where(logits >= least, logits, -jnp.inf))
