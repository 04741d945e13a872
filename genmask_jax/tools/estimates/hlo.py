"""Reads FLOPs, bytes and collectives of a compiled program from its HLO text.

XLA's own `cost_analysis` counts the body of a loop once. Here it counts once per iteration; the trip count is
read from the loop's condition (loops over layers compare a counter with a constant).
"""

import dataclasses
import functools
import math
import re

import numpy as np

from genmask_jax.hardware.flops import valid_pairs

SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
ITEM_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s4": 0.5, "u4": 0.5, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4,
    "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1,
}  # fmt: skip
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "iota", "copy-start", "slice-start", "dynamic-slice-start", "async-done",
    "all-gather-done", "all-reduce-done", "collective-permute-done", "send-done", "recv-done",
}  # fmt: skip
SLICES, UPDATE = ("slice", "dynamic-slice"), "dynamic-update-slice"
MOVES = {"copy-done", "slice-done", "dynamic-slice-done"}
"""Ends of asynchronous copies between HBM and on-chip memory."""
KERNELS = {"splash_mha_fwd": 2, "splash_mha_dq": 3, "splash_mha_dkv": 4}
"""Number of matrix products of the size of Q K^T in each of splash attention's kernels."""
CUDNN_ATTENTION = {"__cudnn$fmhaSoftmax": 2, "__cudnn$fmhaSoftmaxBackward": 5}
"""The same for cuDNN's kernels, by the target of the call."""
CUDNN_CONVOLUTION = "__cudnn$conv"
CUBLAS = "__cublas$"
"""Prefixes of the targets of cuDNN's convolutions and cuBLAS's matrix products."""
SCRATCH = re.compile(r"\b[su]8\[\d+\]")
"""The last result of such a call: workspace, little of which is read or written."""
ASYNC = 'custom_call_target="AsyncCollective'
"""Start or end of an asynchronous collective."""
BESIDE = '"async_collective_fusion_config"'
"""In a collective's attributes: fused with other work, or the start or end of such a fusion."""
FAST_MEMORY = "S(1)"
"""In a layout: the array is in on-chip memory, not in HBM."""


@dataclasses.dataclass(frozen=True)
class Array:
    """An array's type: its dimensions, its bytes, and its bytes in HBM."""

    dims: tuple[int, ...]
    nbytes: float
    hbm_bytes: float


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a computation; `attributes` is the text after the operands."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str


@dataclasses.dataclass(frozen=True)
class Collective:
    """A collective: kind, devices per group, number of executions, bytes.

    nbytes: of its inputs or outputs, whichever is more, over all executions.
    channel: the compiler's channel id, if it is asynchronous.
    span: the largest device's number in a group less the smallest's, plus 1.
    """

    kind: str
    group: int
    count: float
    nbytes: float
    channel: str = ""
    span: int = 1


@dataclasses.dataclass(frozen=True)
class Piece:
    """Work of one instruction.

    flops, nbytes: FLOPs, and bytes read from and written to HBM, per execution.
    count: number of executions.
    scope: the computation that it is in, such as a loop's body; instructions in a scope run sequentially.
    ahead: whether it is an asynchronous copy, which overlaps with the rest of its scope.
    """

    flops: float
    nbytes: float
    count: float = 1
    scope: str = ""
    ahead: bool = False


@dataclasses.dataclass(frozen=True)
class Work:
    """Work of one device: pieces and collectives."""

    pieces: tuple[Piece, ...]
    collectives: tuple[Collective, ...]

    @property
    def flops(self) -> float:
        return sum(piece.flops * piece.count for piece in self.pieces)

    @property
    def nbytes(self) -> float:
        return sum(piece.nbytes * piece.count for piece in self.pieces)

    def times(self, count: float) -> "Work":
        return Work(
            tuple(dataclasses.replace(piece, count=piece.count * count) for piece in self.pieces),
            tuple(
                dataclasses.replace(c, count=c.count * count, nbytes=c.nbytes * count)
                for c in self.collectives
            ),
        )


def read_work(text: str) -> Work:
    """Reads the work per device from the text of a compiled program (`compiled.as_text()`).

    A conditional counts its branch with the most FLOPs. A custom call counts only its bytes, unless it is an
    attention kernel or one of cuDNN's or cuBLAS's.
    """
    return _Program(text).work()


