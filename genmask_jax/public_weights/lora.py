"""Merges a run's adapters into the base weights, or exports them as a LoRA file of diffusers."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import safetensors.numpy
from etils import epath

from genmask_jax.checkpoints.initial_weights import open_base
from genmask_jax.checkpoints.runs import find_step, open_ema, read_config
from genmask_jax.config import TrainConfig
from genmask_jax.models.dit import DiTConfig
from genmask_jax.parameters.layout import LINEAR, Entry, make_entry, public_name
from genmask_jax.parameters.names import adapters_of, flat_paths, is_dit_adapter, nested
from genmask_jax.parameters.reader import ParameterReader
from genmask_jax.parameters.rules import TEXT_PROJECTION
from genmask_jax.parameters.streaming import Streamed, save_streamed
from genmask_jax.public_weights import wan_dit
from genmask_jax.public_weights.parts import Reader
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json
from genmask_jax.utils.paths import replacing, resolved, write_text

ADAPTERS = "pytorch_lora_weights.safetensors"
"""Default file name of diffusers' `load_lora_weights`."""
SUFFIXES = {".lora.lora_a": ".lora_A.weight", ".lora.lora_b": ".lora_B.weight"}
"""Suffixes of our names -> of PEFT's."""


class MergedReader:
    """Reads a run's weights with its adapters merged into the base; has the interface of `ParameterReader`.

    Merged weights W + A B are computed and returned in float32.

    Args:
        workdir: the --workdir of a run with adapters.
        step: step of the checkpoint.
        prefix: prefix of the parameters to read, such as "dit."; it is removed from their names.

    Raises:
        UserError: the base weights are missing.
    """

    def __init__(self, workdir: epath.Path, step: int, prefix: str = ""):
        config = read_config(TrainConfig, workdir)
        base = open_base(config, workdir)
        assert base is not None  # runs with adapters have a base
        self.path = resolved(workdir / "checkpoints" / str(step) / "ema_params")
        self._base, self._trained, self._prefix = base, ParameterReader(self.path), prefix
        shapes = dict(base.shapes)
        shapes |= {name: x for name, x in self._trained.shapes.items() if not is_dit_adapter(name)}
        self.shapes = {name[len(prefix) :]: x for name, x in shapes.items() if name.startswith(prefix)}
        self.dtypes = {name: np.dtype(np.float32) for name in self.shapes}

    def read(self, name: str) -> np.ndarray:
        """Reads one parameter to the host."""
        name = self._prefix + name
        if name in self._trained.shapes:
            return self._trained.read(name)
        weight = np.asarray(self._base.read(name), np.float32)
        if not self._trained.shapes.keys() >= set(adapters_of(name)):
            return weight
        a, b = (np.asarray(self._trained.read(adapter), np.float32) for adapter in adapters_of(name))
        return weight + a @ b


