"""Prints tables of scores on the terminal."""

from typing import Any

from rich import box
from rich.table import Table

from genmask_jax.utils.console import console

PRECISIONS = ("P@0.5", "P@0.7", "P@0.9")
UNCERTAINTIES = ("probability", "spread")


def print_tables(metrics: dict[str, Any]) -> None:
    """Prints the scores of `launch/evaluate.py`, in per cent."""
    out = console()
    title = f"{metrics['data']} {metrics['split']}, step {metrics['checkpoint_step']}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("expressions", "count", "mIoU", "oIoU", *PRECISIONS, "every\nobject"):
        table.add_column(column, justify="left" if column == "expressions" else "right")
    groups = {"all": metrics, **metrics["groups"]}
    for name, group in groups.items():
        scores = [f"{100 * group[key]:.1f}" for key in ("mIoU", "oIoU", *PRECISIONS, "every_object_mIoU")]
        table.add_row(name, str(group["count"]), *scores)
    out.print(table)
    if "swapped" in metrics:
        swapped = metrics["swapped"]
        original, named = 100 * swapped["mIoU_original"], 100 * swapped["mIoU_named"]
        out.print(
            f"swapped prompts, which name another object ({swapped['count']} scenes): "
            f"mIoU {original:.1f} with the original object, {named:.1f} with the named object"
        )
    if "readout" in metrics:
        decoder, linear = (metrics["readout"][name]["ms_per_mask"] for name in ("decoder", "linear"))
        out.print(
            f"linear map from latents to masks: {linear:.3f} ms per mask, in place of the VAE decoder's "
            f"{decoder:.3f} ms"
        )
    if "absent" in metrics:
        out.print(_absent_table(metrics["absent"], metrics["sampler"]))
    if "uncertainty" in metrics:
        out.print(_uncertainty_table(metrics["uncertainty"]))
    if "label_maps" in metrics:
        out.print(_label_map_table(metrics["label_maps"]))
    if "generation" in metrics:
        generation = metrics["generation"]
        right, real = 100 * generation["share_right"], 100 * generation["share_right_of_real_images"]
        out.print(f'"a COLOUR SHAPE" generated {generation["count"]} times: {right:.1f} % right', end=" ")
        out.print(f"(by the same rule, real images: {real:.1f} %)")
        for groups in ("kinds", "colours"):
            out.print("  " + ", ".join(f"{name} {100 * x:.0f}" for name, x in generation[groups].items()))
    if "scenes" in metrics:
        scenes = metrics["scenes"]
        right, real = 100 * scenes["share_right"], 100 * scenes["share_right_of_real_images"]
        by = ", ".join(f"{100 * x:.0f} of {n}" for n, x in scenes["objects"].items())
        out.print(
            f"prompts of the split shown exactly: {right:.1f} % of {scenes['count']}; objects: {by}", end=" "
        )
        out.print(f"(by the same rule, real images: {real:.1f} %)")
        objects, colours = 100 * scenes["objects_f1"], 100 * scenes["colours_f1"]
        out.print(f"objects shown (F1): {objects:.1f} %; only the colour counted: {colours:.1f} %")
    if metrics["seconds_per_image"]:
        milliseconds = 1000 * metrics["seconds_per_image"]
        out.print(f"{milliseconds:.1f} ms per mask, in batches of {metrics['batch_size']}")


def _absent_table(metrics: dict[str, Any], sampler: dict[str, Any]) -> Table:
    """Shares of absent and present objects that are reported correctly, in per cent."""
    rule = ", ".join(f"{name} {sampler[name]:g}" for name in ("no_target_area", "no_target_score"))
    table = Table(title=f"absent objects\n({rule})", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("expressions", "count", "%"):
        table.add_column(column, justify="left" if column == "expressions" else "right")
    groups = {"absent, reported as absent": metrics}
    groups |= {f"  {name}": group for name, group in metrics["groups"].items()}
    for name, group in groups.items():
        table.add_row(name, str(group["count"]), f"{100 * group['absent_reported']:.1f}")
    table.add_row("present, found", str(metrics["count"]), f"{100 * metrics['present_found']:.1f}")
    return table


def _uncertainty_table(metrics: dict[str, Any]) -> Table:
    """The calibration error, and the area under the risk-coverage curve for each kind of uncertainty."""
    title = f"uncertainty, noises per mask: {metrics['noises']}\n(calibration error {metrics['ece']:.4f})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("risk", "of all", *(f"area, by {name}" for name in UNCERTAINTIES if name in metrics)):
        table.add_column(column, justify="left" if column == "risk" else "right")
    for name, risk in (("pixels", "wrong pixels"), ("masks", "1 - IoU of masks")):
        scores = [metrics[kind][name] for kind in UNCERTAINTIES if kind in metrics]
        areas = [f"{score['aurc']:.4f}" for score in scores]
        table.add_row(risk, f"{scores[0]['risk']:.4f}", *areas)
    return table


def _label_map_table(metrics: dict[str, Any]) -> Table:
    """Scores of label maps over the whole split, in per cent."""
    table = Table(title="label maps, all images", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, iou in metrics["IoU"].items():
        table.add_row(name, "absent" if iou is None else f"{100 * iou:.1f}")
    table.add_section()
    table.add_row("mean", f"{100 * metrics['mIoU']:.1f}")
    if "mIoU_with_none" in metrics:
        table.add_row('mean, with "no class" as a class', f"{100 * metrics['mIoU_with_none']:.1f}")
    table.add_row("pixel accuracy", f"{100 * metrics['pixel_accuracy']:.1f}")
    return table
