"""The report's HTML: one file without network access. Texts from runs and data are escaped."""

import base64
import dataclasses
import datetime
import io
import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

import jinja2
from absl import logging
from etils import epath
from markupsafe import Markup
from PIL import Image

from genmask_jax.tools.report.run import Evaluation, Run, read_run
from genmask_jax.training import noise_levels
from genmask_jax.training.stopping import StopRequests
from genmask_jax.utils import hosts
from genmask_jax.utils.curves import plot
from genmask_jax.utils.paths import write_text

SHEET_WIDTH, SHEET_HEIGHT, QUALITY = 1400, 2400, 70
"""Largest size of an embedded contact sheet in pixels, and the quality of its WebP."""
MAIN_METRICS = ("mIoU", "oIoU", "gIoU", "cIoU", "P@0.5", "P@0.9", "count")
LABEL_MAP_METRICS = ("mIoU", "pixel_accuracy")
"""Metrics in `label_maps`, for datasets of classes."""
REPEAT_WORKDIR = "runs/again"
PLOT_ORDER = (
    "loss",
    "loss_segment",
    "loss_generate",
    "loss_mask",
    "loss_image",
    "kl",
    "grad_norm",
    "learning_rate",
)


def write_report(paths: Sequence[epath.PathLike], out: epath.PathLike) -> epath.Path:
    """Writes a report about one or several runs and returns its path.

    Raises:
        UserError: a directory has no run, or the file cannot be written.
    """
    runs = [read_run(path) for path in paths]
    names = _names(runs)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((epath.Path(__file__).parent / "page.html").read_text())
    html = template.render(
        title=" and ".join(names) if len(names) < 4 else f"{len(names)} runs",
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        names=names,
        plots=_plots(runs, names),
        scores=_scores(runs, names),
        runs=[_describe(run, name) for run, name in zip(runs, names, strict=True)],
    )
    path = epath.Path(out)
    write_text(path, html)
    return path


def report_on(path: epath.PathLike) -> None:
    """Writes PATH/report.html after training or evaluation. Errors are only logged."""
    if not hosts.is_first():
        return
    with StopRequests("stopped before the report was written; write it with launch/report.py"):
        try:
            logging.info("report: %s", write_report([path], epath.Path(path) / "report.html"))
        except Exception as error:  # a damaged file may raise anything
            logging.warning("no report was written: %s", error)


