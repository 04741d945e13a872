"""FLOPs, memory traffic and collectives of a compiled program.

XLA's own `cost_analysis` counts the body of a loop once. Here it is counted once per iteration; the trip
count is read from the loop's condition (loops over layers compare a counter with a constant).
"""

import dataclasses
import functools
import re

from genmask_jax.tools.estimates.hlo import Array, Instruction, Program, parse_group
from genmask_jax.tools.estimates.hlo_flops import instruction_flops

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
FREE_OPCODES = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "iota", "copy-start", "slice-start", "dynamic-slice-start", "async-done",
    "all-gather-done", "all-reduce-done", "collective-permute-done", "send-done", "recv-done",
}  # fmt: skip
SLICE_OPCODES, UPDATE_OPCODE = ("slice", "dynamic-slice"), "dynamic-update-slice"
ASYNC_COPY_OPCODES = {"copy-done", "slice-done", "dynamic-slice-done"}
"""Ends of asynchronous copies between HBM and on-chip memory."""
ASYNC_COLLECTIVE = 'custom_call_target="AsyncCollective'
"""Start or end of an asynchronous collective."""
ASYNC_FUSION = '"async_collective_fusion_config"'
"""Attribute of a collective that is fused with other work, or is the start or end of such a fusion."""


@dataclasses.dataclass(frozen=True)
class Collective:
    """All executions of a collective.

    kind: opcode, such as "all-gather".
    group: number of devices per group.
    count: number of executions.
    nbytes: bytes of its inputs or of its outputs, whichever is larger, over all executions.
    channel: the compiler's channel id if it is asynchronous; else ''.
    span: number of consecutive device ids from the first to the last device of a group.
    """

    kind: str
    group: int
    count: float
    nbytes: float
    channel: str = ""
    span: int = 1


@dataclasses.dataclass(frozen=True)
class InstructionWork:
    """Work of one instruction.

    flops, nbytes: FLOPs, and bytes read from and written to HBM, per execution.
    count: number of executions.
    scope: computation of the instruction, such as a loop body. Instructions of a scope run sequentially.
    is_async_copy: whether it is an asynchronous copy, which overlaps with the rest of its scope.
    """

    flops: float
    nbytes: float
    count: float = 1
    scope: str = ""
    is_async_copy: bool = False


@dataclasses.dataclass(frozen=True)
class Work:
    """Work of one device."""

    instructions: tuple[InstructionWork, ...]
    collectives: tuple[Collective, ...]

    @property
    def flops(self) -> float:
        return sum(i.flops * i.count for i in self.instructions)

    @property
    def nbytes(self) -> float:
        return sum(i.nbytes * i.count for i in self.instructions)

    def repeated(self, count: float) -> "Work":
        """The work of `count` executions."""
        return Work(
            tuple(dataclasses.replace(i, count=i.count * count) for i in self.instructions),
            tuple(
                dataclasses.replace(c, count=c.count * count, nbytes=c.nbytes * count)
                for c in self.collectives
            ),
        )


def read_work(text: str) -> Work:
    """Reads the work per device from the text of a compiled program (`compiled.as_text()`).

    The branch of a conditional with the most FLOPs is counted. Custom calls have no FLOPs, unless they are
    attention kernels or calls of cuDNN or cuBLAS.
    """
    program = Program(text)
    return _WorkReader(program).computation(program.entry)


