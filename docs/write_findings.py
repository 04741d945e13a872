"""Writes docs/findings.md and its figures from the results of sweeps in docs/findings/.

    cp runs/passes/results.jsonl docs/findings/passes.jsonl
    python docs/write_findings.py

docs/findings/NAME.jsonl has the results of configs/ablations/NAME.py. CLAIMS says what each sweep tests; the
verdict follows from the results.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from genmask_jax.config import SweepConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.tools.sweep.figure import draw
from genmask_jax.tools.sweep.results import read_lines
from genmask_jax.tools.sweep.statistics import Difference, paired_difference, scores_by_seed
from genmask_jax.tools.sweep.table import missing_metrics, to_markdown
from genmask_jax.utils.config_files import load_config

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS / "findings"
LEVEL = 0.02
"""Differences up to this are level."""
MIN_SCORE = 0.2
"""If no variant has a higher mean score, there is no verdict."""
RANGES = {
    "lower": (-math.inf, 0.0),
    "level": (-LEVEL, LEVEL),
    "not higher": (-math.inf, LEVEL),
}
"""Ranges of the difference from the reference, by what a claim expects of a variant."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and the sweep that tests it.

    title: heading of its section.
    claim: what is claimed, and where.
    paper: the paper's statement and figures, where known; empty if not.
    sweep: name of a config in configs/ablations/, and of its results in docs/findings/.
    expected: what the claim expects of variants' scores relative to the reference: a key of RANGES.
    metric: the score that the verdict compares.
    """

    title: str
    claim: str
    paper: str
    sweep: str
    expected: Mapping[str, str]
    metric: str = "mIoU"


CLAIMS = (
    Claim(
        title="Noise levels of masks",
        claim="Masks are learned best at extreme noise; moderate noise makes them worse.",
        paper="RefCOCO mIoU 82.2 with `a` of 0.05, 78.1 with 0.1 and 66.0 with 0.5.",
        sweep="mask_timesteps",
        expected=dict.fromkeys(("long_tail_0.1", "long_tail_0.5", "uniform", "logit_normal"), "lower"),
    ),
    Claim(
        title="Noise levels of images",
        claim="The spectrum of a VAE's latents gives the best noise levels for images, at any scale of the "
        "latents.",
        paper="",
        sweep="image_timesteps",
        expected={
            "lower": "lower",
            "higher": "lower",
            "fitting_quarter": "level",
            "lower_quarter": "lower",
            "higher_quarter": "lower",
            "shift_low": "not higher",
            "shift_high": "not higher",
        },
        metric="scenes.colours_f1",
    ),
    Claim(
        title="Images with prompts",
        claim="Training on images with prompts improves masks, and no share of them is better than a half.",
        paper="RefCOCO mIoU 82.2 with half of each batch, 81.0 without. Other shares are not reported.",
        sweep="generation_data",
        expected={
            "none_same_masks": "lower",
            "none_same_batch": "lower",
            "quarter": "not higher",
            "three_quarters": "not higher",
        },
    ),
    Claim(
        title="Clean frame",
        claim="Masks need the image's latents as a clean frame. Here, nothing else shows the image to the "
        "model, so the masks without it are a lower bound.",
        paper='A "significant drop" without it, although Qwen2.5-VL still sees the image. No figure is '
        "known.",
        sweep="clean_frame",
        expected={"off": "lower"},
    ),
    Claim(
        title="Losses of masks",
        claim="Squared error of the velocity is a better loss than cross-entropy of pixels.",
        paper="RefCOCO mIoU 82.2 with the velocity, 78.1 with cross-entropy through the VAE's decoder, 81.3 "
        "with a linear layer in its place.",
        sweep="losses",
        expected=dict.fromkeys(("decoder_cross_entropy", "linear_cross_entropy"), "lower"),
    ),
    Claim(
        title="Losses of masks, longer training",
        claim="With four times as many steps, squared error of the velocity is a better loss than "
        "cross-entropy of pixels.",
        paper="See above.",
        sweep="losses_longer",
        expected={"decoder_cross_entropy": "lower"},
    ),
    Claim(
        title="Passes per mask",
        claim="A mask takes one pass: further passes do not improve it.",
        paper="Masks take one pass. No figures for more are known.",
        sweep="passes",
        expected=dict.fromkeys(("2_passes", "4_passes", "8_passes"), "not higher"),
    ),
    Claim(
        title="Noise at inference",
        claim="It does not matter what a mask starts from: one noise, several that are averaged, or zeros.",
        paper="",
        sweep="noise_at_inference",
        expected=dict.fromkeys(("4_noises", "8_noises", "zeros"), "level"),
    ),
    Claim(
        title="Start of the flow",
        claim="Masks need noise to start from: a flow from the image's latents is worse.",
        paper="",
        sweep="mask_source",
        expected=dict.fromkeys(("image", "image_alone"), "lower"),
    ),
    Claim(
        title="Linear readout",
        claim="A linear map of the predicted latents reads masks as well as the VAE's decoder, in mIoU.",
        paper="Latents of masks are linearly separable: their first principal component already looks like "
        "the mask. Masks are decoded by the VAE.",
        sweep="readout",
        expected={"linear": "level"},
    ),
    Claim(
        title="Photographs",
        claim="On photographs, too, masks need extreme noise and a clean frame, and the squared error of the "
        "velocity is a better loss than cross-entropy.",
        paper="The claims of the other sweeps, on RefCOCO's photographs.",
        sweep="photographs",
        expected=dict.fromkeys(("logit_normal", "no_clean_frame", "decoder_cross_entropy"), "lower"),
        metric="label_maps.mIoU",
    ),
    Claim(
        title="Optimisers",
        claim="Muon learns masks faster than AdamW.",
        paper="",
        sweep="optimizers",
        expected=dict.fromkeys(("adamw_0.001", "adamw_0.003"), "lower"),
    ),
    Claim(
        title="Discriminative models",
        claim="A generative model is ahead of discriminative models with the same data, parameters and time.",
        paper="RefCOCO testA oIoU 83.3, against 79.1 of LISA-7B (fine-tuned), whose size and data differ.",
        sweep="baselines",
        expected=dict.fromkeys(("unet", "dit_linear"), "lower"),
    ),
)


def main() -> None:
    (DOCS / "findings.md").write_text(write_page())
    for claim in run_claims():
        (RESULTS / f"{claim.sweep}.svg").write_text(draw(*read_sweep(claim.sweep)))


def run_claims() -> list[Claim]:
    """The claims whose sweeps have results."""
    return [claim for claim in CLAIMS if (RESULTS / f"{claim.sweep}.jsonl").exists()]


def read_sweep(name: str) -> tuple[SweepConfig, list[dict[str, Any]]]:
    """The config of a sweep, with the metrics that its results have, and the results."""
    config = from_config_dict(SweepConfig, load_config(f"ablations/{name}"))
    lines = read_lines(epath.Path(RESULTS / f"{name}.jsonl"))
    missing = missing_metrics(config, lines)
    return dataclasses.replace(config, metrics=tuple(m for m in config.metrics if m not in missing)), lines


def judge(claim: Claim, config: SweepConfig, lines: list[dict[str, Any]]) -> tuple[str, str]:
    """The verdict on a claim, and what it follows from, as a sentence.

    An expectation holds if the 95 % confidence interval of the difference is within its range, and fails if
    the interval is outside.
    """
    scores = {name: scores_by_seed(lines, name, claim.metric) for name in config.variants}
    best = max(np.mean(list(by_seed.values())) for by_seed in scores.values() if by_seed)
    if best < MIN_SCORE:
        return "Not decided", f"Scores are too low for a verdict: the best mean {claim.metric} is {best:.3f}."
    outcomes, details = [], []
    for variant, relation in claim.expected.items():
        difference = paired_difference(scores[variant], scores[config.reference])
        outcomes.append(compare(difference, RANGES[relation]))
        if difference is not None:
            interval = f" {difference.mean:+.3f} ± {difference.margin:.3f}"
            details.append(f"`{variant}`{interval} ({relation}: {outcomes[-1]})")
    return overall(outcomes), f"Difference in {claim.metric} from `{config.reference}`: {', '.join(details)}."


def compare(difference: Difference | None, expected: tuple[float, float]) -> str:
    """Whether the interval of a difference is in the expected range; "not decided" without a difference."""
    if difference is None:
        return "not decided"
    low, high = difference.mean - difference.margin, difference.mean + difference.margin
    if expected[0] < low and high < expected[1]:
        return "as claimed"
    return "not as claimed" if high < expected[0] or low > expected[1] else "not decided"


def overall(outcomes: list[str]) -> str:
    """The verdict on all expectations of a claim."""
    if all(outcome == "as claimed" for outcome in outcomes):
        return "Reproduced"
    if "as claimed" in outcomes:
        return "Reproduced in part"
    return "Not reproduced" if "not as claimed" in outcomes else "Not decided"


def write_page() -> str:
    """The text of docs/findings.md."""
    claims = run_claims()
    rows = [
        f"| [{claim.title}](#{anchor(claim.title)}) | {claim.claim} | "
        f"{judge(claim, *read_sweep(claim.sweep))[0]} |"
        for claim in claims
    ]
    summary = "\n".join(["| sweep | claim | verdict |", "|---|---|---|", *rows])
    missing = ", ".join(f"`{claim.sweep}`" for claim in CLAIMS if claim not in claims)
    if missing:
        summary += f"\n\nSweeps of `configs/ablations/` without results yet: {missing}."
    return "\n\n".join([INTRODUCTION, summary, *map(write_section, claims)])


INTRODUCTION = f"""# Findings

