"""Devices to compile for: TPU generations (from cloud.google.com/tpu/docs) here, GPUs in `cards.py`."""

import dataclasses
import math
import re

from genmask_jax.hardware.cards import CARDS, Card
from genmask_jax.utils.errors import UserError


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

    def sends(self, span: int) -> float:
        """See `Card`. The network between slices is not counted."""
        del span
        return self.ring_bandwidth

    def reserved(self, used: float) -> float:
        """See `Card`. The TPU's compiler already counts everything."""
        del used
        return 0.0


CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9, 600e9, 3),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 400e9, 2),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 1200e9, 3),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 800e9, 2),
}

KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}
"""Generations by JAX's names."""


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device by its `jax.Device.device_kind`; None for unknown devices."""
    cards = {card.name: card for card in CARDS.values()}
    known = CHIPS[KINDS[device_kind]] if device_kind in KINDS else cards.get(device_kind)
    return known.peak_flops if known else None


def parse_topology(text: str) -> tuple[str, str, int]:
    """Parses (generation, topology, number of chips) from a text such as "v5p:4x4x4", or "h100:4x8" for GPUs.

    Raises:
        UserError: the text is invalid.
    """
    card = re.fullmatch(r"([\w-]+):(?:([1-9]\d*)x)?([1-9]\d*)", text)
    if card and card[1] in CARDS:
        return card[1], f"{card[2] or 1}x{card[3]}", int(card[2] or 1) * int(card[3])
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)+)", text)
    if not match or match[1] not in CHIPS or len(match[2].split("x")) != CHIPS[match[1]].axes:
        examples = "v4:2x2x4, v5e:16x16, v5p:4x4x4, v6e:16x16"
        raise UserError(
            f"--topology={text}: give a generation and its chips along each axis ({examples}), or cards "
            f"(h100:8), or hosts x cards (h100:4x8); cards: {', '.join(CARDS)}"
        )
    return match[1], match[2], math.prod(int(side) for side in match[2].split("x"))


def find_chip(generation: str, shape: str) -> Chip | Card:
    """The device of a parsed topology."""
    if generation in CARDS:
        return dataclasses.replace(CARDS[generation], per_host=int(shape.split("x")[1]))
    return CHIPS[generation]
