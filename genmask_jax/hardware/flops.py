"""FLOPs of the matrix products and convolutions in a traced function."""

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

    Recomputation in the backward pass (blocks by `remat`, attention weights) is not counted, nor are
    operations that autodiff omits, such as gradients of frozen parameters.

    trained: forward and backward pass of the networks with trained parameters (the DiT, with or without
        adapters, and the instruction encoder if any of it is trained), as usual for MFU. None for a sampler.
    every: `trained` plus the forward pass of the frozen networks in the program (the VAE, a frozen encoder).
    """

    trained: float | None
    every: float

    def __truediv__(self, divisor: float) -> "ModelFlops":
        return ModelFlops(None if self.trained is None else self.trained / divisor, self.every / divisor)


def count_flops(function: Callable, *arguments: Any) -> float:
    """FLOPs of one call (2 per multiply-add), summed over all devices. Nothing is compiled or allocated.

    The most expensive branch of a `cond` is counted. The body of a `while` is counted once, since its trip
    count is unknown.

    Args:
        function: function to trace.
        arguments: its arguments, or their shapes.
    """
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: Any) -> float:
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2.0 * math.prod(out) * math.prod(left[d] for d in contracted)
    if name == "conv_general_dilated":
        return _convolution_flops(equation)
    if name == "cond":
        return max(_count(branch.jaxpr) for branch in parameters["branches"])
    trip_count = parameters["length"] if name == "scan" else 1
    return trip_count * sum(_count(jaxpr) for jaxpr in _nested_jaxprs(parameters))


def _convolution_flops(equation: Any) -> float:
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
    """Number of (output, kernel) positions that read an input element, along one axis of a convolution.

    Padding and the zeros that dilate the input are not counted.
    """
    position = np.arange(out)[:, None] * stride + np.arange(kernel) * rhs_dilate - low
    is_inside = (position >= 0) & (position <= (size - 1) * lhs_dilate)
    return int((is_inside & (position % lhs_dilate == 0)).sum())


def _nested_jaxprs(parameters: dict[str, Any]) -> list[Any]:
    jaxprs = []
    for name, value in parameters.items():
        if name in ("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "cond_jaxpr"):
            continue
        jaxpr = getattr(value, "jaxpr", value)
        if hasattr(jaxpr, "eqns"):
            jaxprs.append(jaxpr)
    return jaxprs