class _Program:
    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        lines: list[Instruction] = []
        for line in text.splitlines():
            if line.endswith("{") and " -> " in line:
                name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
                lines = self.computations.setdefault(name, [])
                self.entry = name if line.startswith("ENTRY") else self.entry
            elif " = " in line and line.startswith("  "):
                lines.append(_instruction(line))
        self.types = {name: {i.name: i for i in found} for name, found in self.computations.items()}

    def work(self) -> Work:
        return self._computation(self.entry)

    @functools.cache  # noqa: B019 (lives as long as the program)
    def _computation(self, name: str) -> Work:
        pieces: list[Piece] = []
        collectives: list[Collective] = []
        seen: set[str] = set()
        for instruction in self.computations[name]:
            work = self._instruction(name, instruction)
            pieces += work.pieces
            # An asynchronous collective is in several fusions: its start, the overlapped work, its end.
            collectives += [c for c in work.collectives if not c.channel or c.channel not in seen]
            seen.update(c.channel for c in work.collectives)
        return Work(tuple(pieces), tuple(collectives))

    def _instruction(self, where: str, i: Instruction) -> Work:
        kind = i.opcode.removesuffix("-start")
        if i.opcode in FREE:
            return Work((), ())
        if i.opcode == "while":
            body, condition = _called(i, "body"), _called(i, "condition")
            return self._computation(body).times(self._trips(condition))
        if i.opcode == "conditional":
            listed = i.attributes.split("branch_computations={")[-1].split("}")[0]
            branches = re.findall(r"%([\w.\-]+)", listed)
            if "branch_computations" not in i.attributes:
                branches = [_called(i, "true_computation"), _called(i, "false_computation")]
            return max((self._computation(name) for name in branches), key=lambda work: work.flops)
        if kind in COLLECTIVES:
            given, made = (sum(a.nbytes for a in arrays) for arrays in (self._operands(where, i), i.arrays))
            if i.opcode.endswith("-start") and kind != "all-reduce":  # outputs include operands
                made -= given
            nbytes = max(given, made)
            channel = re.search(r"channel_id=(\d+)", i.attributes) if BESIDE in i.attributes else None
            group = _members(i.attributes)
            span = int(max(group) - min(group)) + 1
            found = Collective(kind, len(group), 1, nbytes, channel[1] if channel else "", span)
            return Work((), (found,))
        if i.opcode in ("call", "async-start"):
            return self._computation(_called(i, "to_apply") or _called(i, "calls"))
        if i.opcode == "fusion":
            inner = self._computation(_called(i, "calls"))
            piece = Piece(inner.flops, self._fusion_bytes(where, i), scope=where)
            collectives = inner.collectives
            if _called(i, "calls").startswith("all-reduce-scatter"):  # each device keeps a shard
                collectives = tuple(dataclasses.replace(c, kind="reduce-scatter") for c in collectives)
            return Work((piece,), collectives)
        if i.opcode in MOVES:
            return Work((Piece(0.0, sum(a.nbytes for a in i.arrays), scope=where, ahead=True),), ())
        operands = self._operands(where, i)
        nbytes = sum(a.hbm_bytes for a in (*i.arrays, *operands))
        if i.opcode in SLICES or i.opcode == "gather":
            nbytes = 2 * sum(a.hbm_bytes for a in i.arrays)
        if i.opcode == UPDATE:
            nbytes = 2 * operands[1].hbm_bytes
        return Work((Piece(_flops(i, operands), nbytes, scope=where),), ())

    def _operands(self, where: str, i: Instruction) -> list[Array]:
        types = self.types[where]
        return [array for name in i.operands if name in types for array in types[name].arrays]

    def _fusion_bytes(self, where: str, i: Instruction) -> float:
        """Bytes of operands and results; of arrays that are only sliced or updated in place, of the slice.

        Excludes what a collective in the fusion reads and writes. Bitcasts are looked through: GPU programs
        have one before a slice or after an update if the array's layout differs from the order of its axes.
        """
        inner = self.computations[_called(i, "calls")]
        root = inner[-1]
        if ASYNC in root.attributes:
            return 0.0
        types = self.types[_called(i, "calls")]
        renamed: dict[str, str] = {}  # by a bitcast

        def source(name: str) -> str:
            return renamed.get(name, name)

        users: dict[str, list[Instruction]] = {}
        for instruction in inner:
            if instruction.opcode == "bitcast":
                renamed[instruction.name] = source(instruction.operands[0])
                continue
            for operand in instruction.operands:
                users.setdefault(source(operand), []).append(instruction)
        total = 0.0
        parameters = [x for x in inner if x.opcode == "parameter"]
        for parameter, outside in zip(_in_order(parameters), i.operands, strict=True):
            whole = sum(a.hbm_bytes for a in self.types[where][outside].arrays)
            found = users.get(parameter.name, [])
            if found and all(u.opcode in ("tuple", *COLLECTIVES) for u in found):
                whole = 0.0
            elif found and all(
                u.opcode in (*SLICES, UPDATE) and source(u.operands[0]) == parameter.name for u in found
            ):
                whole = min(whole, sum(a.nbytes for u in found if u.opcode in SLICES for a in u.arrays))
            total += whole
        results = root.operands if root.opcode == "tuple" else (root.name,)
        for name, array in zip(results, i.arrays, strict=False):
            result = types[source(name)]
            if result.opcode in ("parameter", *COLLECTIVES):
                continue
            if result.opcode == UPDATE:
                total += min(array.hbm_bytes, sum(a.nbytes for a in types[result.operands[1]].arrays))
            else:
                total += array.hbm_bytes
        return total

    def _trips(self, condition: str) -> float:
        """Trip count of a loop: the constant that its condition compares a counter with; 1 without one."""
        found = list(self.computations[condition])
        for i in self.computations[condition]:  # the comparison may be fused
            if i.opcode == "fusion":
                found += self.computations[_called(i, "calls")]
        constants = [i.operands[0] for i in found if i.opcode == "constant" and i.operands]
        return max((int(value) for value in constants if value.isdigit()), default=1)


