"""Safetensors files as on model hubs: one file, or shards with an index. Tensors are read one by one."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from etils import epath
from safetensors import SafetensorError, safe_open

from genmask_jax.errors import UserError

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
"""Dtypes in which weights and latents can be written."""
MAX_SHARD_BYTES = 2 * 10**9
STORED = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class TensorFiles:
    """The tensors of some files, by key; only headers are read until `read` is called.

    files: the file of each key.
    shapes, dtypes: of each key, from the files' headers.
    """

    def __init__(self, paths: Iterable[epath.Path]):
        self.files: dict[str, epath.Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._in_file: dict[str, str] = {}  # a renamed key -> its key in the file
        for path in paths:
            self._read_header(path)

    def _read_header(self, path: epath.Path) -> None:
        try:
            with safe_open(path, framework="np") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_slice(key)
                    if tensor.get_dtype() not in STORED:
                        raise UserError(f"{path}: {key} is {tensor.get_dtype()}; expected {list(STORED)}")
                    if key in self.files:
                        raise UserError(f"{path}: {key} is in {self.files[key].name} too")
                    self.files[key] = path
                    self.shapes[key] = tuple(tensor.get_shape())
                    self.dtypes[key] = np.dtype(STORED[tensor.get_dtype()])
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: not a safetensors file ({error}); download it again") from error

    def rename(self, name: Callable[[str], str]) -> dict[str, str]:
        """Applies a renaming to all keys; returns those that changed, as {old: new}."""
        changed = {key: name(key) for key in self.files if name(key) != key}
        for old, new in changed.items():
            self.files[new] = self.files.pop(old)
            self.shapes[new] = self.shapes.pop(old)
            self.dtypes[new] = self.dtypes.pop(old)
            self._in_file[new] = old
        return changed

    def read(self, key: str) -> np.ndarray:
        """One tensor. The file is closed again, so that memory-mapped files do not add up."""
        with safe_open(self.files[key], framework="np") as file:
            return file.get_tensor(self._in_file.get(key, key))


def find_tensors(directory: epath.Path, accept: Callable[[str], bool] = bool) -> TensorFiles | None:
    """The safetensors in a directory: the shards in its index, else all files; None if there are none.

    Args:
        directory: to search.
        accept: file name -> whether to use the file.

    Raises:
        UserError: a shard is missing or damaged, or the index is damaged.
    """
    indices = sorted(p for p in directory.glob("*.safetensors.index.json") if accept(p.name))
    if not indices:
        paths = sorted(p for p in directory.glob("*.safetensors") if accept(p.name))
        return TensorFiles(paths) if paths else None
    try:
        weight_map = json.loads(indices[0].read_text())["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{indices[0]}: not an index of shards ({error}); download it again") from error
    paths = [directory / name for name in sorted(set(weight_map.values()))]
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: {indices[0].name} lists this shard, but it is missing; download it")
    found = TensorFiles(paths)
    for key, name in weight_map.items():
        if key not in found.files:
            raise UserError(f"{directory / name}: {key}, which {indices[0].name} puts here, is not in it")
    return found


def find_pickles(directory: epath.Path) -> list[epath.Path]:
    """The files in a directory that are most likely pickled weights (by their suffix)."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.suffix in PICKLES)


def refuse_pickle(path: epath.Path) -> UserError:
    """The error for a pickled file: why it is refused, and how to convert it to safetensors."""
    target = path.with_suffix(".safetensors")
    return UserError(
        f"{path}: pickled weights can run code when loaded, so they are refused; if you trust the file, "
        f'convert it once with PyTorch: python -c "import torch, safetensors.torch as s; '
        f"s.save_file(torch.load('{path}', map_location='cpu', weights_only=True), '{target}')\""
    )


def write_tensors(
    directory: epath.Path, stem: str, sizes: dict[str, int], tensors: Iterable[tuple[str, np.ndarray]]
) -> list[str]:
    """Writes tensors in shards of at most MAX_SHARD_BYTES, with an index if there are several.

    Args:
        directory: to write to.
        stem: prefix of the file names.
        sizes: bytes of every tensor, by key, in the order in which `tensors` yields them.
        tensors: keys and arrays; consumed one by one.

    Returns:
        The names of the files.
    """
    shards: list[list[str]] = [[]]
    filled = 0
    for key, size in sizes.items():
        if shards[-1] and filled + size > MAX_SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(key)
        filled += size
    count = len(shards)
    names = [f"{stem}-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    names = [f"{stem}.safetensors"] if count == 1 else names
    stream, directory = iter(tensors), epath.Path(directory)
    for name, keys in zip(names, shards, strict=True):
        shard = dict(next(stream) for _ in keys)
        contiguous = {key: np.ascontiguousarray(value) for key, value in shard.items()}
        safetensors.numpy.save_file(contiguous, directory / name, metadata={"format": "pt"})
        del shard, contiguous
    if count > 1:
        index: dict[str, Any] = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {key: name for name, keys in zip(names, shards, strict=True) for key in keys},
        }
        (directory / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return names


def read_json(path: epath.Path) -> dict[str, Any]:
    """A JSON object of a model hub's folder. Raises UserError if it is missing or not one."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: not there; it is needed beside the weights") from error
    except ValueError as error:  # not JSON, or not text
        raise UserError(f"{path}: this is no JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a JSON object is needed, not {type(values).__name__}; download it again")
    return values
