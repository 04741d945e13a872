"""Compiled programs: shared by all models of one shape, and kept on disk for the processes that follow."""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from etils import epath
from jax.experimental.compilation_cache import compilation_cache

from genmask_jax.utils import hosts

PATIENCE = 3.0
"""Seconds of compilation before the user is told of it."""
SHORTEST = 0.1
"""Seconds of compilation from which a program is kept on disk."""


class Program:
    """A jitted function of (params, frozen, *batch), compiled once for each shape of the batch.

    The first call for each shape reads the program from the cache on disk or compiles it, and says so on
    stderr, once in a process, if that takes longer than PATIENCE.
    """

    def __init__(self, trace: Callable[..., Any]):
        """`trace` must not hold weights: programs outlive models."""
        self.trace = trace
        self._call, self._shapes = jax.jit(trace), set()

    def __call__(self, params: Any, frozen: Any, *batch: Any) -> Any:
        shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves(batch))
        if shapes in self._shapes:
            return self._call(params, frozen, *batch)
        with caching(), _announcing():
            result = self._call(params, frozen, *batch)
        self._shapes.add(shapes)
        return result


@functools.lru_cache(maxsize=64)
def shared_program(trace: Callable[..., Any], *fixed: Any) -> Program:
    """The program of `trace` with its first arguments fixed; the same one for equal arguments.

    Args:
        trace: a function of (*fixed, params, frozen, *batch).
        fixed: hashable, such as the model's graph and its mesh.
    """
    return Program(functools.partial(trace, *fixed))


def default_cache() -> str:
    """Where compiled programs are kept if the user names no place: in the user's cache folder."""
    home = epath.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return str(home / "genmask_jax")


def use_compilation_cache() -> None:
    """Keeps all compiled programs of this process, in JAX_COMPILATION_CACHE_DIR or `default_cache`."""
    if _directory() is None:
        jax.config.update("jax_compilation_cache_dir", default_cache())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


_lock = threading.Lock()
_within, _before = 0, SHORTEST


@contextlib.contextmanager
def caching() -> Iterator[None]:
    """Keeps the programs that are compiled within it, and leaves JAX's settings as they were.

    If the user has set a directory (JAX_COMPILATION_CACHE_DIR or `jax_compilation_cache_dir`), or switched
    the cache off (JAX_ENABLE_COMPILATION_CACHE=0), nothing is changed.
    """
    global _within, _before
    with _lock:
        ours = _within > 0 or (_directory() is None and _enabled() and _can_write(default_cache()))
        if ours and not _within:
            _before = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore
            use_compilation_cache()
        _within += ours
    try:
        yield
    finally:
        with _lock:
            _within -= ours
            if ours and not _within:
                jax.config.update("jax_compilation_cache_dir", None)
                jax.config.update("jax_persistent_cache_min_compile_time_secs", _before)
                compilation_cache.reset_cache()  # else JAX would go on using the directory


def _directory() -> str | None:
    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def _enabled() -> bool:
    return jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _can_write(directory: str) -> bool:
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)


_announced = threading.Event()


@contextlib.contextmanager
def _announcing() -> Iterator[None]:
    timer = threading.Timer(PATIENCE, _announce, [_directory() if _enabled() else None])
    timer.daemon = True
    if not _announced.is_set():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _announce(directory: str | None) -> None:
    if _announced.is_set() or not hosts.is_first():
        return
    _announced.set()
    kept = f"kept in {directory} for later processes" if directory else "not kept: there is no cache on disk"
    print(f"compiling the model for {jax.default_backend()}; {kept}", file=sys.stderr, flush=True)