def _in_order(parameters: list[Instruction]) -> list[Instruction]:
    return sorted(parameters, key=lambda p: int(p.operands[0]))


def _instruction(line: str) -> Instruction:
    left, right = line.strip().removeprefix("ROOT ").split(" = ", 1)
    end = _closing(right, 0) + 1 if right.startswith("(") else right.index(" ")
    kind, rest = right[:end], right[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    begin = len(opcode)
    stop = _closing(rest, begin)
    inside = rest[begin + 1 : stop]
    if 'custom_call_target="__cu' in rest[stop:]:
        kind = SCRATCH.sub("", kind)
    named = re.findall(r"%([\w.\-]+)", inside)
    operands = named or [part.strip() for part in inside.split(",") if part.strip()]
    return Instruction(left.lstrip("%"), _arrays(kind), opcode, tuple(operands), rest[stop + 1 :])


def _closing(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += (text[place] == "(") - (text[place] == ")")
        if not depth:
            return place
    return len(text) - 1


def _arrays(text: str) -> tuple[Array, ...]:
    found = []
    for kind, dims, layout in SHAPE.findall(text):
        sizes = tuple(int(d) for d in dims.split(",") if d)
        nbytes = math.prod(sizes) * ITEM_BYTES.get(kind, 0)
        found.append(Array(sizes, nbytes, 0.0 if FAST_MEMORY in layout else nbytes))
    return tuple(found)


def _called(i: Instruction, name: str) -> str:
    match = re.search(rf"\b{name}=%?([\w.\-]+)", i.attributes)
    return match[1] if match else ""


def _members(attributes: str) -> list[int]:
    """The devices in the first group of a collective."""
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if listed:
        return [int(device) for device in listed[1].split(",") if device] or [0]
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        return _iota(iota[3], iota[4]).reshape(int(iota[1]), int(iota[2]))[0].tolist()
    ids = r"(?:,\s*device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?"
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]" + ids + r"\s*\{('[^}]*')\}", attributes)
    if not mesh:
        return [0, 1]
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    devices = _iota(mesh[2] or str(math.prod(sizes.values())), mesh[3]).reshape(*sizes.values())
    within = re.findall(r"'(\w+)'", mesh[4])
    return devices[tuple(slice(None) if name in within else 0 for name in sizes)].ravel().tolist()


def _iota(dims: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... in the shape `dims`, with its axes in another order."""
    shape = [int(n) for n in dims.split(",")]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose([int(n) for n in order.split(",")]) if order else numbers


def _flops(i: Instruction, operands: list[Array]) -> float:
    if i.opcode == "dot":
        return _product_flops(i, operands, r"lhs_contracting_dims=\{([\d,]*)\}")
    if i.opcode == "convolution":
        return _convolution_flops(i, operands[0], operands[1], i.arrays[0])
    if i.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]+)"', i.attributes)
        name = target[1] if target else ""
        if name in CUDNN_ATTENTION:
            return CUDNN_ATTENTION[name] * _cudnn_attention_flops(operands)
        if name.startswith(CUBLAS):
            return _product_flops(i, operands, r'"lhs_contracting_dimensions":\[([^\]]*)\]')
        if name.startswith(CUDNN_CONVOLUTION):
            return _cudnn_convolution_flops(i, operands, name)
        return next((n * _attention_flops(operands) for k, n in KERNELS.items() if i.name.startswith(k)), 0.0)
    return 0.0


def _product_flops(i: Instruction, operands: list[Array], contracting: str) -> float:
    """FLOPs of a matrix product; the pattern finds the dimensions of its first operand that are summed."""
    found = re.search(contracting, i.attributes)
    dims = [int(d) for d in re.findall(r"\d+", found[1])] if found else []
    return 2.0 * math.prod(i.arrays[0].dims) * math.prod(operands[0].dims[d] for d in dims)


def _attention_flops(operands: list[Array]) -> float:
    """FLOPs of one product of queries and keys, the first two arrays `[B, H, N, D]`."""
    queries, keys = [array.dims for array in operands if len(array.dims) == 4][:2]
    return 2.0 * math.prod(queries) * keys[2]


def _cudnn_attention_flops(operands: list[Array]) -> float:
    """The same, of arrays `[B, N, H, D]`."""
    queries, keys = [array.dims for array in operands if len(array.dims) == 4][:2]
    return 2.0 * math.prod(queries) * keys[1]


def _cudnn_convolution_flops(i: Instruction, operands: list[Array], target: str) -> float:
    """Gradients keep the forward convolution's window and labels, and compute as much as it does."""
    first, second, made = operands[0], operands[1], i.arrays[0]
    if target.endswith("BackwardInput"):  # (gradient of the output, kernel) -> gradient of the input
        return _convolution_flops(i, made, second, first)
    if target.endswith("BackwardFilter"):  # (input, gradient of the output) -> gradient of the kernel
        return _convolution_flops(i, first, made, second)
    return _convolution_flops(i, first, second, made)


def _convolution_flops(i: Instruction, taken: Array, weights: Array, made: Array) -> float:
    """2 FLOPs per product of a kernel and an input element; padding and dilation's holes do not count."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", i.attributes)
    assert labels is not None
    left, kernel, out = labels[1], labels[2], labels[3]
    lhs, rhs, result = taken.dims, weights.dims, made.dims
    listed = re.search(r"window=\{([^}]*)\}", i.attributes)
    window = dict(re.findall(r"(\w+)=([\w\-]+)", listed[1] if listed else ""))
    total = 2.0 * result[out.index("b")] * result[out.index("f")] * rhs[kernel.index("i")]
    for n in range(len(kernel) - 2):
        axis = str(n)
        total *= valid_pairs(
            lhs[left.index(axis)],
            rhs[kernel.index(axis)],
            result[out.index(axis)],
            stride=int(_part(window, "stride", n, "1")),
            low=int(_part(window, "pad", n, "0_0").split("_")[0]),
            lhs_dilate=int(_part(window, "lhs_dilate", n, "1")),
            rhs_dilate=int(_part(window, "rhs_dilate", n, "1")),
        )
    groups = re.search(r"batch_group_count=(\d+)", i.attributes)
    return total / (int(groups[1]) if groups else 1)


def _part(window: dict[str, str], name: str, n: int, default: str) -> str:
    return window[name].split("x")[n] if name in window else default
