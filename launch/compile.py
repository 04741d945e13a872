"""Compiles a run for TPUs that are not here, and says whether it fits and about how fast it is.

    pip install -r requirements-tpu.txt
    python launch/compile.py --config=configs/genmask_l.py --topology=v5e:16x16 --config.mesh.fsdp=16

The very training step (or, with --program=mask_sampler or picture_sampler, the very sampler) is compiled by
the TPU's own compiler. Weights need not be here: published shapes stand in for them. Times are estimates by a
roofline over the compiled program, without the network between slices. Prints a table and, last, one line of
JSON. With --search it tries meshes, and for each what of a block to compute anew, and ranks them.
"""

import dataclasses
import json
import math
import os
from typing import Any

import jax
from absl import flags
from jax.experimental import topologies
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from genmask_jax import cli
from genmask_jax.config import TrainConfig, from_config_dict
from genmask_jax.errors import UserError
from genmask_jax.scale import programs
from genmask_jax.scale.chips import CHIPS, parse_topology
from genmask_jax.scale.estimate import Estimate, estimate
from genmask_jax.scale.search import Found, ranked, search
from genmask_jax.sharding import make_mesh

CONFIG = config_flags.DEFINE_config_file(
    "config", lock_config=True, help_string="A file configs/genmask_*.py."
)
TOPOLOGY = flags.DEFINE_string("topology", None, "As v5e:16x16, v5p:4x4x4, v6e:1x1.", required=True)
PROGRAM = flags.DEFINE_enum(
    "program", "train_step", ["train_step", "mask_sampler", "picture_sampler"], "What to compile."
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Of a sampler.", lower_bound=1)
SLICES = flags.DEFINE_integer("slices", 1, "How many such slices there are.", lower_bound=1)
SEARCH = flags.DEFINE_bool("search", False, "Try meshes and rematerialisation, minutes each, and rank them.")


def main() -> None:
    config = from_config_dict(TrainConfig, CONFIG.value)
    generation, shape, _ = parse_topology(TOPOLOGY.value)
    jax.config.update("jax_platforms", "cpu")  # what is not compiled runs here
    there = devices(generation, shape)
    assumed: set[str] = set()

    def compile_(config: TrainConfig) -> Estimate:
        run = programs.describe(config, make_mesh(config.mesh, there))
        for line in sorted(set(run.assumed) - assumed):
            print(line)
        assumed.update(run.assumed)
        lowered, flops = lower(run)
        return estimate(lowered, CHIPS[generation], model_flops=flops / len(there))

    if not SEARCH.value:
        report(compile_(config), len(there))
        return
    if PROGRAM.value != "train_step":
        raise UserError("--search is for the training step; samplers compute nothing anew")
    every = []
    for found in search(config, len(there), SLICES.value, compile_):
        print(f"{found.name}: {verdict(found.estimate)}", flush=True)
        every.append(found)
    if not every:
        raise UserError(f"config.mesh.tensor {config.mesh.tensor} does not divide the devices of a slice")
    best = ranked(every)[0]
    report_search(ranked(every))
    chosen = {"mesh": dataclasses.asdict(best.config.mesh), "remat": best.config.model.remat}
    print(json.dumps(dataclasses.asdict(best.estimate) | chosen))


def lower(run: programs.Described) -> tuple[jax.stages.Lowered, float]:
    """The program that --program asks for, and the operations that it asks of all devices."""
    size = BATCH_SIZE.value
    if PROGRAM.value == "mask_sampler":
        return programs.mask_sampler(run, size), programs.mask_flops(run, size)
    if PROGRAM.value == "picture_sampler":
        return programs.picture_sampler(run, size), programs.picture_flops(run, size)
    return programs.train_step(run), programs.train_flops(run)


def devices(generation: str, shape: str) -> list[jax.Device]:
    """The devices of a topology, by the TPU's compiler. Raises UserError where it is not installed."""
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is run, so several may be at it
    options: dict[str, Any] = {"chip_config_name": "megacore"} if generation == "v4" else {}
    if math.prod(map(int, shape.split("x"))) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if SLICES.value > 1:
        options["num_slices"] = SLICES.value
    try:
        name = f"{generation}:{shape}"
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--topology={TOPOLOGY.value}: the TPU compiler says: {line}; pip install -r "
            "requirements-tpu.txt if it is not installed"
        ) from error


def verdict(found: Estimate) -> str:
    """In half a line."""
    used = f"{found.hbm_bytes_per_device / 2**30:.2f} of {found.hbm_limit_bytes / 2**30:.0f} GiB"
    if not found.fits:
        return f"does not fit, {used}"
    return f"{used}, {found.estimated_step_seconds:.3f} s, {100 * found.estimated_mfu:.0f} % of the peak"


def report_search(found: list[Found]) -> None:
    table = Table(title=f"{CONFIG.value.name}, {PROGRAM.value}, {TOPOLOGY.value}: the best first")
    for column in ("mesh and remat", ""):
        table.add_column(column)
    for one in found:
        table.add_row(one.name, verdict(one.estimate))
    Console().print(table)


def report(found: Estimate, count: int) -> None:
    table = Table(title=f"{CONFIG.value.name}, {PROGRAM.value}, {TOPOLOGY.value}: {count} devices")
    table.add_column("of each device")
    table.add_column("", justify="right")
    limit = found.hbm_limit_bytes
    room = 100 * (1 - found.hbm_bytes_per_device / limit)
    table.add_row("memory", f"{found.hbm_bytes_per_device / 2**30:.2f} of {limit / 2**30:.0f} GiB")
    table.add_row("fits", f"yes, {room:.0f} % left" if found.fits else f"no, {-room:.0f} % too much")
    if found.fits:
        table.add_row(
            "operations that the model asks for", f"{found.model_flops_per_device / 1e12:.1f} TFLOP"
        )
        table.add_row("operations in the program", f"{found.flops_per_device / 1e12:.1f} TFLOP")
        table.add_row("bytes to and from memory", f"{found.bytes_accessed_per_device / 1e9:.0f} GB")
        for row in found.collectives[:6]:
            name = f"{row['kind']} over {row['group']}, {row['count']:.0f} times"
            table.add_row(name, f"{row['bytes'] / 1e9:.2f} GB")
        table.add_row("computing, at the speed of cores or memory", f"{found.compute_seconds:.3f} s")
        table.add_row("communicating", f"{found.communication_seconds:.3f} s")
        table.add_row("estimated time, and share of the peak", f"{found.estimated_step_seconds:.3f} s, "
                      f"{100 * found.estimated_mfu:.0f} %")  # fmt: skip
    table.add_row("compiled in", f"{found.compile_seconds:.0f} s")
    Console().print(table)
    if not found.fits:
        print(
            "to make it fit: config.loop.global_batch_size smaller or grad_accumulation_steps above 1, "
            "config.model.remat=all, or config.mesh.fsdp larger"
        )
    print(json.dumps(dataclasses.asdict(found)))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
