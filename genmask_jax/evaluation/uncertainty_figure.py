"""The figure of `evaluate_uncertainty` as SVG: a reliability diagram and two risk-coverage curves."""

from typing import Any

from genmask_jax.utils.curves import HEIGHT, WIDTH, plot

COLOURS = {"probability": "#0072B2", "spread": "#D55E00", "calibrated": "#777777"}
"""Colours that colour-blind readers can distinguish (Okabe and Ito, 2008)."""
HEAD = 44
STYLE = "text{font:12px sans-serif;fill:#333}.grid{stroke:#e2e2e2}polyline{fill:none;stroke-width:2}"


def draw_uncertainty(result: dict[str, Any]) -> str:
    """The figure of a result of `evaluate_uncertainty`.

    From left to right: the share of pixels in the object by predicted probability; the share of wrong pixels,
    and the mean of 1 - IoU, among the most certain share of pixels and masks.
    """
    kinds = [name for name in ("probability", "spread") if name in result]
    bins = [(x["probability"], x["share"]) for x in result["bins"]]
    panels = [
        (
            "share of object pixels, by probability",
            {"probability": bins, "calibrated": [(0.0, 0.0), (1.0, 1.0)]},
        ),
        ("wrong pixels, by coverage", {name: result[name]["pixels"]["curve"] for name in kinds}),
        ("1 - IoU of masks, by coverage", {name: result[name]["masks"]["curve"] for name in kinds}),
    ]
    width, height = len(panels) * WIDTH, HEAD + HEIGHT
    parts = [_panel(i * WIDTH, title, lines) for i, (title, lines) in enumerate(panels)]
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="Uncertainty" '
        f'xmlns="http://www.w3.org/2000/svg"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _panel(left: int, title: str, lines: dict[str, Any]) -> str:
    """A plot below its title and the names of its lines."""
    names = "".join(f'<tspan fill="{COLOURS[name]}" dx="8">{name}</tspan>' for name in lines)
    text = f'<text x="{left + 56}" y="18">{title}</text><text x="{left + 48}" y="36">{names}</text>'
    curves = plot({name: [(x, y) for x, y in line] for name, line in lines.items()}, x_range=(0.0, 1.0))
    for i, name in enumerate(lines):
        old = f'class="line line{i}"'
        curves = curves.replace(old, f'stroke="{COLOURS[name]}" fill="{COLOURS[name]}"')
    place = f'<svg x="{left}" y="{HEAD}" width="{WIDTH}" height="{HEIGHT}" '
    return text + curves.replace("<svg ", place, 1)
