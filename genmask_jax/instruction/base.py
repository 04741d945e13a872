"""The interface of instruction encoders: a preparer on the host and a module on the device.

The *preparer* runs in the data pipeline (possibly in worker processes). It turns a text, and for segmentation
the image, into arrays of fixed shape. The *encoder* runs inside the jitted step. It turns a batch of these
arrays into embeddings that the DiT attends to. All, some or none of its parameters are trained with the DiT;
the others are frozen. The empty text is the null instruction of classifier-free guidance.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from absl import logging
from etils import epath
from flax import nnx
from jaxtyping import Array, Bool, Float

from genmask_jax.parameters.names import named_leaves, with_leaves
from genmask_jax.parameters.plan import Source
from genmask_jax.parameters.rules import Load
from genmask_jax.sharding import placed

Inputs = dict[str, np.ndarray]


@runtime_checkable
class TextTruncator(Protocol):
    """Truncates texts that are longer than an encoder reads.

    limit: maximum length and the field that sets it, such as
        "16 tokens (config.instruction.tiny.max_tokens)".
    """

    limit: str

    def truncate(self, text: str) -> str:
        """The beginning of the text that the encoder reads; the whole text if it is within the limit."""
        ...


@runtime_checkable
class Preparer(TextTruncator, Protocol):
    """Turns text (and an image) into the encoder's inputs, on the host."""

    def __call__(self, text: str, image: np.ndarray | None = None) -> Inputs:
        """Prepares one example. Shapes are the same for all texts, and for all images of the same size.

        Args:
            text: expression or prompt; empty for the null instruction.
            image: uint8 `[H, W, 3]` for segmentation, None for generation. Text encoders ignore it.
        """
        ...


@runtime_checkable
class ClosedVocabulary(Protocol):
    """A preparer whose encoder only knows the words of its training texts."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """Words of the text that do not occur in the training texts, as they are spelt in the text."""
        ...

    def add_texts(self, texts: Iterable[str]) -> None:
        """Adds the words of these texts to the known words, when the encoder is trained on them."""
        ...


def unknown_words(preparer: TextTruncator, text: str) -> tuple[str, ...]:
    """See `ClosedVocabulary`; () for encoders with an open vocabulary."""
    return preparer.unknown_words(text) if isinstance(preparer, ClosedVocabulary) else ()


def warn_of_long_texts(preparer: TextTruncator, texts: Sequence[str]) -> None:
    """Logs a warning if texts are longer than the encoder reads; at most once per process."""
    long_texts = [text for text in texts if preparer.truncate(text) != text]
    if long_texts:
        beginning = preparer.truncate(long_texts[0])
        logging.log_first_n(
            logging.WARNING,
            "%d of %d texts are longer than the instruction encoder reads, %s; for example, only %r of %r",
            1,
            *(len(long_texts), len(texts), preparer.limit, beginning, long_texts[0][: len(beginning) + 60]),
        )


Embedded = tuple[Float[Array, "B L D"], Bool[Array, "B L"]]
"""`text_embeds` and `text_mask`; the mask is False for padding."""


class InstructionEncoder(nnx.Module):
    """Encodes prepared inputs as embeddings of `text_dim` channels."""

    text_dim: int

    def __call__(self, inputs: dict[str, Array]) -> Embedded:
        """Embeds a batch of prepared inputs."""
        raise NotImplementedError

    def together(self, *batches: dict[str, Array]) -> list[Embedded]:
        """Embeds batches of different shapes. Sharded weights may be gathered once for all batches."""
        return [self(batch) for batch in batches]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction encoder: its preparer, its module and its weights.

    preparer: prepares texts and images on the host.
    make: (rngs, dtype) -> a newly initialised module.
    text_dim: number of channels of the embeddings.
    trained: modules of `GenMask` that are trained with the DiT, such as "instruction". Adapters are always
        trained.
    source: origin of the encoder's own weights: IMPORT, or FRESH for random weights that are the same in
        every run. None if it has no weights of its own; the run then initialises it.
    load: reads these weights, by parameter name; imported weights have no adapters.
    fingerprint: identifies the embeddings; None if they change during training.
    save: (directory) -> saves the files that `load` and the preparer need to a new run's directory.
    needs_image: whether the preparer needs the image, to encode it or to distinguish segmentation from
        generation.
    """

    preparer: Preparer
    make: Callable[..., InstructionEncoder]
    text_dim: int
    trained: tuple[str, ...] = ()
    source: Source | None = None
    load: Load | None = None
    fingerprint: Callable[[], str] | None = None
    save: Callable[[epath.Path], None] | None = None
    needs_image: bool = False


def with_loaded_weights(state: Any, instruction: Instruction) -> Any:
    """Replaces the leaves of an encoder's state (or of its shapes) by its own weights, if it has any.

    The state must not have adapters.
    """
    if instruction.load is None:
        return state
    targets = {name: placed(leaf, leaf.sharding) for name, leaf in named_leaves(state).items()}
    return with_leaves(state, instruction.load(targets))


def stack_inputs(rows: Sequence[Any]) -> Any:
    """Stacks rows of the same structure along a leading batch axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
