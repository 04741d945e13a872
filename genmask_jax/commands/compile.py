"""Compiles a run for TPUs or GPUs that this machine does not have: does it fit, and how fast is it roughly?

    pip install "genmask-jax[tpu]"      # or genmask-jax[gpu]
    python launch/compile.py --config=configs/genmask_l.py --topology=v5e:16x16 --config.mesh.fsdp=16
    python launch/compile.py --config=configs/genmask_l.py --topology=h100:4x8 --config.mesh.fsdp=8

Compiles the real training step (or a sampler, with --program=mask_sampler or image_sampler) with the compiler
of the device. Weights are not needed; published shapes replace missing ones. Times are estimates: a roofline
over the compiled program, without the network between slices. Prints the plan of the parameters (what is
trained, and its sharding), a table and a last line of JSON. --search tries meshes and gradient checkpointing
policies, and ranks them.
"""

import dataclasses
import json

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
SLICES = flags.DEFINE_integer("slices", 1, "Number of such slices.", lower_bound=1)
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
    from genmask_jax.tools.estimates.report import print_estimate, print_search, summarise_estimate
    from genmask_jax.tools.estimates.search import rank, search
    from genmask_jax.tools.estimates.topology import describe_devices

    config = from_config_dict(TrainConfig, CONFIG.value, file=cli.config_flag())
    generation, shape, _ = parse_topology(TOPOLOGY.value)
    jax.config.update("jax_platforms", "cpu")  # everything else runs on this machine
    chip = find_chip(generation, shape)
    devices = describe_devices(generation, shape, SLICES.value)
    title = f"{CONFIG.value.name}, {PROGRAM.value}, {TOPOLOGY.value}"
    assumed: set[str] = set()

    def compile_(config: TrainConfig) -> Estimate:
        run = programs.describe_run(config, make_mesh(config.mesh, devices))
        if not SEARCH.value:
            print(format_plan(run.networks.plan))
        for line in sorted(set(run.assumptions) - assumed):
            print(line)
        assumed.update(run.assumptions)
        lower, count_flops = programs.PROGRAMS[PROGRAM.value]
        flops = count_flops(run, BATCH_SIZE.value) / len(devices)
        return estimate(lower(run, BATCH_SIZE.value), chip, model_flops=flops)

    if not SEARCH.value:
        found = compile_(config)
        print_estimate(title, found, len(devices))
        print(json.dumps(dataclasses.asdict(found)))
        return
    if PROGRAM.value != "train_step":
        raise UserError("--search is only for train_step; samplers have no gradient checkpointing")
    every = []
    for one in search(config, len(devices), SLICES.value, compile_):
        print(f"{one.name}: {summarise_estimate(one.estimate)}", flush=True)
        every.append(one)
    if not every:
        raise UserError(f"config.mesh.tensor {config.mesh.tensor} does not divide the devices of a slice")
    print_search(title, rank(every))
    best = rank(every)[0]
    chosen = {"mesh": dataclasses.asdict(best.config.mesh), "remat": best.config.model.remat}
    print(json.dumps(dataclasses.asdict(best.estimate) | chosen))


def start() -> None:
    """The command."""
    flags.mark_flag_as_required("config")
    cli.run(main)


if __name__ == "__main__":
    start()
