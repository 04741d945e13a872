"""Fetches public weights from the Hugging Face hub: only what is imported, never pickles.

Files go to the hub's cache (HF_HOME), where an interrupted download goes on. Gated repositories need a login,
by `hf auth login` or HF_TOKEN.
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
KINDS = (".safetensors", ".json", ".txt", ".jinja")
"""Ends of the names of files that are fetched, whatever the patterns say."""
PIECE = 2**24
"""Bytes that are hashed at a time."""


def resolve(
    source: str, patterns: Sequence[str], check: Callable[[list[str]], None] | None = None
) -> epath.Path:
    """The folder that --from names: a path, or hf:OWNER/NAME[@REVISION], which is downloaded.

    Args:
        source: the value of --from.
        patterns: of the files to download, as `fnmatch` takes them; `*` matches `/` too.
        check: takes the names of all files of the repository, and raises UserError if it is not to be had.

    Raises:
        UserError: there is no such repository or revision, it is gated, cannot be reached, has none of the
            files, or a file is not what the hub says that it is.
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
            why = "there is no such repository, or it is private (hf auth login)"
            raise UserError(f"--from={source}: {why}") from error
        raise UserError(f"--from={source}: {first_line(error)}; repeat the command to go on") from error
    except UserError:
        raise
    except Exception as error:  # what the network, or the disk, makes the library raise
        raise UserError(f"--from={source}: {first_line(error)}; repeat the command to go on") from error


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
    wanted = [file for file in files if any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns)]
    wanted = [file for file in wanted if file.endswith(KINDS)]
    if not any(file.endswith(".safetensors") for file in wanted):
        raise UserError(f"--from={source}: the repository has no *.safetensors that are imported")
    total = sum(files[file].size or 0 for file in wanted) / 1e9
    print(f"{source}: {len(wanted)} files, {total:.2f} GB, of revision {info.sha}")
    folder = epath.Path(huggingface_hub.snapshot_download(name, revision=info.sha, allow_patterns=wanted))
    for file in wanted:
        if not _is_whole(folder / file, files[file]):  # once more, past the cache
            huggingface_hub.hf_hub_download(name, file, revision=info.sha, force_download=True)
            if not _is_whole(folder / file, files[file]):
                raise UserError(
                    f"--from={source}: {file} arrives damaged: its hash is not what the hub says; repeat the "
                    "command"
                )
    return folder


def _is_whole(path: epath.Path, file: Any) -> bool:
    """Whether a file has the size and, if it is a large one, the SHA-256 that the hub says."""
    if file.size is not None and path.stat().length != file.size:
        return False
    if file.lfs is None:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while piece := content.read(PIECE):
            digest.update(piece)
    return digest.hexdigest() == file.lfs.sha256
