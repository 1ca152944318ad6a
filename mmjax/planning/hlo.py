"""Reads the text of a compiled program (HLO): what runs, and how often.

The text is that of `jax.stages.Compiled.as_text()`: computations of instructions, of which one is the
entry. An instruction may call other computations; the body of a `while` runs as often as its condition
says. Documented in https://openxla.org/xla/operation_semantics.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_COMMENT = re.compile(r"/\*.*?\*/")
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")

# Bits of an element; types of which nothing is moved (tokens, opaque handles) are left out.
_BITS = {"pred": 8, "c64": 64, "c128": 128, "bf16": 16} | {
    f"{kind}{bits}": bits for kind in "suf" for bits in (2, 4, 8, 16, 32, 64)
}


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result.

    Attributes:
      dtype: such as 'bf16'.
      shape: its dimensions.
      memory_space: 0 is the device's main memory, others are on the chip (or the host).
    """

    dtype: str
    shape: tuple[int, ...]
    memory_space: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        bits = _BITS.get(self.dtype) or (8 if self.dtype.startswith("f8") else 0)
        return self.size * bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name, opcode: such as 'all-reduce.3' and 'all-reduce'.
      results: its arrays; several where it gives a tuple.
      operands: names of instructions of the same computation (of a constant or parameter: its text).
      attributes: the rest of the line, without metadata and without the backend's settings.
      backend: the backend's settings, as text.
      is_root: whether it gives the computation's result.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    attributes: str
    backend: str
    is_root: bool

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.results)

    def attribute(self, name: str) -> str | None:
        """The text after `name=`, up to the next comma (a list in braces whole)."""
        found = re.search(rf"\b{name}=(\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}}|[^,]+)", self.attributes)
        return found and found[1].strip()

    def called(self, name: str) -> list[str]:
        """The computations that the attribute `name` names."""
        found = self.attribute(name)
        return re.findall(r"%?([\w.\-]+)", found) if found else []


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in their order."""

    name: str
    instructions: Mapping[str, Instruction]

    @functools.cached_property
    def root(self) -> Instruction:
        return next(i for i in self.instructions.values() if i.is_root)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        found = (i for i in self.instructions.values() if i.opcode == "parameter")
        return {int(i.operands[0]): i for i in found}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Name -> the instructions that read it."""
        found: dict[str, list[Instruction]] = {}
        for instruction in self.instructions.values():
            for name in dict.fromkeys(instruction.operands):
                found.setdefault(name, []).append(instruction)
        return found


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program.

    Attributes:
      computations: by name.
      entry: name of the one that runs.
    """

    computations: Mapping[str, Computation]
    entry: str

    @functools.cached_property
    def executed(self) -> dict[str, int]:
        """Computation -> how often one run of the program executes it.

        Those inside a fusion (or a reduction) are not counted: they are parts of an instruction. Of a
        conditional's branches each counts as if it were taken.
        """
        counts: dict[str, int] = {}

        def visit(name: str, times: int) -> None:
            counts[name] = counts.get(name, 0) + times
            for instruction in self.computations[name].instructions.values():
                for called, factor in self._called(name, instruction):
                    visit(called, times * factor)

        visit(self.entry, 1)
        return counts

    @functools.cached_property
    def unknown_loops(self) -> list[str]:
        """Names of the loops whose trip count the text does not tell; they count once."""
        loops = ((c, i) for c in self.executed for i in self.computations[c].instructions.values())
        return [i.name for c, i in loops if i.opcode == "while" and self.trip_count(c, i) is None]

    def _called(self, name: str, instruction: Instruction) -> Iterator[tuple[str, int]]:
        if instruction.opcode == "while":
            times = self.trip_count(name, instruction)
            yield instruction.called("body")[0], 1 if times is None else times
        elif instruction.opcode == "conditional":
            keys = ("branch_computations", "true_computation", "false_computation")
            yield from ((called, 1) for key in keys for called in instruction.called(key))
        elif instruction.opcode == "call":
            yield from ((called, 1) for called in instruction.called("to_apply"))
        elif instruction.opcode == "async-start":
            yield from ((called, 1) for called in instruction.called("calls"))

    def inside(self, instruction: Instruction) -> Iterator[tuple[Computation, Instruction]]:
        """The instruction's own parts, at any depth: those of the fusion it is."""
        if instruction.opcode == "fusion":
            computation = self.computations[instruction.called("calls")[0]]
            for part in computation.instructions.values():
                yield computation, part
                yield from self.inside(part)

    def trip_count(self, name: str, loop: Instruction) -> int | None:
        """How often the body of a `while` in the computation `name` runs; None where that is not clear.

        The backend's own number where it wrote one; else from a condition that compares a counter, which
        starts at a constant and grows by a constant in the body, with a constant.
        """
        if found := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.backend):
            return int(found[1])
        condition = self.computations[loop.called("condition")[0]]
        body = self.computations[loop.called("body")[0]]
        compare = condition.root
        if compare.opcode == "fusion":  # a comparison by itself
            inner = self.computations[compare.called("calls")[0]]
            where = {p.name: compare.operands[i] for i, p in inner.parameters.items()}
            compare = inner.root
            compared = [where.get(o, o) for o in compare.operands]
        else:
            compared = list(compare.operands)
        if compare.opcode != "compare" or len(compared) != 2:
            return None
        index = _loop_variable(condition, compared[0])
        limit = _constant(condition, compared[1])
        if limit is None:
            limit = self._initial(name, loop, _loop_variable(condition, compared[1]))
        start = self._initial(name, loop, index)
        step = _step(body, index)
        if None in (limit, start, step):
            return None
        direction = compare.attribute("direction")
        spans = {"LT": limit - start, "LE": limit - start + 1, "GT": start - limit, "GE": start - limit + 1}
        if direction not in spans or (step > 0) != direction.startswith("L"):
            return None
        return max(0, -(-spans[direction] // abs(step)))

    def _initial(self, name: str, loop: Instruction, index: int | None) -> int | None:
        computation = self.computations[name]
        given = computation.instructions.get(loop.operands[0])
        if index is None or given is None or given.opcode != "tuple":
            return None
        return _constant(computation, given.operands[index])


def parse(text: str) -> Program:
    """Reads the text of a program.

    Raises:
      ValueError: it has no entry, so it is no such text.
    """
    computations, entry, name, lines = {}, "", "", {}
    for line in text.splitlines():
        if header := _HEADER.match(line):
            name, lines = header[2], {}
            entry = name if header[1] else entry
        elif line.startswith("}") and name:
            computations[name] = Computation(name, lines)
            name = ""
        elif name and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(bool(found[1]), found[2], found[3])
            lines[instruction.name] = instruction
    if not entry:
        raise ValueError("the text has no ENTRY computation")
    return Program(computations, entry)


def _instruction(is_root: bool, name: str, text: str) -> Instruction:
    text = _COMMENT.sub("", text)
    end = _closing(text, 0) if text.startswith("(") else text.index(" ")
    results, rest = text[:end], text[end:].lstrip()
    opened = rest.index("(")
    closed = _closing(rest, opened)
    inside = rest[opened + 1 : closed - 1]
    operands = re.findall(r"%([\w.\-]+)", inside) or ([inside.strip()] if inside.strip() else [])
    attributes, _, backend = rest[closed:].partition("backend_config=")
    attributes = attributes.partition("metadata=")[0]
    return Instruction(
        name, rest[:opened], tuple(_arrays(results)), tuple(operands), attributes, backend, is_root
    )


def _closing(text: str, start: int) -> int:
    """The place after the bracket that closes the one at `start`."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if not depth:
            return position + 1
    raise ValueError(f"no closing bracket in: {text[:80]}")


def _arrays(text: str) -> Iterator[Array]:
    for dtype, shape, layout in _ARRAY.findall(text):
        space = _MEMORY_SPACE.search(layout)
        dims = tuple(int(d.lstrip("<=")) for d in shape.split(",") if d)
        yield Array(dtype, dims, int(space[1]) if space else 0)


_SAME = ("copy", "bitcast", "convert", "reshape", "copy-done", "copy-start")


def _behind(computation: Computation, name: str) -> Instruction | None:
    """The instruction that a value comes from, past those that do not change it."""
    found = computation.instructions.get(name)
    while found is not None and found.opcode in _SAME:
        found = computation.instructions.get(found.operands[0])
    return found


def _constant(computation: Computation, name: str) -> int | None:
    found = _behind(computation, name)
    if found is None or found.opcode != "constant":
        return None
    value = found.operands[0].strip("{} ") if found.operands else ""
    return int(value) if re.fullmatch(r"-?\d+", value) else None


def _loop_variable(computation: Computation, name: str) -> int | None:
    """Which element of the loop's tuple a value is."""
    found = _behind(computation, name)
    if found is None or found.opcode != "get-tuple-element":
        return None
    source = computation.instructions.get(found.operands[0])
    return int(found.attribute("index")) if source is not None and source.opcode == "parameter" else None


def _step(body: Computation, index: int | None) -> int | None:
    """By how much the body adds to an element of the loop's tuple."""
    if index is None or body.root.opcode != "tuple":
        return None
    added = _behind(body, body.root.operands[index])
    if added is None or added.opcode not in ("add", "subtract"):
        return None
    steps = [_constant(body, operand) for operand in added.operands]
    places = [_loop_variable(body, operand) for operand in added.operands]
    if added.opcode == "subtract":
        return None if places[0] != index or steps[1] is None else -steps[1]
    if index not in places:
        return None
    return next((step for step in steps if step is not None), None)
