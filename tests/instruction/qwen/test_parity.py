"""Our model against transformers' Qwen2.5-VL with the same random weights, in float32 on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from genmask_jax.instruction.qwen.encoder import QwenEncoder, embed
from genmask_jax.parameters.names import flat_paths
from tests.instruction.qwen import reference
from tests.instruction.qwen.reference import TEXTS, photograph

TOLERANCE = 1e-4
"""Maximum difference, relative to the largest value."""

PHOTOGRAPHS = {
    "square": [(64, 64)],  # whole windows: 2 x 2 of 4 x 4 tokens
    "no multiple of a window": [(50, 37)],
    "wide": [(140, 20)],
    "tall, small": [(17, 41)],
    "two": [(37, 90), (50, 37)],
    "three": [(24, 64), (64, 24), (16, 16)],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """(theirs, ours, config)"""
    directory = tmp_path_factory.mktemp("hub")
    theirs = reference.reference_vl()
    reference.save_hub(directory, theirs)
    return theirs, *reference.imported(directory)


def theirs_inputs(rows, config):
    """Inputs from transformers' processor for rows of (text, images), padded on the right."""
    processor = reference.processor()
    prompts = []
    for text, images in rows:
        content = [{"type": "image"}] * len(images) + [{"type": "text", "text": text}]
        messages = [{"role": "user", "content": content}]
        prompts.append(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    images = [image for _, images in rows for image in images]
    return processor(
        text=prompts, images=images or None, padding=True, padding_side="right", return_tensors="pt"
    )


def ours_inputs(rows, config, **changes):
    maker = reference.maker(config, drop_template=False, **changes)
    prepared = [maker(*maker.render(["{text}"], len(images)), text, images) for text, images in rows]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *prepared)


def compare(rows, theirs, ours, config, **changes) -> dict[str, float]:
    """Largest difference of the logits and of each hidden state, relative to the largest value."""
    inputs = theirs_inputs(rows, config)
    with torch.no_grad():
        expected = theirs(**inputs, output_hidden_states=True)
    real = inputs["attention_mask"].numpy().astype(bool)
    prepared = ours_inputs(rows, config, **changes)
    mask = prepared["attention_mask"]
    np.testing.assert_array_equal(prepared["input_ids"][mask], inputs["input_ids"].numpy()[real])
    if "patches" in prepared:
        ids = prepared["input_ids"]
        expected_positions, _ = theirs.model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"], None, None,
            inputs["attention_mask"],
        )  # fmt: skip
        np.testing.assert_array_equal(
            prepared["positions"][mask], np.moveaxis(expected_positions.numpy(), 0, -1)[real]
        )
        assert ids.shape[1] > real.shape[1]  # there is padding
    differences = {"logits": (nnx.jit(lambda m, x: m(x))(ours, prepared), expected.logits)}
    differences["hidden 0"] = (
        embed(ours.text, ours.vision, jax.tree.map(jnp.asarray, prepared)),
        expected.hidden_states[0],
    )
    for layer in range(1, config.text.depth + 1):
        encoder = encoder_of(ours, config, layer)
        states, _ = nnx.jit(lambda m, x: m(x))(encoder, prepared)
        differences[f"hidden {layer}"] = (states, expected.hidden_states[layer])
    found = {}
    for name, (mine, other) in differences.items():
        mine, other = np.asarray(mine)[mask], other.numpy()[real]
        found[name] = float(np.abs(mine - other).max() / np.abs(other).max())
    return found


def encoder_of(ours, config, layer):
    """The encoder for the states of a layer, with the weights of the complete model."""
    encoder = nnx.eval_shape(lambda: QwenEncoder(config, layer, rngs=nnx.Rngs(0)))
    weights = dict(flat_paths(nnx.state(ours)))
    for path, variable in flat_paths(state := nnx.state(encoder)):
        value = weights[path][...]
        variable.set_value(value[: variable.shape[0]] if ".blocks." in path else value)
    nnx.update(encoder, state)
    return encoder


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_images(models, name):
    theirs, ours, config = models
    images = [photograph(*size, seed) for seed, size in enumerate(PHOTOGRAPHS[name])]
    found = compare([(TEXTS[2], images)], theirs, ours, config)
    print(name, {key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < TOLERANCE


def test_a_padded_batch_of_images_of_many_shapes(models):
    theirs, ours, config = models
    sizes = [(64, 64), (50, 37), (140, 20), (17, 41)]
    rows = [(text, [photograph(*size)]) for text, size in zip(TEXTS, sizes, strict=True)]
    found = compare(rows, theirs, ours, config, image_token_budgets=(64,))
    print({key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < TOLERANCE


def test_text_alone(models):
    theirs, ours, config = models
    found = compare([(text, []) for text in TEXTS], theirs, ours, config)
    print({key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < TOLERANCE
