"""What every instruction encoder is: a preparer on the host and a module on the device.

The *preparer* runs in the data pipeline (it may be sent to worker processes) and turns a text, and for
segmentation the image, into arrays of fixed shape. The *encoder* runs inside the jitted step and turns a
batch of those into embeddings that the DiT attends to. All, some or none of its parameters are trained with
the DiT; the others are frozen. The empty text is the null instruction of classifier-free guidance.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath
from flax import nnx
from jaxtyping import Array, Bool, Float

from genmask_jax.parameters.names import parameter_name
from genmask_jax.sharding import placed

Inputs = dict[str, np.ndarray]
Targets = dict[str, jax.ShapeDtypeStruct]
"""Parameters by name, with the dtypes and shardings that are wanted."""


@runtime_checkable
class Preparer(Protocol):
    """Text (and image) to the encoder's inputs, on the host."""

    def __call__(self, text: str, image: np.ndarray | None = None) -> Inputs:
        """Arrays of one example; the same shapes for every text, and for every image of one size.

        Args:
            text: the expression or prompt; empty for the null instruction.
            image: uint8 `[H, W, 3]` for segmentation, None for generation. Text encoders ignore it.
        """
        ...


Embedded = tuple[Float[Array, "B L D"], Bool[Array, "B L"]]
"""`text_embeds`, and `text_mask`, which is False for padding."""


class InstructionEncoder(nnx.Module):
    """A module from prepared inputs to embeddings of `text_dim` channels."""

    text_dim: int

    def __call__(self, inputs: dict[str, Array]) -> Embedded:
        """A batch of prepared inputs, embedded."""
        raise NotImplementedError

    def together(self, *batches: dict[str, Array]) -> list[Embedded]:
        """Batches of different shapes; an encoder whose weights are divided gathers them once for all."""
        return [self(batch) for batch in batches]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An encoder, ready to be used.

    preparer: its host side.
    make: (rngs, dtype) -> its module, freshly initialised.
    text_dim: channels of its embeddings.
    trained: whether a parameter, by its name in the module, is trained with the DiT.
    load: of those that are asked for, the parameters that come with the encoder, frozen and trained; None if
        none do.
    fingerprint: identifies the embeddings; None if they change in training.
    save: (directory) -> keeps, in a new run's directory, what `load` and the preparer cannot do without.
    needs_image: whether the preparer cannot do without an expression's image, to look at it or to know
        that it is to segment.
    """

    preparer: Preparer
    make: Callable[..., InstructionEncoder]
    text_dim: int
    trained: Callable[[str], bool]
    load: Callable[[Targets], dict[str, jax.Array]] | None = None
    fingerprint: Callable[[], str] | None = None
    save: Callable[[epath.Path], None] | None = None
    needs_image: bool = False


def with_loaded(state: Any, instruction: Instruction) -> Any:
    """A state of the instruction encoder (or its shapes) with the parameters that the encoder brings."""
    if instruction.load is None:
        return state
    leaves = {parameter_name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(state)}
    loaded = instruction.load({name: placed(leaf, leaf.sharding) for name, leaf in leaves.items()})
    return jax.tree.map_with_path(lambda keys, leaf: loaded.get(parameter_name(keys), leaf), state)


def stack_inputs(rows: Sequence[Any]) -> Any:
    """Rows of one structure as arrays with a leading batch axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
