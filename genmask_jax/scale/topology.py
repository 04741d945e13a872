"""Devices that are not here, as the TPU's compiler describes them."""

import math
import os
from typing import Any

from jax.experimental import topologies

from genmask_jax.errors import UserError


def describe_devices(generation: str, shape: str, slices: int) -> list[Any]:
    """The devices (`jax.Device`) of a topology.

    Args:
        generation: of `chips.CHIPS`.
        shape: chips along each axis, such as "16x16".
        slices: how many such slices there are.

    Raises:
        UserError: the compiler is not installed, or knows no such topology.
    """
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
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--topology={name}: the TPU compiler says: {line}; pip install -r requirements-tpu.txt if it is "
            "not installed"
        ) from error
