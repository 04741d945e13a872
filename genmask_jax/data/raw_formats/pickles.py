"""Reads untrusted pickles of plain data, without running code in them."""

import io
import pickle
from typing import Any

from etils import epath

from genmask_jax.utils.errors import UserError


class _PlainUnpickler(pickle.Unpickler):
    """Loads containers, strings and numbers; rejects pickles that need any class or function."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it needs {module_name}.{global_name}")


def load_plain(path: epath.PathLike) -> Any:
    """Loads the lists, dictionaries, strings and numbers of a pickle of any protocol, also from Python 2.

    Raises:
        UserError: the file is missing, is not a pickle, or needs a class or function, which could run
            arbitrary code and is not run.
    """
    try:
        content = epath.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        try:
            return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
        except UnicodeDecodeError:  # Python 2's strings may hold any bytes
            return _PlainUnpickler(io.BytesIO(content), encoding="latin-1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path} is not a pickle of plain data and was not read: {error}") from error
