"""Generated text against transformers' generate(), sampling, and compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from genmask_jax.inference.batching import example_keys
from genmask_jax.instruction.base import stack_inputs
from genmask_jax.instruction.qwen.config import WriteConfig
from genmask_jax.instruction.qwen.decoding import choose, write
from genmask_jax.instruction.qwen.files import END, stop_ids
from tests.instruction.qwen import reference
from tests.instruction.qwen.reference import TEXTS, photograph, tokenizer

NEW = 64
IMAGES = [[], [(64, 64)], [(50, 37)], [(140, 20)], [(17, 41)]]
PROMPTS = [(text, sizes) for text in TEXTS for sizes in IMAGES]  # 20


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hub")
    theirs = reference.reference_vl()
    with torch.no_grad():  # so that some texts end early
        theirs.lm_head.weight[tokenizer().token_to_id(END)] *= 1.5
    reference.save_hub(directory, theirs)
    return theirs, *reference.imported(directory)


def prepared(config, sizes_of=PROMPTS):
    maker = reference.maker(config, image_token_budgets=(64,))
    for text, sizes in sizes_of:
        images = [photograph(*size, i) for i, size in enumerate(sizes)]
        yield maker(*maker.render(["{text}"], len(images)), text, images)


def writer(config, **changes):
    options = WriteConfig(max_new_tokens=NEW, **changes)

    @jax.jit
    def run(state, inputs, keys):
        return write(nnx.merge(graph, state), inputs, jax.random.wrap_key_data(keys), options, stop)

    graph = nnx.split(nnx.eval_shape(lambda: reference.Qwen(config, rngs=nnx.Rngs(0))))[0]
    stop = stop_ids(tokenizer())
    return run


def seeds(count, seed=0):
    return example_keys(seed, np.arange(count))


def their_tokens(theirs, text, sizes, penalty):
    images = [photograph(*size, i) for i, size in enumerate(sizes)]
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": text}]
    processor = reference.processor()
    whole = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = processor(text=[whole], images=images or None, return_tensors="pt")
    with torch.no_grad():
        tokens = theirs.generate(**inputs, max_new_tokens=NEW, do_sample=False, repetition_penalty=penalty)
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("penalty", [pytest.param(1.0, marks=pytest.mark.slow), 1.05])
def test_greedy_text_equals_transformers(models, penalty):
    """20 prompts, with images and without, each kind in one padded batch."""
    theirs, ours, config = models
    state, run = nnx.state(ours), writer(config, repetition_penalty=penalty)
    rows = list(prepared(config))
    stop, lengths = stop_ids(tokenizer()), []
    for imaged in (False, True):
        kind = [i for i, (_, sizes) in enumerate(PROMPTS) if bool(sizes) == imaged]
        tokens = np.asarray(run(state, stack_inputs([rows[i] for i in kind]), seeds(len(kind))))
        for i, mine in zip(kind, tokens.tolist(), strict=True):
            expected = their_tokens(theirs, *PROMPTS[i], penalty)
            assert mine[: len(expected)] == expected, PROMPTS[i]
            assert set(mine[len(expected) :]) <= {stop[-1]}
            lengths.append(len(expected))
    print(f"{len(lengths)} prompts, {min(lengths)} to {max(lengths)} tokens, all alike")
    assert min(lengths) < NEW
    assert max(lengths) == NEW


def test_one_program_without_transfers_from_the_host(models):
    _, ours, config = models
    state, run = nnx.state(ours), writer(config)
    imaged = [row for row in prepared(config) if "patches" in row]
    keys = jax.device_put(seeds(1))
    for row in imaged:
        inputs = jax.device_put(stack_inputs([row]))
        with jax.transfer_guard("disallow"):
            run(state, inputs, keys).block_until_ready()
    assert run._cache_size() == 1
    text = str(run.trace(state, inputs, keys).jaxpr)
    assert text.count("while[") == 1  # all tokens
    assert "callback" not in text


def test_generation_ends_at_a_stop_token(models):
    """A head that always says "stop" after the prompt."""
    _, ours, config = models
    graph, state = nnx.split(ours)
    model = nnx.merge(graph, jax.tree.map(lambda x: x, state))
    model.logits = lambda states: jnp.zeros((len(states), config.text.vocab_size)).at[:, stop[0]].set(9.0)
    stop = stop_ids(tokenizer())
    row = next(prepared(config))
    tokens = write(
        model,
        jax.tree.map(jnp.asarray, stack_inputs([row])),
        jax.random.split(jax.random.key(0), 1),
        WriteConfig(max_new_tokens=8),
        stop,
    )
    assert tokens[0].tolist() == [stop[0]] + [stop[1]] * 7


def test_sampling_follows_temperature_and_top_p():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    many = jnp.tile(logits, (20_000, 1))

    def shares(**changes):
        config = WriteConfig(**{"repetition_penalty": 1.0, **changes})
        drawn = choose(
            many, jnp.zeros(many.shape, bool), jax.random.split(jax.random.key(1), len(many)), config
        )
        return np.bincount(np.asarray(drawn), minlength=4) / len(many)

    np.testing.assert_allclose(shares(temperature=1.0), [0.5, 0.3, 0.15, 0.05], atol=0.015)
    np.testing.assert_allclose(shares(temperature=1.0, top_p=0.7), [0.625, 0.375, 0, 0], atol=0.015)
    squared = np.array([0.25, 0.09, 0.0225, 0.0025])
    np.testing.assert_allclose(shares(temperature=0.5), squared / squared.sum(), atol=0.015)
    assert shares(temperature=0.0).tolist() == [1, 0, 0, 0]
    assert shares(temperature=1.0, top_p=1e-6).tolist() == [1, 0, 0, 0]


def test_sampled_text_depends_only_on_its_seed(models):
    """Not on its neighbours in the batch."""
    _, ours, config = models
    run, rows = writer(config, temperature=1.0), [row for row in prepared(config) if "patches" in row][:3]
    state = nnx.state(ours)
    together = np.asarray(run(state, stack_inputs(rows), seeds(3)))
    alone = np.asarray(run(state, stack_inputs(rows[1:2]), seeds(3)[1:2]))
    other = np.asarray(run(state, stack_inputs(rows[1:2]), seeds(3, seed=1)[1:2]))
    np.testing.assert_array_equal(together[1], alone[0])
    assert (other != alone).any()
