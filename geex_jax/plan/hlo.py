"""The text of an optimized HLO module, as XLA's `compiled.as_text()` prints it, as a tree.

Only what a plan asks: computations, instructions, types, who calls whom, how often a loop runs.
The kernels of a Pallas call are printed over many lines, some of which begin with a closing
brace; computations are therefore found by their headers alone, never by counting braces.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (?=[a-z(])")
_ARRAY = re.compile(r"\b(pred|token|[a-z]+[0-9]+[a-z0-9]*)\[([\d,<=]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(
    r"\b(body|condition|calls|to_apply|called_computations|branch_computations|"
    r"true_computation|false_computation|async_computation)=(\{[^}]*\}|%?[\w.\-]+)"
)
# They run a computation; where others name one to be applied, it is a reduction's.
CALLS = ("call", "call-start", "async-start", "custom-call")
BITS = {"pred": 8, "token": 0, "opaque": 0}


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a type.

    Attributes:
      dtype: as HLO writes it, bf16. shape: its dimensions. space: 0 is HBM, 1 the chip's VMEM,
        5 the host's memory.
    """

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def elements(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Without padding."""
        return -(-self.elements * bits(self.dtype) // 8)


@functools.cache
def bits(dtype: str) -> int:
    """Of one element."""
    if dtype in BITS:
        return BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0


@dataclasses.dataclass
class Instruction:
    """One line.

    Attributes:
      name, opcode: as printed. type: the result's text. operands: names. rest: the attributes.
      root: whether it is what its computation returns.
    """

    name: str
    opcode: str
    type: str
    operands: list[str]
    rest: str
    root: bool = False

    @functools.cached_property
    def arrays(self) -> list[Array]:
        """The result's arrays, tuples flattened."""
        return arrays_of(self.type)

    @property
    def bytes(self) -> int:
        """Of all arrays of the result."""
        return sum(a.bytes for a in self.arrays)

    @functools.cached_property
    def calls(self) -> list[tuple[str, str]]:
        """(role, computation) of everything it runs."""
        found = []
        for role, names in _CALLED.findall(self.rest):
            found += [(role, n.strip().lstrip("%")) for n in names.strip("{}").split(",")]
        return found

    @property
    def scope(self) -> str:
        """Where in the traced program it comes from, or nothing."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    def number(self, key: str) -> int | None:
        """A number of the backend's configuration, such as estimated_cycles."""
        found = re.search(rf'"{key}":"?(-?\d+)', self.rest)
        return int(found[1]) if found else None

    def attribute(self, key: str) -> str | None:
        """The value of `key=VALUE` up to the next comma; a list in brackets as a whole."""
        found = re.search(rf"\b{key}=(\{{[^}}]*\}}|[^,\s]+)", self.rest)
        return found[1] if found else None


@dataclasses.dataclass
class Computation:
    """A named list of instructions, in the order in which they run."""

    name: str
    entry: bool
    instructions: list[Instruction]

    @functools.cached_property
    def by_name(self) -> dict[str, Instruction]:
        """Its instructions."""
        return {i.name: i for i in self.instructions}

    @property
    def root(self) -> Instruction | None:
        """What it returns."""
        return next((i for i in self.instructions if i.root), None)


def arrays_of(text: str) -> list[Array]:
    """The arrays of a printed type; a tuple's in order."""
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        space = re.search(r"S\((\d+)\)", layout)
        dims = tuple(int(d.lstrip("<=")) for d in shape.split(",") if d)
        found.append(Array(dtype, dims, int(space[1]) if space else 0))
    return found


def _balanced(text: str, start: int) -> int:
    # The index after the bracket that closes the one at `start`.
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] in "([{") - (text[at] in ")]}")
        if not depth:
            return at + 1
    return len(text)


def _instruction(line: str, head: re.Match) -> Instruction | None:
    at = head.end()
    if line[at] == "(":
        end = _balanced(line, at)
    else:
        end = at
        while end < len(line) and line[end] != " ":
            end = _balanced(line, end) if line[end] in "([{" else end + 1
    kind = re.match(r"\s+([a-z][\w\-]*)\(", line[end:])
    if not kind or not (_ARRAY.search(line[at:end]) or line[at:end] == "()"):
        return None
    opened = end + kind.end() - 1
    closed = _balanced(line, opened)
    operands = _NAME.findall(line[opened:closed])
    if kind[1] in ("constant", "parameter"):
        operands = [line[opened + 1 : closed - 1]]
    return Instruction(head[2], kind[1], line[at:end], operands, line[closed:], bool(head[1]))


