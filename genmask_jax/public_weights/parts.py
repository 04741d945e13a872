"""Checks, imports and exports one model of public weights.

The config and the names of each model are in a separate module, such as `wan_dit.py`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from etils import epath

from genmask_jax.parameters.files import TensorFiles, write_tensors
from genmask_jax.parameters.layout import Entry, complaints
from genmask_jax.parameters.names import nested
from genmask_jax.parameters.streaming import Streamed, save_streamed
from genmask_jax.utils.errors import UserError
from genmask_jax.utils.fields import to_json
from genmask_jax.utils.paths import resolved, write_text

MAX_PROBLEMS = 20
"""Maximum number of problems in one message."""


@runtime_checkable
class Reader(Protocol):
    """Reads the parameters of a checkpoint one by one: a `ParameterReader` or a `MergedReader`."""

    path: epath.Path
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, np.dtype]

    def read(self, name: str) -> np.ndarray:
        """Reads one parameter to the host."""
        ...


@dataclasses.dataclass
class Part:
    """A model of public weights that is ready to be imported.

    name: name of its directory, such as "dit".
    config: config of our model, a dataclass.
    entries: parameters to load.
    files: the tensors of the source.
    renamed: keys of the source that were renamed to the expected layout, as {old: new}.
    dropped: keys of the source that are ignored on purpose.
    fresh: parameters that are not written; training initialises them.
    constants: parameters that are not tensors of the source, by path.
    stored_dtype: dtype to write; None for the dtype of the source.
    digests: SHA-256 of each slice that was read, by path and index.
    """

    name: str
    config: Any
    entries: list[Entry]
    files: TensorFiles
    renamed: dict[str, str]
    dropped: list[str]
    fresh: list[str] = dataclasses.field(default_factory=list)
    constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    stored_dtype: Any = None
    digests: dict[tuple[str, int], str] = dataclasses.field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(self.dtype(e).itemsize * int(np.prod(e.shape)) for e in self.entries)

    def dtype(self, entry: Entry) -> np.dtype:
        """The dtype of a written parameter."""
        if self.stored_dtype is not None:
            return np.dtype(self.stored_dtype)
        return np.dtype(jax.numpy.result_type(*(self.files.dtypes[key] for key in entry.keys)))

    def stream(self, entry: Entry) -> Streamed:
        """A parameter that is read layer by layer."""
        dtype = self.dtype(entry)

        def read(i: int) -> np.ndarray:
            value = entry.layout.to_ours(self.files.read(entry.keys[i]))
            value = np.ascontiguousarray(value, dtype)
            self.digests[entry.path, i] = hashlib.sha256(value.reshape(-1).view(np.uint8).data).hexdigest()
            return value

        return Streamed(entry.shape, dtype, read, entry.stacked)

    def tree(self) -> Any:
        """The state with a `Streamed` for every parameter, without fresh parameters."""
        streamed = {entry.path: self.stream(entry) for entry in self.entries}
        for path, value in self.constants.items():
            streamed[path] = Streamed(value.shape, value.dtype, lambda _, v=value: v, stacked=False)
        return nested(streamed)

    def summary(self) -> str:
        """A readable summary, one fact per line."""
        dtypes = sorted({str(self.dtype(entry)) for entry in self.entries})
        count = sum(int(np.prod(entry.shape)) for entry in self.entries)
        keys = sum(len(entry.keys) for entry in self.entries)
        lines = [f"{self.name}: loaded {keys} tensors, {count / 1e6:,.1f} M parameters, {', '.join(dtypes)}"]
        if self.renamed:
            old, new = next(iter(self.renamed.items()))
            lines.append(f"{self.name}: renamed {len(self.renamed)} ({old} -> {new})")
        if self.dropped:
            lines.append(f"{self.name}: dropped {len(self.dropped)}: {', '.join(self.dropped)}")
        if self.files.ignored:
            lines.append(f"{self.name}: not read: {', '.join(self.files.ignored)}")
        if self.fresh:
            lines.append(f"{self.name}: left fresh: {', '.join(self.fresh)}")
        return "\n".join(lines)


def need_complete(part: Part, source: epath.Path) -> None:
    """Raises UserError if tensors are missing, unexpected or of the wrong shape; the message lists them."""
    problems = complaints(part.entries, part.files.shapes, part.dropped)
    if problems:
        more = f"; and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
        raise UserError(f"--from={source}: {part.name}: {'; '.join(problems[:MAX_PROBLEMS])}{more}")


def write_part(part: Part, out: epath.Path, progress: Callable[[int], object]) -> None:
    """Writes OUT/NAME, config.json last. Calls `progress` with the number of bytes of each slice."""
    directory = resolved(out / part.name)
    directory.mkdir(parents=True, exist_ok=True)
    save_streamed(directory / "params", part.tree(), progress)
    digest = hashlib.sha256(repr(sorted(part.digests.items())).encode()).hexdigest()
    report = {"sha256": digest, "renamed": part.renamed, "dropped": part.dropped, "fresh": part.fresh}
    write_text(directory / "import.json", json.dumps(report, indent=1))
    write_text(directory / "config.json", to_json(part.config))


def write_public(
    folder: epath.Path,
    config: dict[str, Any],
    entries: list[Entry],
    reader: Reader,
    zeros: dict[str, tuple[int, ...]],
    progress: Callable[[int], object],
    stem: str = "diffusion_pytorch_model",
) -> str:
    """Writes a model in its public layout: safetensors and config.json.

    Args:
        folder: folder to write.
        config: contents of config.json.
        entries: parameters to write.
        reader: reads our parameters.
        zeros: shapes of further tensors, which are zeros, by key.
        progress: called with the number of bytes of each tensor.
        stem: prefix of the file names.

    Returns:
        A one-line summary.

    Raises:
        UserError: a parameter is missing from the checkpoint.
    """
    missing = [entry.path for entry in entries if entry.path not in reader.shapes]
    if missing:
        raise UserError(
            f"{reader.path}: {', '.join(missing)} is not in it (was it left fresh by the import?)"
        )
    dtypes = {entry.path: reader.dtypes[entry.path] for entry in entries}
    sizes = {
        key: int(np.prod(entry.public_shape)) * dtypes[entry.path].itemsize
        for entry in entries
        for key in entry.keys
    }
    sizes |= {key: int(np.prod(shape)) * 4 for key, shape in zeros.items()}

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for entry in entries:
            value = reader.read(entry.path)
            for i, key in enumerate(entry.keys):
                yield key, entry.layout.to_public(value[i] if entry.stacked else value)
                progress(sizes[key])
        for key, shape in zeros.items():
            yield key, np.zeros(shape, np.float32)

    folder.mkdir(parents=True, exist_ok=True)
    names = write_tensors(folder, stem, sizes, tensors())
    write_text(folder / "config.json", json.dumps(config, indent=2))
    total = sum(sizes.values()) / 1e9
    return f"{folder}: {len(sizes)} tensors, {total:.2f} GB in {len(names)} file{'s' * (len(names) > 1)}"
