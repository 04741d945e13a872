"""A cache of VAE latents and, optionally, of a frozen instruction encoder's embeddings.

This module defines the format, reads a cache in training, and rejects one that does not fit.

    SHARD = "00000-of-00004"
    segment-SHARD.arrayrecord    latents of image and mask, and the expression, of every n-th example
    generate-SHARD.arrayrecord   latents of the image, and the prompt
    validation-SHARD.arrayrecord embeddings of every n-th text (and image) of validation, if they are cached
    validation-SHARD.json        their keys (`cached_instruction.key_of`), in the same order
    shard-SHARD.json             an `Identity`, written last: a shard without it is incomplete
    digests.json                 of the JSON files, written with the last shard (`utils/digests.py`)

A record is a safetensors blob. `launch/encode_latents.py` writes the shards, also on several hosts.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypedDict, cast

import grain
import jax
import ml_dtypes
import numpy as np
import safetensors.numpy
from etils import epath

from genmask_jax.config import DataConfig
from genmask_jax.data.examples import Mixture, Part, Source
from genmask_jax.data.sources import joint_weights, mask_rule
from genmask_jax.instruction.base import Instruction
from genmask_jax.models.vae import VAEConfig
from genmask_jax.parameters.files import DTYPES
from genmask_jax.utils.digests import DIGESTS, check_digests, write_digests
from genmask_jax.utils.errors import UserError, reading
from genmask_jax.utils.fields import difference, read_dataclass
from genmask_jax.utils.paths import listed, need_local

TASKS = ("segment", "generate")


class LatentExample(TypedDict, total=False):
    """A cached example. Latents are float32 `[h, w, c]`, normalised as `VAE.encode` returns them.

    mask_latents: latents of the mask as an RGB image; only in the segment task.
    text_embeds, text_mask: float32 `[K, D]` and bool `[K]`, if instructions are cached.
    null_embeds, null_mask: the same for the empty text; only in the generate task.
    """

    image_latents: np.ndarray
    mask_latents: np.ndarray
    text: str
    text_embeds: np.ndarray
    text_mask: np.ndarray
    null_embeds: np.ndarray
    null_mask: np.ndarray


@dataclasses.dataclass(frozen=True)
class Identity:
    """Identifies the VAE, the data and the encoder of a cache.

    vae: `fingerprint` of the VAE.
    vae_config: its config, for error messages.
    name, size, seed, generate_name: fields of the data, as in `DataConfig` (`generate_name` is `generate`).
    dtype: dtype of stored latents and embeddings.
    num_shards: number of shards of the cache.
    segment, generate: number of examples of each task, over all shards.
    parts, part_counts: the datasets of a mixture, and the number of segment examples of each, in this order.
    num_eval_examples: number of validation examples whose embeddings are cached.
    validation: number of their records, including prompts.
    mask_rule: rule by which masks were resized before encoding (`sources.mask_rule`).
    instruction: `fingerprint` of the instruction encoder; empty if instructions are not cached.
    """

    vae: str
    vae_config: VAEConfig
    name: str
    size: int
    seed: int
    dtype: str
    num_shards: int
    segment: int
    generate: int
    instruction: str = ""
    generate_name: str = ""
    parts: tuple[str, ...] = ()
    part_counts: tuple[int, ...] = ()
    num_eval_examples: int = 0
    validation: int = 0
    mask_rule: str = ""


def fingerprint(config: VAEConfig, state: Any) -> str:
    """SHA-256 of a VAE: its config, and its weights and latent statistics as float32, by name."""
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
    for keys, leaf in jax.tree.leaves_with_path(state):
        digest.update(jax.tree_util.keystr(keys).encode())
        digest.update(np.ascontiguousarray(jax.device_get(leaf), np.float32).tobytes())
    return digest.hexdigest()


def shard_name(shard: int, num_shards: int) -> str:
    """For example "00000-of-00004"."""
    return f"{shard:05d}-of-{num_shards:05d}"


def pack(example: Mapping[str, Any], dtype: str) -> bytes:
    """Serialises an example to a record."""
    arrays = {name: x for name, x in example.items() if name.endswith("latents")}
    masks = {name: np.asarray(x, bool) for name, x in example.items() if name.endswith("_mask")}
    for name, mask in masks.items():  # padding is not stored
        embeds = name.replace("mask", "embeds")
        arrays[embeds] = example[embeds][mask]
    arrays = {name: np.asarray(x, DTYPES[dtype]) for name, x in arrays.items()}
    if dtype == "bfloat16":  # safetensors writes it but cannot load it from bytes
        arrays = {name: value.view(np.uint16) for name, value in arrays.items()}
    text = np.frombuffer(example["text"].encode(), np.uint8)
    return safetensors.numpy.save({**arrays, **masks, "text": text})


def unpack(record: bytes) -> LatentExample:
    """The inverse of `pack`, up to the rounding of the dtype."""
    arrays = safetensors.numpy.load(record)
    text = arrays.pop("text").tobytes().decode()
    masks = {name: arrays.pop(name) for name in list(arrays) if name.endswith("_mask")}
    for name, value in arrays.items():
        stored = value.view(ml_dtypes.bfloat16) if value.dtype == np.uint16 else value
        arrays[name] = stored.astype(np.float32)
    for name, mask in masks.items():
        embeds = name.replace("mask", "embeds")
        padded = np.zeros((len(mask), arrays[embeds].shape[1]), np.float32)
        padded[mask] = arrays[embeds]
        arrays[embeds] = padded
    return cast(LatentExample, {"text": text, **arrays, **masks})


def read_identity(directory: epath.PathLike) -> Identity:
    """The identity of a complete cache.

    Raises:
        UserError: there is no cache, a shard is missing, or the shards are of different caches.
        DamagedError: a JSON file has changed.
    """
    need_local(directory, "config.data.latents")
    directory = epath.Path(directory)
    paths = shards_of(directory)
    if not paths:
        raise UserError(f"{directory} has no latents; make them with launch/encode_latents.py")
    identities = [read_shard(path) for path in paths]
    for path, identity in zip(paths, identities, strict=True):
        changed = difference(identities[0], identity, "its field")
        if changed:
            raise UserError(
                f"{path} and {paths[0].name} belong to different caches: {changed}; delete one of them"
            )
    count = identities[0].num_shards
    for shard in range(count):
        if not (directory / f"shard-{shard_name(shard, count)}.json").exists():
            raise UserError(
                f"{directory}: shard {shard} of {count} is missing or incomplete; rerun "
                f"launch/encode_latents.py with --shard={shard} --num_shards={count}"
            )
    check_digests(directory, fix="delete the directory and encode the latents again")
    return identities[0]


def write_json_digests(directory: epath.Path, num_shards: int) -> None:
    """Writes the digests of the JSON files once all shards are complete; ArrayRecord checks its records."""
    if len(shards_of(directory)) == num_shards:
        names = [path.name for path in listed(directory, ".json") if path.name != DIGESTS]
        write_digests(directory, names)


def shards_of(directory: epath.Path) -> list[epath.Path]:
    """The `Identity` files of the complete shards."""
    return [path for path in listed(directory, ".json") if path.name.startswith("shard-")]


def read_shard(path: epath.Path) -> Identity:
    """The identity in a shard's file. Raises UserError if the file is damaged."""
    try:
        return read_dataclass(Identity, path)
    except UserError as error:
        raise UserError(f"{error}; delete it and encode the shard again") from error


