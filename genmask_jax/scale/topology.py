"""Devices that are not here, as the compilers for TPUs and GPUs describe them."""

import math
import os
from typing import Any

from jax.experimental import topologies

from genmask_jax.errors import UserError, first_line
from genmask_jax.hardware.cards import CARDS


def describe_devices(generation: str, shape: str, slices: int) -> list[Any]:
    """The devices (`jax.Device`) of a topology.

    Args:
        generation: of `chips.CHIPS` or `cards.CARDS`.
        shape: chips along each axis, such as "16x16"; of cards, hosts and cards of each, such as "1x8".
        slices: how many such slices there are; of cards, 1.

    Raises:
        UserError: the compiler is not installed, or knows no such topology.
    """
    if generation in CARDS:
        return _describe_cards(generation, shape, slices)
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing runs, so several may load it
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
            f"--topology={name}: the TPU compiler says: {first_line(error)}; if it is "
            'not installed, pip install "genmask-jax[tpu]"'
        ) from error


def _describe_cards(generation: str, shape: str, slices: int) -> list[Any]:
    if slices != 1:
        raise UserError(
            f"--slices={slices} is for TPUs; for hosts of cards, --topology={generation}:{slices}x8"
        )
    options = {"topology": f"1x{shape}", "target_config": CARDS[generation].target()}
    try:
        return list(topologies.get_topology_desc(platform="cuda", topology_name="", **options).devices)
    except Exception as error:  # without the plugin, whatever JAX meets first
        raise UserError(
            f"--topology={generation}:{shape}: the GPU compiler says: {first_line(error)}; if it is "
            'not installed, pip install "genmask-jax[gpu]" (no card or driver is needed)'
        ) from error
