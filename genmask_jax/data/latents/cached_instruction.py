"""Replaces an instruction encoder by its cached embeddings.

The encoder itself, which may be larger than the DiT, is then never loaded. Training reads embeddings with the
latents; validation looks up the embeddings of its texts and images.
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
from genmask_jax.instruction.base import Embedded, Instruction, InstructionEncoder, Preparer
from genmask_jax.parameters.files import read_json
from genmask_jax.utils.errors import UserError


def key_of(text: str, image: np.ndarray | None = None) -> str:
    """The key of a validation embedding: a digest of the text and of the pixels of its image."""
    digest = hashlib.sha256(text.encode())
    if image is not None:
        digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


class GivenEmbeddings(InstructionEncoder):
    """An encoder whose inputs are already embeddings."""

    def __init__(self, text_dim: int):
        self.text_dim = text_dim

    def __call__(self, inputs: dict[str, Array]) -> Embedded:
        """Returns `text_embeds` and `text_mask` of the inputs."""
        return inputs["text_embeds"], inputs["text_mask"]


@functools.lru_cache(maxsize=4)
def _indices(directory: str, num_shards: int) -> dict[str, int]:
    """The index of each key's record."""
    indices = {}
    for shard in range(num_shards):
        path = epath.Path(directory) / f"validation-{shard_name(shard, num_shards)}.json"
        indices |= {key: i * num_shards + shard for i, key in enumerate(read_json(path)["keys"])}
    return indices


class CachedPreparer:
    """Looks up the embeddings of the texts and images of validation."""

    def __init__(self, directory: str, preparer: Preparer):
        """`preparer`: preparer of the encoder that computed the embeddings."""
        self.limit, self._preparer = preparer.limit, preparer
        self._cached = CachedLatents(directory, "validation")

    def truncate(self, text: str) -> str:
        """See `Preparer`."""
        return self._preparer.truncate(text)

    def __call__(self, text: str, image: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """`text_embeds` float32 `[K, D]`, `text_mask` bool `[K]`. Raises UserError if they are not cached."""
        index = _indices(self._cached.directory, self._cached.num_shards).get(key_of(text, image))
        if index is None:
            raise UserError(
                f"config.data.latents={self._cached.directory} has no embeddings of {text!r}, because it was "
                "made for another validation split; encode again with launch/encode_latents.py --instruction"
            )
        example = cast(dict[str, np.ndarray], self._cached[index])
        return {name: example[name] for name in ("text_embeds", "text_mask")}


def cached_instruction(directory: str, encoder: Instruction) -> Instruction:
    """An instruction that reads the encoder's embeddings from a cache; the encoder is not loaded."""
    return dataclasses.replace(
        given_embeddings(encoder), preparer=CachedPreparer(directory, encoder.preparer)
    )


def given_embeddings(encoder: Instruction) -> Instruction:
    """An instruction whose inputs are the embeddings of `encoder`."""
    return dataclasses.replace(
        encoder,
        make=lambda rngs, dtype: GivenEmbeddings(encoder.text_dim),
        trained=(),
        source=None,
        load=None,
    )


def validation_inputs(data: DataConfig, examples: int) -> list[tuple[str, np.ndarray | None]]:
    """(text, image) of everything that validation on this many examples embeds.

    The last ones are prompts and the empty prompt, without images.
    """
    source = scored_source(data, "val")
    scored = (source[i] for i in range(min(examples, len(source))))
    prompts = (*validation_prompts(data), "")
    return [*((example["text"], example["image"]) for example in scored), *((text, None) for text in prompts)]
