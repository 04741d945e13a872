"""Fixed-size batches for jitted samplers: the last is padded, so that nothing is compiled twice."""

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
    """Index arrays `[batch_size]` over range(count), and how many are valid; the rest repeat the last.

    Args:
        count: number of examples, at least one.
        batch_size: on this host.
        part: this host's shard of every batch, from `part_of_batch`. All hosts get the same number of
            batches; in the last, a host may have no valid example.
    """
    index, hosts = part
    for start in range(index * batch_size, index * batch_size + count, hosts * batch_size):
        real = min(max(count - start, 0), batch_size)
        yield np.minimum(np.arange(start, start + batch_size), count - 1), real


def host_batch_size(batch_size: int, mesh: Mesh) -> int:
    """`batch_size`, rounded up so that it shards evenly over this host's part of the mesh."""
    rows = mesh.shape["data"] * mesh.shape["fsdp"] // part_of_batch(mesh)[1]
    return -(-batch_size // rows) * rows


def bucket_size(count: int, many: int, mesh: Mesh) -> int:
    """A batch size for `count` examples: 1, for at most half as many as `many`, or `many`.

    Two sizes mean two compilations, and the few examples that most calls have need only one.
    """
    return host_batch_size(1 if 2 * count <= many else many, mesh)


def own_rows(output: Array) -> np.ndarray:
    """This host's rows of a batch that is sharded over hosts and devices."""
    shards = {shard.index[0].start or 0: shard.data for shard in output.addressable_shards}
    return np.concatenate(jax.device_get([shards[start] for start in sorted(shards)]))


def example_keys(seed: int | Sequence[int], indices: np.ndarray) -> np.ndarray:
    """Noise seeds uint32 `[B, 2]`, one per example, so that its noise does not depend on its batch.

    `seed` is that of all examples, or of each.
    """
    return np.stack([np.full(len(indices), seed, np.uint32), indices.astype(np.uint32)], axis=1)


def example_noise(seeds: jax.Array, draw: int | jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise `[B, *shape]` from `example_keys`; `draw` numbers the draw, of all or of each."""

    def one(pair, draw):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(pair[0]), pair[1]), draw)
        return jax.random.normal(key, shape)

    return jax.vmap(one)(seeds, jnp.broadcast_to(draw, len(seeds)))
