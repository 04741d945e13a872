"""Analyses the latents of a dataset's masks and images at several noise levels."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, UInt8
from rich.table import Table

from genmask_jax import __version__
from genmask_jax.config import DataConfig
from genmask_jax.data.sources import segment_source
from genmask_jax.tools.analysis import figures
from genmask_jax.tools.analysis.autoencoder import RANDOM, open_autoencoder
from genmask_jax.tools.analysis.noise_law import fitting_fields, spectrum
from genmask_jax.tools.analysis.readers import CLASSIFIERS, cell_scores, matched_filter
from genmask_jax.tools.analysis.scenes import KINDS, read_scenes
from genmask_jax.tools.analysis.statistics import (
    histograms,
    mean_distance,
    principal_components,
    project,
    spread,
)
from genmask_jax.utils.console import console
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.extras import need
from genmask_jax.utils.paths import write_text

LEVELS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Noise levels t of the analysis."""
HELD_OUT = 0.25
"""Share of the scenes on which classifiers and decoder are scored."""
MAX_CELLS = 100_000
"""Cells that a classifier is fitted to, at most."""
CANDIDATES = (2, 16)
"""Numbers of candidates of the matched filter; at most as many as there are scenes."""


@dataclasses.dataclass(frozen=True)
class AnalysisConfig:
    """What is analysed.

    vae: see `open_autoencoder`.
    data: the dataset; `data.size` is the side of the images.
    split: split of the dataset.
    count: number of scenes.
    seed: seed of noise, of the choice of cells and candidates, and of random weights.
    levels: noise levels t, increasing, from 0 on and below 1.
    """

    vae: str
    data: DataConfig
    split: str = "val"
    count: int = 256
    seed: int = 0
    levels: tuple[float, ...] = LEVELS


def log_snr(t: float) -> float | None:
    """2 log((1 - t) / t), the logarithm of the ratio of signal to noise power; None for t = 0."""
    return 2 * math.log((1 - t) / t) if t else None


def analyze(config: AnalysisConfig, out: epath.Path) -> dict[str, Any]:
    """Writes latents.json and the figures to `out`, prints a table, and returns the content of the file.

    Raises:
        UserError: the VAE or the data do not exist or do not fit, or the extra analysis is not installed.
    """
    for package in ("matplotlib", "sklearn"):
        need(package, "analysis", "the analysis of latents")
    vae = open_autoencoder(config.vae, config.seed)
    if config.data.size % vae.config.stride:
        raise UserError(
            f"--size={config.data.size} is not a multiple of the stride of the VAE, {vae.config.stride}"
        )
    scenes = read_scenes(segment_source(config.data, config.split), config.count)
    if config.vae.startswith(RANDOM):
        vae.normalise(np.concatenate([scenes.pictures[kind] for kind in KINDS]))
    clean = {kind: vae.encode(scenes.pictures[kind]) for kind in KINDS}
    spectra = {kind: spectrum(clean[kind]) for kind in KINDS}
    share = scenes.object_share(vae.config.stride)
    first = round((1 - HELD_OUT) * len(scenes))  # scenes from here on are held out
    held_out = {kind: scenes.pictures[kind][first:] for kind in KINDS}
    result = {
        "version": __version__,
        "config": dataclasses.asdict(config),
        "vae": dataclasses.asdict(vae.config),
        "latents": list(clean["mask"].shape[1:]),
        "scenes": len(scenes),
        "held_out": len(scenes) - first,
        "object_cells": float((share >= 0.5).mean()),
        "mean_distance": {kind: mean_distance(clean[kind]) for kind in KINDS},
        "spectrum": {kind: dataclasses.asdict(spectra[kind]) for kind in KINDS},
        "fitting_fields": fitting_fields(spectra["mask"], spectra["image"]),
        "histograms": histograms(clean, share),
    }
    noise = np.random.default_rng(config.seed).standard_normal(clean["mask"].shape, np.float32)
    panels: list[figures.Panels] = []
    result["levels"] = []
    for t in config.levels:
        level: dict[str, Any] = {"t": t, "log_snr": log_snr(t)}
        panels.append({})
        for kind in KINDS:
            noisy = (1 - t) * clean[kind] + t * noise
            described, components = describe(noisy, share)
            decoded = vae.decode(noisy[first:])
            level[kind] = {
                **described,
                **classify(noisy, share >= 0.5, first, config.seed),
                "matched_filter": recognise(clean[kind], t, config.seed),
                **compare(decoded, held_out[kind], kind),
            }
            panels[-1][kind] = components[first:], decoded
        result["levels"].append(level)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "latents.json", json.dumps(result, indent=1))
    figures.draw_all(result, held_out, panels, out)
    print_table(result)
    return result


