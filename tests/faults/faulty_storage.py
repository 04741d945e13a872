"""Storage that fails or is slow, for one process: see faulty_storage.c."""

import contextlib
import ctypes
import os
import pathlib
import subprocess
from collections.abc import Iterator

SOURCE = pathlib.Path(__file__).with_suffix(".c")


def environment(folder: pathlib.Path) -> dict[str, str]:
    """Compiles the library into `folder`; returns the environment of processes that `faulty` can affect."""
    library = folder / "faulty_storage.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return os.environ | {"LD_PRELOAD": str(library)}


@contextlib.contextmanager
def faulty(
    folder: pathlib.Path,
    number: int = 0,
    *,
    after_bytes: int = -1,
    after_calls: int = 0,
    seconds_per_call: float = 0.0,
) -> Iterator[ctypes.CDLL]:
    """Makes calls of this process fail that open, create, rename, write or sync files below a folder.

    Args:
        folder: an absolute path.
        number: the error, such as `errno.ENOSPC`; 0 for none, to count calls and bytes.
        after_bytes: only writes fail, once that many bytes were written, as on a full disk.
        after_calls: without `after_bytes`, all calls after that many fail.
        seconds_per_call: time that each call takes.

    Yields:
        The library, with `fault_calls()`, `fault_bytes()` and `fault_failed()`, the counts so far.
    """
    library = ctypes.CDLL(None)
    library.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, *[ctypes.c_long] * 3]
    delay = round(seconds_per_call * 1000)
    library.fault_arm(os.fsencode(folder), number, after_bytes, after_calls, delay)
    try:
        yield library
    finally:
        library.fault_arm(b"", 0, -1, 0, 0)
