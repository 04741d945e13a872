"""Training checkpoints: saved asynchronously, restored on any mesh. `runs.py` reads them for inference."""

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from genmask_jax.training.state import TrainState
from genmask_jax.utils import hosts
from genmask_jax.utils.errors import UserError, first_line
from genmask_jax.utils.paths import write_text

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

    def save(self, state: TrainState, data: Any) -> None:
        """Saves state and data position; returns once they are copied, and writes in the background."""
        step = int(jax.device_get(state.step))
        items = ocp.args.Composite(
            train=ocp.args.StandardSave(_without(state, _item_of_eval_params(state))),
            ema_params=ocp.args.StandardSave(state.eval_params),
            data=ocp.args.JsonSave(data.get_state()),  # the same on every host
        )
        with _written(self.manager):
            self.manager.save(step, args=items, force=True)

    def score(self, step: int, scores: dict[str, float]) -> None:
        """Adds the scores of the last checkpoint to it; `score` may make it the best, instead of another."""
        with _written(self.manager):
            self.manager.wait_until_finished()
            if hosts.is_first():
                path = self._scores_of(step)
                path.parent.mkdir(exist_ok=True)
                write_text(path, json.dumps(scores))
            hosts.wait("checkpoint scored")
            self.manager.reload()
            ranks = {saved: self.scores(saved).get("score", -math.inf) for saved in self.manager.all_steps()}
            best = max(ranks, key=lambda saved: (ranks[saved], saved))
            for saved in set(ranks) - {best, step}:
                self.manager.delete(saved)

    def scores(self, step: int) -> dict[str, float]:
        """The scores of a checkpoint; none if it was not validated, or not to the end."""
        path = self._scores_of(step)
        return json.loads(path.read_text()) if path.exists() else {}

    def _scores_of(self, step: int) -> epath.Path:
        """The file in which Orbax keeps metrics, if there are any when it saves."""
        return self.manager.directory / str(step) / "metrics" / "metrics"

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
        saved = self._saved(step)
        metrics = saved["metrics"]
        names = {n if n in metrics else RENAMED_METRICS.get(n, n): n for n in state.metrics}
        names = {old: name for old, name in names.items() if old in metrics}  # newer ones begin at 0
        # A run may go on with an average, or without one, unlike before.
        item = "ema_params" if saved["params"] else "params"
        wanted = dataclasses.replace(state, metrics={old: state.metrics[name] for old, name in names.items()})
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(
                train=ocp.args.StandardRestore(_without(wanted, item)),
                ema_params=ocp.args.StandardRestore(state.eval_params),
                data=ocp.args.JsonRestore(),
            ),
        )
        train, averaged = restored["train"], restored["ema_params"]
        train = dataclasses.replace(
            train,
            params=train.params if saved["params"] else averaged,
            ema_params=averaged if saved["params"] else jax.tree.map(jnp.copy, averaged),
            metrics=state.metrics | {names[old]: value for old, value in train.metrics.items()},
        )
        if state.ema_params is None:
            train = dataclasses.replace(train, ema_params=None)
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

    def _saved(self, step: int) -> Any:
        """The tree of a saved state; its fields are empty where they were None."""
        path = self.manager.directory / str(step) / "train"
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.metadata(path).item_metadata
        if found is None:
            raise ValueError("it has no metadata")
        return found.tree

    def latest_step(self) -> int | None:
        """The step of the last complete checkpoint, or None."""
        return self.manager.latest_step()

    def close(self) -> None:
        """Waits until everything is written. Raises UserError if it cannot be."""
        with _written(self.manager):
            self.manager.wait_until_finished()
        self.manager.close()


def _item_of_eval_params(state: TrainState) -> str:
    """The field that is saved as an item of its own, which inference reads."""
    return "params" if state.ema_params is None else "ema_params"


def _without(state: TrainState, field: str) -> TrainState:
    return dataclasses.replace(state, **{"ema_params": None, field: None})


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
