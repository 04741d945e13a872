"""Scores the model in the package and writes its card, `genmask_jax/pretrained/refershapes/README.md`.

    python docs/write_card.py --run=runs/box

--run is the training run of the model, which records the machines, the steps and the number of examples.
Masks are scored on 512 scenes of each set, and images on 192 prompts, with the model's own sampler. --workdir
has the scores of each set in a folder; finished sets are not scored again.
"""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

from etils import epath

from genmask_jax.checkpoints.packed import read_step
from genmask_jax.checkpoints.runs import read_config
from genmask_jax.config import SamplerConfig, TrainConfig
from genmask_jax.data.refershapes.scene import RADII
from genmask_jax.evaluation.on_scenes import score_scenes
from genmask_jax.evaluation.scoring import Scoring
from genmask_jax.evaluation.shape_rule import MIN_IOU
from genmask_jax.pretrained import MODELS_DIR

MODEL = "refershapes"
SETS = {
    "varied": ("varied", "test"),
    "val": ("varied", "val"),
    "muted": ("muted", "test"),
    "hand_drawn": ("varied", "hand_drawn"),
}
"""Sets of scenes by name: `config.data.scenes` and the split."""
NUM_SCENES, NUM_PROMPTS = 512, 192


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", required=True, type=pathlib.Path, help="directory of the training run")
    parser.add_argument("--workdir", default="runs/card", type=pathlib.Path, help="directory for scores")
    arguments = parser.parse_args()
    folder = MODELS_DIR / MODEL
    config = read_config(TrainConfig, folder)
    scores = {name: score(config, name, arguments.workdir) for name in SETS}
    size = sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.suffix != ".md")
    card = write_card(config, scores, describe_training(arguments.run, read_step(folder)), size)
    (folder / "README.md").write_text(card)


def score(config: TrainConfig, name: str, workdir: pathlib.Path) -> dict[str, Any]:
    """The metrics of one set; sets that were scored before are read."""
    scenes, split = SETS[name]
    path = workdir / name / "metrics.json"
    if not path.exists():
        data = dataclasses.replace(config.data, scenes=scenes)
        scoring = Scoring(MODEL, "last", config.sampler, 32, 0, 1, str(path.parent))
        score_scenes(scoring, data, split, count=NUM_SCENES, num_images=NUM_PROMPTS, choose_no_target=False)
    return json.loads(path.read_text())


def describe_training(run: pathlib.Path, step: int) -> str:
    """Steps, examples and machines of a run, of which the first `step` steps were made."""
    sessions = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    machines = sorted({_machine(session) for session in sessions})
    loop = read_config(TrainConfig, epath.Path(run)).loop
    examples = step * loop.global_batch_size // 2
    planned = f" of {loop.num_steps:,}" if step < loop.num_steps else ""
    count = f"{len(sessions)} session{'s' if len(sessions) > 1 else ''}"
    made = f"{step:,}{planned} steps, {examples:,} masks and as many images"
    return f"{made}, in {count} on {' and '.join(machines)}"


def _machine(session: dict[str, Any]) -> str:
    """The accelerators of a session, or its cores if it had none."""
    on_cpu = session["devices"].endswith("cpu")
    return f"{session['cores']} x {session['processor']}" if on_cpu else session["devices"]


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns except the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def masks_table(metrics: dict[str, Any]) -> str:
    groups = {"**all**": metrics, **metrics["groups"]}
    keys = ("mIoU", "oIoU", "P@0.5")
    rows = [
        [name, str(group["count"]), *(f"{group[key]:.3f}" for key in keys)] for name, group in groups.items()
    ]
    return table(["expressions", "scenes", "mIoU", "oIoU", "IoU >= 0.5"], rows)


def images_table(scores: dict[str, Any]) -> str:
    rows = []
    for name in ("varied", "val", "muted"):
        single, full = scores[name]["generation"], scores[name]["scenes"]
        rows.append([name, percent(single["share_right"]), percent(full["share_right"])])
    return table(["prompts", '"a COLOUR SHAPE"', "whole prompts"], rows)


