"""The runs of a sweep, and the trainings that they share."""

import dataclasses
import json
from collections.abc import Sequence

from etils import epath

from genmask_jax.config import SweepConfig


@dataclasses.dataclass(frozen=True)
class Run:
    """One variant with one seed.

    variant: name of the variant.
    seed: seed of its training, and of the noise in its evaluation.
    train: all fields that differ from the base config, by dotted name.
    evaluate: all flags of the evaluation.
    folder: directory of its log, evaluation and result.
    """

    variant: str
    seed: int
    train: dict[str, object]
    evaluate: dict[str, object]
    folder: epath.Path

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.name


@dataclasses.dataclass(frozen=True)
class Training:
    """A training and the runs that evaluate its model.

    base: config of the training: a name or a file.
    scripts: folder of train.py and evaluate.py.
    runs: runs with the same seed and `train` fields. The first run's folder has the model.
    """

    base: str
    scripts: str
    runs: tuple[Run, ...]

    @property
    def folder(self) -> epath.Path:
        """The directory of the model, its log, its lock and its state."""
        return self.runs[0].folder

    @property
    def model(self) -> epath.Path:
        """The --workdir of the training."""
        return self.folder / "model"

    def train_flags(self) -> list[str]:
        """The flags of train.py, without --resume."""
        run = self.runs[0]
        fields = {**run.train, "seed": run.seed}
        overrides = [f"--config.{name}={value}" for name, value in fields.items()]
        return [f"--config={self.base}", *overrides, f"--workdir={self.model}"]

    def evaluate_flags(self, run: Run) -> list[str]:
        """The flags of evaluate.py for a run of this training."""
        flags = {**run.evaluate, "seed": run.seed, "workdir": run.folder / "evaluation"}
        return [f"--checkpoint={self.model}", *(f"--{name}={value}" for name, value in flags.items())]


def make_plan(config: SweepConfig, workdir: epath.Path) -> list[Training]:
    """All trainings of a sweep, seed by seed, so that early results can be compared between variants."""
    trainings = []
    for seed in config.seeds:
        runs_by_fields: dict[tuple[str, str, str], list[Run]] = {}
        for name, variant in config.variants.items():
            folder = workdir / "runs" / f"{name}_seed{seed}"
            train, evaluate = config.train | variant.train, config.evaluate | variant.evaluate
            fields = json.dumps(train, sort_keys=True)
            training = variant.base or config.base, variant.scripts, fields
            runs_by_fields.setdefault(training, []).append(Run(name, seed, train, evaluate, folder))
        trainings += [
            Training(base, scripts, tuple(runs)) for (base, scripts, _), runs in runs_by_fields.items()
        ]
    return trainings


def part_of(trainings: Sequence[Training], index: int, count: int) -> list[Training]:
    """Every `count`-th training from `index` on: the share of one of `count` jobs."""
    return list(trainings[index::count])
