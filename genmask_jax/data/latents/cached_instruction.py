"""An instruction encoder's stand-in that reads its embeddings from a cache.

With it, the encoder itself, which may be larger than the DiT, is never on the devices. Training reads the
embeddings beside the latents; validation looks up those of its own texts and images.
"""

import dataclasses
import functools
import hashlib
from typing import cast

import numpy as np
from etils import epath
from jaxtyping import Array

from genmask_jax.config import DataConfig
from genmask_jax.data.latents.store import CachedLatents, shard_name
from genmask_jax.data.sources import scored_source, validation_prompts
from genmask_jax.errors import UserError
from genmask_jax.instruction.base import Embedded, Instruction, InstructionEncoder, Preparer
from genmask_jax.parameters.files import read_json


def key_of(text: str, image: np.ndarray | None = None) -> str:
    """What validation's embeddings are found by: a digest of the text, and of the pixels of its image."""
    digest = hashlib.sha256(text.encode())
    if image is not None:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


class GivenEmbeddings(InstructionEncoder):
    """Passes on embeddings that were computed before."""

    def __init__(self, text_dim: int):
        self.text_dim = text_dim

    def __call__(self, inputs: dict[str, Array]) -> Embedded:
        """`text_embeds` and `text_mask`, as they are."""
        return inputs["text_embeds"], inputs["text_mask"]


@functools.lru_cache(maxsize=4)
def _indices(directory: str, num_shards: int) -> dict[str, int]:
    """The index of each key's record."""
    found = {}
    for shard in range(num_shards):
        path = epath.Path(directory) / f"validation-{shard_name(shard, num_shards)}.json"
        found |= {key: i * num_shards + shard for i, key in enumerate(read_json(path)["keys"])}
    return found


class CachedPreparer:
    """Looks up the embeddings of validation's texts and images."""

    def __init__(self, directory: str, preparer: Preparer):
        """`preparer`: of the encoder that the embeddings are of."""
        self.limit, self._preparer = preparer.limit, preparer
        self._cached = CachedLatents(directory, "validation")

    def read(self, text: str) -> str:
        """See `Preparer`."""
        return self._preparer.read(text)

    def __call__(self, text: str, image: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`text_embeds` float32 `[K, D]`, `text_mask` bool `[K]`. Raises UserError if they are not cached."""
        index = _indices(self._cached.directory, self._cached.num_shards).get(key_of(text, image))
        if index is None:
            raise UserError(
                f"config.data.latents={self._cached.directory} has no embeddings of {text!r}: it holds those "
                "of another validation split; encode again with launch/encode_latents.py --instruction"
            )
        example = cast(dict[str, np.ndarray], self._cached[index])
        return {name: example[name] for name in ("text_embeds", "text_mask")}


def cached_instruction(directory: str, encoder: Instruction) -> Instruction:
    """Stands in for the encoder whose embeddings a cache holds; nothing of it is loaded."""
    return dataclasses.replace(
        given_embeddings(encoder), preparer=CachedPreparer(directory, encoder.preparer)
    )


def given_embeddings(encoder: Instruction) -> Instruction:
    """An instruction of which the model is given the embeddings that `encoder` computes."""
    return dataclasses.replace(
        encoder,
        make=lambda rngs, dtype: GivenEmbeddings(encoder.text_dim),
        trained=(),
        source=None,
        load=None,
    )


def validation_inputs(data: DataConfig, examples: int) -> list[tuple[str, np.ndarray | None]]:
    """The texts, with their images, that the validation of a run on this many examples needs embedded.

    The last are prompts, and the empty one, without images.
    """
    source = scored_source(data, "val")
    scored = (source[i] for i in range(min(examples, len(source))))
    prompts = (*validation_prompts(data), "")
    return [*((example["text"], example["image"]) for example in scored), *((text, None) for text in prompts)]
