"""Three training steps on meshes of 8 pretend devices, and checkpoints taken from one to another.

    python sharded_steps.py VAE_DIRECTORY WORK_DIRECTORY MESH...

Prints one line of JSON: of every mesh its differences from one device, and how much of the state is divided.
"""

import dataclasses
import json
import os
import sys

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np

from genmask_jax import sharding
from genmask_jax.checkpoints.runs import load_vae
from genmask_jax.config import OptimizerConfig
from genmask_jax.data.sources import texts
from genmask_jax.instruction import factory
from genmask_jax.models.dit import DiTConfig
from genmask_jax.parameters import rules
from genmask_jax.system import make_networks
from genmask_jax.tools.estimates.work import read_work
from genmask_jax.training.checkpoints import Checkpoints
from genmask_jax.training.genmask import GenMaskTask
from genmask_jax.training.optimizer import make_optimizer
from genmask_jax.training.state import init_state, make_init
from genmask_jax.training.step import make_train_step
from tests.conftest import micro_config

MESHES = {"1": (1, 1, 1), "8": (8, 1, 1), "1x8": (1, 8, 1), "1x2x4": (1, 2, 4), "2x2x2": (2, 2, 2)}
rules.FSDP_MIN_SIZE = 64


class Run:
    """A state on a mesh, its step, and its data."""

    def __init__(self, config, axes):
        self.mesh = sharding.make_mesh(sharding.MeshConfig(*axes), jax.devices()[: int(np.prod(axes))])
        encoder = factory.build(config.instruction, "", texts(config.data, 400))
        task = GenMaskTask(make_networks(config, *load_vae(config.vae), encoder, self.mesh), config)
        tx = make_optimizer(config.optimizer, config.loop, task.plan)
        self.state, shardings = init_state(make_init(task.init_params, tx, task.metric_names), 0, task.plan)
        self.frozen, self.data = task.frozen, task.batches(config.loop.global_batch_size, (0, 1))
        self.train_step = make_train_step(task.loss, tx, config.loop, task.plan, shardings)

    def step(self):
        self.batch = sharding.to_devices(next(self.data), self.mesh)
        self.state = self.train_step(self.state, self.frozen, self.batch)

    def result(self):
        return jax.device_get((self.state.params, self.state.metrics))

    def skipped(self):
        """How much a step whose loss is not finite changes the average, and the number of skipped steps."""
        bad = jax.tree.map(lambda x: x * np.nan, self.state.params)
        before = jax.device_get(self.state.ema_params)
        self.state = dataclasses.replace(self.state, params=bad)
        self.step()
        after = jax.device_get(self.state.ema_params)
        changes = jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), before, after))
        return float(max(changes)), int(self.state.skips.total)

    def divided(self):
        """Share of the state's bytes that a device does not hold."""
        leaves = jax.tree.leaves(self.state)
        own = sum(np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
        return 1 - own / sum(x.nbytes for x in leaves)

    def gathered(self):
        """Bytes that a step's all-gathers make, relative to those of the parameters that are divided."""
        program = self.train_step.lower(self.state, self.frozen, self.batch).compile()
        found = [c for c in read_work(program.as_text()).collectives if c.kind == "all-gather"]
        divided = [x for x in jax.tree.leaves((self.state.params, self.frozen)) if any(x.sharding.spec)]
        return sum(c.nbytes for c in found) / sum(x.nbytes for x in divided)


def difference(a, b):
    """Relative: of all parameters as one vector, and the largest of the metrics'."""
    (params, metrics), (other, other_metrics) = a, b
    ours, theirs = (np.concatenate([x.ravel() for x in jax.tree.leaves(p)]) for p in (params, other))
    values = [abs(metrics[n] - other_metrics[n]) / abs(other_metrics[n]) for n in metrics]
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)), float(max(values))


def main(vae, workdir, *meshes):
    config = micro_config(vae, global_batch_size=16)
    config = dataclasses.replace(
        config,
        model=DiTConfig(hidden_size=32, depth=2, num_heads=4, ffn_size=64, patch_size=4, remat="attention"),
        optimizer=OptimizerConfig(warmup_steps=1, learning_rate=1e-3),
    )
    said, expected, runs = {}, None, {}
    for name in meshes:
        run = runs[name] = Run(config, MESHES[name])
        run.step()
        run.step()
        if name == "1x8":
            checkpoints = Checkpoints(workdir)
            checkpoints.save(run.state, run.data)
            checkpoints.close()
        run.step()
        expected = expected or run.result()
        params, metrics = difference(run.result(), expected)
        said[name] = {"parameters": params, "metrics": metrics, "divided": run.divided()}
        if name == "1x8":
            said[name]["gathered"] = run.gathered()
    for name, run in runs.items():
        run.state = Checkpoints(workdir).restore(run.state, run.data)
        run.step()
        params, metrics = difference(run.result(), expected)
        said[name] |= {"restored_parameters": params, "restored_metrics": metrics}
        said[name]["skipped"] = run.skipped()
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
