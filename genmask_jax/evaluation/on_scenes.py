"""Scores a checkpoint on held-out examples of its training dataset: masks and generated images."""

import json
from typing import Any, NamedTuple, cast

import numpy as np
from etils import epath

from genmask_jax.config import DataConfig
from genmask_jax.data.examples import GenerateExample, Source
from genmask_jax.data.prepared.source import PreparedLabelMaps
from genmask_jax.data.refershapes.source import ReferShapesGenerate
from genmask_jax.data.sources import generate_source, generates, label_maps, scored_source, segment_source
from genmask_jax.evaluation import no_target
from genmask_jax.evaluation.generation import evaluate_generation, evaluate_prompts
from genmask_jax.evaluation.label_maps import LabelMapResult, evaluate_label_maps, is_closed
from genmask_jax.evaluation.linear_readout import with_linear_readout
from genmask_jax.evaluation.report import print_tables
from genmask_jax.evaluation.scoring import Scoring
from genmask_jax.evaluation.segmentation import evaluate_segmentation, sheet_rows
from genmask_jax.evaluation.uncertainty import evaluate_uncertainty
from genmask_jax.evaluation.uncertainty_figure import draw_uncertainty
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.inference.mask_sampler import MaskSampler
from genmask_jax.system import Networks
from genmask_jax.utils import hosts
from genmask_jax.utils.paths import write_text
from genmask_jax.utils.sheets import generation_sheet, label_sheet, segmentation_sheet

SHEET_SIZE = 24
"""Number of examples on a contact sheet."""


class _GeneratedSheet(NamedTuple):
    """Generated images `[S, S, 3]` of a contact sheet, and their prompts."""

    images: list[np.ndarray]
    prompts: list[str]


def score_scenes(
    scoring: Scoring,
    data: DataConfig,
    split: str,
    *,
    count: int,
    num_images: int,
    choose_no_target: bool,
    noises: int = 0,
    linear_readout: bool = False,
) -> None:
    """Scores masks and generated images, prints tables and writes metrics, examples and contact sheets.

    Args:
        scoring: the checkpoint and its sampling options.
        data: the dataset, at the model's training resolution.
        split: "val" or "test"; also "hand_drawn" for ReferShapes.
        count: number of examples to score.
        num_images: number of images to generate.
        choose_no_target: also find the no-target rule with the best gIoU.
        noises: number of noises per mask of a report on uncertainty; 0 for no report.
        linear_readout: read masks by `with_linear_readout`, not by the VAE's decoder.

    Raises:
        UserError: the data or the checkpoint does not exist, or `choose_no_target` is not allowed on the
            split.
    """
    if choose_no_target:
        no_target.need_val_scenes(data.name, split, scoring.sampler)
    source = scored_source(data, split)
    prompts = generate_source(data, split) if generates(data) else None
    labelled = label_maps(data, split)
    out = scoring.make_out(f"evaluation_{split}")
    networks, segmenter, record = scoring.open()
    metrics: dict[str, Any] = {"split": split}
    if linear_readout:
        segmenter, metrics["readout"] = with_linear_readout(segmenter, segment_source(data, "train"))
    result = evaluate_segmentation(
        segmenter, source, count, swapped=True, absent=data.name == "refershapes", keep=SHEET_SIZE
    )
    metrics |= result.metrics
    if noises:
        metrics["uncertainty"] = evaluate_uncertainty(segmenter, source, count, noises)
    sheets: dict[str, _GeneratedSheet] = {}
    if prompts is not None:
        generation_metrics, sheets = _score_generation(scoring, networks, prompts, num_images)
        metrics |= generation_metrics
    maps = None
    if labelled is not None:
        maps = _score_label_maps(segmenter, labelled, data)
        metrics["label_maps"] = maps.metrics
    metrics |= {"data": data.name, **record}
    if not hosts.is_first():
        return
    if labelled is not None and maps is not None:
        _write_label_sheet(labelled, maps.predicted, out / "label_maps.png")
    segmentation_sheet(sheet_rows(result, source), out / "masks.png")
    _write(out, metrics, result.examples, sheets)
    if choose_no_target:
        no_target.print_choices(no_target.choose_no_target(no_target.masks_from_examples(result.examples)))


def _score_generation(
    scoring: Scoring, networks: Networks, prompts: Source[GenerateExample], num_images: int
) -> tuple[dict[str, Any], dict[str, _GeneratedSheet]]:
    """Generates images and returns metrics and contact sheets; only ReferShapes has metrics."""
    is_refershapes = isinstance(prompts, ReferShapesGenerate)
    count = min(num_images if is_refershapes else SHEET_SIZE, len(prompts))
    texts = [prompts[i]["text"] for i in range(count)]
    generator = ImageSampler(networks, scoring.sampler, batch_size=scoring.batch_size, seed=scoring.seed)
    images = generator(texts)
    sheets = {"images": _GeneratedSheet(list(images[:SHEET_SIZE]), texts[:SHEET_SIZE])}
    if not is_refershapes:
        return {}, sheets
    metrics: dict[str, Any] = {"scenes": evaluate_prompts(images, prompts)}
    metrics["generation"], images, texts = evaluate_generation(generator, prompts, num_images)
    sheets["shapes"] = _GeneratedSheet(list(images[: 2 * SHEET_SIZE]), texts[: 2 * SHEET_SIZE])
    return metrics, sheets


def _score_label_maps(
    segmenter: MaskSampler, labelled: PreparedLabelMaps, data: DataConfig
) -> LabelMapResult:
    """Scores the label maps of all images of a split."""
    closed = is_closed(cast(PreparedLabelMaps, label_maps(data, "train")))
    threshold = 0.0 if closed else segmenter.sampler.mask_threshold
    return evaluate_label_maps(segmenter, labelled, threshold, len(labelled), SHEET_SIZE // 3)


def _write_label_sheet(labelled: PreparedLabelMaps, predicted: list[np.ndarray], path: epath.Path) -> None:
    """Writes a contact sheet of the first images with their true and predicted label maps."""
    examples = [labelled[i] for i in range(len(predicted))]
    images, truths = (
        [example["full_image"] for example in examples],
        [example["labels"] for example in examples],
    )
    label_sheet(images, truths, predicted, labelled.classes, path)


def _write(
    out: epath.Path,
    metrics: dict[str, Any],
    examples: list[dict[str, Any]],
    sheets: dict[str, _GeneratedSheet],
) -> None:
    """Writes and prints all results."""
    for name, sheet in sheets.items():
        generation_sheet(sheet.images, sheet.prompts, out / f"{name}.png")
    if "uncertainty" in metrics:
        write_text(out / "uncertainty.svg", draw_uncertainty(metrics["uncertainty"]))
    write_text(out / "metrics.json", json.dumps(metrics, indent=2))
    lines = (json.dumps(example) for example in examples)
    write_text(out / "examples.jsonl", "\n".join(lines) + "\n")
    print_tables(metrics)
    print(f"wrote metrics.json, examples.jsonl and contact sheets to {out}")
