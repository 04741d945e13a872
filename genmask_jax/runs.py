"""Reads a run's directory, which contains

    config.json            the training config
    instruction/           the learned tokenizer, or the digest of the encoder's imported weights
    vae/                   config.json and weights of the (frozen) VAE
    base.json              of a run with adapters: what identifies the weights that they belong to
    checkpoints/STEP/      train (state without EMA), ema_params, data (position), metrics. A run without an
                           average has its parameters as ema_params, and not in train

This is enough to resume, evaluate and sample; only Qwen's imported weights, and those under adapters, are
not copied into it. A packed model (`packed.py`) is read like a run that has one checkpoint.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import jax
from etils import epath, epy
from flax import nnx

from genmask_jax import hosts
from genmask_jax.config import TrainConfig, from_config_dict
from genmask_jax.errors import UserError
from genmask_jax.fields import read_dataclass, to_json
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.packed import PackedReader, is_packed, read_step
from genmask_jax.parameters.names import parameter_name
from genmask_jax.parameters.reader import ParameterReader, restoring
from genmask_jax.paths import listed, read_text
from genmask_jax.pretrained import directory_of, known_models
from genmask_jax.sharding import one_device, placed, state_shardings

with epy.lazy_imports():  # half a second, which a packed model does not need
    import orbax.checkpoint as ocp

OLD_REFINE_T = 0.3
"""The former default of `sampler.refine_t`, stored by runs whose masks were hardly trained there."""


def find_step(workdir: epath.PathLike, which: str) -> int:
    """The step to read: "last", "best" (by the validation score) or a number.

    Raises:
        UserError: there is no such checkpoint.
    """
    return find_steps(workdir, which)[0]


def find_steps(workdir: epath.PathLike, which: str) -> list[int]:
    """The step that `which` names, followed by those to read if it is damaged: for "last", the earlier ones.

    Raises:
        UserError: there is no such checkpoint.
    """
    if is_packed(workdir):
        return _only(workdir, which, read_step(workdir))
    directory = epath.Path(workdir) / "checkpoints"
    steps = sorted(int(path.name) for path in listed(directory) if path.name.isdigit())
    if not steps:
        raise UserError(f"{workdir}: no checkpoint here; give {known_models()}")
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


def open_ema(workdir: epath.PathLike, step: int, prefix: str = "") -> ParameterReader | PackedReader:
    """A reader of the parameters that inference uses; `prefix` as in `ParameterReader`."""
    if is_packed(workdir):
        return PackedReader(workdir, prefix)
    return ParameterReader(epath.Path(workdir) / "checkpoints" / str(step) / "ema_params", prefix)


def _metric(directory: epath.Path) -> float:
    try:
        return float(json.loads((directory / "metrics" / "metrics").read_text())["score"])
    except (OSError, ValueError, KeyError, TypeError):  # it was not scored, or is damaged
        return float("-inf")


def restore_ema(workdir: epath.PathLike, step: int, abstract: Any) -> Any:
    """The EMA parameters of one checkpoint, in the dtypes and shardings of `abstract`.

    Raises:
        UserError: the checkpoint belongs to another model.
        DamagedError: it cannot be read.
    """
    if is_packed(workdir):
        return _unpack(workdir, abstract)
    return _restore(epath.Path(workdir) / "checkpoints" / str(step) / "ema_params", abstract)


def _unpack(directory: epath.PathLike, targets: Any) -> Any:
    """The arrays of a packed model; all shapes are compared first."""
    reader, flat = PackedReader(directory), jax.tree.leaves_with_path(targets)
    here = {parameter_name(keys): leaf for keys, leaf in flat}
    need_same(reader.path, reader.shapes, {name: tuple(leaf.shape) for name, leaf in here.items()})
    arrays = reader.restore(here)
    return jax.tree.map_with_path(lambda keys, _: arrays[parameter_name(keys)], targets)


def _restore(path: epath.Path, targets: Any) -> Any:
    """The arrays in `path`; all shapes are compared before any array is read."""
    here = {parameter_name(keys): tuple(leaf.shape) for keys, leaf in jax.tree.leaves_with_path(targets)}
    need_same(path, ParameterReader(path).shapes, here)
    with restoring(path), ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.resolve(), targets)


def need_same(path: epath.Path, there: dict, here: dict, but: Iterable[str] = ()) -> None:
    """Compares the shapes of a checkpoint and the model by name. Raises UserError at the first difference."""
    for name in sorted((here.keys() | there.keys()) - set(but)):
        old, new = there.get(name, "absent"), here.get(name, "absent")
        if old != new:
            raise UserError(f"{path}: this checkpoint is of another model: {name} is {old}, not {new}")


def save_vae(workdir: epath.PathLike, config: VAEConfig, state: Any) -> None:
    """Writes a VAE's config and weights (with latent statistics) to WORKDIR/vae."""
    directory = (epath.Path(workdir) / "vae").resolve()
    with ocp.StandardCheckpointer() as checkpointer:
        # As NumPy arrays, which the first host writes for all hosts.
        checkpointer.save(directory / "params", jax.device_get(state), force=True)
    if hosts.is_first():
        (directory / "config.json").write_text(to_json(config))
    hosts.wait("VAE saved")