def need_matching_cache(config: DataConfig, vae_config: VAEConfig, vae_state: Any) -> None:
    """Raises UserError if the cache (`config.latents`) belongs to other data or another VAE."""
    identity = read_identity(config.latents)
    fields = {"name": "name", "generate_name": "generate", "size": "size", "seed": "seed"}
    for attribute, field in fields.items():
        cached, expected = getattr(identity, attribute), getattr(config, field)
        if cached != expected:
            raise UserError(
                f"config.data.latents={config.latents} was made with data.{field} {cached!r}, not "
                f"{expected!r}"
            )
    if identity.mask_rule != mask_rule(config):
        raise UserError(
            f"config.data.latents={config.latents} has masks that were resized by an older rule; encode "
            "again with launch/encode_latents.py"
        )
    missing = sorted(set(_mixture_weights(config)) - set(identity.parts))
    if missing:
        raise UserError(f"config.data.latents={config.latents} has no examples of {missing[0]}; encode again")
    expected = fingerprint(vae_config, vae_state)
    if identity.vae != expected:
        shapes = difference(identity.vae_config, vae_config, "its vae") or "of the same shape"
        raise UserError(
            f"config.data.latents={config.latents} was made by another VAE ({identity.vae[:12]}, not "
            f"{expected[:12]}; {shapes}); encode again with launch/encode_latents.py, or set config.vae to "
            "that VAE"
        )


