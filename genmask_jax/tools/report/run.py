"""Reads a run's directory for the report."""

import dataclasses
import json
from typing import Any

from etils import epath

from genmask_jax.checkpoints.runs import read_config, read_history
from genmask_jax.config import TrainConfig, VAETrainConfig
from genmask_jax.training.reporting import PLAN_FILE
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import differences
from genmask_jax.utils.paths import listed

Point = tuple[int, float]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores in an evaluation_*/metrics.json, and the paths of the contact sheets next to it."""

    name: str
    metrics: dict[str, Any]
    sheets: list[epath.Path]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run.

    path: its directory.
    config: its config.
    changed: (field, default, value) of every field that differs from its default.
    history: changes of the config when the run was resumed.
    curves: points (step, value) of each logged metric, ordered by step.
    parameters: the plan of the parameters as text; "" for older runs.
    sheets: paths of the last validation's contact sheets.
    evaluations: results of launch/evaluate.py.
    sessions: command, machine and versions of each start; [] for older runs.
    """

    path: epath.Path
    config: TrainConfig | VAETrainConfig
    changed: list[tuple[str, Any, Any]]
    history: list[dict[str, Any]]
    curves: dict[str, list[Point]]
    parameters: str
    sheets: list[epath.Path]
    evaluations: list[Evaluation]
    sessions: list[dict[str, Any]]

    @property
    def script(self) -> str:
        """The script that trained the run."""
        return "train.py" if isinstance(self.config, TrainConfig) else "train_vae.py"


def read_run(path: epath.PathLike) -> Run:
    """Reads a run's directory; the run may be in progress. Raises UserError if there is no run."""
    path = epath.Path(path)
    config = _read_config(path)
    rows = _read_lines(path / "metrics.jsonl")
    curves: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and isinstance(row.get("step"), int):
                curves.setdefault(name, {})[row["step"]] = value
    samples = sorted(listed(path / "samples", ".png")) if (path / "samples").exists() else []
    latest = {sheet.name.rsplit("_", 1)[0]: sheet for sheet in samples}
    return Run(
        path=path,
        config=config,
        changed=list(differences(_default(config), config)),
        history=read_history(path),
        curves={name: sorted(points.items()) for name, points in curves.items()},
        parameters=(path / PLAN_FILE).read_text() if (path / PLAN_FILE).exists() else "",
        sheets=list(latest.values()),
        evaluations=[e for directory in sorted(listed(path)) if (e := _read_evaluation(directory))],
        sessions=_read_lines(path / "sessions.jsonl"),
    )


def _read_config(path: epath.Path) -> TrainConfig | VAETrainConfig:
    try:
        return read_config(TrainConfig, path)
    except UserError as error:
        if not (path / "config.json").exists():
            raise
        try:
            return read_config(VAETrainConfig, path)
        except UserError:
            raise error from None


def _default(config: Any) -> Any:
    """Returns a config of the same type with default values; fields without a default keep their value."""
    values = {}
    for field in dataclasses.fields(config):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            value = getattr(config, field.name)
            values[field.name] = _default(value) if dataclasses.is_dataclass(value) else value
    return type(config)(**values)


def _read_evaluation(directory: epath.Path) -> Evaluation | None:
    """Reads an evaluation_*/ directory; None for other directories and unreadable metrics."""
    if not (directory.name.startswith("evaluation_") and (directory / "metrics.json").exists()):
        return None
    try:
        metrics = json.loads((directory / "metrics.json").read_text())
    except ValueError:
        return None
    if not isinstance(metrics, dict):
        return None
    return Evaluation(directory.name.removeprefix("evaluation_"), metrics, sorted(listed(directory, ".png")))


def _read_lines(path: epath.Path) -> list[dict[str, Any]]:
    """Reads a JSON-lines file; skips an incomplete line of a running or killed process."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
