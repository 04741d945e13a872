"""The figure of a sweep as SVG: for each metric, the scores of all seeds and the differences."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from genmask_jax.config import SweepConfig
from genmask_jax.tools.sweep.statistics import Difference, in_order, paired_difference, scores_by_seed
from genmask_jax.utils.curves import round_numbers

NAMES, PANEL, GAP, MARGIN = 170, 250, 40, 16
ROW, HEAD, FOOT = 22, 30, 34
STYLE = (
    "text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.number{font-size:11px;fill:#666}"
    ".grid{stroke:#e2e2e2}.zero{stroke:#999}.seed{fill:#3b53c4;fill-opacity:.45}"
    ".mean{stroke:#3b53c4;stroke-width:2.5}.interval{stroke:#c2410c;stroke-width:2}.difference{fill:#c2410c}"
)


class _Axis:
    """Maps values to pixels from `left` on."""

    def __init__(self, left: float, values: Sequence[float]):
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        self.left, self.low, self.high = left, low - margin, high + margin

    def __call__(self, value: float) -> float:
        return self.left + PANEL * (value - self.low) / (self.high - self.low)

    def grid(self, top: float, bottom: float) -> list[str]:
        parts = []
        for value in round_numbers(self.low, self.high):
            x = self(value)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
            number = f"{value + 0.0:.3g}".replace("-", "−")
            parts.append(
                f'<text class="number" x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{number}</text>'
            )
        return parts


def draw(config: SweepConfig, lines: Sequence[Mapping[str, Any]]) -> str:
    """An SVG with two panels for each metric; "" if there are no scores.

    The left panel has a dot for each seed and a line at the mean, the right one the mean difference from the
    reference with its 95 % confidence interval.
    """
    parts, top = [], 0.0
    for metric in config.metrics:
        scores = {name: scores_by_seed(lines, name, metric) for name in in_order(config)}
        scores = {name: by_seed for name, by_seed in scores.items() if by_seed}
        if scores:
            parts += _draw_metric(metric, scores, config.reference, top)
            top += HEAD + ROW * len(scores) + FOOT
    if not parts:
        return ""
    width = NAMES + 2 * PANEL + GAP + MARGIN
    label = quoteattr(f"{config.name}: {', '.join(config.metrics)} by variant")  # for screen readers
    return (
        f'<svg viewBox="0 0 {width} {top:g}" width="{width}" role="img" aria-label={label} '
        f'xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _draw_metric(
    metric: str, scores: Mapping[str, Mapping[int, float]], reference: str, top: float
) -> list[str]:
    """Both panels of one metric."""
    first, bottom = top + HEAD, top + HEAD + ROW * len(scores)
    right = NAMES + PANEL + GAP
    axis = _Axis(NAMES, [value for by_seed in scores.values() for value in by_seed.values()])
    parts = [f'<text class="title" x="{NAMES}" y="{top + 20}">{escape(metric)}</text>']
    parts += axis.grid(first, bottom)
    for i, (name, by_seed) in enumerate(scores.items()):
        y = first + ROW * (i + 0.5)
        parts.append(f'<text x="{NAMES - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts += _seeds(name, by_seed, axis, y)
    differences = {
        name: difference
        for name, by_seed in scores.items()
        if name != reference and (difference := paired_difference(by_seed, scores.get(reference, {})))
    }
    if differences:
        title = f"difference from {reference}"
        parts.append(f'<text class="title" x="{right}" y="{top + 20}">{escape(title)}</text>')
        rows = {name: first + ROW * (i + 0.5) for i, name in enumerate(scores)}
        parts += _differences(differences, rows, right, (first, bottom))
    return parts


def _seeds(name: str, by_seed: Mapping[int, float], axis: _Axis, y: float) -> list[str]:
    """A dot for each seed, and a line at the mean."""
    mean = axis(float(np.mean(list(by_seed.values()))))
    dots = [
        f'<circle class="seed" cx="{axis(value):.1f}" cy="{y}" r="4"><title>{escape(name)}, seed {seed}: '
        f"{value:.4f}</title></circle>"
        for seed, value in by_seed.items()
    ]
    return [*dots, f'<line class="mean" x1="{mean:.1f}" x2="{mean:.1f}" y1="{y - 7}" y2="{y + 7}"/>']


def _differences(
    differences: Mapping[str, Difference], rows: Mapping[str, float], left: float, extent: tuple[float, float]
) -> list[str]:
    """The mean difference of each variant, with its interval, around a line at zero."""
    margins = {name: d.margin if math.isfinite(d.margin) else 0.0 for name, d in differences.items()}
    ends = [d.mean + sign * margins[name] for name, d in differences.items() for sign in (-1, 1)]
    axis = _Axis(left, [0.0, *ends])
    zero = axis(0)
    parts = axis.grid(*extent)
    parts.append(f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="{extent[0]}" y2="{extent[1]}"/>')
    for name, difference in differences.items():
        y, low, high = rows[name], *(axis(difference.mean + sign * margins[name]) for sign in (-1, 1))
        parts.append(f'<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        tooltip = f"{escape(name)}: {difference.mean:+.4f} ± {difference.margin:.4f}"
        x = axis(difference.mean)
        parts.append(
            f'<circle class="difference" cx="{x:.1f}" cy="{y}" r="4"><title>{tooltip}</title></circle>'
        )
    return parts
