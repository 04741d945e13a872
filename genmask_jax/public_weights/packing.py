"""Packs a run into a small directory (`checkpoints/packed.py`) with a model card."""

import json
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from genmask_jax.checkpoints.packed import WEIGHTS, write_weights
from genmask_jax.checkpoints.runs import find_step, open_vae, read_config
from genmask_jax.config import TrainConfig
from genmask_jax.models.vae import VAEConfig
from genmask_jax.public_weights.lora import copy_directory, open_merged
from genmask_jax.public_weights.parts import Reader
from genmask_jax.utils.digests import write_digests
from genmask_jax.utils.fields import to_json
from genmask_jax.utils.paths import write_text

DTYPES: dict[str, Any] = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
CARD = """# {name}

A GenMask model that segments the object named by a phrase, and generates images from prompts, at {size} px.

    python launch/sample.py --checkpoint=DIRECTORY --image=IMAGE --text="..." --out=out
    python launch/sample.py --checkpoint=DIRECTORY --text="..." --out=out

- **Data:** {data}, {size} px, seed {seed}.
- **Training:** {step:,} steps of {batch} examples, seed {run_seed}; for the rest see `config.json`.
- **Weights:** {parameters:.2f} M trained parameters (EMA) and {vae:.2f} M of the VAE, stored as {dtype}.
{scores}"""


def pack_run(
    source: epath.Path, out: epath.Path, which: str, dtype: str, progress: Callable[[int], object]
) -> str:
    """Writes a packed model.

    Args:
        source: the --workdir of a run; adapters are merged.
        out: the directory to write.
        which: checkpoint: last, best or a step.
        dtype: dtype of the stored weights, a name in DTYPES.
        progress: called with the number of bytes of each parameter.

    Returns:
        A one-line summary.

    Raises:
        UserError: the run does not exist, or the base weights of its adapters are missing.
    """
    step = find_step(source, which)
    config, reader = open_merged(source, step)
    stored_dtype = np.dtype(DTYPES[dtype])
    parameters = _read(reader, stored_dtype, progress)
    vae = _read(open_vae(source), stored_dtype, progress)
    write_weights(out, parameters, step)
    write_weights(out / "vae", vae)
    write_text(out / "vae" / "config.json", to_json(read_config(VAEConfig, source / "vae")))
    if (source / "instruction").exists():
        copy_directory(source / "instruction", out / "instruction")
    write_text(out / "config.json", to_json(config))
    write_digests(out / "vae")
    write_digests(out, ("config.json", WEIGHTS))
    write_text(out / "README.md", _card(source, config, step, dtype, parameters, vae))
    size = sum(x.nbytes for x in (*parameters.values(), *vae.values()))
    return f"{out}: step {step} of {source}, {size / 1e6:.2f} MB of weights as {dtype}"


def _read(reader: Reader, dtype: np.dtype, progress: Callable[[int], object]) -> dict[str, np.ndarray]:
    tensors = {}
    for name in reader.shapes:
        tensors[name] = reader.read(name).astype(dtype)
        progress(tensors[name].nbytes)
    return tensors


def _card(
    source: epath.Path,
    config: TrainConfig,
    step: int,
    dtype: str,
    parameters: dict[str, np.ndarray],
    vae: dict[str, np.ndarray],
) -> str:
    """The model card, with scores if launch/evaluate.py scored this step."""
    path, scores = source / "evaluation_test" / "metrics.json", ""
    metrics = json.loads(path.read_text()) if path.exists() else {}
    if metrics.get("checkpoint_step") == step:
        names = [name for name in ("mIoU", "oIoU", "P@0.5", "P@0.9") if name in metrics]
        scores = "- **Scores before rounding**, test split: " + ", ".join(
            f"{n} {metrics[n]:.4f}" for n in names
        )
    return CARD.format(
        name=config.name,
        size=config.data.size,
        data=" and ".join(filter(None, (config.data.name, config.data.generate))),
        seed=config.data.seed,
        run_seed=config.seed,
        step=step,
        batch=config.loop.global_batch_size,
        parameters=sum(x.size for x in parameters.values()) / 1e6,
        vae=sum(x.size for x in vae.values()) / 1e6,
        dtype=dtype,
        scores=scores,
    )
