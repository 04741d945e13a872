"""Compiles a run for TPUs or GPUs that this machine does not have; estimates its memory and speed.

    pip install "genmask-jax[tpu]"      # or genmask-jax[gpu]
    python launch/compile.py --config=configs/genmask_l.py --topology=v5e:16x16 --config.mesh.fsdp=16
    python launch/compile.py --config=configs/genmask_l.py --topology=h100:4x8 --config.mesh.fsdp=8

Compiles the real training step (or a sampler, with --program=mask_sampler or image_sampler) with the compiler
of the device. Weights are not needed; if they are missing, their published shapes are used. Times are
estimates from a roofline model of the compiled program, without the network between slices. Prints the plan
of the parameters (what is trained, and its sharding), a table and a last line of JSON. --search compiles with
several meshes and gradient checkpointing policies, and ranks them.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections import config_flags

from genmask_jax import cli
from genmask_jax.utils.errors import UserError

CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="A training config: a file, or a name such as genmask_tiny."
)
TOPOLOGY = flags.DEFINE_string(
    "topology", None, "Devices, such as v5e:16x16, v6e:1x1, h100:8, h100:4x8.", required=True
)
PROGRAM = flags.DEFINE_enum(
    "program", "train_step", ["train_step", "mask_sampler", "image_sampler"], "Program to compile."
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Batch size of a sampler.", lower_bound=1)
SLICES = flags.DEFINE_integer("slices", 1, "Number of slices of this topology.", lower_bound=1)
SEARCH = flags.DEFINE_bool("search", False, "Rank meshes and gradient checkpointing policies (minutes each).")


def main() -> None:
    import jax

    from genmask_jax.config import TrainConfig
    from genmask_jax.config.checks import from_config_dict
    from genmask_jax.hardware.chips import find_chip, parse_topology
    from genmask_jax.parameters.table import format_plan
    from genmask_jax.sharding import make_mesh
    from genmask_jax.tools.estimates import programs
    from genmask_jax.tools.estimates.estimate import Estimate, estimate
    from genmask_jax.tools.estimates.report import print_estimate
    from genmask_jax.tools.estimates.topology import describe_devices

    config = from_config_dict(TrainConfig, CONFIG.value, file=cli.config_flag())
    generation, shape, _ = parse_topology(TOPOLOGY.value)
    jax.config.update("jax_platforms", "cpu")  # everything except the compilation target is this machine
    chip = find_chip(generation, shape)
    devices = describe_devices(generation, shape, SLICES.value)
    title = f"{CONFIG.value.name}, {PROGRAM.value}, {TOPOLOGY.value}"
    printed: set[str] = set()

    def compile_config(config: TrainConfig) -> Estimate:
        run = programs.describe_run(config, make_mesh(config.mesh, devices))
        if not SEARCH.value:
            print(format_plan(run.networks.plan))
        for line in sorted(set(run.assumptions) - printed):
            print(line)
        printed.update(run.assumptions)
        lower, count_flops = programs.PROGRAMS[PROGRAM.value]
        flops = count_flops(run, BATCH_SIZE.value) / len(devices)
        return estimate(lower(run, BATCH_SIZE.value), chip, model_flops=flops)

    if SEARCH.value:
        search_configs(title, config, len(devices), compile_config)
        return
    result = compile_config(config)
    print_estimate(title, result, len(devices))
    print(json.dumps(dataclasses.asdict(result)))


def search_configs(title: str, config: Any, num_devices: int, compile_config: Callable[[Any], Any]) -> None:
    """Compiles a `TrainConfig` with several meshes and policies, and prints a ranking. Raises UserError."""
    from genmask_jax.tools.estimates.report import print_search, summarise_estimate
    from genmask_jax.tools.estimates.search import rank, search

    if PROGRAM.value != "train_step":
        raise UserError("--search is only for train_step; samplers have no gradient checkpointing")
    candidates = []
    for candidate in search(config, num_devices, SLICES.value, compile_config):
        print(f"{candidate.name}: {summarise_estimate(candidate.estimate)}", flush=True)
        candidates.append(candidate)
    if not candidates:
        raise UserError(f"config.mesh.tensor {config.mesh.tensor} does not divide the devices of a slice")
    ranking = rank(candidates)
    print_search(title, ranking)
    best = ranking[0]
    settings = {"mesh": dataclasses.asdict(best.config.mesh), "remat": best.config.model.remat}
    print(json.dumps(dataclasses.asdict(best.estimate) | settings))


def start() -> None:
    """The command."""
    flags.mark_flag_as_required("config")
    cli.run(main)


if __name__ == "__main__":
    start()
