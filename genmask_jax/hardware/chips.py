"""Specifications of TPU generations (from cloud.google.com/tpu/docs), and look-ups for TPUs and GPUs."""

import dataclasses
import math
import re

from genmask_jax.hardware.cards import CARDS, Card
from genmask_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """Specifications of one TPU chip.

    peak_flops: peak bfloat16 FLOP/s.
    hbm_bytes, hbm_bandwidth: HBM in bytes, and its bandwidth in bytes/s.
    ici_bandwidth: bandwidth to all neighbours, in both directions, in bytes/s.
    axes: number of axes of the torus.
    """

    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    axes: int

    @property
    def ring_bandwidth(self) -> float:
        """Send bandwidth in a ring along one axis, over both links of that axis, in bytes/s."""
        return self.ici_bandwidth / (2 * self.axes)

    def send_bandwidth(self, span: int) -> float:
        """See `Card`. The network between slices is ignored."""
        del span
        return self.ring_bandwidth

    def reserved_bytes(self, program_bytes: float) -> float:
        """See `Card`. The TPU compiler already counts reserved memory."""
        del program_bytes
        return 0.0


CHIPS = {
    "v4": Chip(275e12, 32 * 2**30, 1228e9, 600e9, 3),
    "v5e": Chip(197e12, 16 * 2**30, 819e9, 400e9, 2),
    "v5p": Chip(459e12, 95 * 2**30, 2765e9, 1200e9, 3),
    "v6e": Chip(918e12, 32 * 2**30, 1640e9, 800e9, 2),
}

GENERATIONS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}
"""Generations by `jax.Device.device_kind`."""


def peak_flops(device_kind: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device by its `jax.Device.device_kind`; None for unknown devices."""
    cards = {card.name: card for card in CARDS.values()}
    device = CHIPS[GENERATIONS[device_kind]] if device_kind in GENERATIONS else cards.get(device_kind)
    return device.peak_flops if device else None


def parse_topology(text: str) -> tuple[str, str, int]:
    """Parses a topology such as "v5p:4x4x4", or "h100:4x8" for GPUs.

    Returns:
        The generation or card, the shape ("4x4x4", or hosts x cards), and the number of devices.

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
            f"--topology={text}: give a generation and the number of chips along each axis "
            f"({examples}), a number of cards (h100:8), or hosts x cards (h100:4x8); "
            f"cards: {', '.join(CARDS)}"
        )
    return match[1], match[2], math.prod(int(side) for side in match[2].split("x"))


def find_chip(generation: str, shape: str) -> Chip | Card:
    """Specifications of the device in a parsed topology."""
    if generation in CARDS:
        return dataclasses.replace(CARDS[generation], per_host=int(shape.split("x")[1]))
    return CHIPS[generation]
