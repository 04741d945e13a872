"""Layouts of our parameters in public (PyTorch) weights, tensor by tensor, in both directions."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A bijection between one public tensor and (one layer of) a parameter of ours; nothing is rounded."""

    to_ours: Callable[[Any], Any]
    to_public: Callable[[Any], Any]


SAME = Layout(lambda x: x, lambda x: x)
LINEAR = Layout(lambda x: x.T, lambda x: x.T)
"""`[out, in]` -> `[in, out]`."""
TABLE = Layout(lambda x: x[0], lambda x: x[None])
"""`[1, n, D]` -> `[n, D]`."""
CONV_2D = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
"""`[O, I, kh, kw]` -> `[kh, kw, I, O]`."""
CHANNELS_2D = Layout(lambda x: x[:, 0, 0], lambda x: x[:, None, None])
"""`[C, 1, 1]` -> `[C]`."""
CHANNELS_3D = Layout(lambda x: x[:, 0, 0, 0], lambda x: x[:, None, None, None])
"""`[C, 1, 1, 1]` -> `[C]`."""


def patch_projection(patch: int) -> Layout:
    """`[D, C, 1, p, p]`, a convolution over patches, -> `[C * p * p, D]`, a projection of them."""
    return Layout(
        lambda x: x.reshape(x.shape[0], -1).T, lambda x: x.T.reshape(x.shape[1], -1, 1, patch, patch)
    )


def causal_conv(taps: int) -> Layout:
    """`[O, I, t, kh, kw]` -> `[kh, kw, I, O]`: for a single frame, only the last of t temporal taps matters.

    On the way back, the other taps are zeros: the export is exact for single frames only.
    """

    def to_public(x: Any) -> Any:
        last = (np.arange(taps) == taps - 1).astype(x.dtype)
        return CONV_2D.to_public(x)[:, :, None] * last[:, None, None]

    return Layout(lambda x: CONV_2D.to_ours(x[:, :, -1]), to_public)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter of ours and its tensors in public weights.

    path: in our state, such as "blocks.attn1.to_q.kernel".
    shape: of our parameter; the first axis counts layers if `stacked`.
    keys: of the public tensors: one per layer if `stacked`, else one.
    public_shape: of each of them.
    """

    path: str
    shape: tuple[int, ...]
    keys: tuple[str, ...]
    public_shape: tuple[int, ...]
    layout: Layout
    stacked: bool = False

    def gather(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Assembles the parameter in memory from public tensors by key."""
        layers = [self.layout.to_ours(tensors[key]) for key in self.keys]
        return np.stack(layers) if self.stacked else np.array(layers[0])


def public_name(path: str, names: Mapping[str, str]) -> tuple[str, str]:
    """The longest module in `names` that a path of ours begins with, and the path's public key."""
    module = max((name for name in names if f"{path}.".startswith(f"{name}.")), key=len)
    return module, re.sub(r"\.(kernel|scale)$", ".weight", names[module] + path[len(module) :])


def make_entry(path: str, shape: tuple[int, ...], key: str, layout: Layout) -> Entry:
    """An entry; `{}` in `key` stands for the layer's index along `shape`'s first axis."""
    stacked = "{}" in key
    keys = tuple(key.format(i) for i in range(shape[0])) if stacked else (key,)
    one = jax.ShapeDtypeStruct(shape[1:] if stacked else shape, np.float32)
    return Entry(path, tuple(shape), keys, jax.eval_shape(layout.to_public, one).shape, layout, stacked)


def complaints(entries: Iterable[Entry], shapes: dict[str, tuple[int, ...]], unused: Iterable[str]) -> list:
    """Mismatches of public tensors and model: one line per missing, left-over or wrongly shaped key.

    Args:
        entries: what the model needs.
        shapes: of the available public tensors, by key.
        unused: keys of tensors that are ignored on purpose.
    """
    wanted = {key: entry.public_shape for entry in entries for key in entry.keys}
    lines = [f"{key} is missing" for key in wanted if key not in shapes]
    lines += [f"{key} is left over" for key in sorted(shapes.keys() - wanted.keys() - set(unused))]
    lines += [
        f"{key} has shape {tuple(shapes[key])}, not {shape}"
        for key, shape in wanted.items()
        if key in shapes and tuple(shapes[key]) != shape
    ]
    return lines
