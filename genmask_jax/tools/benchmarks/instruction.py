"""Measures time and memory of Qwen as an instruction encoder, at full width with some of its layers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import UInt8

from genmask_jax.instruction.base import stack_inputs
from genmask_jax.instruction.qwen.config import SIZES, QwenConfig, QwenInstructionConfig, WriteConfig
from genmask_jax.instruction.qwen.decoding import write
from genmask_jax.instruction.qwen.encoder import Qwen, embed
from genmask_jax.instruction.qwen.files import learn_tokenizer
from genmask_jax.instruction.qwen.prompts import CHAT_TEMPLATE, PromptMaker, QwenPreparer
from genmask_jax.tools.benchmarks.random_weights import random_weights
from genmask_jax.tools.benchmarks.timing import Stages, report_stages

TEXT = "the dog on the left"
NUM_NEW_TOKENS = 16


@dataclasses.dataclass(frozen=True)
class EncoderWorkload:
    """A model and its inputs.

    size: a key of SIZES.
    layers: number of layers of the language model; the vision tower has all its layers.
    image_size: side of the images in pixels.
    batch_size: number of images, each with a short text.
    dtype: dtype of weights and matrix products.
    """

    size: str
    layers: int
    image_size: int
    batch_size: int
    dtype: str

    @property
    def config(self) -> QwenConfig:
        config = SIZES[self.size]
        depth = min(self.layers, config.text.depth)
        return dataclasses.replace(config, text=dataclasses.replace(config.text, depth=depth))

    def preparer(self) -> QwenPreparer:
        """A preparer for images of this size, with a small vocabulary."""
        budget = max(1, round(self.image_size / self.config.vision.token_size)) ** 2
        instruction = QwenInstructionConfig(image_token_budgets=(budget,), min_image_tokens=1)
        tokenizer = learn_tokenizer([TEXT], 300)
        return QwenPreparer(PromptMaker(tokenizer, CHAT_TEMPLATE, self.config.vision, instruction))

    def inputs(self) -> dict[str, np.ndarray]:
        """Prepared prompts with noise images."""
        prepare = self.preparer()
        return stack_inputs([prepare(TEXT, noise(self.image_size, seed)) for seed in range(self.batch_size)])


def noise(size: int, seed: int) -> UInt8[np.ndarray, "size size 3"]:
    """A noise image."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def our_stages(workload: EncoderWorkload) -> tuple[Stages, int]:
    """Returns our stages by name, and the number of parameters."""
    config, dtype = workload.config, jnp.dtype(workload.dtype)
    graph, shapes = nnx.split(
        nnx.eval_shape(lambda: Qwen(config, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0)))
    )
    state = random_weights(shapes, dtype)
    prepared = workload.inputs()
    inputs = jax.device_put(prepared)
    x = jax.device_put(np.ones((*prepared["input_ids"].shape, config.text.hidden_size), dtype))
    patches = [inputs[name][:, 0] for name in ("patches", "patch_positions", "windows", "order")]
    keys = jax.random.split(jax.random.key(0), workload.batch_size)
    options = WriteConfig(max_new_tokens=NUM_NEW_TOKENS)

    def stage(function: Callable[..., jax.Array], *arguments: Any) -> Callable[[], Any]:
        compiled = jax.jit(lambda state, *arguments: function(nnx.merge(graph, state), *arguments))
        return lambda: jax.block_until_ready(compiled(state, *arguments))

    def encode(model: Qwen, inputs: Any) -> jax.Array:
        states = embed(model.text, model.vision, inputs)
        return model.text(states, inputs["positions"], inputs["attention_mask"])

    layers, tokens = config.text.depth, x.shape[1]
    stages = {
        f"vision tower, {patches[0].shape[1]} patches": stage(lambda model, *p: model.vision(*p), *patches),
        f"language model, {layers} layer(s), {tokens} tokens": stage(
            lambda model, x: model.text(x, inputs["positions"], inputs["attention_mask"]), x
        ),
        "both": stage(encode, inputs),
        f"both, and {NUM_NEW_TOKENS} generated tokens": stage(
            lambda model, inputs: write(model, inputs, keys, options, (-1,)), inputs
        ),
    }
    prepare, image = workload.preparer(), noise(workload.image_size, 0)
    stages["preparing one image and its prompt, on the host"] = lambda: prepare(TEXT, image)
    return stages, sum(leaf.size for leaf in jax.tree.leaves(state))


def peer_stages(workload: EncoderWorkload) -> Stages:
    """Returns the first two stages in transformers. Raises UserError if PyTorch is not installed."""
    from genmask_jax.tools.benchmarks.transformers_peer import make_stages

    prepared = workload.inputs()
    return make_stages(workload.config, prepared, workload.image_size, workload.dtype)


def measure(workload: EncoderWorkload, *, peer: str | None, repeats: int) -> dict[str, Any]:
    """Runs the benchmark; prints a table, then a line of JSON, which it also returns."""
    stages, parameters = our_stages(workload)
    columns = {"ours": stages} | ({peer: peer_stages(workload)} if peer else {})
    title = f"Qwen {workload.size}, {parameters / 1e9:.3f} B parameters, {workload.dtype}"
    return report_stages(title, columns, repeats, {"parameters": parameters, **dataclasses.asdict(workload)})
