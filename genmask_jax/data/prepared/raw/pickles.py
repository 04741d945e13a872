"""Pickles from outside: plain data is read, and nothing in them is run."""

import io
import pickle
from typing import Any

from etils import epath

from genmask_jax.errors import UserError


class _PlainUnpickler(pickle.Unpickler):
    """Containers, strings and numbers need no names; whatever asks for one is refused."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


def load_plain(path: epath.Path) -> Any:
    """The lists, dictionaries, strings and numbers of a pickle, of any protocol and of Python 2 as well.

    Raises:
        UserError: the file is missing or no pickle, or it asks for a class or function, which could run
            anything: nothing of it is run.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        try:
            return _PlainUnpickler(io.BytesIO(content), encoding="utf-8").load()
        except UnicodeDecodeError:  # Python 2's strings may be anything
            return _PlainUnpickler(io.BytesIO(content), encoding="latin-1").load()
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to say
        raise UserError(f"{path} is no pickle of plain data and is not read: {error}") from error
