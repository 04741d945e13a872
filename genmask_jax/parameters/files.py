"""Safetensors files as on model hubs: one file, or shards with an index. Tensors are read one by one."""

import collections
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from etils import epath
from safetensors import SafetensorError, safe_open

from genmask_jax.utils.errors import UserError, first_line, reading
from genmask_jax.utils.paths import (
    listed,
    need_local,
    need_regular,
    parse_json,
    read_text,
    replacing,
    write_text,
)

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
"""Dtypes for writing weights and latents."""
MAX_SHARD_BYTES = 2 * 10**9
MAIN_FILES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""Names of complete models on hubs, which may also have variants (model.fp16.safetensors) and adapters."""
LFS_POINTER = b"version https://git-lfs"
DTYPE_CODES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


class TensorFiles:
    """The tensors of some files, by key. Only the headers are read before `read` is called.

    files: file of each key.
    shapes, dtypes: shape and dtype of each key, from the headers.
    ignored: names of unused safetensors files in the same directory.
    """

    def __init__(self, paths: Iterable[epath.Path], ignored: Iterable[str] = ()):
        self.ignored = list(ignored)
        self.files: dict[str, epath.Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._in_file: dict[str, str] = {}  # a renamed key -> its key in the file
        for path in paths:
            self._read_header(path)

    def _read_header(self, path: epath.Path) -> None:
        need_local(path)
        try:
            need_regular(path)
            with safe_open(path, framework="np") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_slice(key)
                    if tensor.get_dtype() not in DTYPE_CODES:
                        raise UserError(
                            f"{path}: {key} is {tensor.get_dtype()}; expected {list(DTYPE_CODES)}"
                        )
                    if key in self.files:
                        raise UserError(f"{path}: {key} is in {self.files[key].name} too")
                    self.files[key] = path
                    self.shapes[key] = tuple(tensor.get_shape())
                    self.dtypes[key] = np.dtype(DTYPE_CODES[tensor.get_dtype()])
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: {_why_damaged(path, error)}") from error

    def rename(self, name: Callable[[str], str], wanted: set[str]) -> dict[str, str]:
        """Renames all keys; returns the changed ones, as {old: new}.

        Args:
            name: key -> new key.
            wanted: the new keys that the model needs. A common prefix of these keys in the files, such as
                "model.diffusion_model.", is removed.
        """
        prefix = _common_prefix(self.files, name, wanted)
        names = {key: name(key.removeprefix(prefix)) for key in self.files}
        changed = {key: new for key, new in names.items() if new != key}
        for old, new in changed.items():
            self.files[new] = self.files.pop(old)
            self.shapes[new] = self.shapes.pop(old)
            self.dtypes[new] = self.dtypes.pop(old)
            self._in_file[new] = old
        return changed

    def read(self, key: str) -> np.ndarray:
        """One tensor. Raises DamagedError if its file is missing or damaged.

        The file is closed afterwards, so that memory-mapped files do not accumulate.
        """
        path = self.files[key]
        with reading(str(path), "download or export it again"), safe_open(path, framework="np") as file:
            return file.get_tensor(self._in_file.get(key, key))


def find_tensors(directory: epath.Path, accept: Callable[[str], bool] = bool) -> TensorFiles | None:
    """The safetensors in a directory: the shards of its index, or else all files; None if there are none.

    (safetensors cannot read indexes, and huggingface_hub only reads model.safetensors.index.json.)

    Args:
        directory: directory to search.
        accept: file name -> whether to use the file.

    Raises:
        UserError: a shard is missing or damaged, or the index is damaged.
    """
    files = [path for path in listed(directory, ".safetensors") if accept(path.name)]
    indices = [path for path in listed(directory, ".safetensors.index.json") if accept(path.name)]
    if not indices:
        main = [path for path in files if path.name in MAIN_FILES]
        _need_all_shards(main or files)
        return TensorFiles(main or files, _names(files, but=main or files)) if files else None
    weight_map = read_json(indices[0]).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{indices[0]}: not an index of shards: it has no weight_map; download it again")
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if epath.Path(name).name != name or name in ("", "..") or "\0" in name]
    if outside:
        raise UserError(
            f"{indices[0]}: {outside[0]!r} is not the name of a file next to it; download it again"
        )
    paths = [directory / name for name in names]
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: {indices[0].name} lists this shard, but it is missing; download it")
    tensors = TensorFiles(paths, _names(files, but=paths))
    for key, name in weight_map.items():
        if key not in tensors.files:
            raise UserError(f"{directory / name}: {key}, which {indices[0].name} puts here, is not in it")
    return tensors


def _names(paths: list[epath.Path], but: list[epath.Path]) -> list[str]:
    return [path.name for path in paths if path not in but]


def _need_all_shards(paths: list[epath.Path]) -> None:
    """Raises UserError if a shard such as model-00001-of-00005.safetensors is missing, without an index."""
    names = {path.name for path in paths}
    for path in paths:
        match = re.fullmatch(r"(.*-)(\d+)-of-(\d+)(\.safetensors)", path.name)
        for i in range(1, int(match[3]) + 1) if match else ():
            assert match
            name = f"{match[1]}{i:0{len(match[2])}}-of-{match[3]}{match[4]}"
            if name not in names:
                raise UserError(f"{path.parent / name}: this shard is missing; download it")


def _why_damaged(path: epath.Path, error: Exception) -> str:
    try:
        need_regular(path)
        with path.open("rb") as file:
            start = file.read(len(LFS_POINTER))
    except OSError:
        start = b""
    if start == LFS_POINTER:
        return "this is Git LFS's pointer to the file, not the file; run git lfs pull, or download it"
    return f"not a safetensors file ({first_line(error)}); download it again"


def _common_prefix(keys: Iterable[str], name: Callable[[str], str], wanted: set[str]) -> str:
    """The most common prefix of the wanted keys; "" if any of them has no prefix."""
    prefixes: collections.Counter[str] = collections.Counter()
    for key in keys:
        starts = (0, *(match.end() for match in re.finditer(r"\.", key)))
        start = next((i for i in starts if name(key[i:]) in wanted), None)
        if start is not None:
            prefixes[key[:start]] += 1
    return "" if "" in prefixes or not prefixes else prefixes.most_common(1)[0][0]


def find_pickles(directory: epath.Path) -> list[epath.Path]:
    """The files in a directory with the suffixes of pickled weights."""
    return listed(directory, *PICKLES)


def refuse_pickle(path: epath.Path) -> UserError:
    """The error for a pickled file, which explains how to convert it to safetensors."""
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

    (huggingface_hub's `split_state_dict_into_shards_factory` reorders large tensors; `tensors` cannot be
    reordered.)

    Args:
        directory: directory to write to.
        stem: prefix of the file names.
        sizes: bytes of each tensor by key, in the order of `tensors`.
        tensors: pairs of key and array, consumed one by one.

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
        with replacing(directory / name) as temporary:
            safetensors.numpy.save_file(contiguous, temporary, metadata={"format": "pt"})
        del shard, contiguous
    if count > 1:
        index: dict[str, Any] = {
            "metadata": {"total_size": sum(sizes.values())},
            "weight_map": {key: name for name, keys in zip(names, shards, strict=True) for key in keys},
        }
        write_text(directory / f"{stem}.safetensors.index.json", json.dumps(index, indent=2))
    return names


def read_json(path: epath.Path) -> dict[str, Any]:
    """Reads a file with a JSON object. Raises UserError if it is missing or invalid."""
    try:
        need_regular(path)
        values = parse_json(read_text(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: this file is missing; it is needed next to the weights") from error
    except OSError as error:
        raise UserError(f"{path}: this file cannot be read ({error.strerror or error})") from error
    except ValueError as error:  # not JSON, or not text
        if path.read_bytes().startswith(LFS_POINTER):
            raise UserError(f"{path}: {_why_damaged(path, error)}") from error
        raise UserError(f"{path}: this is not valid JSON ({error}); download it again") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a JSON object is needed, not {type(values).__name__}; download it again")
    return values
