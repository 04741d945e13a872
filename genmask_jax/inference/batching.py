"""Fixed-size batches for jitted samplers. The last batch is padded, so that there is only one compilation."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from genmask_jax.sharding import part_of_batch


def fixed_batches(
    count: int, batch_size: int, part: tuple[int, int] = (0, 1)
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (indices `[batch_size]` into range(count), number of valid indices); padding repeats the last.

    Args:
        count: number of examples, at least 1.
        batch_size: batch size on this host.
        part: this host's shard of every batch, from `part_of_batch`. All hosts get the same number of
            batches; in the last batch, a host may have no valid example.
    """
    index, hosts = part
    for start in range(index * batch_size, index * batch_size + count, hosts * batch_size):
        valid = min(max(count - start, 0), batch_size)
        yield np.minimum(np.arange(start, start + batch_size), count - 1), valid


def host_batch_size(batch_size: int, mesh: Mesh) -> int:
    """Rounds `batch_size` up so that it shards evenly over this host's part of the mesh."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"] // part_of_batch(mesh)[1]
    return -(-batch_size // rows) * rows


def bucket_size(count: int, max_size: int, mesh: Mesh) -> int:
    """Returns the batch size for `count` examples: 1 for at most `max_size / 2` examples, else `max_size`.

    Two sizes need two compilations at most; calls with few examples need only the first.
    """
    return host_batch_size(1 if 2 * count <= max_size else max_size, mesh)


def local_rows(output: Array) -> np.ndarray:
    """Fetches this host's rows of a batch that is sharded over hosts and devices."""
    shards = {shard.index[0].start or 0: shard.data for shard in output.addressable_shards}
    return np.concatenate(jax.device_get([shards[start] for start in sorted(shards)]))


def example_keys(seed: int | Sequence[int], indices: np.ndarray) -> np.ndarray:
    """Returns seeds uint32 `[B, 2]`, one per example, so that its noise does not depend on its batch.

    Args:
        seed: one seed for all examples, or one per example.
        indices: int `[B]`, the index of each example.
    """
    return np.stack([np.full(len(indices), seed, np.uint32), indices.astype(np.uint32)], axis=1)


def example_noise(seeds: jax.Array, draw: int | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns standard normal noise `[B, *shape]`.

    Args:
        seeds: uint32 `[B, 2]`, from `example_keys`.
        draw: index of the draw, one for all examples or `[B]`.
        shape: shape of one example.
    """

    def sample(pair, draw):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(pair[0]), pair[1]), draw)
        return jax.random.normal(key, shape)

    return jax.vmap(sample)(seeds, jnp.broadcast_to(draw, len(seeds)))
