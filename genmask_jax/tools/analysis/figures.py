"""Draws the results of the analysis as SVG and PNG."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from genmask_jax.utils.paths import replacing

Panels = dict[str, tuple[Float[np.ndarray, "N h w"], Float[np.ndarray, "N H W 3"]]]
"""By kind, of one noise level: first principal component and decoded pictures of the scenes held out."""
Pictures = Mapping[str, UInt8[np.ndarray, "N H W 3"]]

NUM_SCENES = 3
COLOURS = {
    "mask": "#0072B2",
    "image": "#D55E00",
    "object": "#009E73",
    "edge": "#E69F00",
    "background": "#000000",
}
"""Colours that colour-blind readers can distinguish (Okabe and Ito, 2008)."""
MARKERS = {"mask": "o", "image": "s"}
OFFSETS = {"mask": -0.2, "image": 0.2}
"""Offsets of bars."""
STYLE: Any = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "genmask",  # the same result gives the same file
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "nearest",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
MAX_SHOWN_LEVEL = 0.9
"""Highest noise level in the figures of pictures; pictures at more noise look like noise alone."""


def draw_all(
    result: Mapping[str, Any], pictures: Pictures, panels: Sequence[Panels], out: epath.Path
) -> None:
    """Writes all figures to `out`.

    Args:
        result: the content of latents.json.
        pictures: the pictures of the scenes held out.
        panels: the panels of each noise level.
        out: an existing directory.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        save(draw_pictures(result, pictures, panels, 0), out / "components")
        save(draw_pictures(result, pictures, panels, 1), out / "decoded")
        save(draw_variance(result), out / "variance")
        save(draw_classifiers(result), out / "classifiers")
        save(draw_readers(result), out / "readers")
        save(draw_distributions(result), out / "distributions")


def save(figure: Any, path: epath.Path) -> None:
    """Writes a figure as PATH.svg and PATH.png."""
    for suffix, metadata in (("svg", {"Date": None}), ("png", {})):
        with replacing(path.with_name(f"{path.name}.{suffix}")) as temporary, temporary.open("wb") as file:
            figure.savefig(file, format=suffix, dpi=150, metadata=metadata)


