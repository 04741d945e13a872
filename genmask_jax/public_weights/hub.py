"""Downloads public weights from the Hugging Face hub: only files that are imported, never pickles.

Files go to the hub's cache (HF_HOME), where an interrupted download is resumed. Gated repositories need a
login with `hf auth login` or HF_TOKEN.
"""

import fnmatch
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import huggingface_hub
from etils import epath
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RevisionNotFoundError

from genmask_jax.utils.errors import UserError, first_line

SCHEME = "hf:"
SUFFIXES = (".safetensors", ".json", ".txt", ".jinja")
"""Suffixes of files that may be downloaded."""
CHUNK_BYTES = 2**24
"""Number of bytes that are hashed at a time."""
RETRY = "rerun the command to resume the download"


def resolve(
    source: str, patterns: Sequence[str], check: Callable[[list[str]], None] | None = None
) -> epath.Path:
    """Returns the folder that --from names; hf:OWNER/NAME[@REVISION] is downloaded.

    Args:
        source: the value of --from.
        patterns: patterns of the files to download, as in `fnmatch`; `*` matches `/` too.
        check: called with the names of all files in the repository; may raise UserError.

    Raises:
        UserError: the repository or revision does not exist, is gated, cannot be reached or has no weights,
            or a downloaded file is damaged.
    """
    if not source.startswith(SCHEME):
        return epath.Path(source)
    name, _, revision = source.removeprefix(SCHEME).partition("@")
    try:
        return _download(source, name, revision or None, patterns, check)
    except GatedRepoError as error:
        raise UserError(
            f"--from={source}: this repository is gated; accept its terms at "
            f"{huggingface_hub.constants.ENDPOINT}/{name}, then log in with hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"--from={source}: the repository has no revision {revision!r}") from error
    except HFValidationError as error:
        raise UserError(f"--from={source}: give hf:OWNER/NAME or hf:OWNER/NAME@REVISION") from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 404):
            reason = "this repository does not exist, or is private (log in with hf auth login)"
            raise UserError(f"--from={source}: {reason}") from error
        raise UserError(f"--from={source}: {first_line(error)}; {RETRY}") from error
    except UserError:
        raise
    except Exception as error:  # any error of the network or the disk
        raise UserError(f"--from={source}: {first_line(error)}; {RETRY}") from error


def _download(
    source: str,
    name: str,
    revision: str | None,
    patterns: Sequence[str],
    check: Callable[[list[str]], None] | None,
) -> epath.Path:
    info = huggingface_hub.HfApi().model_info(name, revision=revision, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or ()}
    if check is not None:
        check(list(files))
    names = [file for file in files if any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns)]
    names = [file for file in names if file.endswith(SUFFIXES)]
    if not any(file.endswith(".safetensors") for file in names):
        raise UserError(f"--from={source}: the repository has no *.safetensors to import")
    total = sum(files[file].size or 0 for file in names) / 1e9
    print(f"{source}: {len(names)} files, {total:.2f} GB, revision {info.sha}")
    folder = epath.Path(huggingface_hub.snapshot_download(name, revision=info.sha, allow_patterns=names))
    for file in names:
        if not _is_intact(folder / file, files[file]):  # try once more, without the cache
            huggingface_hub.hf_hub_download(name, file, revision=info.sha, force_download=True)
            if not _is_intact(folder / file, files[file]):
                raise UserError(
                    f"--from={source}: {file}: the hash of the download differs from the hub's; rerun the "
                    "command"
                )
    return folder


def _is_intact(path: epath.Path, file: Any) -> bool:
    """Whether a file has the size and, if it is in LFS, the SHA-256 that the hub reports."""
    if file.size is not None and path.stat().length != file.size:
        return False
    if file.lfs is None:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == file.lfs.sha256
