"""Writes one shard of a latent cache (see `store.py`)."""

import contextlib
import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from typing import Any, cast

import grain
import jax
import jax.numpy as jnp
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from flax import nnx
from tqdm import tqdm

from genmask_jax.config import DataConfig
from genmask_jax.data.examples import GenerateExample, Mixture, Part, SegmentExample, Source
from genmask_jax.data.latents.cached_instruction import key_of, validation_inputs
from genmask_jax.data.latents.store import (
    Identity,
    LatentExample,
    fingerprint,
    pack,
    read_shard,
    shard_name,
    shards_of,
    write_json_digests,
)
from genmask_jax.data.sources import generate_source, joint_weights, mask_rule, segment_source
from genmask_jax.instruction.base import Instruction, stack_inputs, with_loaded_weights
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.sharding import local_batch_sharding, placed
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import difference, to_json
from genmask_jax.utils.paths import write_text, writing
from genmask_jax.utils.pixels import mask_to_rgb, to_signed


class Encoder:
    """Jitted encoders of images, masks and instructions, with a fixed batch size, on this host's devices."""

    def __init__(
        self,
        config: VAEConfig,
        state: Any,
        instruction: Instruction | None = None,
        *,
        dtype: str,
        batch_size: int,
    ):
        """Replicates the VAE, and the instruction encoder if given, on each device.

        Raises:
            UserError: the batch cannot be sharded evenly over the devices.
        """
        devices = jax.local_device_count()
        if batch_size % devices:
            raise UserError(f"--batch_size={batch_size} is not a multiple of this host's {devices} devices")
        self.batch_size = batch_size
        self._batches, replicated = local_batch_sharding()
        graphdef = nnx.split(nnx.eval_shape(lambda: VAE(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))))[0]
        self._state = jax.device_put(state, replicated)
        self._images = jax.jit(lambda state, x: nnx.merge(graphdef, state).encode(to_signed(x)))
        self._masks = jax.jit(lambda state, x: nnx.merge(graphdef, state).encode(mask_to_rgb(x)))
        self._instruction = instruction
        if instruction is not None:
            make = lambda: instruction.make(nnx.Rngs(0), jnp.dtype(dtype))  # noqa: E731
            text_graphdef, shapes = nnx.split(nnx.eval_shape(make))
            self._text_state = with_loaded_weights(
                jax.tree.map(lambda x: placed(x, replicated), shapes), instruction
            )
            self._embed = jax.jit(lambda state, x: nnx.merge(text_graphdef, state)(x))

    def __call__(self, examples: list[Any]) -> Iterator[LatentExample]:
        """Encodes at most `batch_size` examples; a smaller batch is padded."""
        full = examples + examples[-1:] * (self.batch_size - len(examples))
        latents = {"image_latents": self._run(self._images, [x["image"] for x in full])}
        if "mask" in examples[0]:
            latents["mask_latents"] = self._run(self._masks, [x["mask"] for x in full])
        if self._instruction is not None:
            latents |= self._instructions(full)
        for i, example in enumerate(examples):
            yield cast(LatentExample, {"text": example["text"]} | {name: x[i] for name, x in latents.items()})

    def _run(self, function: Any, images: list[np.ndarray]) -> np.ndarray:
        return jax.device_get(function(self._state, jax.device_put(np.stack(images), self._batches)))

    def _instructions(self, examples: list[Any]) -> dict[str, np.ndarray]:
        segment = "mask" in examples[0]
        embeds = self.embed([(x["text"], x["image"] if segment else None) for x in examples])
        if not segment:  # training replaces some prompts by the empty one
            null = self.embed([("", None)] * len(examples))
            embeds |= {name.replace("text", "null"): x for name, x in null.items()}
        return embeds

    def embed(self, pairs: list[tuple[str, np.ndarray | None]]) -> dict[str, np.ndarray]:
        """Embeds `batch_size` texts, all with or all without images: `text_embeds` and `text_mask`."""
        assert self._instruction is not None
        inputs = stack_inputs([self._instruction.preparer(*pair) for pair in pairs])
        embeds, mask = jax.device_get(self._embed(self._text_state, jax.device_put(inputs, self._batches)))
        return {"text_embeds": embeds, "text_mask": mask}


