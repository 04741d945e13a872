"""Writes one HTML file about one or several runs: curves, scores, contact sheets, config, machine.

    python launch/report.py runs/tiny
    python launch/report.py runs/tiny runs/seed1 --out=runs/compared.html

Runs may still be in progress. The file needs no network. launch/train.py and launch/evaluate.py write it to
the run's directory as report.html.
"""

import argparse

from genmask_jax import cli
from genmask_jax.utils.errors import UserError


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("runs", nargs="+", help="--workdir of one or several runs")
    parser.add_argument(
        "--out", help="file to write; by default report.html, in the run's directory for a single run"
    )
    arguments = cli.parse(parser)
    cli.guard(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Writes the report. Raises UserError."""
    from genmask_jax.tools.report import write_report

    folder = f"{arguments.runs[0]}/" if len(arguments.runs) == 1 else ""
    out = arguments.out or f"{folder}report.html"
    try:
        print(write_report(arguments.runs, out))
    except OSError as error:
        raise UserError(f"--out={out}: {error}") from error


if __name__ == "__main__":
    main()
