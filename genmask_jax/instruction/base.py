"""What every instruction encoder is: a preparer on the host and a module on the device.

The *preparer* runs in the data pipeline (it may be sent to worker processes) and turns a text, and for
segmentation the picture, into arrays of fixed shape. The *encoder* runs inside the jitted step and turns a
batch of those into embeddings that the DiT attends to. A trainable encoder is trained with the DiT; any other
is frozen. The empty text is the null instruction of classifier-free guidance.
"""

from typing import Protocol

import numpy as np
from jaxtyping import Array, Bool, Float

Inputs = dict[str, np.ndarray]


class Preparer(Protocol):
    """Text (and picture) to the encoder's inputs, on the host."""

    def __call__(self, text: str, image: np.ndarray | None = None) -> Inputs:
        """Arrays of one example; the same shapes for every text and picture.

        Args:
            text: the expression or prompt; empty for the null instruction.
            image: uint8 `[H, W, 3]` for segmentation, None for generation. Text encoders ignore it.
        """
        ...


class InstructionEncoder(Protocol):
    """An NNX module from prepared inputs to embeddings."""

    text_dim: int

    def __call__(self, inputs: dict[str, Array]) -> tuple[Float[Array, "B L D"], Bool[Array, "B L"]]:
        """`text_embeds` and `text_mask` (False for padding) of a batch of prepared inputs."""
        ...
