"""What a compiled program computes, moves and takes, with its loops multiplied out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from mmjax.parallel.chips import Chip
from mmjax.planning.hlo import Computation, Instruction, Program

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_KERNEL = re.compile(r'"cost_estimate":\{"flops":"(\d+)","transcendentals":"\d+","bytes_accessed":"(\d+)"')

# They move nothing: names for what is there, or bodies that are counted by themselves.
_FREE = {
    "after-all", "bitcast", "call", "conditional", "constant", "copy-done", "get-tuple-element", "iota",
    "opt-barrier", "parameter", "partition-id", "replica-id", "tuple", "while",
    "all-gather-done", "all-reduce-done", "async-done", "async-update", "collective-permute-done",
    "recv-done", "send-done",
}  # fmt: skip
_ALIASED = re.compile(r"\{(\d+)\}: \((\d+), \{\}\)")
_SLICES = ("dynamic-slice", "slice", "gather")


def estimated_cycles(program: Program) -> int | None:
    """The compiler's own estimate, one instruction after the other; None where it writes none.

    Exchanges between chips and custom calls have none; of the latter see `kernel_cycles`.
    """
    total, found = 0, False
    for times, _, instruction in _executed(program):
        if cycles := _CYCLES.search(instruction.backend):
            total, found = total + times * int(cycles[1]), True
    return total if found else None


def kernel_cycles(program: Program, chip: Chip) -> tuple[int, int, int]:
    """What kernels take that are written by hand (Pallas), and of which the compiler estimates nothing.

    Each takes as long as its operations at the chip's peak, or its bytes at the bandwidth of the memory,
    whichever is more. Both are those that the kernel states with `pl.CostEstimate`.

    Returns:
      Their cycles, how many kernels run that state a cost, and how many that state none.
    """
    cycles = stated = silent = 0
    for times, _, instruction in _executed(program):
        if 'custom_call_target="tpu_custom_call"' not in instruction.attributes:
            continue
        if found := _KERNEL.search(instruction.backend):
            seconds = max(int(found[1]) / chip.peak_flops, int(found[2]) / chip.memory_bandwidth)
            cycles, stated = cycles + times * round(seconds * chip.clock_hz), stated + times
        else:
            silent += times
    return cycles, stated, silent


def product_flops(program: Program) -> tuple[int, int]:
    """Operations of all matrix products, convolutions and kernels: (loops multiplied out, each body once)."""
    total = once = 0
    for times, computation, instruction in _executed(program):
        flops = _flops(computation, instruction)
        flops += sum(_flops(inner, part) for inner, part in program.inside(instruction))
        total, once = total + times * flops, once + flops
    return total, once


def memory_traffic(program: Program) -> int:
    """Bytes that instructions read from and write to the device's main memory.

    Every operand and result that lies there counts once per instruction; of one that is only sliced, or
    updated in a slice, the slice. Arrays of an exchange that the compiler spreads over other instructions
    stand in each of these and do not count.
    """
    return sum(times * _traffic(program, computation, i) for times, computation, i in _executed(program))


def _executed(program: Program) -> Iterator[tuple[int, Computation, Instruction]]:
    for name, times in program.executed.items():
        computation = program.computations[name]
        for instruction in computation.instructions.values():
            yield times, computation, instruction


def _flops(computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode == "dot":
        left = computation.instructions[instruction.operands[0]].results[0].shape
        contracted = instruction.attribute("lhs_contracting_dims") or "{}"
        return (
            2 * instruction.results[0].size * math.prod(left[int(i)] for i in re.findall(r"\d+", contracted))
        )
    if instruction.opcode == "convolution":
        return _convolution(computation, instruction)
    if instruction.opcode == "custom-call" and (found := _KERNEL.search(instruction.backend)):
        return int(found[1])
    return 0


def _convolution(computation: Computation, instruction: Instruction) -> int:
    """As a TPU writes matrix products too. Places of the kernel outside the input are not computed."""
    left, right = (computation.instructions[name].results[0].shape for name in instruction.operands)
    left_dims, rest = instruction.attribute("dim_labels").split("_")
    right_dims, out_dims = rest.split("->")
    out = dict(zip(out_dims, instruction.results[0].shape, strict=True))
    inputs = dict(zip(left_dims, left, strict=True))
    kernel = dict(zip(right_dims, right, strict=True))
    window = _window(instruction.attribute("window") or "", sum(label.isdigit() for label in out_dims))
    positions = 1
    for label, (stride, (low, _), dilated, spread) in enumerate(window):
        positions *= _positions(
            out[str(label)], kernel[str(label)], inputs[str(label)], stride, low, dilated, spread
        )
    batch = out["b"] if not instruction.attribute("batch_group_count") else inputs["b"]
    batch //= int(instruction.attribute("batch_group_count") or 1)
    return 2 * batch * out["f"] * kernel["i"] * positions


def _window(text: str, count: int) -> list[tuple[int, tuple[int, int], int, int]]:
    """(stride, padding, dilation of the input, dilation of the kernel) of each spatial axis."""

    def values(key: str, default: str) -> list[str]:
        found = re.search(rf"{key}=([\w\-]+)", text)
        return found[1].split("x") if found else [default] * count

    pads = [tuple(map(int, pad.split("_"))) for pad in values("pad", "0_0")]
    numbers = (map(int, values(key, "1")) for key in ("stride", "lhs_dilate", "rhs_dilate"))
    return [(stride, pad, left, right) for pad, stride, left, right in zip(pads, *numbers, strict=True)]


def _positions(out: int, kernel: int, size: int, stride: int, low: int, dilated: int, spread: int) -> int:
    """Pairs of an output and a place of the kernel that meet an input."""
    if kernel == 1 and low == 0 and dilated == 1:
        return out
    reach = (size - 1) * dilated
    return sum(
        0 <= place <= reach and place % dilated == 0
        for o in range(out)
        for place in range(o * stride - low, o * stride - low + kernel * spread, spread)
    )


def _traffic(program: Program, computation: Computation, instruction: Instruction) -> int:
    if instruction.opcode in _FREE or 'custom_call_target="AllocateBuffer"' in instruction.attributes:
        return 0
    read, carried = 0, _carried(instruction)
    for place, name in enumerate(instruction.operands):
        operand = computation.instructions.get(name)
        if (
            place in carried.values()
            or operand is None
            or len(operand.results) != 1
            or operand.results[0].memory_space
        ):
            continue
        read += _read(program, instruction, place, operand.bytes)
    results = instruction.results
    if instruction.opcode == "copy-start":
        results = results[:1]  # then stand the source and a flag
    written = sum(array.bytes for array in results if not array.memory_space)
    if instruction.opcode == "dynamic-update-slice":
        return 2 * _operand_bytes(computation, instruction, 1)
    if instruction.opcode == "fusion":
        written = _written(program.computations[instruction.called("calls")[0]], results, carried)
    return read + written


def _carried(instruction: Instruction) -> dict[int, int]:
    """Result -> operand, of the arrays of an exchange that goes on during a fusion."""
    if instruction.opcode != "fusion" or "async_collective" not in instruction.called("calls")[0]:
        return {}
    return {int(result): int(operand) for result, operand in _ALIASED.findall(instruction.attributes)}


def _operand_bytes(computation: Computation, instruction: Instruction, place: int) -> int:
    found = computation.instructions.get(instruction.operands[place])
    return found.bytes if found is not None else 0


def _read(program: Program, instruction: Instruction, place: int, whole: int) -> int:
    """How much of an operand an instruction reads."""
    if instruction.opcode in _SLICES:
        return instruction.bytes if place == 0 else whole
    if instruction.opcode != "fusion":
        return whole
    inner = program.computations[instruction.called("calls")[0]]
    parameter = inner.parameters[place]
    read = 0
    for user in inner.users.get(parameter.name, ()):
        for at, name in enumerate(user.operands):
            if name != parameter.name:
                continue
            if user.opcode == "dynamic-update-slice" and at == 0:
                continue  # overwritten in place
            read += _read(program, user, at, whole)
    return min(read, whole)


def _written(computation: Computation, results: tuple, carried: Mapping[int, int]) -> int:
    """What a fusion writes: of a result that is an update in place, the update."""
    root = computation.root
    roots = [root]
    if root.opcode == "tuple":
        roots = [computation.instructions[name] for name in root.operands]
    written = 0
    for place, (made, array) in enumerate(zip(roots, results, strict=False)):
        if array.memory_space or place in carried:
            continue
        while made.opcode == "bitcast" and made.operands[0] in computation.instructions:
            made = computation.instructions[made.operands[0]]
        update = made.opcode == "dynamic-update-slice"
        written += _operand_bytes(computation, made, 1) if update else array.bytes
    return written
