"""Checkpoints on disk.

A run's directory holds

    config.json            what was trained
    instruction/           a tokenizer that was learned; or which imported weights the encoder has
    vae/                   config.json and weights of the (frozen) VAE
    checkpoints/STEP/      train (state without EMA), ema_params, data (position), metrics

so that the directory is enough to resume, evaluate and sample; only a Qwen's weights stay where they are.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from flax import nnx
from orbax.checkpoint import checkpoint_managers as managers

from genmask_jax import hosts
from genmask_jax.config import from_config_dict, to_json
from genmask_jax.errors import UserError
from genmask_jax.models.vae import VAE, VAEConfig
from genmask_jax.sharding import one_device, placed, state_shardings
from genmask_jax.training.state import TrainState
from genmask_jax.weights.layout import parameter_name
from genmask_jax.weights.streaming import ParameterReader


class Checkpoints:
    """Saves asynchronously; keeps the last checkpoint and the one with the best validation score."""

    def __init__(self, workdir: epath.PathLike):
        policies = [
            managers.LatestN(1),
            managers.BestN(
                get_metric_fn=lambda metrics: metrics["score"], n=1, keep_checkpoints_without_metrics=False
            ),
        ]
        self.manager = ocp.CheckpointManager(
            epath.Path(workdir) / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy(policies), cleanup_tmp_directories=True
            ),
        )

    def save(self, state: TrainState, data: Any, score: float | None = None) -> None:
        """Writes state and data position; returns once they are copied, and goes on in the background."""
        step = int(jax.device_get(state.step))
        items = ocp.args.Composite(
            train=ocp.args.StandardSave(dataclasses.replace(state, ema_params=None)),
            ema_params=ocp.args.StandardSave(state.ema_params),
            data=ocp.args.JsonSave(data.get_state()),  # the same on every host
        )
        metrics = None if score is None else {"score": score}
        self.manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, state: TrainState, data: Any) -> TrainState:
        """The last checkpoint in the shardings of `state`; the data iterator is moved to its position."""
        restored = self.manager.restore(
            self.manager.latest_step(),
            args=ocp.args.Composite(
                train=ocp.args.StandardRestore(dataclasses.replace(state, ema_params=None)),
                ema_params=ocp.args.StandardRestore(state.ema_params),
                data=ocp.args.JsonRestore(),
            ),
        )
        data.set_state(restored["data"])
        return dataclasses.replace(restored["train"], ema_params=restored["ema_params"])

    def latest_step(self) -> int | None:
        """The last step that was saved whole, or None."""
        return self.manager.latest_step()

    def close(self) -> None:
        """Waits until everything is written."""
        self.manager.wait_until_finished()
        self.manager.close()


def find_step(workdir: epath.PathLike, which: str) -> int:
    """The step to read: "last", "best" (by the validation score) or a number.

    Raises:
        UserError: there is no such checkpoint.
    """
    directory = epath.Path(workdir) / "checkpoints"
    steps = sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit()) if directory.exists() else []
    if not steps:
        raise UserError(f"{workdir}: no checkpoint here; --checkpoint is the --workdir of a training run")
    if which == "last":
        return steps[-1]
    if which == "best":
        return max(steps, key=lambda step: _metric(directory / str(step)))
    if which.isdigit() and int(which) in steps:
        return int(which)
    raise UserError(f"{workdir}: no checkpoint {which!r}; there are last, best, {', '.join(map(str, steps))}")


def _metric(directory: epath.Path) -> float:
    path = directory / "metrics" / "metrics"
    return json.loads(path.read_text())["score"] if path.exists() else float("-inf")


def restore_ema(workdir: epath.PathLike, step: int, abstract: Any) -> Any:
    """The EMA parameters of one checkpoint, in the dtypes and shardings of `abstract`.

    Raises:
        UserError: the checkpoint is of another model.
    """
    return _restore(epath.Path(workdir) / "checkpoints" / str(step) / "ema_params", abstract)


def _restore(path: epath.Path, targets: Any) -> Any:
    """The arrays in `path`; shapes are compared before any is read."""
    here = {parameter_name(keys): tuple(leaf.shape) for keys, leaf in jax.tree.leaves_with_path(targets)}
    _need_same(path, ParameterReader(path).shapes, here)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path.resolve(), targets)


def _need_same(path: epath.Path, there: dict, here: dict, but: Iterable[str] = ()) -> None:
    """Compares shapes by name, in a checkpoint and in the model. Raises UserError at the first difference."""
    for name in sorted((here.keys() | there.keys()) - set(but)):
        old, new = there.get(name, "absent"), here.get(name, "absent")
        if old != new:
            raise UserError(f"{path}: this checkpoint is of another model: {name} is {old}, not {new}")


def find_dit(directory: epath.PathLike) -> epath.Path:
    """Where a directory of imported weights has the DiT's. Raises UserError when it has none."""
    path = (epath.Path(directory) / "dit" / "params").resolve()
    if not path.exists():
        raise UserError(f"config.init={directory}: no dit/params here; make it with launch/import_weights.py")
    return path


