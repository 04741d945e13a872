"""Imports of the largest models need little memory."""

import json
import os
import resource
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from etils import epath

from genmask_jax.instruction.qwen.config import SIZES
from genmask_jax.models.dit import DiTConfig
from genmask_jax.parameters.files import write_tensors
from genmask_jax.parameters.layout import Entry
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.public_weights import qwen_names, wan_dit
from tests.instruction.qwen import reference
from tests.instruction.qwen.published import SEVEN, THREE

LARGE = DiTConfig(
    hidden_size=int(os.environ.get("LARGE_HIDDEN_SIZE", 3072)),  # 5120 for the 14 B model itself: 29 GB
    depth=40,
    num_heads=8,
    ffn_size=13824,
)
QWEN = os.environ.get("LARGE_QWEN", "vl_3b")  # vl_7b: 17 GB


def make_checkpoint(directory: epath.Path, stem: str, entries: list[Entry], config: dict) -> tuple[set, int]:
    """Shards of noise in bfloat16; returns their keys and bytes."""
    shapes = {key: entry.public_shape for entry in entries for key in entry.keys}
    noise = np.random.default_rng(0).standard_normal(2 * 10**8, np.float32).astype(ml_dtypes.bfloat16)

    def tensor(index: int, shape: tuple[int, ...]) -> np.ndarray:
        part = noise[index * 1000 :][: np.prod(shape)]
        return np.resize(part, shape) if part.size < np.prod(shape) else part.reshape(shape)

    sizes = {key: 2 * int(np.prod(shape)) for key, shape in shapes.items()}
    directory.mkdir(parents=True)
    write_tensors(
        directory, stem, sizes, ((key, tensor(i, shape)) for i, (key, shape) in enumerate(shapes.items()))
    )
    (directory / "config.json").write_text(json.dumps(config))
    return set(shapes), sum(sizes.values())


def import_in_subprocess(name: str, directory, nbytes: int, *flags: str) -> int:
    """Peak resident bytes of `launch/import_weights.py`."""
    command = [sys.executable, "launch/import_weights.py", name, *flags]
    subprocess.run([*command, f"--from={directory / 'hub'}", f"--out={directory / 'ours'}"], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024  # of the largest child so far
    print(f"{nbytes / 1e9:.1f} GB imported; peak resident memory {peak / 2**30:.2f} GiB")
    return peak


@pytest.mark.slow
def test_large_import_in_six_gib(tmp_path):
    entries, config = wan_dit.entries(LARGE), wan_dit.config_to_public(LARGE)
    folder = epath.Path(tmp_path / "hub" / "transformer")
    keys, nbytes = make_checkpoint(folder, "diffusion_pytorch_model", entries, config)
    published = wan_dit.entries(DiTConfig(5120, 40, 40, 13824))
    assert keys == {key for entry in published for key in entry.keys}
    assert nbytes > 12e9
    assert import_in_subprocess("wan", tmp_path, nbytes, "--only=dit") < 6 * 2**30
    reader = ParameterReader(epath.Path(tmp_path / "ours" / "dit" / "params"))
    assert reader.shapes["blocks.ffn.linear_1.kernel"] == (40, LARGE.hidden_size, LARGE.ffn_size)


@pytest.mark.slow
def test_a_published_qwen_in_six_gib(tmp_path):
    """At full size; parameters that are not stacked (the embeddings) are completely in memory."""
    config, folder = SIZES[QWEN], epath.Path(tmp_path / "hub")
    public = {"vl_3b": THREE, "vl_7b": SEVEN}[QWEN]
    _, nbytes = make_checkpoint(folder, "model", qwen_names.entries(config), public)
    (folder / "tokenizer.json").write_text(reference.tokenizer().to_str())
    assert import_in_subprocess("qwen", tmp_path, nbytes) < 6 * 2**30
    reader = ParameterReader(epath.Path(tmp_path / "ours" / "qwen" / "params"))
    text = config.text
    assert reader.shapes["text.blocks.mlp.up_proj.kernel"] == (text.depth, text.hidden_size, text.ffn_size)
