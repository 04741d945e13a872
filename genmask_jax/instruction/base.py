"""The interface of instruction encoders: a preparer on the host and a module on the device.

The *preparer* runs in the data pipeline (possibly in worker processes) and turns a text, and the image for
segmentation, into arrays of fixed shape. The *encoder* runs inside the jitted step and turns a batch of these
into embeddings that the DiT attends to. All, some or none of its parameters are trained with the DiT; the
others are frozen. The empty text is the null instruction of classifier-free guidance.
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
class Reads(Protocol):
    """What reads the beginning of a text.

    limit: how much it reads and the field that sets it: "16 tokens (config.instruction.tiny.max_tokens)".
    """

    limit: str

    def read(self, text: str) -> str:
        """The beginning of a text that the encoder reads: all of it if it is within the limit."""
        ...


@runtime_checkable
class Preparer(Reads, Protocol):
    """Turns text (and an image) into the encoder's inputs, on the host."""

    def __call__(self, text: str, image: np.ndarray | None = None) -> Inputs:
        """The arrays of one example. Every text, and every image of the same size, gives the same shapes.

        Args:
            text: the expression or prompt; empty for the null instruction.
            image: uint8 `[H, W, 3]` for segmentation, None for generation. Text encoders ignore it.
        """
        ...


@runtime_checkable
class ClosedVocabulary(Protocol):
    """A preparer whose encoder knows no words but those of its training texts."""

    def unknown_words(self, text: str) -> tuple[str, ...]:
        """The words of a text that the training texts lack, as they are written."""
        ...

    def add_texts(self, texts: Iterable[str]) -> None:
        """Counts the words of texts that the encoder is trained further on as known."""
        ...


def unknown_words(preparer: Reads, text: str) -> tuple[str, ...]:
    """See `ClosedVocabulary`; none for encoders with an open vocabulary, of which nothing is claimed."""
    return preparer.unknown_words(text) if isinstance(preparer, ClosedVocabulary) else ()


def warn_of_cut_texts(preparer: Reads, texts: Sequence[str]) -> None:
    """Logs, once in a process, that some texts are longer than the encoder reads."""
    cut = [text for text in texts if preparer.read(text) != text]
    if cut:
        read = preparer.read(cut[0])
        logging.log_first_n(
            logging.WARNING,
            "%d of %d texts are longer than the instruction encoder reads, %s; only %r is read of %r",
            1,
            *(len(cut), len(texts), preparer.limit, read, cut[0][: len(read) + 60]),
        )


Embedded = tuple[Float[Array, "B L D"], Bool[Array, "B L"]]
"""`text_embeds`, and `text_mask`, which is False for padding."""


class InstructionEncoder(nnx.Module):
    """A module from prepared inputs to embeddings of `text_dim` channels."""

    text_dim: int

    def __call__(self, inputs: dict[str, Array]) -> Embedded:
        """Embeds a batch of prepared inputs."""
        raise NotImplementedError

    def together(self, *batches: dict[str, Array]) -> list[Embedded]:
        """Embeds batches of different shapes; sharded weights may be gathered once for all of them."""
        return [self(batch) for batch in batches]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An encoder that is ready to use.

    preparer: its host side.
    make: (rngs, dtype) -> its module, newly initialised.
    text_dim: channels of its embeddings.
    trained: modules of `GenMask` that are trained with the DiT, such as "instruction"; so are all adapters.
    source: what its own weights are: IMPORT, or FRESH for random ones, the same in every run. None if it has
        none: it starts as the run initialises it.
    load: reads these weights, by the names of parameters in the module; imported ones have no adapters.
    fingerprint: identifies the embeddings; None if they change during training.
    save: (directory) -> saves what `load` and the preparer need, to a new run's directory.
    needs_image: whether the preparer needs an expression's image, to encode it or to tell segmentation from
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


def with_loaded(state: Any, instruction: Instruction) -> Any:
    """Fills the encoder's own weights into its state (or its shapes), which has no adapters."""
    if instruction.load is None:
        return state
    targets = {name: placed(leaf, leaf.sharding) for name, leaf in named_leaves(state).items()}
    return with_leaves(state, instruction.load(targets))


def stack_inputs(rows: Sequence[Any]) -> Any:
    """Stacks rows of the same structure along a leading batch axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
