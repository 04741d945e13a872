"""First stage of reasoning segmentation: describes the object that a question about an image asks for."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Array, Int, UInt8, UInt32

from genmask_jax.inference.batching import example_keys, fixed_batches
from genmask_jax.instruction.base import stack_inputs, warn_of_long_texts
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.decoding import write
from genmask_jax.instruction.qwen.encoder import Qwen
from genmask_jax.instruction.qwen.files import stop_ids
from genmask_jax.instruction.qwen.load import load_model, open_model
from genmask_jax.utils.errors import UserError


class Reasoner:
    """A jitted text generator with a fixed batch size; compiled once per image token budget."""

    def __init__(
        self,
        instruction: InstructionConfig,
        directory: epath.PathLike,
        *,
        dtype: str,
        batch_size: int,
        seed: int = 0,
    ):
        """Loads the published language model, without the layers or adapters that the run trained.

        Args:
            instruction: the run's instruction encoder.
            directory: directory of the run's own tokenizer, if it has one.
            dtype: dtype of weights and matrix products.
            batch_size: questions per batch.
            seed: seed for sampling tokens, if the temperature is not 0.

        Raises:
            UserError: the run's encoder does not generate text, or its weights are missing.
        """
        if instruction.name != "qwen":
            raise UserError(
                f"--reason: the run's instruction encoder, {instruction.name}, does not generate text; "
                "train with config.instruction.name = qwen"
            )
        shape, self.preparer = open_model(instruction.qwen, directory)
        if not shape.vision.depth:
            raise UserError("--reason: the run's Qwen cannot read images; train with a Qwen2.5-VL")
        self.batch_size, self.seed = batch_size, seed
        (self._prompt,) = self.preparer.render([instruction.qwen.prompts.reason], 1)
        make = lambda rngs: Qwen(shape, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype), rngs=rngs)  # noqa: E731
        graph, self._state = load_model(make, instruction.qwen)
        options, stop = instruction.qwen.write, stop_ids(self.preparer.tokenizer)

        # Not a method: jit's cache would hold `self`, and with it the weights, after the reasoner is deleted.
        def trace(state: Any, inputs: Any, seeds: UInt32[Array, "B 2"]) -> Int[Array, "B N"]:
            return write(nnx.merge(graph, state), inputs, jax.random.wrap_key_data(seeds), options, stop)

        self._write = jax.jit(trace)

    def __call__(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        questions: Sequence[str],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> list[str]:
        """Writes a description for every question; each question has its own image, of any size.

        Token sampling depends only on the seed and the question's index (0, 1, ... if `indices` is None).
        """
        warn_of_long_texts(self.preparer, questions)
        seed_indices = np.arange(len(questions)) if indices is None else np.asarray(indices)
        pairs = zip(questions, images, strict=True)
        rows = [self.preparer(self._prompt, question, [image]) for question, image in pairs]
        answers = [""] * len(rows)
        groups: dict[Any, list[int]] = {}  # rows of the same shape
        for i, row in enumerate(rows):
            groups.setdefault(row["input_ids"].shape, []).append(i)
        for group in groups.values():
            inputs = stack_inputs([rows[i] for i in group])
            for batch, valid in fixed_batches(len(group), self.batch_size):
                seeds = example_keys(self.seed, seed_indices[np.asarray(group)[batch]])
                arguments = jax.device_put((jax.tree.map(lambda x, b=batch: x[b], inputs), seeds))
                tokens = jax.device_get(self._write(self._state, *arguments))
                for i, row in zip(batch[:valid], tokens[:valid], strict=True):
                    answers[group[i]] = self.preparer.tokenizer.decode(row.tolist()).strip()
        return answers
