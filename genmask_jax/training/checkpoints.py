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
from genmask_jax.utils.digests import DIGESTS, check_digests, write_digests
from genmask_jax.utils.errors import DamagedError, UserError, first_line, need_accessible
from genmask_jax.utils.paths import listed, unused, write_text, writing

OLD_METRIC_NAMES = {"loss_image": "loss_picture"}
"""Current metric names -> names in older checkpoints."""


ITEMS = ("train", "ema_params", "data")
"""Folders of a checkpoint. Its scores are a fourth one, added after validation."""


class Checkpoints:
    """Saves asynchronously, and keeps the last checkpoint and the one with the best validation score.

    Digests of all files are written just before a checkpoint is complete, and compared when it is restored.
    """

    _saving = 0
    """Step of the checkpoint that is being written."""

    def __init__(self, workdir: epath.PathLike):
        _delete_damaged_scores(epath.Path(workdir) / "checkpoints")
        policies = [
            managers.LatestN(1),
            managers.BestN(
                get_metric_fn=lambda metrics: metrics["score"], n=1, keep_checkpoints_without_metrics=False
            ),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_digests),
        )
        directory = epath.Path(workdir) / "checkpoints"
        with _written(directory):
            self.manager = ocp.CheckpointManager(directory, options=options)

    def save(self, state: TrainState, data: Any) -> None:
        """Copies the state and the position of the data, returns, and writes them in the background."""
        step = int(jax.device_get(state.step))
        items = ocp.args.Composite(
            train=ocp.args.StandardSave(_without(state, _item_of_eval_params(state))),
            ema_params=ocp.args.StandardSave(state.eval_params),
            data=ocp.args.JsonSave(data.get_state()),  # the same on every host
        )
        with _written(self.manager.directory):
            self.manager.wait_until_finished()
            self._saving = step
            self.manager.save(step, args=items, force=True)

    def _write_digests(self) -> None:
        """Called by Orbax on the first host when all files are written, before the checkpoint is complete.

        Until then the folder has a temporary name, STEP.orbax-checkpoint-tmp, except in buckets.
        """
        for folder in self.manager.directory.iterdir():
            if folder.name.partition(".")[0] == str(self._saving):
                for item in ITEMS:
                    write_digests(folder / item)

    def record_scores(self, step: int, scores: dict[str, float]) -> None:
        """Adds validation scores to the last checkpoint; by its `score`, it may become the best one."""
        with _written(self.manager.directory):
            self.manager.wait_until_finished()
            if hosts.is_first():
                path = self._scores_of(step)
                path.parent.mkdir(exist_ok=True)
                write_text(path, json.dumps(scores))
                write_digests(path.parent)
            hosts.wait("checkpoint scored")
            self.manager.reload()
            ranks = {saved: self.scores(saved).get("score", -math.inf) for saved in self.manager.all_steps()}
            best = max(ranks, key=lambda saved: (ranks[saved], saved))
            for saved in set(ranks) - {best, step}:
                self.manager.delete(saved)

    def scores(self, step: int) -> dict[str, float]:
        """The scores of a checkpoint; empty if its validation was not completed."""
        path = self._scores_of(step)
        return json.loads(path.read_text()) if path.exists() else {}

    def _scores_of(self, step: int) -> epath.Path:
        """The file in which Orbax stores metrics."""
        return self.manager.directory / str(step) / "metrics" / "metrics"

    def restore(self, state: TrainState, data: Any) -> TrainState:
        """Restores the newest complete checkpoint, in the shardings of `state`, and the position of `data`.

        Damaged checkpoints are renamed to damaged_checkpoint_STEP, or damaged_checkpoint_STEP_2 and so on.

        Raises:
            UserError: no checkpoint can be read, or one whose files have not changed cannot be restored.
        """
        problems, damaged = [], []
        for step in sorted(self.manager.all_steps(), reverse=True):
            try:
                restored = self._restore(step, state)
            except Exception as error:  # for damaged files, Orbax raises Exception itself too
                path = self.manager.directory / str(step)
                need_accessible(path, error)
                if not isinstance(error, DamagedError) and all((path / i / DIGESTS).exists() for i in ITEMS):
                    raise UserError(
                        f"{path} cannot be restored, though its files have not changed: {first_line(error)}"
                    ) from error
                problems.append(f"{path}: {first_line(error)}")
                logging.warning(
                    "checkpoint %d is incomplete or damaged, set aside: %s", step, first_line(error)
                )
                damaged.append(step)
            else:
                self._set_aside(damaged)
                data.set_state(restored["data"])
                return restored["train"]
        raise UserError(f"no checkpoint can be read: {problems[0] if problems else self.manager.directory}")

    def _restore(self, step: int, state: TrainState) -> dict[str, Any]:
        """The train state ("train") and the position of the data ("data") at a step."""
        self._check(step)
        saved = self._saved(step)
        metrics = saved["metrics"]
        names = {n if n in metrics else OLD_METRIC_NAMES.get(n, n): n for n in state.metrics}
        names = {
            old: name for old, name in names.items() if old in metrics
        }  # metrics that the checkpoint lacks start at 0
        # The EMA may be switched on or off when a run is resumed.
        item = "ema_params" if saved["params"] else "params"
        wanted = dataclasses.replace(state, metrics={old: state.metrics[name] for old, name in names.items()})
        # Older checkpoints have no `skips`; they start at 0.
        fields = {name: value for name, value in vars(_without(wanted, item)).items() if name in saved}
        restored = self.manager.restore(
            step,
            args=ocp.args.Composite(
                train=ocp.args.StandardRestore(fields),
                ema_params=ocp.args.StandardRestore(state.eval_params),
                data=ocp.args.JsonRestore(),
            ),
        )
        train, averaged = dataclasses.replace(state, **restored["train"]), restored["ema_params"]
        train = dataclasses.replace(
            train,
            params=train.params if saved["params"] else averaged,
            ema_params=averaged if saved["params"] else jax.tree.map(jnp.copy, averaged),
            metrics=state.metrics | {names[old]: value for old, value in train.metrics.items()},
        )
        if state.ema_params is None:
            train = dataclasses.replace(train, ema_params=None)
        return {"train": train, "data": restored["data"]}

    def _check(self, step: int) -> None:
        """Compares a checkpoint's files with their digests; the hosts share the files.

        Raises:
            DamagedError: on every host, if a file has changed.
        """
        found = None
        try:
            for item in ITEMS:
                part = (jax.process_index(), jax.process_count())
                check_digests(self.manager.directory / str(step) / item, part)
        except DamagedError as error:
            found = error
        if hosts.any_host(found is not None):
            raise found or DamagedError("another host found a damaged file")

    def _set_aside(self, steps: list[int]) -> None:
        """Renames damaged checkpoints, so that their steps can be saved again.

        In buckets, this copies and deletes one object after another. After a kill in between, what is left of
        the checkpoint is renamed once more, to another name.
        """
        if steps and hosts.is_first():
            for step in steps:
                path = self.manager.directory / str(step)
                path.rename(unused(self.manager.directory.parent / f"damaged_checkpoint_{step}"))
        hosts.wait("damaged checkpoints set aside")
        if steps:
            self.manager.reload()

    def _saved(self, step: int) -> Any:
        """The tree of a saved state, with empty fields where it had None."""
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
        """Waits until everything is written. Raises UserError if that fails."""
        with _written(self.manager.directory):
            self.manager.wait_until_finished()
            self.manager.close()


def _delete_damaged_scores(directory: epath.Path) -> None:
    """Deletes damaged scores of checkpoints, which Orbax cannot open; the last one is validated again."""
    hosts.wait("scores of checkpoints unchanged")
    for path in (folder / "metrics" for folder in listed(directory)) if hosts.is_first() else ():
        if not path.exists():
            continue
        try:
            check_digests(path)
            json.loads((path / "metrics").read_text())
        except (DamagedError, OSError, ValueError) as error:
            need_accessible(path, error)
            logging.warning("the scores of a checkpoint are damaged and are deleted: %s", first_line(error))
            path.rmtree()
    hosts.wait("scores of checkpoints checked")


def _item_of_eval_params(state: TrainState) -> str:
    """The field that is saved as a separate item, which inference reads."""
    return "params" if state.ema_params is None else "ema_params"


def _without(state: TrainState, field: str) -> TrainState:
    return dataclasses.replace(state, **{"ema_params": None, field: None})


@contextmanager
def _written(directory: epath.Path) -> Iterator[None]:
    """Converts Orbax's errors about a full or missing disk into UserError."""
    try:
        with writing(directory):
            yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{directory}: a checkpoint cannot be written ({first_line(error)}); continue from the "
            "last one with --resume"
        ) from error