class Module:
    """A parsed program.

    Args:
      text: as the compiler prints it.
      lightest: of the branches of a conditional only the one that makes the fewest bytes counts:
        what a program does that is asked for nothing dear.

    Attributes:
      computations: by name. entry: the one that runs.
      unknown_loops: names of while loops whose number of rounds the text does not tell.
    """

    def __init__(self, text: str, lightest: bool = False):
        self.lightest = lightest
        self.computations: dict[str, Computation] = {}
        self.unknown_loops: list[str] = []
        current: Computation | None = None
        for line in text.splitlines():
            if head := _HEADER.match(line):
                current = Computation(head[2], bool(head[1]), [])
                self.computations[head[2]] = current
            elif current is not None and (start := _INSTRUCTION.match(line)):
                found = _instruction(line, start)
                if found is not None:
                    current.instructions.append(found)
        self.entry = next((c for c in self.computations.values() if c.entry), None)

    @functools.cached_property
    def runs(self) -> dict[str, float]:
        """How often each computation runs in one call of the program, those in fusions included.

        A branch of a conditional counts as if it were always taken, or see `lightest`. A loop of
        unknown length counts once and is listed in `unknown_loops`.
        """
        counts: dict[str, float] = {}
        if self.entry is None:
            return counts

        def visit(name: str, times: float) -> None:
            counts[name] = counts.get(name, 0.0) + times
            for instruction in self.computations[name].instructions:
                rounds = 1.0
                if instruction.opcode == "while":
                    known = self.trip_count(self.computations[name], instruction)
                    if known is None and instruction.name not in self.unknown_loops:
                        self.unknown_loops.append(instruction.name)
                    rounds = 1.0 if known is None else float(known)
                for role, called in self._taken(instruction):
                    if called in self.computations and role != "condition":
                        visit(called, times * rounds)

        visit(self.entry.name, 1.0)
        return counts

    def _taken(self, instruction: Instruction) -> Sequence[tuple[str, str]]:
        if not (self.lightest and instruction.opcode == "conditional"):
            return instruction.calls
        known = [call for call in instruction.calls if call[1] in self.computations]
        return sorted(known, key=lambda call: self._made(call[1]))[:1]

    def _made(self, name: str) -> float:
        # Bytes of all results in a computation and in what it calls.
        total = 0.0
        for instruction in self.computations[name].instructions:
            total += instruction.bytes
            total += sum(self._made(c) for _, c in instruction.calls if c in self.computations)
        return total

    def trip_count(self, computation: Computation, loop: Instruction) -> int | None:
        """Rounds of a while loop that counts up to a constant; None if it does not."""
        known = re.search(r"known_trip_count\W+n\W+(\d+)", loop.rest)
        if known:
            return int(known[1])
        called = dict(loop.calls)
        condition = self.computations.get(called.get("condition", ""))
        body = self.computations.get(called.get("body", ""))
        compare = condition.root if condition else None
        if condition is None or body is None or compare is None:
            return None
        limit, index = self._limit(condition, compare)
        if limit is None:
            return None
        start, step = 0, 1
        if index is not None:
            start = self._start(computation, loop, index)
            step = self._step(body, index)
        return max(0, -(-(limit - start) // step))

    def _limit(self, condition: Computation, compare: Instruction) -> tuple[int | None, int | None]:
        # (constant that the counter is compared with, which element of the state is the counter)
        source = condition
        if compare.opcode == "fusion" and compare.calls:
            source = self.computations[compare.calls[0][1]]
            outer = [condition.by_name.get(name) for name in compare.operands]
            compare = source.root or compare
        else:
            outer = []
        if compare.opcode != "compare" or "direction=LT" not in compare.rest:
            return None, None
        ends = []
        for name in compare.operands:
            found = source.by_name.get(name)
            if found is not None and found.opcode == "parameter" and outer:
                found = outer[int(found.operands[0])]
            ends.append(found)
        limit = next((int(e.operands[0]) for e in ends if e and _integer(e)), None)
        element = next((e for e in ends if e and e.opcode == "get-tuple-element"), None)
        index = element and element.attribute("index")
        return limit, int(index) if index else None

    def _start(self, computation: Computation, loop: Instruction, index: int) -> int:
        state = computation.by_name.get(loop.operands[0]) if loop.operands else None
        if state is not None and state.opcode == "tuple" and index < len(state.operands):
            first = computation.by_name.get(state.operands[index])
            while first is not None and first.opcode in ("copy", "bitcast"):
                first = computation.by_name.get(first.operands[0])
            if first is not None and _integer(first):
                return int(first.operands[0])
        return 0

    @staticmethod
    def _step(body: Computation, index: int) -> int:
        root = body.root
        if root is None or root.opcode != "tuple" or index >= len(root.operands):
            return 1
        added = body.by_name.get(root.operands[index])
        if added is None or added.opcode != "add":
            return 1
        steps = [body.by_name.get(name) for name in added.operands]
        return next((int(s.operands[0]) for s in steps if s and _integer(s)), 1) or 1

    def sequential(self) -> Iterator[tuple[Computation, float]]:
        """Computations whose instructions run one by one, with how often; no fusion's inside."""
        inside = {
            called
            for computation in self.computations.values()
            for instruction in computation.instructions
            for role, called in instruction.calls
            if role == "to_apply" or (instruction.opcode == "fusion") or role == "condition"
        }
        for name, times in self.runs.items():
            if name not in inside:
                yield self.computations[name], times


def _integer(instruction: Instruction) -> bool:
    return instruction.opcode == "constant" and bool(
        re.fullmatch(r"-?\d+", instruction.operands[0].strip())
    )
