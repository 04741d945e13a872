"""Training checkpoints: saved asynchronously, restored on any mesh. `runs.py` reads them for inference."""

import dataclasses
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from genmask_jax.training.state import TrainState

RENAMED_METRICS = {"loss_image": "loss_picture"}
"""Metrics whose name in older checkpoints is another."""


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
        """Saves state and data position; returns once they are copied, and writes in the background."""
        step = int(jax.device_get(state.step))
        items = ocp.args.Composite(
            train=ocp.args.StandardSave(dataclasses.replace(state, ema_params=None)),
            ema_params=ocp.args.StandardSave(state.ema_params),
            data=ocp.args.JsonSave(data.get_state()),  # the same on every host
        )
        metrics = None if score is None else {"score": score}
        self.manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, state: TrainState, data: Any) -> TrainState:
        """Restores the last checkpoint in the shardings of `state`, and moves `data` to its position."""
        step = self.manager.latest_step()
        saved = self._saved_metrics(step)
        names = {name if name in saved else RENAMED_METRICS.get(name, name): name for name in state.metrics}
        metrics = {old: state.metrics[name] for old, name in names.items()}
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(
                train=ocp.args.StandardRestore(dataclasses.replace(state, ema_params=None, metrics=metrics)),
                ema_params=ocp.args.StandardRestore(state.ema_params),
                data=ocp.args.JsonRestore(),
            ),
        )
        data.set_state(restored["data"])
        train = restored["train"]
        metrics = {names[old]: value for old, value in train.metrics.items()}
        return dataclasses.replace(train, ema_params=restored["ema_params"], metrics=metrics)

    def _saved_metrics(self, step: int | None) -> set[str]:
        path = self.manager.directory / str(step) / "train"
        with ocp.StandardCheckpointer() as checkpointer:
            return set(checkpointer.metadata(path).item_metadata.tree["metrics"])

    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint, or None."""
        return self.manager.latest_step()

    def close(self) -> None:
        """Waits until everything is written."""
        self.manager.wait_until_finished()
        self.manager.close()
