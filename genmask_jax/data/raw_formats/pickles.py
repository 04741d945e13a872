"""Reads untrusted pickles of plain data, without running code in them."""

import io
import pickle
from typing import Any

from etils import epath

from genmask_jax.utils.errors import UserError, first_line
from genmask_jax.utils.paths import need_regular


class _PlainUnpickler(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Loads containers, strings and numbers; rejects pickles that need any class or function.

    It is the unpickler in Python: the one in C takes as much memory as a pickle of a few bytes asks for.
    """

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it needs {module_name}.{global_name}")


def load_plain(path: epath.PathLike) -> Any:
    """Loads the lists, dictionaries, strings and numbers of a pickle of any protocol, also from Python 2.

    Raises:
        UserError: the file is missing, is not a pickle, or needs a class or function, which could run
            arbitrary code and is not run.
    """
    try:
        need_regular(epath.Path(path))
        content = epath.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        try:
            return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
        except UnicodeDecodeError:  # Python 2's strings may hold any bytes
            return _PlainUnpickler(io.BytesIO(content), encoding="latin-1").load()
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(
            f"{path} is not a pickle of plain data and was not read: {first_line(error)}"
        ) from error
