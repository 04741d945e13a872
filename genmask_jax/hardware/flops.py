"""FLOPs of a traced function: its matrix products and convolutions, counted once per execution."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class ModelFlops:
    """Model FLOPs of a program, for model FLOPs utilization (MFU; Chowdhery et al. 2022, appendix B).

    Recomputation in the backward pass (blocks by `remat`, attention's weights) does not count, nor do
    operations that autodiff omits, such as gradients of frozen parameters.

    trained: forward and backward pass of the networks with trained parameters (the DiT, with or without
        adapters, and the instruction encoder if any of it is trained): the usual figure. None for a sampler.
    every: the same, and the forward pass of the frozen networks in the program (the VAE, a frozen encoder).
    """

    trained: float | None
    every: float

    def __truediv__(self, divisor: float) -> "ModelFlops":
        return ModelFlops(None if self.trained is None else self.trained / divisor, self.every / divisor)


def count_flops(function: Callable, *arguments: Any) -> float:
    """FLOPs of one call (2 per multiply-add), summed over all devices. Nothing is compiled or allocated.

    A `cond` counts its most expensive branch. The body of a `while`, whose trip count is unknown, counts
    once.

    Args:
        function: function to trace.
        arguments: its arguments, or their shapes.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> float:
    return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2.0 * math.prod(out) * math.prod(left[d] for d in contracted)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in parameters["branches"])
    times = parameters["length"] if name == "scan" else 1
    return times * sum(_count(inner) for inner in _inner(parameters))


def _convolution(equation: Any) -> float:
    parameters = equation.params
    left, kernel, out = (x.aval.shape for x in (*equation.invars, *equation.outvars))
    numbers = parameters["dimension_numbers"]
    lhs_spec, rhs_spec, out_spec = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    total = 2.0 * out[out_spec[0]] * out[out_spec[1]] * kernel[rhs_spec[1]] / parameters["batch_group_count"]
    for n, (x, k, o) in enumerate(zip(lhs_spec[2:], rhs_spec[2:], out_spec[2:], strict=True)):
        total *= valid_pairs(
            left[x],
            kernel[k],
            out[o],
            stride=parameters["window_strides"][n],
            low=parameters["padding"][n][0],
            lhs_dilate=parameters["lhs_dilation"][n],
            rhs_dilate=parameters["rhs_dilation"][n],
        )
    return total


@functools.lru_cache(maxsize=4096)
def valid_pairs(
    size: int, kernel: int, out: int, *, stride: int, low: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """Number of pairs of output and kernel positions that meet an input element, along one axis.

    Padding and the holes of a dilated input do not count.
    """
    place = np.arange(out)[:, None] * stride + np.arange(kernel) * rhs_dilate - low
    return int(((place >= 0) & (place <= (size - 1) * lhs_dilate) & (place % lhs_dilate == 0)).sum())


def _inner(parameters: dict[str, Any]) -> list[Any]:
    found = []
    for name, value in parameters.items():
        if name in ("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "cond_jaxpr"):
            continue
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
            found.append(inner)
    return found
