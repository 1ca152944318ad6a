"""Which bytes the chips of a compiled program send each other, and along which axes of the mesh."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

from mmjax.planning.hlo import Computation, Instruction, Program

# Opcode -> bytes that each of n chips sends for every byte of its operand, where the links are used as
# well as they can be (rings: Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002).
SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "ragged-all-to-all": lambda n: (n - 1) / n,
    "collective-broadcast": lambda n: 1,
    "collective-permute": lambda n: 1,
}

SLICES = "slices"  # the axis of exchanges between slices, over the data-centre network
# How a TPU program hands an exchange between slices to its runtime.
_BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="([A-Z_]+)"')
_LISTED = re.compile(r"\{([\d,]+)\}")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"mesh\[(?P<sizes>[^\]]*)\](?:, device_ids=\(\[(?P<order>[\d,]+)\](?:T\((?P<turn>[\d,]+)\))?\))? "
    r"\{(?P<chosen>[^}]*)\}"
)
_AXIS = re.compile(r"'([^']+)'(?:=(\d+))?(?::\((\d+)\)(\d+))?")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange along some axes of the mesh, per chip and run of the program.

    Attributes:
      kind: such as 'all-reduce'.
      axes: of the mesh, joined by '+': the chips of a group differ in these; 'slices' where it is the
        data-centre network that is crossed, by what the chips of a slice have exchanged before.
      count: how many run.
      payload_bytes: of the arrays they are given.
      sent_bytes: what a chip sends, see `SENT`.
    """

    kind: str
    axes: str
    count: int
    payload_bytes: float
    sent_bytes: float


def collectives(program: Program, sizes: Mapping[str, int], slices: int = 1) -> list[Collective]:
    """All exchanges of a program, those in loops as often as they run, the largest first.

    Args:
      program: compiled for a mesh whose devices are numbered along the last axis first.
      sizes: axis of the mesh -> devices along it within one slice, in order.
      slices: how many slices there are.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for name, times in program.executed.items():
        for kind, computation, instruction in _exchanges(program, name):
            between = instruction.opcode == "send"
            axes, count = (SLICES, slices) if between else _group(instruction, sizes)
            if count < 2:
                continue
            operands = (computation.instructions[operand] for operand in instruction.operands)
            payload = sum(operand.bytes for operand in operands)
            total = found.setdefault((kind, axes), [0, 0, 0])
            total[0] += times
            total[1] += times * payload
            total[2] += times * payload * SENT[kind](count)
    made = [Collective(kind, axes, *numbers) for (kind, axes), numbers in found.items()]
    return sorted(made, key=lambda c: (-c.sent_bytes, c.kind, c.axes))


def _exchanges(program: Program, name: str) -> Iterator[tuple[str, Computation, Instruction]]:
    computation = program.computations[name]
    for instruction in computation.instructions.values():
        if kind := _kind(instruction):
            yield kind, computation, instruction
        if _goes_on(program, instruction):
            continue
        for inner, part in program.inside(instruction):
            if kind := _kind(part):
                # A TPU sums and keeps one part in one fusion of this name.
                scatters = kind == "all-reduce" and "all-reduce-scatter" in inner.name
                yield "reduce-scatter" if scatters else kind, inner, part


def _goes_on(program: Program, instruction: Instruction) -> bool:
    """Whether it is a later part of an exchange that another fusion has started.

    A TPU writes an exchange that runs beside other work as several fusions, each of which holds it again.
    """
    parts = [(computation.name, part.attributes) for computation, part in program.inside(instruction)]
    if any('"AsyncCollectiveStart"' in attributes for _, attributes in parts):
        return False
    return any(
        name.startswith("async_collective_fusion") or '"AsyncCollectiveDone"' in attributes
        for name, attributes in parts
    )


def _kind(instruction: Instruction) -> str:
    if instruction.opcode == "send" and (found := _BETWEEN_SLICES.search(instruction.attributes)):
        kind = found[1].lower().replace("_", "-")
        return kind if kind in SENT else "collective-permute"  # one slice to another
    kind = instruction.opcode.removesuffix("-start")
    return kind if kind in SENT else ""


def _group(instruction: Instruction, sizes: Mapping[str, int]) -> tuple[str, int]:
    """The axes along which a group exchanges, and how many chips it has."""
    shape = tuple(sizes.values())
    pairs = instruction.attribute("source_target_pairs")
    groups = _listed(pairs) if pairs else replica_groups(instruction.attributes, math.prod(shape))
    places = np.stack(np.unravel_index(groups, shape), axis=-1)  # [groups, members, axes]
    differ = (places != places[:, :1]).any(axis=(0, 1))
    return "+".join(axis for axis, differs in zip(sizes, differ, strict=True) if differs), groups.shape[1]


def replica_groups(attributes: str, devices: int) -> np.ndarray:
    """The groups of devices that an instruction's `replica_groups` names, int `[groups, members]`.

    Args:
      attributes: of the instruction; without groups, all devices are one.
      devices: how many there are.

    Raises:
      ValueError: they are written in a way that is not known here.
    """
    _, _, text = attributes.partition("replica_groups=")
    if text.startswith("mesh["):
        return _of_mesh(text)
    if found := _IOTA.match(text):
        return _turned(found[2], found[3]).reshape(_numbers(found[1]))
    if text.startswith("{{"):
        return _listed(text[: text.index("}}") + 2])
    if not text or text.startswith("{}"):
        return np.arange(devices)[None]
    raise ValueError(f"replica_groups written as: {text[:80]}")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _turned(shape: str, order: str | None) -> np.ndarray:
    """0, 1, 2, ... in an array of a shape, whose axes are then put in an order."""
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return numbers.transpose(_numbers(order)) if order else numbers


def _listed(text: str) -> np.ndarray:
    return np.array([_numbers(group) for group in _LISTED.findall(text)])


def _of_mesh(text: str) -> np.ndarray:
    """`mesh['a'=2,'b'=8] {'b'}`: devices that differ in 'b'; `'b':(2)4` is the part of 4 after one of 2.

    `device_ids=([8,2]T(1,0))` says in which order the devices stand on that mesh.
    """
    found = _MESH.match(text)
    if not found:
        raise ValueError(f"replica_groups written as: {text[:80]}")
    sizes = {name: int(size) for name, size, _, _ in _AXIS.findall(found["sizes"])}
    wanted: dict[str, list[tuple[int, int]]] = {}
    for name, _, before, size in _AXIS.findall(found["chosen"]):
        start = int(before or 1)
        wanted.setdefault(name, []).append((start, start * int(size or sizes[name])))
    shape, inside = [], []
    for name, size in sizes.items():
        spans = wanted.get(name, [])
        cuts = sorted({1, size, *(cut for span in spans for cut in span)})
        for low, high in zip(cuts, cuts[1:], strict=False):
            shape.append(high // low)
            inside.append(any(start <= low and high <= stop for start, stop in spans))
    order = found["order"] or str(math.prod(shape))
    devices = _turned(order, found["turn"]).reshape(shape)
    outer = [i for i, within in enumerate(inside) if not within]
    inner = [i for i, within in enumerate(inside) if within]
    return devices.transpose(outer + inner).reshape(-1, math.prod(shape[i] for i in inner))