def encode_shard(
    data: DataConfig,
    vae: tuple[VAEConfig, Any],
    out: epath.Path,
    *,
    instruction: Instruction | None = None,
    compute_dtype: str,
    dtype: str,
    count: int | None,
    num_eval_examples: int,
    shard: int,
    num_shards: int,
    batch_size: int,
) -> Identity:
    """Encodes every `num_shards`-th example of the train split, from `shard` on.

    Args:
        data: the dataset.
        vae: the VAE's config and state.
        out: directory of the cache; a complete shard is kept.
        instruction: encoder whose embeddings are cached too; None for none.
        compute_dtype: dtype of the encoders' computation.
        dtype: dtype of stored latents and embeddings.
        count: examples of each task over all shards; None for all. It is divided over the datasets of a
            mixture.
        num_eval_examples: validation examples whose embeddings are cached too.
        shard, num_shards: index and number of shards.
        batch_size: images per batch.

    Returns:
        The identity of the shard.

    Raises:
        UserError: the directory has another cache, its files cannot be written, or the instruction encoder is
            not frozen.
    """
    examples = _select(data, count, num_eval_examples if instruction else None)
    identity = _identity(data, vae, instruction, examples, dtype, num_shards)
    _check(identity, out)
    name = shard_name(shard, num_shards)
    if (out / f"shard-{name}.json").exists():
        print(f"{out}: shard {name} is already complete; nothing done")
        return identity
    out.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(*vae, instruction, dtype=compute_dtype, batch_size=batch_size)
    _write_shard(encoder, examples, out, shard, num_shards, dtype)
    write_text(out / f"shard-{name}.json", to_json(identity))
    write_json_digests(out, num_shards)
    return identity


@dataclasses.dataclass(frozen=True)
class _Examples:
    """What a cache encodes, over all shards.

    segments, images: the examples of both tasks.
    part_counts: number of segments of each dataset of a mixture; {} for a single dataset.
    num_eval_examples: number of validation examples whose embeddings are cached.
    validation: (text, image) of each of these embeddings, including prompts.
    """

    segments: Source[SegmentExample]
    images: Source[GenerateExample]
    part_counts: dict[str, int]
    num_eval_examples: int
    validation: list[tuple[str, np.ndarray | None]]


def _select(data: DataConfig, count: int | None, num_eval_examples: int | None) -> _Examples:
    """The first `count` examples of each task (all if None), and the inputs of validation (none if None)."""
    segments, part_counts = _first_segments(data, count)
    images = generate_source(data, "train")
    images = Part(images, 0, len(images) if count is None else min(count, len(images)))
    validation = [] if num_eval_examples is None else validation_inputs(data, num_eval_examples)
    return _Examples(segments, images, part_counts, num_eval_examples or 0, validation)


def _identity(
    data: DataConfig,
    vae: tuple[VAEConfig, Any],
    instruction: Instruction | None,
    examples: _Examples,
    dtype: str,
    num_shards: int,
) -> Identity:
    return Identity(
        vae=fingerprint(*vae),
        vae_config=vae[0],
        name=data.name,
        generate_name=data.generate,
        size=data.size,
        seed=data.seed,
        dtype=dtype,
        num_shards=num_shards,
        segment=len(examples.segments),
        generate=len(examples.images),
        instruction=_fingerprint(instruction),
        parts=tuple(examples.part_counts),
        part_counts=tuple(examples.part_counts.values()),
        num_eval_examples=examples.num_eval_examples,
        validation=len(examples.validation),
        mask_rule=mask_rule(data),
    )


