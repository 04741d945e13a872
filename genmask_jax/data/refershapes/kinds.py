"""ReferShapes' kinds of shapes as signed distances, and their coverage of pixels."""

import numpy as np

KINDS = ("circle", "square", "triangle", "star", "diamond", "cross", "heart", "ring")


def distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to a shape around the origin, negative inside; exact in pixels only near the edge."""
    if kind == "circle":
        return np.hypot(x, y) - 0.92 * radius
    if kind == "ring":
        return np.abs(np.hypot(x, y) - 0.68 * radius) - 0.24 * radius
    if kind == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.76 * radius
    if kind == "diamond":
        return (np.abs(x) / 0.62 + np.abs(y)) * 0.527 - 0.527 * radius
    if kind == "cross":
        x, y, arm = np.abs(x), np.abs(y), 0.3 * radius
        return np.minimum(np.maximum(x - arm, y - 0.92 * radius), np.maximum(x - 0.92 * radius, y - arm))
    if kind == "triangle":
        slope = np.abs(x) * np.sin(np.pi / 3) - y * np.cos(np.pi / 3)
        return np.maximum(y, slope) - 0.55 * radius
    if kind == "heart":
        # A square on its corner, with a disc on each of its upper edges.
        x, y, half = np.abs(x), y - 0.1 * radius, 0.8 * radius
        tip = (x + np.abs(y) - half) / np.sqrt(2)
        return np.minimum(tip, np.hypot(x - half / 2, y + half / 2) - half / np.sqrt(2))
    # A star: fold the plane onto half of one point, whose edge runs from the tip to the inner corner.
    angle = np.abs((np.arctan2(x, -y) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
    length = np.hypot(x, y)
    px, py = length * np.cos(angle), length * np.sin(angle)
    inner = 0.45 * radius * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    normal = np.array([inner[1], radius - inner[0]])
    normal /= np.hypot(*normal)
    return (px - radius) * normal[0] + py * normal[1]


Box = tuple[slice, slice]


def around(
    kind: str, centre: tuple[float, float], radius: float, angle: float, size: int
) -> tuple[Box, np.ndarray]:
    """(rows, columns) of a shape's bounding box, and the signed distances of the pixels in it, float32."""
    (x0, y0), reach = centre, int(np.ceil(radius)) + 2
    columns = slice(max(0, int(x0) - reach), min(size, int(x0) + reach + 1))
    rows = slice(max(0, int(y0) - reach), min(size, int(y0) + reach + 1))
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x0)
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - y0)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return (rows, columns), distance(kind, cos * x + sin * y, cos * y - sin * x, radius)


def coverage(
    kind: str, centre: tuple[float, float], radius: float, angle: float, size: int
) -> tuple[Box, np.ndarray]:
    """The share of each pixel that a shape covers, in its bounding box.

    Returns:
        (rows, columns) slices of the image and float32 coverage in [0, 1] there.
    """
    box, signed = around(kind, centre, radius, angle, size)
    return box, np.clip(0.5 - signed, 0.0, 1.0)
