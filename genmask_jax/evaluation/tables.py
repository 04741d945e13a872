"""Tables of benchmark scores, with published rows and the papers' order of columns."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table

from genmask_jax.data.published import RESULTS
from genmask_jax.utils.console import console

OWN_ROW, MISSING = "this", "-"
NAMES = {"refcoco": "RefCOCO", "refcocoplus": "RefCOCO+", "refcocog": "RefCOCOg", "grefcoco": "gRefCOCO",
         "reasonseg": "ReasonSeg", "image_folder": "image folder"}  # fmt: skip
COLUMNS = {
    "refcoco": (
        "refcoco:unc:val", "refcoco:unc:testA", "refcoco:unc:testB",
        "refcoco:google:val", "refcoco:google:test",
        "refcocoplus:unc:val", "refcocoplus:unc:testA", "refcocoplus:unc:testB",
        "refcocog:umd:val", "refcocog:umd:test", "refcocog:google:val",
    ),
    "reasonseg": ("reasonseg:val", "reasonseg:test"),
    "grefcoco": ("grefcoco:unc:val", "grefcoco:unc:testA", "grefcoco:unc:testB"),
}  # fmt: skip
"""Columns of each protocol, in the papers' order; other benchmarks come after them."""
METRICS = {
    "refcoco": ("oIoU", "mIoU", "P@0.5", "P@0.7", "P@0.9"),
    "reasonseg": ("gIoU", "cIoU"),
    "grefcoco": ("gIoU", "cIoU", "N-acc", "T-acc", "Pr@0.7"),
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table: headings, and rows of cells; the first cell is the row's name."""

    headings: list[str]
    rows: list[list[str]]


def make_grids(results: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[Grid]:
    """Returns one table per protocol in the results.

    Args:
        results: (protocol, metrics) by name of the benchmark, such as "refcoco:unc:testA".
    """
    grids = []
    for protocol, order in COLUMNS.items():
        names = [name for name, (key, _) in results.items() if key == protocol]
        names.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
        if names:
            make = _grid_of_metric_rows if protocol == "refcoco" else _grid_of_metric_columns
            grids.append(make(names, {name: results[name][1] for name in names}, METRICS[protocol]))
    return grids


def _grid_of_metric_rows(names: list[str], results: Mapping[str, Any], metrics: tuple[str, ...]) -> Grid:
    """The layout of the RefCOCO family: a row per metric. Published rows have only the first metric."""
    own = [[f"{OWN_ROW}, {metric}", *(_cell(results[name][metric]) for name in names)] for metric in metrics]
    rows = [[f"{model}, {metrics[0]}", *cells] for model, *cells in _published_rows(names)]
    return Grid([_heading(name) for name in names], own + rows)


def _grid_of_metric_columns(names: list[str], results: Mapping[str, Any], metrics: tuple[str, ...]) -> Grid:
    """The layout of the other protocols: a column per benchmark and metric."""
    pairs = [(name, metric) for name in names for metric in metrics]
    headings = [f"{_heading(name)} {metric}" for name, metric in pairs]
    own = [OWN_ROW, *(_cell(results[name][metric]) for name, metric in pairs)]
    return Grid(headings, [own, *_published_rows([f"{name}:{metric}" for name, metric in pairs])])


def _published_rows(keys: list[str]) -> list[list[str]]:
    """Rows of the models that have a published number for at least one key."""
    rows = ([model, *(_cell(numbers.get(key), 1) for key in keys)] for model, numbers in RESULTS.items())
    return [row for row in rows if set(row[1:]) != {MISSING}]


def _heading(name: str) -> str:
    dataset, *rest = name.split(":")
    split_by = f" ({rest[0][0]})" if rest[:-1] and rest[0] != "unc" else ""
    return f"{NAMES[dataset]} {rest[-1]}{split_by}"


def _cell(value: float | None, scale: float = 100) -> str:
    return MISSING if value is None else f"{scale * value:.1f}"


def print_grids(grids: list[Grid]) -> None:
    """Prints tables on the terminal, in per cent."""
    for grid in grids:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("%")
        for heading in grid.headings:
            table.add_column(heading.replace(" ", "\n"), justify="right")
        for row in grid.rows:
            table.add_row(*row)
        console().print(table)


def to_latex(grid: Grid) -> str:
    """Returns a LaTeX `tabular` (needs booktabs)."""

    def escape(text: str) -> str:
        return text.replace("%", r"\%").replace("_", r"\_")

    lines = [
        rf"\begin{{tabular}}{{l{'c' * len(grid.headings)}}}",
        r"\toprule",
        " & ".join(["", *map(escape, grid.headings)]) + r" \\",
        r"\midrule",
        *(" & ".join(map(escape, row)) + r" \\" for row in grid.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)
