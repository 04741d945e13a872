"""Weights that a run starts from (`config.init`): imported ones, or those of another run or a packed model.

With `config.model.lora_rank`, these weights are the run's base: they stay where they are and as they are, and
the run's directory keeps what identifies them.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from genmask_jax.config import TrainConfig
from genmask_jax.errors import UserError
from genmask_jax.packed import is_packed
from genmask_jax.parameters.files import read_json
from genmask_jax.parameters.names import parameter_name
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.paths import write_text
from genmask_jax.pretrained import directory_of
from genmask_jax.runs import find_step, need_same, open_ema, read_config
from genmask_jax.sharding import placed

KEPT = "base.json"
"""In a run's directory: the weights to which its adapters belong: what identifies them, and their names."""
PROJECTION = "dit.text_embedder.linear_1."
"""Starts fresh if the instruction encoder's width is not that of the weights."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of parameters, by their names in `GenMask`, such as "dit.blocks.attn1.to_q.kernel"."""


class Pretrained:
    """Weights in a directory: of a DiT, and of an instruction encoder that was trained with it.

    Args:
        directory: made by launch/import_weights.py, the --workdir of a run, or a packed model or its
            name in the package.
        step: of a run; the last one if None.
        without_encoder: leave out the instruction encoder that was trained with them.

    Raises:
        UserError: there are no weights, or only adapters.
    """

    def __init__(self, directory: epath.PathLike, step: int | None = None, *, without_encoder: bool = False):
        self.directory = folder = directory_of(directory, "config.init")
        imported = folder / "dit" / "params"
        self.is_run = not imported.exists() and (is_packed(folder) or (folder / "checkpoints").exists())
        if self.is_run:
            config = read_config(TrainConfig, folder)
            self._encoder = config.instruction.name
            if config.model.lora_rank:
                raise UserError(
                    f"config.init={directory}: this run has only adapters; merge them with "
                    "launch/export_weights.py run, and start from what that writes"
                )
            self.step = find_step(folder, "last" if step is None else str(step))
            self._reader = open_ema(folder, self.step)
        elif imported.exists():
            self.step, self._reader = None, ParameterReader(imported)
        else:
            raise UserError(
                f"config.init={directory}: no dit/params and no checkpoints here; give a directory made by "
                "launch/import_weights.py, or the --workdir of a run"
            )
        self._prefix = "" if self.is_run else "dit."
        names = {self._prefix + name: shape for name, shape in self._reader.shapes.items()}
        self.shapes = {
            name: shape
            for name, shape in names.items()
            if not (without_encoder and name.startswith("instruction."))
        }

    def instruction(self, encoder: str) -> epath.Path | None:
        """Where a run with this instruction encoder keeps what belongs to it; None if these are no such."""
        same = self.is_run and encoder == self._encoder
        return self.directory / "instruction" if same else None

    def covered(self, model: Shapes) -> frozenset[str]:
        """The names of the model's parameters that are among these weights.

        Args:
            model: all parameters that can be trained. Adapters are never among the weights, nor is the text
                projection of an encoder of another width, nor an encoder that was not trained with them.

        Raises:
            UserError: the weights are of another model.
        """
        there, here = self.shapes, {n: shape for n, shape in model.items() if not is_adapter(n)}
        other = tuple(
            part
            for part, same in (("instruction.", _same_names), (PROJECTION, _same_shapes))
            if not same(_part(there, part), _part(here, part))
        )
        there, here = ({n: s for n, s in x.items() if not n.startswith(other)} for x in (there, here))
        need_same(self._reader.path, there, here)
        return frozenset(here)

    def restore(self, targets: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Parameters by name, in the dtypes and shardings of `targets`."""
        inner = {name.removeprefix(self._prefix): target for name, target in targets.items()}
        return {self._prefix + name: array for name, array in self._reader.restore(inner).items()}

    def read(self, name: str) -> Any:
        """One parameter, on the host and as stored (`np.ndarray`)."""
        return self._reader.read(name.removeprefix(self._prefix))

    @property
    def identity(self) -> dict[str, Any]:
        """What tells these weights from others, for `KEPT`."""
        if not self.is_run:
            report = read_json(self.directory / "dit" / "import.json")
            return {"sha256": report["sha256"]}
        path, digest = self._reader.path, hashlib.sha256()
        # A checkpoint's manifest names all its data files, at random.
        for file in (path,) if path.is_file() else (path / "_METADATA", path / "manifest.ocdbt"):
            digest.update(file.read_bytes() if file.exists() else b"")
        return {"step": self.step, "sha256": digest.hexdigest()}


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is one of the DiT's low-rank adapters."""
    return name.startswith("dit.") and ".lora." in name


def _part(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}


def _same_names(one: Shapes, other: Shapes) -> bool:
    return one.keys() == other.keys()


def _same_shapes(one: Shapes, other: Shapes) -> bool:
    return dict(one) == dict(other)


def replace(params: Any, pretrained: Pretrained) -> tuple[Any, list[str]]:
    """Replaces freshly initialised parameters by pretrained ones.

    Args:
        params: the parameters that are trained. Arrays are deleted before they are replaced, so that device
            memory never holds a large model twice.
        pretrained: the weights.

    Returns:
        The parameters, with unchanged dtypes and shardings, and the names of those that stay fresh.

    Raises:
        UserError: the weights are of another model.
    """
    here = {parameter_name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(params)}
    covered = pretrained.covered(shapes_of(params))
    targets = {name: placed(here[name], here[name].sharding) for name in here if name in covered}
    for name in targets:
        here[name].delete()
    restored = pretrained.restore(targets)
    fresh = [name for name in here if name not in covered]
    return jax.tree.map_with_path(lambda keys, old: restored.get(parameter_name(keys), old), params), fresh


def shapes_of(params: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of parameters (or of what has their shapes), by name."""
    return {parameter_name(keys): tuple(leaf.shape) for keys, leaf in jax.tree.leaves_with_path(params)}


def open_base(config: TrainConfig, workdir: epath.PathLike | None) -> Pretrained | None:
    """The weights to which a run's adapters belong; None for a run without adapters.

    Args:
        config: of the run.
        workdir: its directory; None for a new run.

    Raises:
        UserError: `config.init` holds no weights, or not those that the run began with.
    """
    if not config.model.lora_rank:
        return None
    if workdir is None or not (epath.Path(workdir) / KEPT).exists():
        return Pretrained(config.init)
    kept = read_json(epath.Path(workdir) / KEPT)
    base = Pretrained(config.init, kept.get("step"))
    if base.identity["sha256"] != kept["sha256"]:
        raise UserError(
            f"config.init={config.init}: these are not the weights that the adapters in {workdir} belong to"
        )
    return base


def keep_base(base: Pretrained, names: frozenset[str], workdir: epath.PathLike) -> None:
    """Writes what `open_base` compares, and the names of the weights that the run takes from its base."""
    kept = base.identity | {"names": sorted(names)}
    write_text(epath.Path(workdir) / KEPT, json.dumps(kept, indent=1))


def read_base_names(workdir: epath.PathLike) -> frozenset[str]:
    """The names of the weights that a run with adapters takes from its base."""
    return frozenset(read_json(epath.Path(workdir) / KEPT)["names"])
