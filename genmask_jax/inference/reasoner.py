"""Questions about images to descriptions of what they ask for: stage one of reasoning segmentation."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Array, Int, UInt8, UInt32

from genmask_jax.errors import UserError
from genmask_jax.inference.batching import example_keys, fixed_batches
from genmask_jax.instruction.base import stack_inputs
from genmask_jax.instruction.config import InstructionConfig
from genmask_jax.instruction.qwen.decoding import write
from genmask_jax.instruction.qwen.encoder import Qwen
from genmask_jax.instruction.qwen.files import stop_ids
from genmask_jax.instruction.qwen.load import load_whole, open_model


class Reasoner:
    """A jitted writer with a fixed batch size; compiled once for each token budget that images need."""

    def __init__(
        self,
        instruction: InstructionConfig,
        directory: epath.PathLike,
        *,
        dtype: str,
        batch_size: int,
        seed: int = 0,
    ):
        """Loads the language model as its publisher has it, without what a run may have trained of it.

        Args:
            instruction: of the run.
            directory: of the run's own tokenizer, where it has one.
            dtype: of the weights and the products.
            batch_size: questions at a time.
            seed: of what is drawn, where the temperature is not 0.

        Raises:
            UserError: the run's encoder does not write, or its weights are not there.
        """
        if instruction.name != "qwen":
            raise UserError(
                f"--reason: the run's instruction encoder, {instruction.name}, does not write; train with "
                "config.instruction.name = qwen"
            )
        shape, self.maker = open_model(instruction.qwen, directory)
        if not shape.vision.depth:
            raise UserError("--reason: the run's Qwen reads words alone; it takes one that looks at images")
        self.batch_size, self.seed = batch_size, seed
        (self._prompt,) = self.maker.render([instruction.qwen.prompts.reason], 1)
        make = lambda rngs: Qwen(shape, dtype=jnp.dtype(dtype), param_dtype=jnp.dtype(dtype), rngs=rngs)  # noqa: E731
        graph, self._state = load_whole(make, instruction.qwen)
        options, stop = instruction.qwen.write, stop_ids(self.maker.tokenizer)

        # No method: one that holds `self` would keep the weights in memory once the reasoner is gone.
        def trace(state: Any, inputs: Any, seeds: UInt32[Array, "B 2"]) -> Int[Array, "B N"]:
            return write(nnx.merge(graph, state), inputs, jax.random.wrap_key_data(seeds), options, stop)

        self._write = jax.jit(trace)

    def __call__(
        self,
        images: Sequence[UInt8[np.ndarray, "H W 3"]],
        questions: Sequence[str],
        numbers: Sequence[int] | None = None,
    ) -> list[str]:
        """A description for every question about an image of any size.

        What is drawn for a question depends on the seed and its number alone; 0, 1, ... when None.
        """
        numbers = np.arange(len(questions)) if numbers is None else np.asarray(numbers)
        pairs = zip(questions, images, strict=True)
        rows = [self.maker(self._prompt, question, [image]) for question, image in pairs]
        answers = [""] * len(rows)
        alike: dict[Any, list[int]] = {}
        for i, row in enumerate(rows):
            alike.setdefault(row["input_ids"].shape, []).append(i)
        for indices in alike.values():
            inputs = stack_inputs([rows[i] for i in indices])
            for batch, real in fixed_batches(len(indices), self.batch_size):
                seeds = example_keys(self.seed, numbers[np.asarray(indices)[batch]])
                arguments = jax.device_put((jax.tree.map(lambda x, b=batch: x[b], inputs), seeds))
                tokens = jax.device_get(self._write(self._state, *arguments))
                for i, row in zip(batch[:real], tokens[:real], strict=True):
                    answers[indices[i]] = self.maker.tokenizer.decode(row.tolist()).strip()
        return answers
