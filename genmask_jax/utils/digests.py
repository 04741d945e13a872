"""Digests of a folder's files, written after them and compared before they are used.

Orbax and safetensors store no checksums of arrays: a flipped bit in a file would change numbers silently.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from etils import epath

from genmask_jax.utils.errors import DamagedError, need_accessible
from genmask_jax.utils.paths import is_inside, need_regular, parse_json, write_text

DIGESTS = "digests.json"
"""Name of the file with the SHA-256 of each file of its folder, by relative path."""
THREADS = 8
BLOCK = 2**20


def write_digests(folder: epath.PathLike, names: Iterable[str] | None = None) -> None:
    """Writes the digests of files in a folder.

    Args:
        folder: the folder.
        names: the files; by default, all files in the folder and below it. Earlier digests are left out.
    """
    folder = epath.Path(folder)
    names = _names_below(folder) if names is None else sorted(set(names) - {DIGESTS})
    write_text(folder / DIGESTS, json.dumps(_digests(folder, names), indent=1))


def check_digests(
    folder: epath.PathLike,
    part: tuple[int, int] = (0, 1),
    fix: str = "restore it from a copy, or use another",
) -> None:
    """Compares the files in a folder with their digests. Does nothing if the folder has none.

    Args:
        folder: written by this version or by an older one, which wrote no digests.
        part: (i, n) to compare every n-th file only, starting with the i-th one.
        fix: what the user can do about a damaged file.

    Raises:
        DamagedError: a file is missing or has changed, or the digests cannot be read.
    """
    folder = epath.Path(folder)
    try:
        if not (folder / DIGESTS).exists():
            return
        need_regular(folder / DIGESTS)
        digests = dict(parse_json((folder / DIGESTS).read_bytes()))
        if elsewhere := [name for name in digests if not is_inside(folder / name, folder)]:
            raise ValueError(f"{elsewhere[0]} is in another folder")
        names = sorted(digests)[part[0] :: part[1]]
        found = _digests(folder, names)
    except FileNotFoundError as error:
        raise DamagedError(f"{error.filename or folder} is missing; {fix}") from error
    except (OSError, ValueError, TypeError) as error:
        need_accessible(folder, error)
        raise DamagedError(f"{folder / DIGESTS}: the files cannot be compared ({error}); {fix}") from error
    for name in names:
        if found[name] != digests[name]:
            raise DamagedError(f"{folder / name} is damaged: it changed after it was written; {fix}")


def _names_below(folder: epath.Path, prefix: str = "") -> list[str]:
    """The paths of all files below a folder, except its digests, relative to it."""
    names = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            names += _names_below(path, f"{prefix}{path.name}/")
        elif path.name != DIGESTS:
            names.append(prefix + path.name)
    return names


def _digests(folder: epath.Path, names: list[str]) -> dict[str, str]:
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: _digest(folder / name), names), strict=True))


def _digest(path: epath.Path) -> str:
    need_regular(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):  # files in buckets lack what hashlib.file_digest needs
            digest.update(block)
    return digest.hexdigest()