def new_figure(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    """A figure of `width` x `height` inches, and an array of its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def draw_pictures(result: Mapping[str, Any], pictures: Pictures, panels: Sequence[Panels], part: int) -> Any:
    """Pictures of a few scenes, next to a part of their panels (see `Panels`) at several noise levels."""
    shown = [i for i, level in enumerate(result["levels"]) if level["t"] <= MAX_SHOWN_LEVEL]
    rows = []
    for i in range(min(NUM_SCENES, len(pictures["mask"]))):
        for kind, originals in pictures.items():
            tiles = [originals[i] / 255]
            for number in shown:
                panel = panels[number][kind][part]
                low, high = np.percentile(panel, [0.5, 99.5]) if part == 0 else (-1, 1)
                tiles.append(np.clip((panel[i] - low) / (high - low), 0, 1))
            rows.append(np.concatenate([_tile(tile, originals.shape[1]) for tile in tiles], axis=1))
    figure, axes = new_figure(len(shown) + 1, len(rows) + 0.3, 1, 1)
    axis = axes[0, 0]
    axis.imshow(np.concatenate(rows))
    names = [f"t = {result['levels'][i]['t']:g}" for i in shown]
    width = rows[0].shape[1] / (len(shown) + 1)
    axis.set_xticks((np.arange(len(shown) + 1) + 0.5) * width, ["picture", *names])
    axis.set_yticks([])
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    return figure


def _tile(panel: np.ndarray, size: int) -> Float[np.ndarray, "H W 3"]:
    """A panel `[h, w]` or `[H, W, 3]` in [0, 1] as RGB, with repeated cells and a white margin."""
    colours = panel if panel.ndim == 3 else np.repeat(panel[..., None], 3, axis=-1)
    factor, margin = size // len(panel), max(1, size // 32)
    enlarged = colours.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.pad(enlarged, ((margin, margin), (margin, margin), (0, 0)), constant_values=1)


def label_noise(axis: Any, result: Mapping[str, Any]) -> None:
    """Labels the x axis, on which the noise levels are evenly spaced, with log-SNR below and t above."""
    levels = result["levels"]
    snr = ["∞" if level["log_snr"] is None else f"{level['log_snr']:.1f}" for level in levels]
    axis.set_xticks(range(len(levels)), snr)
    axis.set_xlabel("log-SNR")
    above = axis.secondary_xaxis("top")
    above.set_xticks(range(len(levels)), [f"{level['t']:g}" for level in levels])
    above.set_xlabel("t")


def plot_kinds(
    axis: Any, result: Mapping[str, Any], get: Callable[[Any], float], line: str, name: str
) -> None:
    """Plots a value of masks and of images over the noise levels; `{}` in `name` is replaced by the kind."""
    for kind, marker in MARKERS.items():
        values = [get(level[kind]) for level in result["levels"]]
        axis.plot(range(len(values)), values, line + marker, color=COLOURS[kind], label=name.format(kind))


def draw_variance(result: Mapping[str, Any]) -> Any:
    """Explained variance of clean latents by component, and the first component by noise level."""
    figure, axes = new_figure(12, 3.4, 1, 3, width_ratios=[0.7, 1, 1])
    spectrum, share, correlation = axes[0]
    for kind, offset in OFFSETS.items():
        ratios = result["levels"][0][kind]["explained_variance"]
        spectrum.bar(np.arange(1, len(ratios) + 1) + offset, ratios, 0.4, color=COLOURS[kind], label=kind)
    spectrum.set(xlabel="component", ylabel="share of variance, clean latents", ylim=(0, 1))
    spectrum.legend()
    plot_kinds(share, result, lambda x: x["explained_variance"][0], "-", "{}")
    share.set(ylabel="share of variance, first component", ylim=(0, 1))
    plot_kinds(correlation, result, lambda x: x["first_component_correlation"], "-", "{}")
    correlation.set(ylabel="correlation of first component and object", ylim=(0, 1))
    for axis in (share, correlation):
        label_noise(axis, result)
    return figure


def draw_classifiers(result: Mapping[str, Any]) -> Any:
    """Scores of the linear classifiers of cells by noise level; dashed, if all cells are called object."""
    figure, axes = new_figure(9, 3.4, 1, 2)
    chance = {"balanced_accuracy": 0.5, "IoU": result["object_cells"]}
    for axis, name in zip(axes[0], chance, strict=True):
        plot_kinds(axis, result, lambda x, name=name: x["linear_svm"][name], "-", "{}, linear SVM")
        plot_kinds(axis, result, lambda x, name=name: x["least_squares"][name], ":", "{}, least squares")
        axis.axhline(chance[name], color="#777777", linewidth=1, linestyle="--")
        axis.set(ylim=(0, 1.02))
        label_noise(axis, result)
    axes[0, 0].set_ylabel("balanced accuracy")
    axes[0, 1].set_ylabel("IoU of object cells")
    axes[0, 0].legend(loc="lower left")
    return figure


def draw_readers(result: Mapping[str, Any]) -> Any:
    """Accuracy of the matched filter (dashed grey: a guess) and scores of decoded latents, by noise level."""
    figure, axes = new_figure(12, 3.4, 1, 3)
    matched, overlap, psnr = axes[0]
    counts = result["levels"][0]["mask"]["matched_filter"]
    for count, line in zip(counts, ("--", "-"), strict=False):
        plot_kinds(
            matched, result, lambda x, count=count: x["matched_filter"][count], line, "{}, 1 of " + count
        )
        matched.axhline(1 / int(count), color="#777777", linewidth=1, linestyle="--")
    matched.set(ylabel="accuracy of the matched filter", ylim=(0, 1.02))
    values = [level["mask"]["decoded_mIoU"] for level in result["levels"]]
    overlap.plot(values, "-" + MARKERS["mask"], color=COLOURS["mask"])
    overlap.set(ylabel="mIoU of decoded masks", ylim=(0, 1.02))
    plot_kinds(psnr, result, lambda x: x["decoded_psnr"], "-", "{}")
    psnr.set(ylabel="PSNR of decoded pictures (dB)", ylim=(0, None))
    for axis in (matched, overlap, psnr):
        label_noise(axis, result)
    matched.legend(loc=(0.03, 0.12))
    psnr.legend()
    return figure


def draw_distributions(result: Mapping[str, Any]) -> Any:
    """Histograms of clean latents, and standard deviations of groups of cells."""
    figure, axes = new_figure(9, 5.6, 2, 2)
    histograms, clean = result["histograms"], result["levels"][0]
    edges = np.asarray(histograms["edges"])
    for kind in MARKERS:
        title = f"{kind} (excess kurtosis {clean[kind]['kurtosis_pooled']:.1f})"
        axes[0, 0].stairs(histograms[kind]["all"], edges, color=COLOURS[kind], label=title)
    axes[0, 0].set(title="all cells", ylabel="density", xlabel="latent value")
    for axis, kind in ((axes[0, 1], "mask"), (axes[1, 0], "image")):
        for group in ("object", "edge", "background"):
            axis.stairs(histograms[kind][group], edges, color=COLOURS[group], label=group)
        axis.set(title=f"cells of {kind}s", ylabel="density", xlabel="latent value")
    groups = ("all", "object", "edge", "background")
    for kind, offset in OFFSETS.items():
        values = [clean[kind]["std"][group] or 0 for group in groups]
        axes[1, 1].bar(np.arange(len(groups)) + offset, values, 0.4, color=COLOURS[kind], label=kind)
    axes[1, 1].set_xticks(range(len(groups)), groups)
    axes[1, 1].set(title="spread of clean latents", ylabel="standard deviation")
    for axis in axes.flat:
        axis.legend()
    for axis in (axes[0, 0], axes[0, 1], axes[1, 0]):
        axis.set_yscale("log")
    return figure
