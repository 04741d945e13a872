"""Checkpoints of older versions, damaged ones, and those for which there is no room."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from genmask_jax.checkpoints.runs import find_step
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.training.skipping import no_skips
from genmask_jax.training.state import TrainState
from genmask_jax.utils.errors import Stopped, UserError


class Position:
    """The position of a data iterator."""

    def __init__(self, value=0):
        self.value = value

    def get_state(self):
        return {"next": self.value}

    def set_state(self, state):
        self.value = state["next"]


def state(**metrics):
    params = {"w": jnp.arange(3.0)}
    return TrainState(
        step=jnp.int32(4),
        params=params,
        ema_params=params,
        opt_state=(),
        key=jnp.zeros(2, jnp.uint32),
        metrics={name: jnp.float32(value) for name, value in metrics.items()},
        skips=dataclasses.replace(no_skips(), total=jnp.int32(2)),
    )


def test_a_checkpoint_with_a_former_name_of_a_metric_is_restored(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(loss=1, loss_picture=2, kl=3), Position(7))
    checkpoints.close()
    position = Position()
    restored = Checkpoints(tmp_path).restore(state(loss=0, loss_image=0, kl=0), position)
    assert {k: float(v) for k, v in restored.metrics.items()} == {"loss": 1, "loss_image": 2, "kl": 3}
    assert position.value == 7
    np.testing.assert_array_equal(restored.params["w"], [0, 1, 2])


def test_a_metric_that_a_checkpoint_lacks_begins_anew(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(loss=1), Position(7))
    checkpoints.close()
    restored = Checkpoints(tmp_path).restore(state(loss=0, update_norm=0), Position())
    assert {name: float(value) for name, value in restored.metrics.items()} == {"loss": 1, "update_norm": 0}


def test_a_checkpoint_from_before_steps_were_skipped_is_restored(tmp_path):
    saved = state(loss=1)

    class OlderState(TrainState):
        """Has no skips in its tree."""

    fields = [field.name for field in dataclasses.fields(saved) if field.name != "skips"]
    jax.tree_util.register_dataclass(OlderState, fields, ["skips"])
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(OlderState(**{name: getattr(saved, name) for name in fields}, skips=None), Position(7))
    checkpoints.close()
    restored = Checkpoints(tmp_path).restore(state(loss=0), Position())
    assert (int(restored.step), int(restored.skips.total), float(restored.metrics["loss"])) == (4, 2, 1)


@pytest.mark.parametrize(("before", "after"), [(False, False), (False, True), (True, False)])
def test_an_average_may_be_left_out_and_come_and_go(tmp_path, before, after):
    whole = dataclasses.replace(state(loss=1), ema_params={"w": jnp.ones(3)})
    without = dataclasses.replace(whole, ema_params=None)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(whole if before else without, Position(7))
    checkpoints.close()
    restored = Checkpoints(tmp_path).restore(whole if after else without, Position())
    np.testing.assert_array_equal(restored.params["w"], [0, 1, 2])
    if after:  # an average begins with the parameters
        np.testing.assert_array_equal(restored.ema_params["w"], [0, 1, 2])
    else:
        assert restored.ema_params is None
    # Inference finds them in the same place as an average.
    kept = ParameterReader(epath.Path(tmp_path / "checkpoints/4/ema_params"))
    assert list(kept.shapes.values()) == [(3,)]


def test_the_newest_whole_checkpoint_is_used_and_a_damaged_one_put_aside(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    for step in (4, 8, 12):
        checkpoints.save(dataclasses.replace(state(loss=step), step=jnp.int32(step)), Position(step))
        checkpoints.record_scores(step, {"score": step})
    checkpoints.close()
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [12]
    shutil.copytree(tmp_path / "checkpoints/12", tmp_path / "checkpoints/16")
    shutil.rmtree(tmp_path / "checkpoints/16/train/d")
    position, again = Position(), Checkpoints(tmp_path)
    restored = again.restore(state(loss=0), position)
    assert int(restored.step) == position.value == 12
    assert "checkpoint 16 is incomplete or damaged" in caplog.text
    assert (tmp_path / "damaged_checkpoint_16").is_dir()
    again.save(dataclasses.replace(state(loss=1), step=jnp.int32(16)), Position(16))
    again.close()
    assert (tmp_path / "checkpoints/16/train/d").is_dir()
    shutil.rmtree(tmp_path / "checkpoints/16/train/d")
    third = Checkpoints(tmp_path)
    third.restore(state(loss=0), position)
    third.close()
    assert (tmp_path / "damaged_checkpoint_16_2").is_dir()


@pytest.mark.parametrize(
    "cause",
    [Stopped(1), KeyboardInterrupt(), MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 8 GB")],
    ids=lambda cause: type(cause).__name__,
)
def test_a_stop_or_a_lack_of_memory_does_not_make_a_checkpoint_damaged(tmp_path, monkeypatch, cause):
    """Orbax converts every exception of a read to Exception."""
    checkpoints = saved(tmp_path, 4)

    def restore(*_, **__):
        raise Exception("Encountered error while reading array index") from cause

    monkeypatch.setattr(checkpoints.manager, "restore", restore)
    with pytest.raises(type(cause)):
        checkpoints.restore(state(loss=0), Position())
    assert (tmp_path / "checkpoints/4").is_dir()


def test_a_checkpoint_whose_files_have_not_changed_is_not_set_aside(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 4)

    def restore(*_, **__):
        raise ValueError("another shape")

    monkeypatch.setattr(checkpoints.manager, "restore", restore)
    with pytest.raises(UserError, match=r"4 cannot be restored, though .* another shape"):
        checkpoints.restore(state(loss=0), Position())
    assert (tmp_path / "checkpoints/4").is_dir()


def saved(directory, step):
    """Checkpoints with one of a step, opened again."""
    checkpoints = Checkpoints(directory)
    checkpoints.save(dataclasses.replace(state(loss=1), step=jnp.int32(step)), Position(step))
    checkpoints.close()
    return Checkpoints(directory)


def test_the_last_and_the_best_are_kept_and_scores_come_later(tmp_path):
    """As they do after a stop: by another process than the one that saved."""

    def kept():
        return sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())

    def save(checkpoints, step):
        checkpoints.save(dataclasses.replace(state(loss=step), step=jnp.int32(step)), Position(step))

    checkpoints = Checkpoints(tmp_path)
    for step, score in ((2, 0.5), (4, 0.8), (6, 0.3)):
        save(checkpoints, step)
        checkpoints.record_scores(step, {"score": score, "mIoU": score / 2})
    assert kept() == [4, 6]
    save(checkpoints, 8)
    checkpoints.close()
    assert kept() == [4, 8]
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.scores(4) == {"score": 0.8, "mIoU": 0.4}
    assert checkpoints.scores(8) == {}
    assert find_step(tmp_path, "best") == 4
    checkpoints.record_scores(8, {"score": 0.9})
    assert kept() == [8]
    save(checkpoints, 10)
    checkpoints.close()
    assert kept() == [8, 10]


def test_no_checkpoint_can_be_read(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(loss=1), Position(4))
    checkpoints.close()
    shutil.rmtree(tmp_path / "checkpoints/4/ema_params")
    with pytest.raises(UserError, match=r"no checkpoint can be read: .*checkpoints/4"):
        Checkpoints(tmp_path).restore(state(loss=0), Position())


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path):
    """Files of at most 20 kB stand for the full disk."""
    program = """
        import dataclasses, resource, signal, sys
        import jax.numpy as jnp
        from genmask_jax.utils.errors import UserError
        from genmask_jax.training.checkpoints import Checkpoints
        from tests.training.test_checkpoints import Position, state
        checkpoints = Checkpoints(sys.argv[1])
        checkpoints.save(state(loss=1), Position(4))
        checkpoints.manager.wait_until_finished()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        noise = {"w": jnp.sin(jnp.arange(1e6))}
        large = dataclasses.replace(state(loss=2), step=jnp.int32(8), params=noise, ema_params=noise)
        try:
            checkpoints.save(large, Position(8))
            checkpoints.close()
        except UserError as error:
            print(error)
    """
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    assert "/checkpoints: File too large; raise the limit" in line
    restored = Checkpoints(tmp_path).restore(state(loss=0), Position())
    assert int(restored.step) == 4
