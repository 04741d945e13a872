"""docs/findings.md and its figures are those that the results give."""

import math
import pathlib
import runpy

import pytest

from genmask_jax.config import SweepConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.tools.sweep.figure import draw
from genmask_jax.tools.sweep.statistics import Difference
from genmask_jax.utils.config_files import load_config

DOCS = pathlib.Path(__file__).parents[1] / "docs"
FINDINGS = runpy.run_path(str(DOCS / "write_findings.py"))
ADVICE = "run python docs/write_findings.py"


def test_the_page_is_up_to_date():
    assert (DOCS / "findings.md").read_text() == FINDINGS["write_page"](), ADVICE


def test_the_figures_are_up_to_date():
    for claim in FINDINGS["run_claims"]():
        figure = draw(*FINDINGS["read_sweep"](claim.sweep))
        assert (DOCS / "findings" / f"{claim.sweep}.svg").read_text() == figure, ADVICE


def test_all_results_belong_to_a_claim_and_are_of_three_seeds():
    claims = {claim.sweep for claim in FINDINGS["run_claims"]()}
    assert {path.stem for path in (DOCS / "findings").glob("*.jsonl")} == claims
    for name in claims:
        config, lines = FINDINGS["read_sweep"](name)
        runs = [(line["variant"], line["seed"]) for line in lines]
        assert len(set(runs)) == len(runs)
        for variant in {variant for variant, _ in runs}:
            assert len([seed for other, seed in runs if other == variant]) >= 3
        assert {line["sweep"] for line in lines} == {config.name}


def test_every_sweep_has_a_claim_about_its_variants():
    sweeps = {path.stem for path in (DOCS.parent / "configs" / "ablations").glob("*.py")}
    assert {claim.sweep for claim in FINDINGS["CLAIMS"]} == sweeps
    for claim in FINDINGS["CLAIMS"]:
        config = from_config_dict(SweepConfig, load_config(f"ablations/{claim.sweep}"))
        assert set(claim.expected) <= {*config.variants} - {config.reference}
        assert set(claim.expected.values()) <= set(FINDINGS["RANGES"])
        assert claim.metric in config.metrics


@pytest.mark.parametrize(
    ("relation", "mean", "margin", "outcome"),
    [
        ("lower", -0.10, 0.05, "as claimed"),
        ("lower", -0.10, 0.15, "not decided"),
        ("lower", 0.10, 0.05, "not as claimed"),
        ("level", 0.01, 0.005, "as claimed"),
        ("level", -0.01, 0.05, "not decided"),
        ("level", -0.10, 0.05, "not as claimed"),
        ("not higher", -0.10, 0.05, "as claimed"),
        ("not higher", 0.03, 0.02, "not decided"),
        ("not higher", 0.10, 0.05, "not as claimed"),
        ("lower", -0.10, math.nan, "not decided"),
    ],
)
def test_outcomes_follow_from_the_interval(relation, mean, margin, outcome):
    assert FINDINGS["compare"](Difference(mean, margin, 3), FINDINGS["RANGES"][relation]) == outcome


def test_verdicts_follow_from_the_outcomes():
    config = from_config_dict(SweepConfig, load_config("ablations/losses"))
    claim = next(claim for claim in FINDINGS["CLAIMS"] if claim.sweep == "losses")

    def verdict(**means):
        variants = {"velocity": 0.6, **means}.items()
        lines = [
            {"variant": name, "seed": seed, "scores": {"mIoU": mean + 0.001 * seed}}
            for name, mean in variants
            for seed in range(3)
        ]
        return FINDINGS["judge"](claim, config, lines)

    worse, better = {"decoder_cross_entropy": 0.5}, {"linear_cross_entropy": 0.7}
    assert verdict(**worse, linear_cross_entropy=0.4) == (
        "Reproduced",
        "Difference in mIoU from `velocity`: `decoder_cross_entropy` -0.100 ± 0.000 (lower: as claimed), "
        "`linear_cross_entropy` -0.200 ± 0.000 (lower: as claimed).",
    )
    assert verdict(**worse, **better)[0] == "Reproduced in part"
    assert verdict(**worse)[0] == "Reproduced in part"
    assert verdict(**better)[0] == "Not reproduced"
    assert verdict()[0] == "Not decided"
    poor = verdict(velocity=0.1, decoder_cross_entropy=0.05)
    assert poor == ("Not decided", "Scores are too low for a verdict: the best mean mIoU is 0.101.")
