"""Reads the directories of runs, which contain

    config.json            the training config
    instruction/           the learned tokenizer, or the digest of the encoder's imported weights
    vae/                   config.json and weights of the (frozen) VAE
    parameters.txt         the plan of the parameters, as a table
    base.json              for a run with adapters: identifies their base weights
    checkpoints/STEP/      train (state without EMA), ema_params, data (position), metrics. Without an EMA,
                           ema_params has the parameters themselves, and train does not

Folders of arrays, data, metrics and instruction have a digests.json (`utils/digests.py`).

This is enough to resume, evaluate and sample. Only the imported weights of Qwen and the base weights of
adapters are not copied. A packed model (`packed.py`) is read like a run with one checkpoint.
"""

import dataclasses
import json
from typing import Any

import jax
from etils import epath, epy
from flax import nnx

from genmask_jax.checkpoints.packed import PackedReader, is_packed, read_step
from genmask_jax.config import TrainConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.parameters.names import named_leaves, need_same_shapes, shapes_of, with_leaves
from genmask_jax.parameters.plan import Source
from genmask_jax.parameters.reader import ParameterReader, restoring
from genmask_jax.pretrained import describe_models, directory_of
from genmask_jax.sharding import one_device, placed, replicated
from genmask_jax.utils import hosts
from genmask_jax.utils.digests import check_digests, write_digests
from genmask_jax.utils.errors import DamagedError, UserError
from genmask_jax.utils.fields import read_dataclass, to_json
from genmask_jax.utils.paths import listed, parse_json, read_text, resolved, write_text, writing

with epy.lazy_imports():  # saves half a second for packed models
    import orbax.checkpoint as ocp

OLD_REFINE_T = 0.3
"""The former default of `sampler.refine_t`, a timestep at which masks are hardly trained."""


def find_step(workdir: epath.PathLike, which: str) -> int:
    """The step to read: "last", "best" (by the validation score) or a number.

    Raises:
        UserError: there is no such checkpoint.
    """
    return find_steps(workdir, which)[0]


def find_steps(workdir: epath.PathLike, which: str) -> list[int]:
    """The step of `which`, followed by steps to try if it is damaged: for "last", the earlier ones.

    Raises:
        UserError: there is no such checkpoint.
    """
    if is_packed(workdir):
        return _only(workdir, which, read_step(workdir))
    directory = epath.Path(workdir) / "checkpoints"
    steps = sorted(int(path.name) for path in listed(directory) if path.name.isdigit())
    if not steps:
        raise UserError(f"{workdir}: no checkpoint here; give {describe_models()}")
    if which == "last":
        return steps[::-1]
    if which == "best":
        return [max(steps, key=lambda step: _metric(directory / str(step)))]
    if which.isdigit() and int(which) in steps:
        return [int(which)]
    raise UserError(f"{workdir}: no checkpoint {which!r}; there are last, best, {', '.join(map(str, steps))}")


def _only(workdir: epath.PathLike, which: str, step: int) -> list[int]:
    if which not in ("last", "best", str(step)):
        raise UserError(f"{workdir}: no checkpoint {which!r}; a packed model has one, {step}")
    return [step]


def has_checkpoint(workdir: epath.PathLike) -> bool:
    """Whether a complete checkpoint exists."""
    directory = epath.Path(workdir) / "checkpoints"
    return directory.exists() and bool(ocp.utils.checkpoint_steps(directory))


def open_ema(workdir: epath.PathLike, step: int, prefix: str = "") -> ParameterReader | PackedReader:
    """A reader of the parameters for inference; for `prefix` see `ParameterReader`."""
    if is_packed(workdir):
        return PackedReader(workdir, prefix)
    return ParameterReader(epath.Path(workdir) / "checkpoints" / str(step) / "ema_params", prefix)


def _metric(directory: epath.Path) -> float:
    try:
        check_digests(directory / "metrics")
        return float(json.loads((directory / "metrics" / "metrics").read_text())["score"])
    except (DamagedError, OSError, ValueError, KeyError, TypeError):  # it has no scores, or is damaged
        return float("-inf")


def restore_ema(workdir: epath.PathLike, step: int, abstract: Any) -> Any:
    """The EMA parameters of a checkpoint, in the dtypes and shardings of `abstract`.

    Raises:
        UserError: the checkpoint belongs to another model.
        DamagedError: the checkpoint cannot be read.
    """
    if is_packed(workdir):
        return _unpack(workdir, abstract)
    return _restore(epath.Path(workdir) / "checkpoints" / str(step) / "ema_params", abstract)