def _check(identity: Identity, out: epath.Path) -> None:
    """Raises UserError if there are fewer examples than shards, or `out` has another cache."""
    fewest = min(identity.segment, identity.generate)
    if fewest < identity.num_shards:
        raise UserError(
            f"--num_shards={identity.num_shards}: there are only {fewest} examples; use fewer shards"
        )
    for path in shards_of(out):
        changed = difference(read_shard(path), identity, "its field")
        if changed:
            raise UserError(f"--out={out} has other latents ({path.name}: {changed}); give a new directory")


def _write_shard(
    encoder: Encoder, examples: _Examples, out: epath.Path, shard: int, num_shards: int, dtype: str
) -> None:
    """Writes the records of a shard."""
    name = shard_name(shard, num_shards)
    for task, source in {"segment": examples.segments, "generate": examples.images}.items():
        indices = range(shard, len(source), num_shards)
        _write_examples(encoder, source, indices, out / f"{task}-{name}.arrayrecord", dtype, f"{task} {name}")
    if examples.validation:
        _write_validation(encoder, examples.validation[shard::num_shards], out / f"validation-{name}", dtype)


def _fingerprint(instruction: Instruction | None) -> str:
    if instruction is None:
        return ""
    if instruction.fingerprint is None:
        raise UserError("--instruction: config.instruction is trained; only frozen encoders can be cached")
    return instruction.fingerprint()


def _first_segments(data: DataConfig, count: int | None) -> tuple[Source[SegmentExample], dict[str, int]]:
    """The first `count` examples (all if None), and their number in each part of a mixture.

    `count` is divided over the parts by weight, so that a small cache has examples of all parts.
    """
    source = segment_source(data, "train")
    if not isinstance(source, Mixture):
        return Part(source, 0, len(source) if count is None else min(count, len(source))), {}
    total, parts = sum(source.weights), {}
    for name, part, weight in zip(joint_weights(data), source.parts, source.weights, strict=True):
        share = len(part) if count is None else math.ceil(count * weight / total)
        parts[name] = Part(part, 0, min(share, len(part)))
    return Mixture(list(parts.values()), source.weights), {name: len(part) for name, part in parts.items()}


def _write_validation(
    encoder: Encoder, pairs: list[tuple[str, np.ndarray | None]], path: epath.Path, dtype: str
) -> None:
    """Writes the embeddings of texts, with or without images, and their keys."""
    with record_writer(epath.Path(f"{path}.arrayrecord")) as writer:
        for _, group in itertools.groupby(pairs, key=lambda pair: pair[1] is None):
            remaining = list(group)
            while batch := remaining[: encoder.batch_size]:
                embeds = encoder.embed(batch + batch[-1:] * (encoder.batch_size - len(batch)))
                for i, (text, _) in enumerate(batch):
                    writer.write(pack({"text": text} | {name: x[i] for name, x in embeds.items()}, dtype))
                del remaining[: encoder.batch_size]
    write_text(f"{path}.json", json.dumps({"keys": [key_of(*pair) for pair in pairs]}))


def _write_examples(
    encoder: Encoder, source: Source[Any], indices: range, path: epath.Path, dtype: str, title: str
) -> None:
    """Writes one file; replaces the file of an interrupted run."""
    dataset = grain.MapDataset.source(source)[indices.start : indices.stop : indices.step]
    read = grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * encoder.batch_size)
    examples = iter(dataset.to_iter_dataset(read))
    with record_writer(path) as writer, tqdm(total=len(indices), desc=title, unit="example") as bar:
        while batch := list(itertools.islice(examples, encoder.batch_size)):
            for example in encoder(batch):
                writer.write(pack(example, dtype))
            bar.update(len(batch))


@contextlib.contextmanager
def record_writer(path: epath.Path) -> Iterator[ArrayRecordWriter]:
    """Writes a file of records, with random access. Raises StorageError if it cannot be written."""
    with writing(path):
        writer = ArrayRecordWriter(str(path), "group_size:1")
        yield writer
        writer.close()
