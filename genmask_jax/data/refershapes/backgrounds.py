"""Backgrounds of ReferShapes, float32 [S, S, 3] in 0..255."""

import numpy as np

MUTED_GREYS, ALL_GREYS = (55, 150), (20, 235)
"""Ranges of a textured background's mean."""


def textured(rng: np.random.Generator, size: int, greys: tuple[int, int]) -> np.ndarray:
    """A gradient of two muted colours around a grey, with stripes, checks or waves over it."""
    grey = rng.uniform(*greys)
    first, second = grey + rng.uniform(-22, 22, (2, 3)).astype(np.float32)
    x, y = np.arange(size, dtype=np.float32) / size, np.arange(size, dtype=np.float32)[:, None] / size
    turn = rng.uniform(0, 2 * np.pi)
    along = np.float32(np.cos(turn)) * (x - 0.5) + np.float32(np.sin(turn)) * (y - 0.5) + 0.5
    texture, pitch, phase = rng.integers(4), rng.uniform(2, 6), rng.uniform(0, 2 * np.pi, 2)
    across, down = (2 * np.pi * pitch * axis + p for axis, p in zip((x, y), phase, strict=True))
    if texture == 0:
        pattern = np.sin(across) * np.sin(down)
    elif texture == 1:
        pattern = np.sign(np.sin(across) * np.sin(down))
    elif texture == 2:
        pattern = np.sin(2 * np.pi * pitch * along + phase[0])
    else:
        pattern = np.zeros_like(along)
    plain = first + (second - first) * along[..., None]
    return plain + (rng.uniform(4, 12) * pattern[..., None]).astype(np.float32)


def plain(rng: np.random.Generator, size: int) -> np.ndarray:
    """One colour: a third each are greys (a third of these black or white), pale colours, and any colours."""
    sort = rng.integers(3)
    if sort == 0:
        colour = np.full(3, rng.uniform(-75, 330))
    elif sort == 1:
        colour = 255 - rng.uniform(0, 70, 3)
    else:
        colour = rng.uniform(0, 255, 3)
    return np.full((size, size, 3), np.clip(colour, 0, 255), np.float32)
