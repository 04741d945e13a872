"""Layouts of parameters in public (PyTorch) weights, tensor by tensor, in both directions."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """A bijection between one public tensor and (one layer of) one of our parameters, without rounding."""

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
    """A convolution over patches, `[D, C, 1, p, p]`, -> a projection of them, `[C * p * p, D]`."""
    return Layout(
        lambda x: x.reshape(x.shape[0], -1).T, lambda x: x.T.reshape(x.shape[1], -1, 1, patch, patch)
    )


def causal_conv(taps: int) -> Layout:
    """`[O, I, t, kh, kw]` -> `[kh, kw, I, O]`: a single frame only uses the last of t temporal taps.

    In the other direction, the other taps become zero, so the export is exact for single frames only.
    """

    def to_public(x: Any) -> Any:
        last = (np.arange(taps) == taps - 1).astype(x.dtype)
        return CONV_2D.to_public(x)[:, :, None] * last[:, None, None]

    return Layout(lambda x: CONV_2D.to_ours(x[:, :, -1]), to_public)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our parameters and its tensors in public weights.

    path: path in our state, such as "blocks.attn1.to_q.kernel".
    shape: shape of our parameter; the first axis counts layers if `stacked`.
    keys: keys of the public tensors: one per layer if `stacked`, else one.
    public_shape: shape of each public tensor.
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
    """The longest module in `names` that one of our paths starts with, and the public key of the path."""
    module = max((name for name in names if f"{path}.".startswith(f"{name}.")), key=len)
    return module, re.sub(r"\.(kernel|scale)$", ".weight", names[module] + path[len(module) :])


def make_entry(path: str, shape: tuple[int, ...], key: str, layout: Layout) -> Entry:
    """An entry; `{}` in `key` stands for the layer's index along `shape`'s first axis."""
    stacked = "{}" in key
    keys = tuple(key.format(i) for i in range(shape[0])) if stacked else (key,)
    one = jax.ShapeDtypeStruct(shape[1:] if stacked else shape, np.float32)
    return Entry(path, tuple(shape), keys, jax.eval_shape(layout.to_public, one).shape, layout, stacked)


def complaints(entries: Iterable[Entry], shapes: dict[str, tuple[int, ...]], unused: Iterable[str]) -> list:
    """Mismatches of public tensors and model: a line for each missing, extra or wrongly shaped tensor.

    Args:
        entries: entries of the model.
        shapes: shapes of the available public tensors, by key.
        unused: keys of tensors that are deliberately ignored.
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
