"""FLOPs of HLO instructions: matrix products, convolutions and attention kernels."""

import math
import re

from genmask_jax.hardware.flops import valid_pairs
from genmask_jax.tools.estimates.hlo import Array, Instruction

SPLASH_ATTENTION = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""Number of matrix products of the size of Q K^T in each kernel of splash attention."""
CUDNN_ATTENTION = {"__cudnn$fmhaSoftmax": 2, "__cudnn$fmhaSoftmaxBackward": 5}
"""Number of matrix products of the size of Q K^T in each attention kernel of cuDNN, by call target."""
CUDNN_CONVOLUTION = "__cudnn$conv"
CUBLAS = "__cublas$"
"""Prefixes of the call targets of cuDNN convolutions and cuBLAS matrix products."""


def instruction_flops(i: Instruction, operands: list[Array]) -> float:
    """FLOPs of one execution; 0 for instructions that are not matrix products, convolutions or attention."""
    if i.opcode == "dot":
        return _product_flops(i, operands, r"lhs_contracting_dims=\{([\d,]*)\}")
    if i.opcode == "convolution":
        return _convolution_flops(i, operands[0], operands[1], i.arrays[0])
    if i.opcode == "custom-call":
        return _custom_call_flops(i, operands)
    return 0.0


def _custom_call_flops(i: Instruction, operands: list[Array]) -> float:
    match = re.search(r'custom_call_target="([^"]+)"', i.attributes)
    target = match[1] if match else ""
    if target in CUDNN_ATTENTION:
        return CUDNN_ATTENTION[target] * _attention_flops(operands, sequence_axis=1)
    if target.startswith(CUBLAS):
        return _product_flops(i, operands, r'"lhs_contracting_dimensions":\[([^\]]*)\]')
    if target.startswith(CUDNN_CONVOLUTION):
        return _cudnn_convolution_flops(i, operands, target)
    for name, products in SPLASH_ATTENTION.items():
        if i.name.startswith(name):
            return products * _attention_flops(operands, sequence_axis=2)
    return 0.0


def _product_flops(i: Instruction, operands: list[Array], contracting: str) -> float:
    """FLOPs of a matrix product; the pattern finds the contracting dimensions of the first operand."""
    match = re.search(contracting, i.attributes)
    dims = [int(d) for d in re.findall(r"\d+", match[1])] if match else []
    return 2.0 * math.prod(i.arrays[0].dims) * math.prod(operands[0].dims[d] for d in dims)


def _attention_flops(operands: list[Array], *, sequence_axis: int) -> float:
    """FLOPs of Q K^T; queries and keys are the first two arrays with four axes."""
    queries, keys = [array.dims for array in operands if len(array.dims) == 4][:2]
    return 2.0 * math.prod(queries) * keys[sequence_axis]


def _cudnn_convolution_flops(i: Instruction, operands: list[Array], target: str) -> float:
    """FLOPs of a convolution or its gradients, which have the window and the labels of the convolution."""
    first, second, result = operands[0], operands[1], i.arrays[0]
    if target.endswith("BackwardInput"):  # (gradient of the output, kernel) -> gradient of the input
        return _convolution_flops(i, result, second, first)
    if target.endswith("BackwardFilter"):  # (input, gradient of the output) -> gradient of the kernel
        return _convolution_flops(i, first, result, second)
    return _convolution_flops(i, first, second, result)


def _convolution_flops(i: Instruction, inputs: Array, kernel: Array, outputs: Array) -> float:
    """2 FLOPs per product of a kernel and an input element; padding and dilation are not counted."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    assert labels is not None
    input_labels, kernel_labels, output_labels = labels[1], labels[2], labels[3]
    match = re.search(r"window=\{([^}]*)\}", i.attributes)
    window = dict(re.findall(r"(\w+)=([\w\-]+)", match[1] if match else ""))
    out = outputs.dims
    total = 2.0 * out[output_labels.index("b")] * out[output_labels.index("f")]
    total *= kernel.dims[kernel_labels.index("i")]
    for n in range(len(kernel_labels) - 2):
        axis = str(n)
        total *= valid_pairs(
            inputs.dims[input_labels.index(axis)],
            kernel.dims[kernel_labels.index(axis)],
            out[output_labels.index(axis)],
            stride=int(_window_value(window, "stride", n, "1")),
            low=int(_window_value(window, "pad", n, "0_0").split("_")[0]),
            lhs_dilate=int(_window_value(window, "lhs_dilate", n, "1")),
            rhs_dilate=int(_window_value(window, "rhs_dilate", n, "1")),
        )
    groups = re.search(r"batch_group_count=(\d+)", i.attributes)
    return total / (int(groups[1]) if groups else 1)


def _window_value(window: dict[str, str], name: str, axis: int, default: str) -> str:
    return window[name].split("x")[axis] if name in window else default
