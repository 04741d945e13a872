"""The 7B model at full width against transformers: the vision tower and one layer of the language model."""

import dataclasses
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import AutoModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from genmask_jax.instruction.qwen.config import SIZES
from genmask_jax.instruction.qwen.encoder import QwenEncoder
from genmask_jax.instruction.qwen.images import fit, prepare_image
from genmask_jax.public_weights import qwen_names
from genmask_jax.tools.benchmarks.transformers_peer import peer_configs
from tests.instruction.qwen.reference import photograph
from tests.public_weights.reference import randomise


@pytest.mark.slow
def test_vision_tower_and_one_layer_at_full_width():
    """In float32, with a small vocabulary."""
    whole = SIZES["vl_7b"]
    config = dataclasses.replace(whole, text=dataclasses.replace(whole.text, depth=1, vocab_size=64))
    text_config, vision_config = peer_configs(config)
    vision = randomise(AutoModel.from_config(vision_config))
    text = randomise(AutoModel.from_config(text_config))
    tensors = {f"visual.{key}": value for key, value in vision.state_dict().items()}
    tensors |= {f"model.{key}": value for key, value in text.state_dict().items()}
    tensors = {key: value.numpy() for key, value in tensors.items()}
    ours = nnx.eval_shape(lambda: QwenEncoder(config, 1, rngs=nnx.Rngs(0)))
    state = nnx.state(ours)
    entries = {entry.path: entry for entry in qwen_names.entries(config)}
    for path, variable in nnx.to_flat_state(state):
        variable.set_value(jnp.asarray(entries[".".join(map(str, path))].gather(tensors)))
    nnx.update(ours, state)

    fitted = fit(photograph(640, 427), config.vision, 4, 324)
    rows, columns = (side // 28 for side in fitted.shape[:2])
    prepared = jax.tree.map(lambda x: jnp.asarray(x[None]), prepare_image(fitted, config.vision, 324))
    arguments = (prepared[name] for name in ("patches", "patch_positions", "windows", "order"))
    mine = np.asarray(nnx.jit(lambda model, *image: model.vision(*image))(ours, *arguments))
    mine = mine[0, : rows * columns]
    with torch.no_grad():
        processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 324 * 784})
        image = processor(images=[photograph(640, 427)], return_tensors="pt")
        expected = vision(image["pixel_values"], grid_thw=image["image_grid_thw"]).pooler_output.numpy()
    difference = np.abs(mine - expected).max() / np.abs(expected).max()
    print(f"vision tower: {rows} x {columns} tokens differ by {difference:.1e} of the largest")
    assert difference < 1e-4

    x = np.random.default_rng(0).standard_normal((2, 300, config.text.hidden_size), np.float32)
    positions = np.random.default_rng(1).integers(0, 60, (2, 300, 3)).astype(np.int32)
    mine = nnx.jit(lambda model, *rest: model.text(*rest))(ours, x, positions, np.ones((2, 300), bool))
    with torch.no_grad():
        theirs = text(
            inputs_embeds=torch.from_numpy(x),
            position_ids=torch.from_numpy(np.moveaxis(positions, -1, 0).astype(np.int64)),
        ).last_hidden_state.numpy()
    difference = np.abs(np.asarray(mine) - theirs).max() / np.abs(theirs).max()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak resident memory {peak / 2**30:.1f} GiB")
    print(f"one layer, normed: differs by {difference:.1e} of the largest")
    assert difference < 1e-4
