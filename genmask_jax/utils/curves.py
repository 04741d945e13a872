"""Line plots as SVG. The page sets the colours, by CSS class."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 26
TICKS = 4


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Maps points to pixels. `y_range` is logarithmic (base 10) if the y axis is."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    logarithmic: bool

    def x(self, value: float) -> float:
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        value = math.log10(value) if self.logarithmic else value
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


def plot(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    logarithmic: bool = False,
    x_range: tuple[float, float] | None = None,
) -> str:
    """An SVG of lines of (x, y), with gaps where y is not finite; "" if no y is finite.

    Args:
        lines: points by the name of the line, which is its tooltip. The first line has class `line0`.
        logarithmic: use a logarithmic y axis if all y are positive.
        x_range: range of the x axis; that of the points if None.
    """
    points = [point for line in lines.values() for point in line if math.isfinite(point[1])]
    if not points:
        return ""
    values = [y for _, y in points]
    logarithmic = logarithmic and min(values) > 0
    y_range = _range([math.log10(y) for y in values] if logarithmic else values)
    axes = _Axes(x_range or _range([x for x, _ in points]), y_range, logarithmic)
    label = quoteattr(f"Plot of {', '.join(lines)}")  # for screen readers
    attributes = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={label}'
    curves = [_curve(i, name, line, axes) for i, (name, line) in enumerate(lines.items())]
    return "".join(
        [f'<svg {attributes} xmlns="http://www.w3.org/2000/svg">', *_grid(axes), *curves, "</svg>"]
    )


def _grid(axes: _Axes) -> list[str]:
    """Horizontal lines, and the numbers of both axes."""
    parts = []
    ticks = _decades(*axes.y_range) if axes.logarithmic else round_numbers(*axes.y_range)
    for value in (10**tick if axes.logarithmic else tick for tick in ticks):
        y = axes.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for tick in round_numbers(*axes.x_range):
        x, text = axes.x(tick), _abbreviate(tick)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{text}</text>')
    return parts


def _curve(number: int, name: str, line: Sequence[tuple[float, float]], axes: _Axes) -> str:
    """One line. Single points, and all points of short lines, are marked by circles."""
    parts = [f'<g class="line line{number % 6}"><title>{escape(name)}</title>']
    for finite, group in itertools.groupby(line, lambda point: math.isfinite(point[1])):
        points = [(f"{axes.x(x):.1f}", f"{axes.y(y):.1f}") for x, y in group] if finite else []
        if len(points) > 1:
            parts.append(f'<polyline points="{" ".join(map(",".join, points))}"/>')
        if len(points) == 1 or len(line) <= 20:
            parts += [f'<circle cx="{x}" cy="{y}" r="2.5"/>' for x, y in points]
    return "".join([*parts, "</g>"])


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = abs(low) / 10
    return (low, high) if high > low else (low - margin, high + (margin or 1))


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers between two values, about TICKS of them."""
    rough = (high - low) / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten in a range; only of powers of ten if there are enough."""
    tens = range(math.floor(low), math.ceil(high) + 1)
    candidates = [ten + math.log10(digit) for ten in tens for digit in (1, 2, 5)]
    inside = [value for value in candidates if low <= value <= high]
    powers = [value for value in inside if value == int(value)]
    return (powers if len(powers) >= TICKS else inside) or round_numbers(low, high)


def _abbreviate(step: float) -> str:
    return f"{step / 1000:g}k" if abs(step) >= 10_000 else f"{step:g}"
