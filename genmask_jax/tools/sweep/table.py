"""The table of a sweep, on the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from genmask_jax.config import SweepConfig
from genmask_jax.tools.sweep.statistics import in_order, paired_difference, scores_by_seed
from genmask_jax.utils.console import console

Lines = Sequence[Mapping[str, Any]]


def make_rows(config: SweepConfig, lines: Lines) -> tuple[list[str], list[list[str]]]:
    """The header and one row per variant with results."""
    header = ["variant", "seeds"]
    for metric in config.metrics:
        header += [metric, "difference"]
    rows = []
    for variant in in_order(config):
        seeds = {line["seed"] for line in lines if line["variant"] == variant}
        if seeds:
            cells = [cell for metric in config.metrics for cell in _cells(config, lines, variant, metric)]
            rows.append([variant, str(len(seeds)), *cells])
    return header, rows


def _cells(config: SweepConfig, lines: Lines, variant: str, metric: str) -> tuple[str, str]:
    """Mean with lowest and highest score, and the difference from the reference with its interval."""
    scores = scores_by_seed(lines, variant, metric)
    if not scores:
        return "", ""
    values = list(scores.values())
    cell = f"{np.mean(values):.3f}"
    if len(values) > 1:
        cell += f" ({min(values):.3f} to {max(values):.3f})"
    if variant == config.reference:
        return cell, "reference"
    difference = paired_difference(scores, scores_by_seed(lines, config.reference, metric))
    if difference is None:
        return cell, ""
    margin = f" ± {difference.margin:.3f}" if difference.count > 1 else ""
    return cell, f"{difference.mean:+.3f}{margin}"


def print_table(config: SweepConfig, lines: Lines) -> None:
    """Prints the table."""
    header, rows = make_rows(config, lines)
    table = Table(title=config.name, title_justify="left", box=box.SIMPLE_HEAD, caption=caption())
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def to_markdown(config: SweepConfig, lines: Lines, workdir: str) -> str:
    """The command, the table, its explanation, and the machines and versions of the runs.

    Args:
        config: the sweep.
        lines: its results.
        workdir: directory of the runs in the command.
    """
    header, rows = make_rows(config, lines)
    table = "\n".join(
        f"| {' | '.join(row)} |" for row in (header, ["---", *["---:"] * (len(header) - 1)], *rows)
    )
    commands = "\n".join(_distinct(f"    {line['command']} --workdir={workdir}" for line in lines))
    machines = _distinct(f"{line['cores']} x {line['processor']}" for line in lines)
    versions = _distinct(line["version"] for line in lines)
    minutes = np.mean([sum(line["seconds"].values()) for line in lines]) / 60
    return (
        f"{commands}\n\n{table}\n\n{caption()}\n\n"
        f"{minutes:.1f} min per run on average, with training. Cores: {', '.join(machines)}. "
        f"Version: {', '.join(versions)}.\n"
    )


def caption() -> str:
    """How to read the table."""
    return (
        "Mean over seeds (lowest to highest). Differences from the reference are paired by seed, with a 95 % "
        "confidence interval (Student's t)."
    )


def missing_metrics(config: SweepConfig, lines: Lines) -> list[str]:
    """The metrics that no run has."""
    return [name for name in config.metrics if all(line["scores"].get(name) is None for line in lines)]


def _distinct(values: Any) -> list[str]:
    return sorted(set(values))
