"""Writes docs/findings.md and its figures from the results of sweeps in docs/findings/.

    cp runs/passes/results.jsonl docs/findings/passes.jsonl
    python docs/write_findings.py

docs/findings/NAME.jsonl has the results of configs/ablations/NAME.py. CLAIMS says what each sweep tests and
what it found; a verdict is written by hand, after a look at the table.
"""

import dataclasses
import pathlib
from typing import Any

from etils import epath

from genmask_jax.config import SweepConfig
from genmask_jax.config.checks import from_config_dict
from genmask_jax.tools.sweep.figure import draw
from genmask_jax.tools.sweep.results import read_lines
from genmask_jax.tools.sweep.table import missing_metrics, to_markdown
from genmask_jax.utils.config_files import load_config

DOCS = pathlib.Path(__file__).parent
RESULTS = DOCS / "findings"


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim, and the sweep that tests it.

    title: heading of its section.
    claim: what is claimed, and where.
    paper: the paper's own figures, where known; empty if not.
    sweep: name of a config in configs/ablations/, and of its results in docs/findings/.
    verdict: what the sweep found, in a sentence or two.
    """

    title: str
    claim: str
    paper: str
    sweep: str
    verdict: str


CLAIMS = (
    Claim(
        title="Passes per mask",
        claim="A mask takes one pass: a further pass does not improve it.",
        paper="",
        sweep="passes",
        verdict="Not decided. After 250 steps, a second pass changes mIoU by less than 0.002, but masks are "
        "still poor, so this says little about a trained model.",
    ),
)


def main() -> None:
    (DOCS / "findings.md").write_text(write_page())
    for claim in CLAIMS:
        (RESULTS / f"{claim.sweep}.svg").write_text(draw(*read_sweep(claim.sweep)))


def read_sweep(name: str) -> tuple[SweepConfig, list[dict[str, Any]]]:
    """The config of a sweep, with the metrics that its results have, and the results."""
    config = from_config_dict(SweepConfig, load_config(f"ablations/{name}"))
    lines = read_lines(epath.Path(RESULTS / f"{name}.jsonl"))
    missing = missing_metrics(config, lines)
    return dataclasses.replace(config, metrics=tuple(m for m in config.metrics if m not in missing)), lines


def write_page() -> str:
    """The text of docs/findings.md."""
    rows = [f"| [{claim.title}](#{anchor(claim.title)}) | {claim.verdict} |" for claim in CLAIMS]
    summary = "\n".join(["| claim | verdict |", "|---|---|", *rows])
    return "\n\n".join([INTRODUCTION, summary, *map(write_section, CLAIMS)])


INTRODUCTION = """# Findings

Claims about the method, each tested by a [sweep](training.md#comparing-variants) of several seeds on ReferShapes at
64 px. Training runs are short, so the sweeps compare how fast masks are learned. `python docs/write_findings.py` writes
this page from the results in `docs/findings/`, which also contain the commands of every run."""  # noqa: E501


def anchor(title: str) -> str:
    """The link target of a heading."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


def write_section(claim: Claim) -> str:
    """The section of one claim."""
    config, lines = read_sweep(claim.sweep)
    paper = f"\n\n**In the paper:** {claim.paper}" if claim.paper else ""
    return (
        f"## {claim.title}\n\n**Claim:** {claim.claim}{paper}\n\n**Verdict:** {claim.verdict}\n\n"
        f"{to_markdown(config, lines, f'runs/findings/{claim.sweep}')}\n"
        f"![Scores of all seeds, and differences from {config.reference}](findings/{claim.sweep}.svg)\n"
    )


if __name__ == "__main__":
    main()