def absent_table(scores: dict[str, Any]) -> str:
    rows = []
    for name in ("val", "varied", "hand_drawn"):
        metrics = scores[name]["absent"]
        rows.append([name, percent(metrics["absent_reported"]), percent(metrics["present_found"])])
    return table(["scenes", "absent objects reported as absent", "present objects found"], rows)


def write_card(config: TrainConfig, scores: dict[str, Any], training: str, size: int) -> str:
    """The text of the card.

    Args:
        config: config of the model.
        scores: metrics of each of SETS.
        training: result of `describe_training`.
        size: size of the model in bytes.
    """
    return describe_model(config, training, size, scores["varied"]["version"]) + describe_scores(
        config, scores
    )


def describe_model(config: TrainConfig, training: str, size: int, version: str) -> str:
    """The first part of the card, without scores."""
    sampler = config.sampler
    return f"""# {MODEL}

Segments and generates coloured shapes at 64 px: the objects of *ReferShapes*, on any plain, striped or shaded
background. It shows what a GenMask model does without training one.

    python launch/sample.py --image=IMAGE --text="the small star on the left" --out=runs/out
    python launch/sample.py --text="a large red circle" --out=runs/out

- **Data:** ReferShapes, generated by this package (`genmask_jax/data/refershapes/`): no photographs, no downloads.
- **Licence:** that of the package (Apache License 2.0).
- **Weights:** EMA, float16; {size / 1e6:.1f} MB with the VAE.
- **Training:** {training}. Seed {config.seed}.
- **Sampler:** {sampler.image_steps} steps, guidance scale {sampler.guidance_scale:g} and shift {sampler.shift:g} for images; mask threshold {sampler.mask_threshold:g}.
  {describe_no_target(sampler)}

`configs/{config.name}.py` has the commands that trained its VAE and the model, and

    python launch/export_weights.py genmask --from=runs/box --out=genmask_jax/pretrained/refershapes

packed it (then, in `config.json`, `vae` was set to `refershapes` and `num_workers` to 0). This card was written by
`python docs/write_card.py --run=runs/box` (version {version}); {NUM_SCENES} scenes of each set, one pass per mask.
"""  # noqa: E501 (lines of the card)


def describe_no_target(sampler: SamplerConfig) -> str:
    """The rule that reports an object as absent."""
    if not (sampler.no_target_area or sampler.no_target_score):
        return "An object is reported as absent if its mask is empty."
    return (
        f"An object is reported as absent if its mask covers less than {sampler.no_target_area:g} of the "
        f"image, or has a score below {sampler.no_target_score:g}."
    )


def describe_scores(config: TrainConfig, scores: dict[str, Any]) -> str:
    """The scores of the card, and the limits of the model."""
    varied = scores["varied"]
    single, full, swapped = varied["generation"], varied["scenes"], varied["swapped"]
    by_kind = ", ".join(f"{kind} {percent(fraction)}" for kind, fraction in single["kinds"].items())
    return f"""
## Masks

Varied scenes of the test split. If the prompt is changed to name another object, the mIoU is {swapped["mIoU_named"]:.3f}
with that object and {swapped["mIoU_original"]:.3f} with the original one (lower is better).

{masks_table(varied)}

Scenes that are drawn with Pillow, at 200 to 800 px (`--split=hand_drawn`):

{masks_table(scores["hand_drawn"])}

Muted scenes of the test split (`config.data.scenes="muted"`):

{masks_table(scores["muted"])}

## Absent objects

{absent_table(scores)}

## Images

Share of images that show exactly what the prompt names (`evaluation/shape_rule.py`, `scene_rule.py`), of
{single["count"]} images of one object and {full["count"]} of whole prompts:

{images_table(scores)}

By shape, "a COLOUR SHAPE" in varied scenes: {by_kind}.

## Limits

- It knows the words in `instruction/words.txt`. Phrases with other words are reported, and their masks mean little.
- Images are resized to a square of {config.data.size} px, and masks back.
- Training shapes have a radius of {100 * RADII[0]:.0f} % to {100 * RADII[1]:.0f} % of the image's side. Smaller objects are often missed, or confused
  with others.
- Images: see the shares above. A shape counts as the kind that it overlaps best, if the IoU is at least {MIN_IOU:g}.
"""  # noqa: E501 (lines of the card)


if __name__ == "__main__":
    main()
