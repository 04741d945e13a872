"""Weights that a run starts from (`config.init`): imported ones, or those of another run or a packed model.

With `config.model.lora_rank`, these weights are the run's base: they are neither changed nor copied, and
the run's directory keeps their digest and the names of those that it uses.
"""

import dataclasses
import hashlib
import json
from collections.abc import Container
from typing import Any

import jax
import numpy as np
from etils import epath

from genmask_jax.checkpoints.packed import PackedReader, is_packed
from genmask_jax.checkpoints.runs import find_step, open_ema, read_config
from genmask_jax.config import TrainConfig
from genmask_jax.parameters.files import read_json
from genmask_jax.parameters.plan import ParameterPlan, Source
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.parameters.rules import Targets, Weights
from genmask_jax.pretrained import directory_of
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.paths import write_text

BASE_FILE = "base.json"
"""File of a run with adapters that identifies its base weights and lists the names of those that it uses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitialWeights(Weights):
    """Weights of a DiT, and of an instruction encoder that was trained with it.

    directory: directory of the weights, as the user gave it.
    reader, prefix: reader of the weights, and the prefix of its names in the model.
    step, encoder: step of a run, and the name of its instruction encoder; None for imported weights.
    """

    directory: epath.Path
    reader: ParameterReader | PackedReader
    prefix: str = ""
    step: int | None = None
    encoder: str | None = None

    def restore(self, targets: Targets) -> dict[str, jax.Array]:
        """Parameters by name, in the dtypes and shardings of `targets`."""
        inner = {name.removeprefix(self.prefix): target for name, target in targets.items()}
        return {self.prefix + name: array for name, array in self.reader.restore(inner).items()}

    def read(self, name: str) -> np.ndarray:
        """One parameter, on the host and as stored."""
        return self.reader.read(name.removeprefix(self.prefix))

    def only(self, names: Container[str]) -> "InitialWeights":
        """The weights with these names alone."""
        return dataclasses.replace(self, shapes={n: s for n, s in self.shapes.items() if n in names})

    def without_encoder(self) -> "InitialWeights":
        """The weights of the DiT alone."""
        dit = self.only([name for name in self.shapes if name.startswith("dit.")])
        return dataclasses.replace(dit, encoder=None)

    def instruction(self, encoder: str) -> epath.Path | None:
        """The folder of the instruction encoder's files; None if they have another, or none."""
        return self.directory / "instruction" if encoder == self.encoder else None

    @property
    def identity(self) -> dict[str, Any]:
        """Identifies these weights, for `BASE_FILE`."""
        if self.source is Source.IMPORT:
            report = read_json(self.directory / "dit" / "import.json")
            return {"sha256": report["sha256"]}
        digest = hashlib.sha256()
        # A checkpoint's manifest lists the random names of all its data files.
        packed = self.path.is_file()
        for file in (self.path,) if packed else (self.path / "_METADATA", self.path / "manifest.ocdbt"):
            digest.update(file.read_bytes() if file.exists() else b"")
        return {"step": self.step, "sha256": digest.hexdigest()}


def open_weights(directory: epath.PathLike, step: int | None = None) -> InitialWeights:
    """Opens the weights in a directory.

    Args:
        directory: made by launch/import_weights.py, the --workdir of a run, or a packed model or its
            name in the package.
        step: step of a run's checkpoint; the last one if None.

    Raises:
        UserError: there are no weights, or only adapters.
    """
    folder = directory_of(directory, "config.init")
    imported = folder / "dit" / "params"
    if imported.exists():
        reader = ParameterReader(imported)
        shapes = {f"dit.{name}": shape for name, shape in reader.shapes.items()}
        return InitialWeights(
            path=reader.path,
            source=Source.IMPORT,
            shapes=shapes,
            directory=folder,
            reader=reader,
            prefix="dit.",
        )
    if not (is_packed(folder) or (folder / "checkpoints").exists()):
        raise UserError(
            f"config.init={directory}: no dit/params and no checkpoints here; give a directory made by "
            "launch/import_weights.py, or the --workdir of a run"
        )
    config = read_config(TrainConfig, folder)
    if config.model.lora_rank:
        raise UserError(
            f"config.init={directory}: this run has only adapters; merge them with "
            "launch/export_weights.py run, and start from what that writes"
        )
    step = find_step(folder, "last" if step is None else str(step))
    reader = open_ema(folder, step)
    return InitialWeights(
        path=reader.path,
        source=Source.RUN,
        shapes=reader.shapes,
        directory=folder,
        reader=reader,
        step=step,
        encoder=config.instruction.name,
    )


def open_base(config: TrainConfig, workdir: epath.PathLike | None) -> InitialWeights | None:
    """The weights to which a run's adapters belong; None for a run without adapters.

    Args:
        config: config of the run.
        workdir: directory of a resumed run, which lists the weights that it uses; None for a new run.

    Raises:
        UserError: `config.init` holds no weights, or other weights than those that the run started with.
    """
    if not config.model.lora_rank:
        return None
    if workdir is None or not (epath.Path(workdir) / BASE_FILE).exists():
        return open_weights(config.init)
    saved = read_json(epath.Path(workdir) / BASE_FILE)
    base = open_weights(config.init, saved.get("step"))
    if base.identity["sha256"] != saved["sha256"]:
        raise UserError(
            f"config.init={config.init}: these are not the weights that the adapters in {workdir} belong to"
        )
    return base.only(saved.get("names", base.shapes))


def save_base(base: InitialWeights, plan: ParameterPlan, workdir: epath.PathLike) -> None:
    """Writes the identity that `open_base` checks, and the names of the weights that the run uses."""
    names = sorted(one.name for one in plan if one.source is Source.BASE)
    write_text(epath.Path(workdir) / BASE_FILE, json.dumps(base.identity | {"names": names}, indent=1))
