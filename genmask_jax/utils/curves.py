"""Line plots as SVG text. The page that shows them gives the colours, by class."""

import itertools
import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape, quoteattr

WIDTH, HEIGHT = 460, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 10, 26
TICKS = 4


def plot(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    logarithmic: bool = False,
    x_range: tuple[float, float] | None = None,
) -> str:
    """An SVG of lines of (x, value), broken where a value is not finite; the first has class `line0`.

    Screen readers read the lines' names.

    Args:
        lines: by the name that a pointer on the line shows.
        logarithmic: the scale of the values, where all are positive.
        x_range: what the axis shows; that of the points if None.
    """
    flat = [p for line in lines.values() for p in line if math.isfinite(p[1])]
    if not flat:
        return ""
    logarithmic = logarithmic and min(value for _, value in flat) > 0
    forward = math.log10 if logarithmic else float
    x_low, x_high = x_range or _range([x for x, _ in flat])
    y_low, y_high = _range([forward(value) for _, value in flat])

    def x_of(step: float) -> float:
        return LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y_of(value: float) -> float:
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    label = quoteattr(f"Plot of {', '.join(lines)}")
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={label} xmlns="http://www.w3.org/2000/svg">'
    ]
    marks = _decades(y_low, y_high) if logarithmic else _ticks(y_low, y_high)
    for value in marks:
        y, shown = y_of(value), 10**value if logarithmic else value
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{shown:.3g}</text>')
    for step in _ticks(x_low, x_high):
        parts.append(
            f'<text x="{x_of(step):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{_count(step)}</text>'
        )
    for i, (name, line) in enumerate(lines.items()):
        parts.append(f'<g class="line line{i % 6}"><title>{escape(name)}</title>')
        for finite, piece in itertools.groupby(line, lambda p: math.isfinite(p[1])):
            placed = [(f"{x_of(x):.1f}", f"{y_of(forward(value)):.1f}") for x, value in piece if finite]
            if len(placed) > 1:
                parts.append(f'<polyline points="{" ".join(map(",".join, placed))}"/>')
            if len(placed) == 1 or len(line) <= 20:
                parts += [f'<circle cx="{x}" cy="{y}" r="2.5"/>' for x, y in placed]
        parts.append("</g>")
    return "".join([*parts, "</svg>"])


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = abs(low) / 10
    return (low, high) if high > low else (low - margin, high + (margin or 1))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two values, about TICKS of them."""
    rough = (high - low) / TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten between two logarithms; of powers alone if these do."""
    tens = range(math.floor(low), math.ceil(high) + 1)
    found = [ten + math.log10(digit) for ten in tens for digit in (1, 2, 5)]
    inside = [value for value in found if low <= value <= high]
    powers = [value for value in inside if value == int(value)]
    return (powers if len(powers) >= TICKS else inside) or _ticks(low, high)


def _count(step: float) -> str:
    return f"{step / 1000:g}k" if abs(step) >= 10_000 else f"{step:g}"