def _names(runs: Sequence[Run]) -> list[str]:
    """Returns the name of each run's config, or its directory if several runs have the same name."""
    names = [run.config.name for run in runs]
    return [str(run.path) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def _plots(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[str, Markup]]:
    """Returns (title, SVG) of every logged metric, with a line for each run."""
    metrics = dict.fromkeys(metric for run in runs for metric in run.curves if "/" not in metric)
    ordered = [m for m in PLOT_ORDER if m in metrics] + sorted(m for m in metrics if m not in PLOT_ORDER)
    plots = []
    for metric in ordered:
        lines = {name: run.curves.get(metric, []) for run, name in zip(runs, names, strict=True)}
        logarithmic = metric.startswith("loss") or metric in ("grad_norm", "kl")
        last = ", ".join(f"{line[-1][1]:.4g}" for line in lines.values() if line)
        title = f"{metric.replace('val_', 'validation ')}: {last} at the end"
        plots.append((title, Markup(plot(lines, logarithmic=logarithmic))))  # noqa: S704 - plot() escapes texts
    return plots + _noise_plots(runs, names)


def _noise_plots(runs: Sequence[Run], names: Sequence[str]) -> list[tuple[str, Markup]]:
    """Returns (title, SVG) of the last losses by noise level, with a line for each run."""
    profiles = {name: noise_levels.profiles(run.curves) for run, name in zip(runs, names, strict=True)}
    tasks = dict.fromkeys(task for profile in profiles.values() for task in profile)
    lines = {task: {name: profile.get(task, []) for name, profile in profiles.items()} for task in tasks}
    return [
        (f"{task} by noise level (0 clean, 1 noise)", Markup(plot(points, logarithmic=True, x_range=(0, 1))))  # noqa: S704 - as above
        for task, points in lines.items()
    ]


def _scores(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """Returns headings and rows of a table of all evaluations."""
    rows = [
        (name, split, _main_metrics(metrics))
        for run, name in zip(runs, names, strict=True)
        for evaluation in run.evaluations
        for split, metrics in _splits(evaluation)
    ]
    columns = list(dict.fromkeys(key for _, _, scores in rows for key in scores))
    return {
        "headings": ["run", "split", *columns],
        "rows": [
            [name, split, *(_number(scores.get(key)) for key in columns)] for name, split, scores in rows
        ],
    }


def _splits(evaluation: Evaluation) -> list[tuple[str, dict[str, Any]]]:
    """Returns (name, metrics) of a held-out split, or of each benchmark."""
    entries = [(name, value) for name, value in evaluation.metrics.items() if isinstance(value, dict)]
    benchmarks = [
        (name, entry["metrics"]) for name, entry in entries if isinstance(entry.get("metrics"), dict)
    ]
    return benchmarks or [(evaluation.name, evaluation.metrics)]


def _main_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    scores = {key: metrics[key] for key in MAIN_METRICS if key in metrics}
    maps = metrics.get("label_maps") or {}
    return scores | {f"label maps: {key}": maps[key] for key in LABEL_MAP_METRICS if key in maps}


def _describe(run: Run, name: str) -> dict[str, Any]:
    """Returns the values that the template shows of a run."""
    config = run.config
    steps = max((points[-1][0] for points in run.curves.values() if points), default=0)
    return {
        "name": name,
        "path": str(run.path),
        "steps": f"{steps:,} of {config.loop.num_steps:,}",
        "examples": f"{steps * config.loop.global_batch_size:,}",
        "data": f"{config.data.name}, {config.data.size} px"
        + (f", {config.data.path}" * bool(config.data.path)),
        "parameters": run.parameters,
        "changed": [(field, _value(default), _value(value)) for field, default, value in run.changed],
        "config": json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False),
        "history": [json.dumps(change, ensure_ascii=False) for change in run.history],
        "sessions": run.sessions,
        "command": _command(run),
        "sheets": [(sheet.stem.replace("_", " "), _embed(sheet)) for sheet in run.sheets],
        "groups": {"headings": ["kind of expression", "mIoU"], "rows": _groups(run)},
        "evaluations": [_details(evaluation) for evaluation in run.evaluations],
    }


def _command(run: Run) -> str:
    """Returns the run's first command with another --workdir; for older runs, one made from config.json."""
    if run.sessions and run.sessions[0].get("step") == 0:
        command = str(run.sessions[0].get("command", ""))
        return re.sub(r"(--workdir[= ])('[^']*'|\S+)", rf"\1{REPEAT_WORKDIR}", command)
    fields = [f"--config.{field}={_value(value)}" for field, _, value in run.changed if field != "name"]
    fields = [field for field in fields if not field.endswith("=")]
    script = f"python launch/{run.script} --config=configs/{run.config.name}.py"
    return " ".join([script, *map(shlex.quote, fields), f"--workdir={REPEAT_WORKDIR}"])


def _groups(run: Run) -> list[list[str]]:
    """Returns (kind of expression, mIoU) of the last validation."""
    prefix = "val_mIoU/"
    curves = {name: points for name, points in run.curves.items() if name.startswith(prefix)}
    return [[name.removeprefix(prefix), _number(points[-1][1])] for name, points in curves.items()]


def _details(evaluation: Evaluation) -> dict[str, Any]:
    """Returns the values that the template shows of an evaluation."""
    groups = evaluation.metrics.get("groups")
    keys = ("count", "mIoU", "oIoU", "P@0.5", "every_object_mIoU")
    rows = [
        [str(group), *(_number(scores.get(key)) for key in keys)]
        for group, scores in (groups.items() if isinstance(groups, dict) else ())
        if isinstance(scores, dict)
    ]
    return {
        "name": evaluation.name,
        "headings": ["kind of expression", *keys],
        "rows": rows,
        "metrics": json.dumps(evaluation.metrics, indent=2, ensure_ascii=False),
        "sheets": [(sheet.stem.replace("_", " "), _embed(sheet)) for sheet in evaluation.sheets],
    }


def _number(value: Any) -> str:
    """Formats a number for a table; None becomes a dash."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _embed(path: epath.Path) -> str:
    """Returns a contact sheet as a data URI, reduced and compressed."""
    with path.open("rb") as file, Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((SHEET_WIDTH, SHEET_HEIGHT))
    compressed = io.BytesIO()
    image.save(compressed, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(compressed.getvalue()).decode()
