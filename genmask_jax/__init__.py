"""GenMask-JAX: one diffusion transformer that generates images and segmentation masks.

`__all__` is the public interface; what is not in it may change at any time. Importing the package is quick:
JAX is imported when one of these is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Generator", "Segmentation", "Segmenter", "UnknownWordWarning", "UserError", "__version__"]

_HOMES = {
    "Generator": "genmask_jax.inference.generator",
    "Segmentation": "genmask_jax.inference.segmentation",
    "Segmenter": "genmask_jax.inference.segmenter",
    "UnknownWordWarning": "genmask_jax.utils.errors",
    "UserError": "genmask_jax.utils.errors",
}

if TYPE_CHECKING:
    from genmask_jax.inference.generator import Generator
    from genmask_jax.inference.segmentation import Segmentation
    from genmask_jax.inference.segmenter import Segmenter
    from genmask_jax.utils.errors import UnknownWordWarning, UserError


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