def _unpack(directory: epath.PathLike, targets: Any) -> Any:
    """The arrays of a packed model; compares all shapes first."""
    reader = PackedReader(directory)
    reader.check()
    need_same_shapes(reader.path, reader.shapes, shapes_of(targets))
    return with_leaves(targets, reader.restore(named_leaves(targets)))


def _restore(path: epath.Path, targets: Any) -> Any:
    """The arrays of a checkpoint; compares all shapes before reading any array."""
    reader = ParameterReader(path)
    reader.check()
    need_same_shapes(path, reader.shapes, shapes_of(targets))
    with restoring(path), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(resolved(path), targets)


def save_vae(workdir: epath.PathLike, config: VAEConfig, state: Any) -> None:
    """Writes a VAE's weights (with latent statistics) to WORKDIR/vae, and then its config."""
    directory = resolved(epath.Path(workdir) / "vae")
    if hosts.is_first():
        (directory / "config.json").unlink(missing_ok=True)  # of a VAE that is replaced
    with writing(directory), ocp.StandardCheckpointer() as checkpointer:
        # NumPy arrays are written by the first host alone.
        checkpointer.save(directory / "params", jax.device_get(state), force=True)
    if hosts.is_first():
        write_digests(directory / "params")
        write_text(directory / "config.json", to_json(config))
    hosts.wait("VAE saved")


def open_vae(workdir: epath.PathLike) -> ParameterReader | PackedReader:
    """A reader of the VAE's parameters in WORKDIR/vae."""
    directory = epath.Path(workdir) / "vae"
    return PackedReader(directory) if is_packed(directory) else ParameterReader(directory / "params")


def load_vae(workdir: epath.PathLike) -> tuple[VAEConfig, Any]:
    """Reads a VAE from `save_vae`, or from a packed model.

    Raises:
        UserError: there is no VAE in WORKDIR/vae.
    """
    directory, config = _vae_directory(workdir), read_vae_config(workdir)
    shapes = nnx.eval_shape(lambda: nnx.state(VAE(config, rngs=nnx.Rngs(0))))
    here = replicated(one_device())
    targets = jax.tree.map(lambda x: placed(x, here), shapes)
    if is_packed(directory):
        return config, _unpack(directory, targets)
    return config, _restore(directory / "params", targets)


def read_vae_config(workdir: epath.PathLike) -> VAEConfig:
    """The config of the VAE that `load_vae` reads. Raises UserError like `load_vae`."""
    directory = _vae_directory(workdir)
    if not (directory / "config.json").exists():
        raise UserError(
            f"{workdir}: no trained VAE here; config.vae is the --workdir of a finished launch/train_vae.py"
        )
    return read_config(VAEConfig, directory)


def vae_source(workdir: epath.PathLike) -> Source:
    """The source of the weights that `load_vae` reads: IMPORT or RUN."""
    return Source.IMPORT if (_vae_directory(workdir) / "import.json").exists() else Source.RUN


def _vae_directory(workdir: epath.PathLike) -> epath.Path:
    return resolved(directory_of(workdir, "config.vae") / "vae")


def read_config(kind: Any, workdir: epath.PathLike) -> Any:
    """Reads the config.json of a run. Raises UserError if it is missing or not a `kind`."""
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir}: no config.json here; give {describe_models()}")
    return read_dataclass(kind, path, _without_history)


def _without_history(kind: Any, values: Any, where: str) -> Any:
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name != "history"}
    return _without_old_default(from_config_dict(kind, values, where))


def _without_old_default(config: Any) -> Any:
    """Replaces the former default of `refine_t` by 0, which derives it from the timestep distribution."""
    if not isinstance(config, TrainConfig):
        return config
    extremes = config.timesteps.segment.name in ("bimodal", "long_tail")
    if not (extremes and config.sampler.refine_t == OLD_REFINE_T):
        return config
    return dataclasses.replace(config, sampler=dataclasses.replace(config.sampler, refine_t=0.0))


def read_history(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Changes of the config on resumes: dicts of `step` and `changes`, {dotted name: [old, new]}."""
    path = epath.Path(workdir) / "config.json"
    return parse_json(read_text(path)).get("history", []) if path.exists() else []
