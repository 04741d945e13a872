"""Parses the HLO text of a compiled program into computations, instructions and array types."""

import dataclasses
import math
import re

import numpy as np

SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
ITEM_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s4": 0.5, "u4": 0.5, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4,
    "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1,
}  # fmt: skip
WORKSPACE = re.compile(r"\b[su]8\[\d+\]")
"""Last result of a call of cuDNN or cuBLAS. Little of it is read or written, so it is ignored."""
ON_CHIP = "S(1)"
"""In a layout: the array is in on-chip memory, not in HBM."""


@dataclasses.dataclass(frozen=True)
class Array:
    """Type of an array: its dimensions, its bytes, and its bytes in HBM."""

    dims: tuple[int, ...]
    nbytes: float
    hbm_bytes: float


@dataclasses.dataclass(frozen=True)
class Instruction:
    """An instruction of a computation.

    name: name in its computation.
    arrays: types of the results.
    opcode: such as "dot" or "fusion".
    operands: names of the operands; the value of a constant, or the number of a parameter.
    attributes: the text after the operands.
    """

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str

    def computation(self, attribute: str) -> str:
        """Name of the computation in an attribute such as "body" or "calls"; '' if there is none."""
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return match[1] if match else ""


class Program:
    """The computations of a program.

    computations: instructions by name of the computation, in order of execution.
    instructions: instructions by name of the computation and of the instruction.
    entry: name of the computation that runs first.
    """

    def __init__(self, text: str):
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        instructions: list[Instruction] = []
        for line in text.splitlines():
            if line.endswith("{") and " -> " in line:
                name = line.removeprefix("ENTRY ").split(" ", 1)[0].lstrip("%")
                instructions = self.computations.setdefault(name, [])
                self.entry = name if line.startswith("ENTRY") else self.entry
            elif " = " in line and line.startswith("  "):
                instructions.append(parse_instruction(line))
        self.instructions = {
            name: {i.name: i for i in instructions} for name, instructions in self.computations.items()
        }

    def operands(self, computation: str, instruction: Instruction) -> list[Array]:
        """Types of the operands of an instruction."""
        known = self.instructions[computation]
        return [array for name in instruction.operands if name in known for array in known[name].arrays]

    def trip_count(self, condition: str) -> int:
        """Trip count of a loop: the constant that its condition compares a counter with; 1 without one."""
        instructions = list(self.computations[condition])
        for i in self.computations[condition]:  # the comparison may be fused
            if i.opcode == "fusion":
                instructions += self.computations[i.computation("calls")]
        constants = [i.operands[0] for i in instructions if i.opcode == "constant" and i.operands]
        return max((int(value) for value in constants if value.isdigit()), default=1)


def parse_instruction(line: str) -> Instruction:
    """Parses a line of a computation."""
    left, right = line.strip().removeprefix("ROOT ").split(" = ", 1)
    end = _closing_bracket(right, 0) + 1 if right.startswith("(") else right.index(" ")
    result_type, rest = right[:end], right[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    stop = _closing_bracket(rest, len(opcode))
    arguments = rest[len(opcode) + 1 : stop]
    if 'custom_call_target="__cu' in rest[stop:]:
        result_type = WORKSPACE.sub("", result_type)
    names = re.findall(r"%([\w.\-]+)", arguments)
    operands = names or [part.strip() for part in arguments.split(",") if part.strip()]
    return Instruction(left.lstrip("%"), parse_arrays(result_type), opcode, tuple(operands), rest[stop + 1 :])


def _closing_bracket(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i
    return len(text) - 1


def parse_arrays(text: str) -> tuple[Array, ...]:
    """Parses array types such as "f32[4,8]{1,0}"."""
    arrays = []
    for dtype, dims, layout in SHAPE.findall(text):
        sizes = tuple(int(d) for d in dims.split(",") if d)
        nbytes = math.prod(sizes) * ITEM_BYTES.get(dtype, 0)
        arrays.append(Array(sizes, nbytes, 0.0 if ON_CHIP in layout else nbytes))
    return tuple(arrays)


def parse_group(attributes: str) -> list[int]:
    """The devices in the first group of a collective."""
    explicit = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    if explicit:
        return [int(device) for device in explicit[1].split(",") if device] or [0]
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        return _iota(iota[3], iota[4]).reshape(int(iota[1]), int(iota[2]))[0].tolist()
    ids = r"(?:,\s*device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?"
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]" + ids + r"\s*\{('[^}]*')\}", attributes)
    if not mesh:
        return [0, 1]
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
    devices = _iota(mesh[2] or str(math.prod(sizes.values())), mesh[3]).reshape(*sizes.values())
    axes = re.findall(r"'(\w+)'", mesh[4])
    return devices[tuple(slice(None) if name in axes else 0 for name in sizes)].ravel().tolist()


def _iota(dims: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... in the shape `dims`, with its axes transposed to `order`."""
    shape = [int(n) for n in dims.split(",")]
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return numbers.transpose([int(n) for n in order.split(",")]) if order else numbers