class _WorkReader:
    def __init__(self, program: Program):
        self.program = program

    @functools.cache  # noqa: B019 (lives as long as the program)
    def computation(self, name: str) -> Work:
        instructions: list[InstructionWork] = []
        collectives: list[Collective] = []
        channels: set[str] = set()
        for instruction in self.program.computations[name]:
            work = self._instruction(name, instruction)
            instructions += work.instructions
            # An asynchronous collective is in several fusions: its start, the overlapped work, its end.
            collectives += [c for c in work.collectives if not c.channel or c.channel not in channels]
            channels.update(c.channel for c in work.collectives)
        return Work(tuple(instructions), tuple(collectives))

    def _instruction(self, scope: str, i: Instruction) -> Work:
        if i.opcode in FREE_OPCODES:
            return Work((), ())
        if i.opcode == "while":
            trip_count = self.program.trip_count(i.computation("condition"))
            return self.computation(i.computation("body")).repeated(trip_count)
        if i.opcode == "conditional":
            return max(map(self.computation, _branches(i)), key=lambda work: work.flops)
        if i.opcode.removesuffix("-start") in COLLECTIVES:
            return Work((), (self._collective(scope, i),))
        if i.opcode in ("call", "async-start"):
            return self.computation(i.computation("to_apply") or i.computation("calls"))
        if i.opcode == "fusion":
            return self._fusion(scope, i)
        if i.opcode in ASYNC_COPY_OPCODES:
            nbytes = sum(a.nbytes for a in i.arrays)
            return Work((InstructionWork(0.0, nbytes, scope=scope, is_async_copy=True),), ())
        operands = self.program.operands(scope, i)
        nbytes = sum(a.hbm_bytes for a in (*i.arrays, *operands))
        if i.opcode in SLICE_OPCODES or i.opcode == "gather":
            nbytes = 2 * sum(a.hbm_bytes for a in i.arrays)
        if i.opcode == UPDATE_OPCODE:
            nbytes = 2 * operands[1].hbm_bytes
        return Work((InstructionWork(instruction_flops(i, operands), nbytes, scope=scope),), ())

    def _collective(self, scope: str, i: Instruction) -> Collective:
        kind = i.opcode.removesuffix("-start")
        input_bytes = sum(a.nbytes for a in self.program.operands(scope, i))
        output_bytes = sum(a.nbytes for a in i.arrays)
        if i.opcode.endswith("-start") and kind != "all-reduce":  # outputs include operands
            output_bytes -= input_bytes
        channel = re.search(r"channel_id=(\d+)", i.attributes) if ASYNC_FUSION in i.attributes else None
        group = parse_group(i.attributes)
        span = int(max(group) - min(group)) + 1
        nbytes = max(input_bytes, output_bytes)
        return Collective(kind, len(group), 1, nbytes, channel[1] if channel else "", span)

    def _fusion(self, scope: str, i: Instruction) -> Work:
        name = i.computation("calls")
        body = self.computation(name)
        collectives = body.collectives
        if name.startswith("all-reduce-scatter"):  # each device keeps a shard
            collectives = tuple(dataclasses.replace(c, kind="reduce-scatter") for c in collectives)
        return Work((InstructionWork(body.flops, self._fusion_bytes(scope, i), scope=scope),), collectives)

    def _fusion_bytes(self, scope: str, i: Instruction) -> float:
        """Bytes of operands and results; only of the slice for arrays that are sliced or updated in place.

        Excludes what a collective in the fusion reads and writes.
        """
        body = self.program.computations[i.computation("calls")]
        root = body[-1]
        if ASYNC_COLLECTIVE in root.attributes:
            return 0.0
        sources = _bitcast_sources(body)
        operands = [self.program.instructions[scope][name].arrays for name in i.operands]
        return _read_bytes(body, sources, operands) + _written_bytes(body, sources, i.arrays)


def _branches(i: Instruction) -> list[str]:
    """The computations of a conditional."""
    if "branch_computations" not in i.attributes:
        return [i.computation("true_computation"), i.computation("false_computation")]
    branches = i.attributes.split("branch_computations={")[-1].split("}")[0]
    return re.findall(r"%([\w.\-]+)", branches)


def _bitcast_sources(body: list[Instruction]) -> dict[str, str]:
    """The instruction whose result each bitcast returns.

    GPU programs have a bitcast before a slice or after an update if the layout of the array differs from the
    order of its axes.
    """
    sources: dict[str, str] = {}
    for i in body:
        if i.opcode == "bitcast":
            sources[i.name] = sources.get(i.operands[0], i.operands[0])
    return sources


def _read_bytes(body: list[Instruction], sources: dict[str, str], operands: list[tuple[Array, ...]]) -> float:
    """Bytes that a fusion reads from its operands."""
    users: dict[str, list[Instruction]] = {}
    for instruction in body:
        if instruction.opcode != "bitcast":
            for name in instruction.operands:
                users.setdefault(sources.get(name, name), []).append(instruction)
    parameters = sorted((i for i in body if i.opcode == "parameter"), key=lambda i: int(i.operands[0]))
    total = 0.0
    for parameter, arrays in zip(parameters, operands, strict=True):
        total += _operand_bytes(parameter.name, arrays, users.get(parameter.name, []), sources)
    return total


def _operand_bytes(
    name: str, arrays: tuple[Array, ...], users: list[Instruction], sources: dict[str, str]
) -> float:
    nbytes = sum(a.hbm_bytes for a in arrays)
    if users and all(u.opcode in ("tuple", *COLLECTIVES) for u in users):
        return 0.0
    if users and all(
        u.opcode in (*SLICE_OPCODES, UPDATE_OPCODE) and sources.get(u.operands[0], u.operands[0]) == name
        for u in users
    ):
        return min(nbytes, sum(a.nbytes for u in users if u.opcode in SLICE_OPCODES for a in u.arrays))
    return nbytes


def _written_bytes(body: list[Instruction], sources: dict[str, str], arrays: tuple[Array, ...]) -> float:
    """Bytes that a fusion writes to its results."""
    instructions, root = {i.name: i for i in body}, body[-1]
    total = 0.0
    for name, array in zip(root.operands if root.opcode == "tuple" else (root.name,), arrays, strict=False):
        result = instructions[sources.get(name, name)]
        if result.opcode == UPDATE_OPCODE:
            update = instructions[result.operands[1]]
            total += min(array.hbm_bytes, sum(a.nbytes for a in update.arrays))
        elif result.opcode not in ("parameter", *COLLECTIVES):
            total += array.hbm_bytes
    return total
