"""Scores a checkpoint on held-out examples of its training dataset: masks and generated images."""

import json
from typing import Any, cast

from etils import epath

from genmask_jax.config import DataConfig
from genmask_jax.data.prepared.source import PreparedLabelMaps
from genmask_jax.data.refershapes.source import ReferShapesGenerate
from genmask_jax.data.sources import generate_source, generates, label_maps, scored_source
from genmask_jax.evaluation import no_target
from genmask_jax.evaluation.generation import evaluate_generation, evaluate_prompts
from genmask_jax.evaluation.label_maps import evaluate_label_maps, is_closed
from genmask_jax.evaluation.report import print_tables
from genmask_jax.evaluation.scoring import Scoring
from genmask_jax.evaluation.segmentation import evaluate_segmentation, sheet_rows
from genmask_jax.inference.image_sampler import ImageSampler
from genmask_jax.utils import hosts
from genmask_jax.utils.paths import write_text
from genmask_jax.utils.sheets import generation_sheet, label_sheet, segmentation_sheet

ON_SHEET = 24
"""Number of examples on a contact sheet."""


def score_scenes(
    scoring: Scoring,
    data: DataConfig,
    split: str,
    *,
    count: int,
    num_images: int,
    choose_no_target: bool,
) -> None:
    """Scores masks and generated images, prints tables and writes metrics, examples and contact sheets.

    Args:
        scoring: which checkpoint to score, and how.
        data: the dataset, at the size that the model was trained at.
        split: val or test; hand_drawn of ReferShapes.
        count: how many of its examples to score.
        num_images: how many images to generate.
        choose_no_target: whether to find the no-target rule with the best gIoU.

    Raises:
        UserError: the data or the checkpoint does not exist, or a rule may not be chosen on the split.
    """
    if choose_no_target:
        no_target.need_val_scenes(data.name, split, scoring.sampler)
    source = scored_source(data, split)
    prompts = generate_source(data, split) if generates(data) else None
    out = scoring.make_out(f"evaluation_{split}")
    networks, segmenter, record = scoring.open()
    absent = data.name == "refershapes"
    result = evaluate_segmentation(segmenter, source, count, swapped=True, absent=absent, keep=ON_SHEET)
    metrics = {"split": split, **result.metrics}
    sheets: dict[str, tuple[Any, list[str]]] = {}
    if prompts is not None:
        generator = ImageSampler(networks, scoring.sampler, batch_size=scoring.batch_size, seed=scoring.seed)
        shapes = isinstance(prompts, ReferShapesGenerate)  # of others, only a sheet is made
        texts = [prompts[i]["text"] for i in range(min(num_images if shapes else ON_SHEET, len(prompts)))]
        images = generator(texts)
        sheets["images"] = (images[:ON_SHEET], texts[:ON_SHEET])
        if shapes:
            metrics["scenes"] = evaluate_prompts(images, prompts)
            metrics["generation"], images, texts = evaluate_generation(generator, prompts, num_images)
            sheets["shapes"] = (images[: 2 * ON_SHEET], texts[: 2 * ON_SHEET])
    labelled = label_maps(data, split)
    if labelled is not None:
        closed = is_closed(cast(PreparedLabelMaps, label_maps(data, "train")))
        threshold = 0.0 if closed else scoring.sampler.mask_threshold
        maps = evaluate_label_maps(segmenter, labelled, threshold, len(labelled), ON_SHEET // 3)
        metrics["label_maps"] = maps.metrics
    metrics |= {"data": data.name, **record}
    if hosts.is_first():
        if labelled is not None:
            shown = [labelled[i] for i in range(len(maps.predicted))]
            images, truths = [one["full_image"] for one in shown], [one["labels"] for one in shown]
            label_sheet(images, truths, maps.predicted, labelled.classes, out / "label_maps.png")
        segmentation_sheet(sheet_rows(result, source), out / "masks.png")
        _write(out, metrics, result.examples, sheets)
        if choose_no_target:
            no_target.print_choices(no_target.choose_no_target(no_target.found_in_examples(result.examples)))


def _write(out: epath.Path, metrics: dict[str, Any], examples: list, sheets: dict[str, tuple]) -> None:
    for name, (images, texts) in sheets.items():
        generation_sheet(images, texts, out / f"{name}.png")
    write_text(out / "metrics.json", json.dumps(metrics, indent=2))
    lines = (json.dumps(example) for example in examples)
    write_text(out / "examples.jsonl", "\n".join(lines) + "\n")
    print_tables(metrics)
    print(f"wrote metrics.json, examples.jsonl and contact sheets to {out}")
