"""Specifications of TPU generations, from Google's documentation (cloud.google.com/tpu/docs)."""

import dataclasses
import math
import re

from genmask_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    peak_flops: peak bfloat16 FLOP/s.
    hbm_bytes, hbm_bandwidth: HBM in bytes, and its bandwidth in bytes/s.
    ici_bandwidth: bytes/s to all neighbours, both directions together.
    axes: number of axes of the torus.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    axes: int

    @property
    def ring_bandwidth(self) -> float:
        """Bytes/s that a chip sends in a ring along one axis, over both of its links there."""
        return self.ici_bandwidth / (2 * self.axes)


CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9, 600e9, 3),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 400e9, 2),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 1200e9, 3),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 800e9, 2),
}


def parse_topology(text: str) -> tuple[str, str, int]:
    """Parses (generation, topology, chips) from a text such as "v5p:4x4x4". Raises UserError if invalid."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", text)
    if not match or match[1] not in CHIPS or len(match[2].split("x")) != CHIPS[match[1]].axes:
        examples = "v4:2x2x4, v5e:16x16, v5p:4x4x4, v6e:16x16"
        raise UserError(f"--topology={text}: give a generation and its chips along each axis: {examples}")
    return match[1], match[2], math.prod(int(side) for side in match[2].split("x"))
