"""Compiled programs, shared by models of the same shape and cached on disk for later processes."""

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

NOTICE_SECONDS = 3.0
"""Compilation time after which a notice is printed."""
MIN_CACHED_SECONDS = 0.1
"""Programs that compile faster than this are not cached on disk."""


class Program:
    """A jitted function of (params, frozen, *batch), compiled once for each shape of the batch.

    The first call for each shape reads the program from the cache on disk or compiles it. If that takes
    longer than NOTICE_SECONDS, a notice is printed to stderr, once per process.
    """

    def __init__(self, trace: Callable[..., Any]):
        """`trace` is a pure function. It must not hold weights, because programs outlive models."""
        self.trace = trace
        self._call, self._shapes = jax.jit(trace), set()

    def __call__(self, params: Any, frozen: Any, *batch: Any) -> Any:
        shapes = tuple((x.shape, x.dtype) for x in jax.tree.leaves(batch))
        if shapes in self._shapes:
            return self._call(params, frozen, *batch)
        with caching(), _slow_compilation_notice():
            result = self._call(params, frozen, *batch)
        self._shapes.add(shapes)
        return result


@functools.lru_cache(maxsize=64)
def shared_program(trace: Callable[..., Any], *static: Any) -> Program:
    """Returns the program of `trace` with static first arguments; equal arguments give the same object.

    Args:
        trace: a function of (*static, params, frozen, *batch).
        static: hashable values, such as the model's graph and its mesh.
    """
    return Program(functools.partial(trace, *static))


def default_cache() -> str:
    """The default directory of compiled programs, in the user's cache directory."""
    cache = epath.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return str(cache / "genmask_jax")


def use_compilation_cache() -> None:
    """Caches all compiled programs of this process in JAX_COMPILATION_CACHE_DIR or `default_cache`."""
    if _directory() is None:
        jax.config.update("jax_compilation_cache_dir", default_cache())
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_CACHED_SECONDS)


_lock = threading.Lock()
_num_active, _previous_min_seconds = 0, MIN_CACHED_SECONDS


@contextlib.contextmanager
def caching() -> Iterator[None]:
    """Caches programs that are compiled in this context on disk, and restores JAX's settings afterwards.

    If the user has set a directory (JAX_COMPILATION_CACHE_DIR or `jax_compilation_cache_dir`), or disabled
    the cache (JAX_ENABLE_COMPILATION_CACHE=0), this context changes nothing.
    """
    global _num_active, _previous_min_seconds
    with _lock:
        changes = _num_active > 0 or (_directory() is None and _enabled() and _can_write(default_cache()))
        if changes and not _num_active:
            _previous_min_seconds = jax.config.jax_persistent_cache_min_compile_time_secs  # pyright: ignore
            use_compilation_cache()
        _num_active += changes
    try:
        yield
    finally:
        with _lock:
            _num_active -= changes
            if changes and not _num_active:
                jax.config.update("jax_compilation_cache_dir", None)
                jax.config.update("jax_persistent_cache_min_compile_time_secs", _previous_min_seconds)
                compilation_cache.reset_cache()  # otherwise JAX would continue to use the directory


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


_notice_printed = threading.Event()


@contextlib.contextmanager
def _slow_compilation_notice() -> Iterator[None]:
    timer = threading.Timer(NOTICE_SECONDS, _print_notice, [_directory() if _enabled() else None])
    timer.daemon = True
    if not _notice_printed.is_set():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _print_notice(directory: str | None) -> None:
    if _notice_printed.is_set() or not hosts.is_first():
        return
    _notice_printed.set()
    cache = f"later runs load it from {directory}" if directory else "there is no cache on disk"
    print(f"compiling the model for {jax.default_backend()}; {cache}", file=sys.stderr, flush=True)