def describe(
    noisy: Float[np.ndarray, "N h w C"], share: Float[np.ndarray, "N h w"]
) -> tuple[dict[str, Any], Float[np.ndarray, "N h w"]]:
    """Principal components and `spread` of latents, and their projection on the first component.

    Args:
        noisy: latents of all scenes.
        share: share of each cell that the object covers, in [0, 1].
    """
    ratios, components = principal_components(noisy)
    projection, correlation = project(noisy, components[0], share)
    described = {"explained_variance": ratios.tolist(), "first_component_correlation": correlation}
    return described | spread(noisy, share), projection


def classify(
    noisy: Float[np.ndarray, "N h w C"], labels: Bool[np.ndarray, "N h w"], first: int, seed: int
) -> dict[str, dict[str, float]]:
    """Scores of the linear classifiers of cells: fitted to scenes before `first`, scored on the others."""
    channels = noisy.shape[-1]
    train, test = noisy[:first].reshape(-1, channels), noisy[first:].reshape(-1, channels)
    train_labels, test_labels = labels[:first].ravel(), labels[first:].ravel()
    if len({*train_labels.tolist()}) < 2 or len({*test_labels.tolist()}) < 2:
        raise UserError("no object covers half of a cell of the latents; set a larger --size or --count")
    kept = np.random.default_rng(seed).permutation(len(train))[:MAX_CELLS]
    return {
        name: cell_scores(fit(train[kept], train_labels[kept], test), test_labels)
        for name, fit in CLASSIFIERS.items()
    }


def recognise(clean: Float[np.ndarray, "N h w C"], t: float, seed: int) -> dict[str, float]:
    """Accuracy of the matched filter by the number of candidates."""
    rows = clean.reshape(len(clean), -1)
    counts = sorted({min(count, len(rows)) for count in CANDIDATES})
    return {str(n): matched_filter(rows, t, n, np.random.default_rng((seed, n))) for n in counts}


def compare(
    decoded: Float[np.ndarray, "N H W 3"], pictures: UInt8[np.ndarray, "N H W 3"], kind: str
) -> dict[str, float]:
    """Scores of decoded pictures: the mean PSNR (dB) and, for masks, the mean IoU."""
    truth = pictures / 127.5 - 1
    errors = np.square(np.clip(decoded, -1, 1) - truth).mean((1, 2, 3))
    scores = {"decoded_psnr": float(np.mean(10 * np.log10(4 / np.maximum(errors, 1e-10))))}
    if kind == "mask":
        predicted, true = decoded.mean(-1) > 0, pictures[..., 0] > 0
        unions = (predicted | true).sum((1, 2))
        scores["decoded_mIoU"] = float(((predicted & true).sum((1, 2)) / unions).mean())
    return scores


def print_table(result: dict[str, Any]) -> None:
    """Prints one row per noise level, and the fields of a config that fit the latents."""
    table = Table(title=f"latents of {result['config']['vae']}, {result['scenes']} scenes")
    most = max(result["levels"][0]["mask"]["matched_filter"], key=int)
    columns = {
        "first component": ("{:.0%}", lambda x: x["explained_variance"][0]),
        "SVM": ("{:.3f}", lambda x: x["linear_svm"]["balanced_accuracy"]),
        f"1 of {most}": ("{:.3f}", lambda x: x["matched_filter"][most]),
        "PSNR": ("{:.1f}", lambda x: x["decoded_psnr"]),
    }
    for heading in ("t", "log-SNR"):
        table.add_column(heading, justify="right")
    for kind in KINDS:
        for name in columns:
            table.add_column(f"{kind}: {name}", justify="right")
    table.add_column("mask: IoU", justify="right")
    for level in result["levels"]:
        values = [f.format(get(level[kind])) for kind in KINDS for f, get in columns.values()]
        snr = "clean" if level["log_snr"] is None else f"{level['log_snr']:.1f}"
        table.add_row(f"{level['t']:g}", snr, *values, f"{level['mask']['decoded_mIoU']:.3f}")
    console().print(table)
    fields = " ".join(f"--config.{name}={value:.3g}" for name, value in result["fitting_fields"].items())
    console().print(f"noise levels that fit these latents: {fields}")
