"""docs/findings.md and its figures are those that the results give."""

import pathlib
import runpy

from genmask_jax.tools.sweep.figure import draw

DOCS = pathlib.Path(__file__).parents[1] / "docs"
FINDINGS = runpy.run_path(str(DOCS / "write_findings.py"))
ADVICE = "run python docs/write_findings.py"


def test_the_page_is_up_to_date():
    assert (DOCS / "findings.md").read_text() == FINDINGS["write_page"](), ADVICE


def test_the_figures_are_up_to_date():
    for claim in FINDINGS["CLAIMS"]:
        figure = draw(*FINDINGS["read_sweep"](claim.sweep))
        assert (DOCS / "findings" / f"{claim.sweep}.svg").read_text() == figure, ADVICE


def test_all_results_belong_to_a_claim_and_are_of_three_seeds():
    claims = {claim.sweep for claim in FINDINGS["CLAIMS"]}
    assert {path.stem for path in (DOCS / "findings").glob("*.jsonl")} == claims
    for name in claims:
        config, lines = FINDINGS["read_sweep"](name)
        runs = [(line["variant"], line["seed"]) for line in lines]
        assert len(set(runs)) == len(runs)
        for variant in {variant for variant, _ in runs}:
            assert len([seed for other, seed in runs if other == variant]) >= 3
        assert {line["sweep"] for line in lines} == {config.name}