def restore_dit(directory: epath.PathLike, params: Any) -> tuple[Any, list[str]]:
    """Parameters with those under "dit" from imported weights (`launch/import_weights.py`).

    Args:
        directory: holds dit/.
        params: fresh ones. The arrays that are replaced are deleted first: a large model is on its devices
            once.

    Returns:
        The parameters, in the dtypes and shardings that they had, and the names of the DiT's that are left
        fresh: the first projection of the text, where the instruction encoder's width is not the weights'.

    Raises:
        UserError: there are no such weights, or they are of another model.
    """
    path = find_dit(directory)
    reader = ParameterReader(path)
    flat = {parameter_name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(params)}
    here = {name.removeprefix("dit."): leaf for name, leaf in flat.items() if name.startswith("dit.")}
    shapes = {name: tuple(leaf.shape) for name, leaf in here.items()}
    projection = [name for name in here if name.startswith("text_embedder.linear_1.")]
    fresh = projection if any(shapes[name] != reader.shapes.get(name) for name in projection) else []
    _need_same(path, reader.shapes, shapes, fresh)
    targets = {name: placed(leaf, leaf.sharding) for name, leaf in here.items() if name not in fresh}
    for name in targets:
        here[name].delete()
    restored = {f"dit.{name}": leaf for name, leaf in reader.restore(targets).items()}
    return jax.tree.map_with_path(lambda keys, old: restored.get(parameter_name(keys), old), params), fresh


def save_vae(workdir: epath.PathLike, config: VAEConfig, state: Any) -> None:
    """Writes a VAE's shape and weights (with latent statistics) to WORKDIR/vae."""
    directory = (epath.Path(workdir) / "vae").resolve()
    with ocp.StandardCheckpointer() as checkpointer:
        # As NumPy arrays, which the first host writes for all.
        checkpointer.save(directory / "params", jax.device_get(state), force=True)
    if hosts.is_first():
        (directory / "config.json").write_text(to_json(config))
    hosts.wait("VAE saved")


def load_vae(workdir: epath.PathLike) -> tuple[VAEConfig, Any]:
    """Reads what `save_vae` wrote.

    Raises:
        UserError: there is no VAE in WORKDIR/vae.
    """
    directory = (epath.Path(workdir) / "vae").resolve()
    if not (directory / "config.json").exists():
        raise UserError(
            f"{workdir}: no trained VAE here; config.vae is the --workdir of a finished launch/train_vae.py"
        )
    config = read_config(VAEConfig, directory)
    shapes = nnx.eval_shape(lambda: nnx.state(VAE(config, rngs=nnx.Rngs(0))))
    shardings = state_shardings(shapes, one_device())
    return config, _restore(directory / "params", jax.tree.map(placed, shapes, shardings))


def read_config(kind: Any, workdir: epath.PathLike) -> Any:
    """The config.json of a run as its dataclass. Raises UserError when it is not there or not of `kind`."""
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir}: no config.json here; give the --workdir of a training run")
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: this is no JSON ({error})") from error
    return from_config_dict(kind, values, str(path))