def open_vae(workdir: epath.PathLike) -> ParameterReader | PackedReader:
    """A reader of the VAE's parameters in WORKDIR/vae."""
    directory = epath.Path(workdir) / "vae"
    return PackedReader(directory) if is_packed(directory) else ParameterReader(directory / "params")


def load_vae(workdir: epath.PathLike) -> tuple[VAEConfig, Any]:
    """Reads what `save_vae` wrote, or the VAE of a packed model.

    Raises:
        UserError: there is no VAE in WORKDIR/vae.
    """
    directory, config = _vae_directory(workdir), read_vae_config(workdir)
    shapes = nnx.eval_shape(lambda: nnx.state(VAE(config, rngs=nnx.Rngs(0))))
    shardings = state_shardings(shapes, one_device())
    targets = jax.tree.map(placed, shapes, shardings)
    if is_packed(directory):
        return config, _unpack(directory, targets)
    return config, _restore(directory / "params", targets)


def read_vae_config(workdir: epath.PathLike) -> VAEConfig:
    """The shape of the VAE that `load_vae` reads. Raises UserError as it does."""
    directory = _vae_directory(workdir)
    if not (directory / "config.json").exists():
        raise UserError(
            f"{workdir}: no trained VAE here; config.vae is the --workdir of a finished launch/train_vae.py"
        )
    return read_config(VAEConfig, directory)


def _vae_directory(workdir: epath.PathLike) -> epath.Path:
    return (directory_of(workdir, "config.vae") / "vae").resolve()


def read_config(kind: Any, workdir: epath.PathLike) -> Any:
    """The config.json of a run, as its dataclass. Raises UserError if it is missing or not of `kind`."""
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir}: no config.json here; give {known_models()}")
    return read_dataclass(kind, path, _without_history)


def _without_history(kind: Any, values: Any, where: str) -> Any:
    if isinstance(values, dict):
        values = {name: value for name, value in values.items() if name != "history"}
    return _without_old_default(from_config_dict(kind, values, where))


def _without_old_default(config: Any) -> Any:
    """Leaves the level of refinement to the law where the run has it from the former default."""
    if not isinstance(config, TrainConfig):
        return config
    extremes = config.timesteps.segment.name in ("bimodal", "long_tail")
    if not (extremes and config.sampler.refine_t == OLD_REFINE_T):
        return config
    return dataclasses.replace(config, sampler=dataclasses.replace(config.sampler, refine_t=0.0))


def read_history(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """What changed when a run was resumed: `step` and `changes`, {dotted name: [old value, new value]}."""
    path = epath.Path(workdir) / "config.json"
    return json.loads(read_text(path)).get("history", []) if path.exists() else []
