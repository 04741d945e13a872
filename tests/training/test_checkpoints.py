"""Checkpoints of older versions."""

import jax.numpy as jnp
import numpy as np

from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.training.state import TrainState


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
