"""A checkpoint with the keys of the 14 B model, 13 GB of it, goes through little memory."""

import json
import os
import resource
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from etils import epath

from genmask_jax.models.dit import DiTConfig
from genmask_jax.weights import streaming, wan_dit
from genmask_jax.weights.files import write_tensors

LARGE = DiTConfig(
    hidden_size=int(os.environ.get("LARGE_HIDDEN_SIZE", 3072)),  # 5120 for the 14 B model itself: 29 GB
    depth=40,
    num_heads=8,
    ffn_size=13824,
)


def make_checkpoint(directory: epath.Path) -> tuple[set[str], int]:
    """Shards of noise in bfloat16; returns their keys and bytes."""
    entries = wan_dit.entries(LARGE)
    shapes = {key: entry.public_shape for entry in entries for key in entry.keys}
    noise = np.random.default_rng(0).standard_normal(2 * 10**8, np.float32).astype(ml_dtypes.bfloat16)

    def tensor(index: int, shape: tuple[int, ...]) -> np.ndarray:
        return noise[index * 1000 :][: np.prod(shape)].reshape(shape)

    sizes = {key: 2 * int(np.prod(shape)) for key, shape in shapes.items()}
    directory.mkdir(parents=True)
    write_tensors(
        directory,
        "diffusion_pytorch_model",
        sizes,
        ((key, tensor(i, shape)) for i, (key, shape) in enumerate(shapes.items())),
    )
    (directory / "config.json").write_text(json.dumps(wan_dit.config_to_public(LARGE)))
    return set(shapes), sum(sizes.values())


@pytest.mark.slow
def test_large_import_in_six_gib(tmp_path):
    keys, nbytes = make_checkpoint(epath.Path(tmp_path / "hub" / "transformer"))
    published = wan_dit.entries(DiTConfig(5120, 40, 40, 13824))
    assert keys == {key for entry in published for key in entry.keys}
    assert nbytes > 12e9
    command = [sys.executable, "launch/import_weights.py", "wan", "--only=dit"]
    subprocess.run([*command, f"--from={tmp_path / 'hub'}", f"--out={tmp_path / 'ours'}"], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest child
    print(f"{nbytes / 1e9:.1f} GB imported; peak resident memory {peak / 2**30:.2f} GiB")
    assert peak < 6 * 2**30
    reader = streaming.ParameterReader(epath.Path(tmp_path / "ours" / "dit" / "params"))
    assert reader.shapes["blocks.ffn.linear_1.kernel"] == (40, LARGE.hidden_size, LARGE.ffn_size)
