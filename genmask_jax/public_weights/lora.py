"""What becomes of a run's adapters: merged into the weights they belong to, or as diffusers' LoRA file."""

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
from genmask_jax.utils.paths import replacing, write_text

ADAPTERS = "pytorch_lora_weights.safetensors"
"""The file that diffusers' `load_lora_weights` looks for."""
LAYOUTS = {".lora.lora_a": ".lora_A.weight", ".lora.lora_b": ".lora_B.weight"}
"""The ends of our names, and of PEFT's."""


class MergedReader:
    """A run's weights with its adapters merged into them; the interface of `ParameterReader`.

    W + A B is computed in float32 and stored as float32.

    Args:
        workdir: the --workdir of a run with adapters.
        step: the checkpoint.
        prefix: of the parameters to read, such as "dit."; it is stripped from their names.

    Raises:
        UserError: the weights that it started from are not there.
    """

    def __init__(self, workdir: epath.Path, step: int, prefix: str = ""):
        config = read_config(TrainConfig, workdir)
        base = open_base(config, workdir)
        assert base is not None  # the caller has seen that it has adapters
        self.path = (workdir / "checkpoints" / str(step) / "ema_params").resolve()
        self._base, self._own, self._prefix = base, ParameterReader(self.path), prefix
        shapes = dict(base.shapes)
        shapes |= {name: x for name, x in self._own.shapes.items() if not is_dit_adapter(name)}
        self.shapes = {name[len(prefix) :]: x for name, x in shapes.items() if name.startswith(prefix)}
        self.dtypes = {name: np.dtype(np.float32) for name in self.shapes}

    def read(self, name: str) -> np.ndarray:
        """One parameter, on the host."""
        name = self._prefix + name
        if name in self._own.shapes:
            return self._own.read(name)
        weight = np.asarray(self._base.read(name), np.float32)
        if not self._own.shapes.keys() >= set(adapters_of(name)):
            return weight
        a, b = (np.asarray(self._own.read(adapter), np.float32) for adapter in adapters_of(name))
        return weight + a @ b


def merge_run(source: epath.Path, out: epath.Path, which: str, progress: Callable[[int], object]) -> str:
    """Writes a run's directory without adapters: to sample from, to evaluate, to start from (`config.init`).

    Args:
        source: the --workdir of a run with adapters.
        out: the directory to write.
        which: the checkpoint: last, best or a step.
        progress: receives the bytes of each parameter.

    Returns:
        A one-line summary.

    Raises:
        UserError: there is no such run, or it has no adapters.
    """
    need_adapters(source)
    step = find_step(source, which)
    config, reader = open_merged(source, step)
    tree = {
        name: Streamed(shape, reader.dtypes[name], lambda _, name=name: reader.read(name), stacked=False)
        for name, shape in reader.shapes.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    save_streamed((out / "checkpoints" / str(step) / "ema_params").resolve(), nested(tree), progress)
    for name in ("vae", "instruction"):
        if (source / name).exists():
            copy(source / name, out / name)
    write_text(out / "config.json", to_json(config))
    return f"{out}: step {step} of {source}, {len(tree)} parameters with the adapters merged"


def open_merged(source: epath.Path, step: int) -> tuple[TrainConfig, Reader]:
    """A run's config and weights as if it had no adapters, and had started from nothing."""
    config = read_config(TrainConfig, source)
    reader = MergedReader(source, step) if config.model.lora_rank else open_ema(source, step)
    return dataclasses.replace(config, init="", model=dataclasses.replace(config.model, lora_rank=0)), reader


def copy(source: epath.Path, out: epath.Path) -> None:
    """Copies a directory."""
    out.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_dir():
            copy(path, out / path.name)
        else:
            with replacing(out / path.name) as temporary:
                path.copy(temporary)


def need_adapters(source: epath.Path) -> TrainConfig:
    """The config of a run. Raises UserError if it has no adapters."""
    config = read_config(TrainConfig, source)
    if not config.model.lora_rank:
        raise UserError(f"--from={source}: this run has no adapters (config.model.lora_rank is 0)")
    return config


def export_lora(source: epath.Path, out: epath.Path, which: str) -> str:
    """Writes a run's adapters as diffusers' `WanPipeline.load_lora_weights` takes them.

    What was trained beside them, the projection of texts of another width, is no adapter: it is written to a
    file of its own, under diffusers' keys, for the transformer's `load_state_dict`. An instruction encoder
    that was trained with them is not written.

    Args:
        source: the --workdir of a run with adapters.
        out: the directory to write.
        which: the checkpoint: last, best or a step.

    Returns:
        A one-line summary.

    Raises:
        UserError: the run has no adapters, or diffusers' class cannot represent its model.
    """
    config = need_adapters(source)
    reader = ParameterReader(source / "checkpoints" / str(find_step(source, which)) / "ema_params", "dit.")
    shape = _shape(config, reader)
    wan_dit.config_to_public(shape)  # or it says why diffusers cannot take this model
    entries = lora_entries(config)
    tensors = dict(_tensors(entries, reader))
    out.mkdir(parents=True, exist_ok=True)
    _save(tensors, out / ADAPTERS)
    said = f"{out / ADAPTERS}: {len(tensors)} tensors, {sum(x.nbytes for x in tensors.values()) / 1e6:.2f} MB"
    projection = TEXT_PROJECTION.removeprefix("dit.")
    trained = [e for e in wan_dit.entries(shape) if e.path.startswith(projection)]
    trained = [entry for entry in trained if entry.path in reader.shapes]
    if trained:
        path = out / "text_projection.safetensors"
        _save(dict(_tensors(trained, reader)), path)
        said += f"; {path}: the projection of its instruction encoder's texts, trained with them"
    return said


def _save(tensors: dict[str, np.ndarray], path: epath.Path) -> None:
    with replacing(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"})


def _shape(config: TrainConfig, reader: ParameterReader) -> DiTConfig:
    """The DiT without adapters, for texts of the width that the run projects."""
    kernel = reader.shapes.get(f"{TEXT_PROJECTION.removeprefix('dit.')}kernel")
    text_dim = kernel[0] if kernel else config.model.text_dim
    return dataclasses.replace(config.model, text_dim=text_dim, lora_rank=0)


def lora_entries(config: TrainConfig) -> list[Entry]:
    """The adapters, with their tensors by PEFT's keys (`transformer.blocks.0.attn1.to_q.lora_A.weight`)."""
    found = []
    for path, leaf in flat_paths(wan_dit.abstract_state(config.model)):
        for ours, public in LAYOUTS.items():
            if path.endswith(ours):
                key = public_name(path.removesuffix(ours), wan_dit.NAMES)[1] + public
                found.append(make_entry(path, leaf.shape, f"transformer.{key}", LINEAR))
    return found


def _tensors(entries: list[Entry], reader: ParameterReader) -> Iterator[tuple[str, np.ndarray]]:
    for entry in entries:
        value = reader.read(entry.path)
        for i, key in enumerate(entry.keys):
            tensor = entry.layout.to_public(value[i] if entry.stacked else value)
            yield key, np.ascontiguousarray(tensor)