def _mixture_weights(config: DataConfig) -> dict[str, float]:
    """The weights of a mixture's parts; empty for a single dataset."""
    return joint_weights(config) if config.name == "refcoco_joint" else {}


def need_matching_instruction(directory: epath.PathLike, encoder: Instruction, examples: int = 0) -> None:
    """Checks that a cache fits the instruction encoder.

    Args:
        directory: directory of the cache.
        encoder: instruction encoder of the run.
        examples: number of validation examples.

    Raises:
        UserError: the cache has embeddings of another encoder or of too few validation examples, or the
            encoder is not frozen; or the cache has no embeddings and the encoder needs images.
    """
    identity = read_identity(directory)
    cached = identity.instruction
    if not cached:
        if encoder.needs_image:
            raise UserError(
                f"config.data.latents={directory} has no instructions, and the encoder needs images; encode "
                "again with launch/encode_latents.py --instruction"
            )
        return
    if encoder.fingerprint is None:
        raise UserError(
            f"config.data.latents={directory} has embeddings of a frozen encoder, but config.instruction is "
            "trained; encode again without --instruction"
        )
    if identity.num_eval_examples < examples:
        raise UserError(
            f"config.data.latents={directory} has embeddings of {identity.num_eval_examples} validation "
            f"examples, but config.loop.num_eval_examples is {examples}; encode again, or lower it"
        )
    expected = encoder.fingerprint()
    if expected != cached:
        raise UserError(
            f"config.data.latents={directory} has embeddings of another config.instruction "
            f"({cached[:12]}, not {expected[:12]}); encode again with launch/encode_latents.py --instruction"
        )


@functools.lru_cache(maxsize=4)
def _open(directory: str, task: str, num_shards: int) -> grain.sources.ArrayRecordDataSource:
    names = [f"{directory}/{task}-{shard_name(i, num_shards)}.arrayrecord" for i in range(num_shards)]
    return grain.sources.ArrayRecordDataSource(names)


class CachedLatents:
    """A task's cached examples in the order of the source. Example i is in shard i mod n."""

    def __init__(self, directory: str, task: str):
        """Opens a cache. Raises UserError as `read_identity` does."""
        identity = read_identity(directory)
        self.directory, self.task, self.num_shards = str(directory), task, identity.num_shards
        self.length = getattr(identity, task)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> LatentExample:
        if not 0 <= index < self.length:
            raise IndexError(index)
        shard, position = index % self.num_shards, index // self.num_shards
        # The first `remainder` shards have one example more than the others.
        quotient, remainder = divmod(self.length, self.num_shards)
        start = shard * quotient + min(shard, remainder)
        with reading(f"the latents in {self.directory}", "delete the directory and encode them again"):
            return unpack(_open(self.directory, self.task, self.num_shards)[start + position])


def cached_segments(config: DataConfig) -> Source[LatentExample]:
    """The cached examples with masks (`config.latents`); a mixture with the config's weights."""
    identity, cached = read_identity(config.latents), CachedLatents(config.latents, "segment")
    weights = _mixture_weights(config)
    if not weights:
        return cached
    ends = np.cumsum(identity.part_counts)
    parts = {
        name: Part(cached, int(end) - count, count)
        for name, count, end in zip(identity.parts, identity.part_counts, ends, strict=True)
    }
    return Mixture([parts[name] for name in weights], list(weights.values()))