def merge_run(source: epath.Path, out: epath.Path, which: str, progress: Callable[[int], object]) -> str:
    """Merges the adapters of a run, and writes the directory of a run without adapters.

    It can be sampled from, evaluated, and used as `config.init`.

    Args:
        source: the --workdir of a run with adapters.
        out: the directory to write.
        which: checkpoint: last, best or a step.
        progress: called with the number of bytes of each parameter.

    Returns:
        A one-line summary.

    Raises:
        UserError: the run does not exist, or has no adapters.
    """
    need_adapters(source)
    step = find_step(source, which)
    config, reader = open_merged(source, step)
    tree = {
        name: Streamed(shape, reader.dtypes[name], lambda _, name=name: reader.read(name), stacked=False)
        for name, shape in reader.shapes.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_streamed(resolved(out / "checkpoints" / str(step) / "ema_params"), nested(tree), progress)
    for name in ("vae", "instruction"):
        if (source / name).exists():
            copy_directory(source / name, out / name)
    write_text(out / "config.json", to_json(config))
    return f"{out}: step {step} of {source}, {len(tree)} parameters with the adapters merged"


def open_merged(source: epath.Path, step: int) -> tuple[TrainConfig, Reader]:
    """Opens a run with its adapters merged: its config without adapters and `init`, and its weights."""
    config = read_config(TrainConfig, source)
    reader = MergedReader(source, step) if config.model.lora_rank else open_ema(source, step)
    return dataclasses.replace(config, init="", model=dataclasses.replace(config.model, lora_rank=0)), reader


def copy_directory(source: epath.Path, out: epath.Path) -> None:
    """Copies the contents of a directory."""
    out.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            copy_directory(path, out / path.name)
        else:
            with replacing(out / path.name) as temporary:
                path.copy(temporary)


def need_adapters(source: epath.Path) -> TrainConfig:
    """Reads the config of a run. Raises UserError if the run has no adapters."""
    config = read_config(TrainConfig, source)
    if not config.model.lora_rank:
        raise UserError(f"--from={source}: this run has no adapters (config.model.lora_rank is 0)")
    return config


def export_lora(source: epath.Path, out: epath.Path, which: str) -> str:
    """Exports a run's adapters in the format of diffusers' `WanPipeline.load_lora_weights`.

    If the text projection was trained, because the width of the texts differs from Wan's, it is written to a
    separate file with diffusers' keys, for the transformer's `load_state_dict`. Trained instruction encoders
    are not exported.

    Args:
        source: the --workdir of a run with adapters.
        out: the directory to write.
        which: checkpoint: last, best or a step.

    Returns:
        A one-line summary.

    Raises:
        UserError: the run has no adapters, or diffusers' class cannot represent its model.
    """
    config = need_adapters(source)
    reader = ParameterReader(source / "checkpoints" / str(find_step(source, which)) / "ema_params", "dit.")
    shape = _shape(config, reader)
    wan_dit.config_to_public(shape)  # raises if diffusers cannot represent this model
    entries = lora_entries(config)
    tensors = dict(_tensors(entries, reader))
    out.mkdir(parents=True, exist_ok=True)
    _save(tensors, out / ADAPTERS)
    nbytes = sum(x.nbytes for x in tensors.values())
    summary = f"{out / ADAPTERS}: {len(tensors)} tensors, {nbytes / 1e6:.2f} MB"
    projection = TEXT_PROJECTION.removeprefix("dit.")
    projection_entries = [e for e in wan_dit.entries(shape) if e.path.startswith(projection)]
    trained = [entry for entry in projection_entries if entry.path in reader.shapes]
    if trained:
        path = out / "text_projection.safetensors"
        _save(dict(_tensors(trained, reader)), path)
        summary += f"; {path}: the text projection, which was trained with the adapters"
    return summary


def _save(tensors: dict[str, np.ndarray], path: epath.Path) -> None:
    with replacing(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"})


def _shape(config: TrainConfig, reader: ParameterReader) -> DiTConfig:
    """The config of the DiT without adapters, with the text width of the run."""
    kernel = reader.shapes.get(f"{TEXT_PROJECTION.removeprefix('dit.')}kernel")
    text_dim = kernel[0] if kernel else config.model.text_dim
    learned = config.objective.clean_frame == "learned"
    return dataclasses.replace(config.model, text_dim=text_dim, lora_rank=0, clean_embedding=learned)


def lora_entries(config: TrainConfig) -> list[Entry]:
    """Maps adapters to PEFT's keys, such as `transformer.blocks.0.attn1.to_q.lora_A.weight`."""
    entries = []
    for path, leaf in flat_paths(wan_dit.abstract_state(config.model)):
        for ours, public in SUFFIXES.items():
            if path.endswith(ours):
                key = public_name(path.removesuffix(ours), wan_dit.NAMES)[1] + public
                entries.append(make_entry(path, leaf.shape, f"transformer.{key}", LINEAR))
    return entries


def _tensors(entries: list[Entry], reader: ParameterReader) -> Iterator[tuple[str, np.ndarray]]:
    for entry in entries:
        value = reader.read(entry.path)
        for i, key in enumerate(entry.keys):
            tensor = entry.layout.to_public(value[i] if entry.stacked else value)
            yield key, np.ascontiguousarray(tensor)