Claims about the method, each tested by a [sweep](training.md#comparing-variants) of several seeds on ReferShapes at 64
px. Sweeps that train models take 1,000 steps, unless a section says otherwise, and compare how fast masks are learned;
those that vary only the inference take 4,000. `python docs/write_findings.py` writes this page from the results in
`docs/findings/`, which also contain the commands of every run.

A claim expects that a variant scores lower than the reference, that both are level (within {LEVEL}), or that the variant is
not higher (by more than {LEVEL}). An expectation holds (as claimed) if the 95 % confidence interval of the difference agrees
with it, fails (not as claimed) if the interval contradicts it, and is not decided otherwise."""  # noqa: E501


def anchor(title: str) -> str:
    """The link target of a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


def write_section(claim: Claim) -> str:
    """The section of one claim."""
    config, lines = read_sweep(claim.sweep)
    verdict, details = judge(claim, config, lines)
    paper = f"\n\n**In the paper:** {claim.paper}" if claim.paper else ""
    return (
        f"## {claim.title}\n\n**Claim:** {claim.claim}{paper}\n\n"
        f"**Verdict:** {verdict}. {details}\n\n"
        f"{to_markdown(config, lines, f'runs/findings/{claim.sweep}')}\n"
        f"![Scores of all seeds, and differences from {config.reference}](findings/{claim.sweep}.svg)\n"
    )


if __name__ == "__main__":
    main()
