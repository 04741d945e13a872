"""Compares variants of a training, or of its evaluation, over several seeds.

    python launch/sweep.py --config=configs/ablations/passes.py --workdir=runs/passes
    python launch/sweep.py --config=configs/ablations/mask_timesteps.py --workdir=runs/noise --processes=4
    python launch/sweep.py --config=configs/ablations/mask_timesteps.py --workdir=runs/noise --job=0/8

Trains and evaluates every variant with every seed, with launch/train.py and launch/evaluate.py, in
WORKDIR/runs/VARIANT_seedN. Rerun the command after an interruption: finished runs are skipped and the others
are resumed. --job=I/N runs only a share of the trainings, for a job array. --workdir gets results.jsonl (one
line for each finished run), table.md and figure.svg; --only_report writes the last two again.

--base.FIELD=VALUE sets a field of all trainings, --evaluate.FLAG=VALUE a flag of all evaluations.
"""

import argparse
import ast
import contextlib
import dataclasses
import re
import shlex
import sys
from typing import Any

from genmask_jax import cli
from genmask_jax.utils import config_files
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import is_object, make_directory, write_text


def main() -> None:
    parser = cli.make_parser(__doc__)
    parser.add_argument("--config", required=True, help="a sweep: a file, or a name such as ablations/passes")
    parser.add_argument("--workdir", required=True, help="local directory for all runs and results")
    parser.add_argument("--seeds", help="seeds instead of the config's, such as 0,1,2,3,4")
    parser.add_argument("--variants", help="run only these, such as uniform,logit_normal")
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="trainings at the same time, each on its own cores (default: 1)",
    )
    parser.add_argument(
        "--job", default="0/1", help="I/N, from 0: only every N-th training, from number I on"
    )
    parser.add_argument("--only_report", action="store_true", help="only write table and figure")
    arguments, overrides = cli.parse_known(parser)
    cli.guard(lambda: run(arguments, overrides))


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Runs what is not finished, and writes the report. Raises UserError; exits with 1 if a run failed."""
    from genmask_jax.tools.sweep.plan import make_plan, part_of
    from genmask_jax.tools.sweep.runner import Runner

    config = read_sweep(arguments.config, overrides, arguments.seeds)
    index, count = parse_job(arguments.job)
    if arguments.processes < 1:
        raise UserError(f"--processes={arguments.processes} must be positive")
    if is_object(arguments.workdir):
        raise UserError(f"--workdir={arguments.workdir}: a sweep needs a local directory")
    chosen = choose_variants(config, arguments.variants)
    workdir = make_directory(arguments.workdir, "--workdir")
    failures = []
    if not arguments.only_report:
        check_runs(chosen)
        words = ["python", "launch/sweep.py", f"--config={arguments.config}", *overrides]
        runner = Runner(chosen, workdir, shlex.join(words), cli.other_command)
        runner.run(part_of(make_plan(chosen, workdir), index, count), arguments.processes)
        failures = runner.failures
        if runner.stopped:
            raise UserError("stopped; rerun the command to continue")
    write_report(config, workdir)
    if failures:
        print("failed, rerun the command to try again:", *failures, sep="\n  ")
        sys.exit(1)


def read_sweep(value: str, overrides: list[str], seeds: str | None) -> Any:
    """Returns the `SweepConfig` of --config=VALUE, with the command line's changes. Raises UserError."""
    from genmask_jax.config import SweepConfig
    from genmask_jax.config.checks import from_config_dict, validate_sweep

    config = from_config_dict(SweepConfig, config_files.load_config(value), file=f"--config={value}")
    changes: dict[str, dict[str, object]] = {"base": {}, "evaluate": {}}
    for override in overrides:
        match = re.fullmatch(r"--(base|evaluate)\.([\w.]+)=(.*)", override)
        if not match:
            raise UserError(f"{override}: no such flag; see --help")
        changes[match[1]][match[2]] = parse_value(match[3])
    if seeds is not None:
        numbers = seeds.split(",")
        if not all(number.isdigit() for number in numbers):
            raise UserError(f"--seeds={seeds}: give whole numbers with commas between them, such as 0,1,2")
        config = dataclasses.replace(config, seeds=tuple(map(int, numbers)))
    train, evaluate = config.train | changes["base"], config.evaluate | changes["evaluate"]
    config = dataclasses.replace(config, train=train, evaluate=evaluate)
    validate_sweep(config)
    return config


def parse_value(text: str) -> object:
    """The value of a flag as a number or a boolean if it is one, else as text."""
    with contextlib.suppress(ValueError, SyntaxError):
        return ast.literal_eval(text)
    return text


def choose_variants(config: Any, names: str | None) -> Any:
    """Returns the sweep with only the variants of --variants. Raises UserError."""
    if names is None:
        return config
    chosen = names.split(",")
    unknown = [name for name in chosen if name not in config.variants]
    if unknown:
        raise UserError(f"--variants: {unknown[0]!r} is not one of {', '.join(config.variants)}")
    return dataclasses.replace(config, variants={name: config.variants[name] for name in chosen})


def parse_job(text: str) -> tuple[int, int]:
    """I/N as two numbers. Raises UserError if it is not valid."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(f"--job={text}: give I/N with 0 <= I < N, such as 0/8 for the first of eight jobs")
    return int(match[1]), int(match[2])


def check_runs(config: Any) -> None:
    """Checks the fields and flags of every variant before the first training. Raises UserError."""
    from genmask_jax.config import SamplerConfig, TrainConfig
    from genmask_jax.config.checks import fit_to_training, from_config_dict, with_given

    sampler_fields = {field.name for field in dataclasses.fields(SamplerConfig)}
    for name, variant in config.variants.items():
        fields, flags = config.train | variant.train, config.evaluate | variant.evaluate
        overrides = [f"--config.{field}={value}" for field, value in fields.items()]
        try:
            values = cli.read_config([f"--config={variant.base or config.base}", *overrides])
            if variant.scripts != "launch":  # their configs may be of another kind
                continue
            base = from_config_dict(TrainConfig, values, file=f"config.base={config.base}")
            given: dict[str, Any] = {flag: value for flag, value in flags.items() if flag in sampler_fields}
            fit_to_training(with_given(base.sampler, **given), base)
        except UserError as error:
            raise UserError(f"config.variants.{name}: {error}") from error


def write_report(config: Any, workdir: Any) -> None:
    """Prints the table, and writes it and the figure. Raises UserError."""
    from genmask_jax.tools.sweep import figure, results, table

    lines = results.read_lines(workdir / results.RESULTS)
    if not lines:
        print("no run is finished yet")
        return
    table.print_table(config, lines)
    for metric in table.missing_metrics(config, lines):
        print(f"config.metrics: no run has {metric!r}; see the names in a run's evaluation/metrics.json")
    write_text(workdir / "table.md", f"# {config.name}\n\n{table.to_markdown(config, lines, str(workdir))}")
    write_text(workdir / "figure.svg", figure.draw(config, lines))
    print(f"{len(lines)} runs in {workdir}/results.jsonl; wrote table.md and figure.svg")


if __name__ == "__main__":
    main()
