"""Training checkpoints: saved asynchronously, restored on any mesh. `runs.py` reads them for inference."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from genmask_jax import hosts
from genmask_jax.errors import UserError, first_line
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
        with _written(self.manager):
            self.manager.save(step, args=items, metrics=metrics, force=True)

    def restore(self, state: TrainState, data: Any) -> TrainState:
        """Restores the newest whole checkpoint in the shardings of `state`, and moves `data` to its position.

        Raises:
            UserError: none can be read.
        """
        problems, damaged = [], []
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, state)
            except (OSError, ValueError, KeyError, TypeError) as error:  # what Orbax raises of damaged files
                problems.append(f"{self.manager.directory / str(step)}: {first_line(error)}")
                logging.warning(
                    "checkpoint %d is incomplete or damaged, put aside: %s", step, first_line(error)
                )
                damaged.append(step)
            else:
                self._put_aside(damaged)
                data.set_state(restored["data"])
                return restored["train"]
        raise UserError(f"no checkpoint can be read: {problems[0] if problems else self.manager.directory}")

    def _restore(self, step: int, state: TrainState) -> dict[str, Any]:
        """The state ("train") and the position of the data ("data") of a step."""
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
        train = restored["train"]
        metrics = {names[old]: value for old, value in train.metrics.items()}
        train = dataclasses.replace(train, ema_params=restored["ema_params"], metrics=metrics)
        return {"train": train, "data": restored["data"]}

    def _put_aside(self, steps: list[int]) -> None:
        """Makes room for checkpoints of the same steps."""
        if steps and hosts.is_first():
            for step in steps:
                path = self.manager.directory / str(step)
                path.rename(self.manager.directory.parent / f"damaged_checkpoint_{step}")
        hosts.wait("damaged checkpoints put aside")
        if steps:
            self.manager.reload()

    def _saved_metrics(self, step: int) -> set[str]:
        path = self.manager.directory / str(step) / "train"
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.metadata(path).item_metadata
        if found is None:
            raise ValueError("it has no metadata")
        return set(found.tree["metrics"])

    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint, or None."""
        return self.manager.latest_step()

    def close(self) -> None:
        """Waits until everything is written. Raises UserError if it cannot be."""
        with _written(self.manager):
            self.manager.wait_until_finished()
        self.manager.close()


@contextmanager
def _written(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Turns what a full disk, or one that has gone, makes Orbax raise into a UserError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{manager.directory}: a checkpoint cannot be written ({first_line(error)}); make room, then go "
            "on from the last one with --resume"
        ) from error
