"""TPU generations: what a chip has, as Google's documentation of each says (cloud.google.com/tpu/docs)."""

import dataclasses
import math
import re

from genmask_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip.

    peak_flops: bfloat16 operations a second.
    hbm_bytes, hbm_bandwidth: bytes, and bytes a second.
    ici_bandwidth: bytes a second to all neighbours, both directions together.
    axes: of its torus.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    axes: int

    @property
    def ring_bandwidth(self) -> float:
        """Bytes a second that a chip passes on in a ring along one axis, over both of its links there."""
        return self.ici_bandwidth / (2 * self.axes)


CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9, 600e9, 3),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 400e9, 2),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 1200e9, 3),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 800e9, 2),
}


def parse_topology(text: str) -> tuple[str, str, int]:
    """(generation, topology, chips) of a text such as "v5p:4x4x4". Raises UserError when it is none."""
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", text)
    if not match or match[1] not in CHIPS or len(match[2].split("x")) != CHIPS[match[1]].axes:
        examples = "v4:2x2x4, v5e:16x16, v5p:4x4x4, v6e:16x16"
        raise UserError(f"--topology={text}: give a generation and its chips along each axis: {examples}")
    return match[1], match[2], math.prod(int(side) for side in match[2].split("x"))
