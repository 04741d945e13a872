"""Devices that this machine need not have, described by the compilers for TPUs and GPUs."""

import math
import os
from typing import Any

from jax.experimental import topologies

from genmask_jax.hardware.cards import CARDS
from genmask_jax.utils.errors import UserError, first_line


def describe_devices(generation: str, shape: str, slices: int) -> list[Any]:
    """Returns the devices (`jax.Device`) of a topology.

    Args:
        generation: a key of `chips.CHIPS` or `cards.CARDS`.
        shape: chips along each axis, such as "16x16"; for cards, hosts x cards, such as "1x8".
        slices: number of slices; 1 for cards.

    Raises:
        UserError: the compiler is not installed, or does not know the topology.
    """
    if generation in CARDS:
        return _describe_cards(generation, shape, slices)
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs on a TPU
    name = f"{generation}:{shape}"
    options: dict[str, Any] = {"chip_config_name": "megacore"} if generation == "v4" else {}
    if math.prod(map(int, shape.split("x"))) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    if slices > 1:
        options["num_slices"] = slices
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"--topology={name}: the TPU compiler failed: {first_line(error)}; if it is "
            'not installed, pip install "genmask-jax[tpu]"'
        ) from error


def _describe_cards(generation: str, shape: str, slices: int) -> list[Any]:
    if slices != 1:
        raise UserError(
            f"--slices={slices} is only for TPUs; for several hosts, set --topology={generation}:{slices}x8"
        )
    options = {"topology": f"1x{shape}", "target_config": CARDS[generation].target_config()}
    try:
        return list(topologies.get_topology_desc(platform="cuda", topology_name="", **options).devices)
    except Exception as error:  # without the plugin, JAX raises various errors
        raise UserError(
            f"--topology={generation}:{shape}: the GPU compiler failed: {first_line(error)}; if it is "
            'not installed, pip install "genmask-jax[gpu]" (no card or driver is needed)'
        ) from error
