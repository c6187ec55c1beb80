"""What a compiled program moves through a chip's own memory, and the compiler's cycles.

Bytes are counted instruction by instruction over the optimized text, loops as often as they run:
every array in HBM that an instruction reads or writes. Of an operand that a fusion only slices,
the slice counts; of one that it updates in place, the update. A Pallas kernel counts by its
operands and results, or by what it declares if that is less. All are estimates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from geex_jax.plan.collectives import KINDS
from geex_jax.plan.hlo import Computation, Instruction, Module

# They name or hand on what exists.
FREE = frozenset((
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional",
    "call", "partition-id", "replica-id", "after-all", "opt-barrier", "optimization-barrier",
    "domain", "async-done", "async-update", "call-done", "copy-done", "slice-done",
    "all-gather-done", "all-reduce-done", "collective-permute-done", "send-done", "recv-done",
))  # fmt: skip
SLICES = ("dynamic-slice", "slice", "gather")
PASSES = ("bitcast", "reshape", "copy", "convert", "transpose")
SMALL = 1 << 18  # elements; a smaller array is likely to be another one of the same size
CARRIES = ("ConcatBitcast", "AllocateBuffer", "AssumeGatherIndicesInBound")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Sums over one call of a program, on one device.

    Attributes:
      hbm: bytes read from and written to HBM.
      loops: those of them that are moved inside loops.
      host: bytes moved between HBM and the host's memory.
      cycles: the compiler's estimate; Pallas kernels and collectives have none.
      kernels: how often a Pallas kernel runs, of which cycles know nothing.
      dear: bytes moved inside loops by branches that are not counted, see `hlo.Module`.
    """

    hbm: float
    loops: float
    host: float
    cycles: float
    kernels: float
    dear: float = 0.0


@dataclasses.dataclass(frozen=True)
class Copy:
    """A large array that the program makes again.

    Attributes:
      name: of the instruction. type, bytes: of its result. count: times per call.
      scope: the part of the model.
    """

    name: str
    type: str
    bytes: int
    count: float
    scope: str


def measure(module: Module) -> Traffic:
    """Adds up HBM traffic and cycles."""
    hbm = loops = host = cycles = kernels = 0.0
    for computation, times in module.sequential():
        for instruction in computation.instructions:
            cycles += (instruction.number("estimated_cycles") or 0) * times
            kernels += times * ("tpu_custom_call" in instruction.rest)
            near, far = _bytes(module, computation, instruction)
            hbm += near * times
            loops += 0.0 if computation.entry else near * times
            host += far * times
    return Traffic(hbm, loops, host, cycles, kernels)


def _bytes(module: Module, computation: Computation, instruction: Instruction) -> tuple:
    if instruction.opcode in FREE or any(f'"{t}"' in instruction.rest for t in CARRIES):
        return 0.0, 0.0
    if instruction.opcode in ("copy-start", "slice-start"):
        return _moved(instruction)
    if "tpu_custom_call" in instruction.rest:
        return _declared(computation, instruction), 0.0
    inner = None
    if instruction.opcode == "fusion":
        inner = _inside(module, instruction)
        part = inner and next((i for i in inner.instructions if "AsyncCollective" in i.rest), None)
        if inner is not None and part is not None:
            starts = "AsyncCollectiveStart" in part.rest
            started = [i for i in inner.instructions if i.opcode in KINDS]
            return float(sum(a.bytes for i in started for a in i.arrays) * starts), 0.0
    read = _read(module, computation, instruction, inner)
    return read + _written(computation, instruction, inner), 0.0


def _declared(computation: Computation, instruction: Instruction) -> float:
    # A kernel that is given a whole array may read a part of it: what it declares then.
    found = [computation.by_name.get(name) for name in instruction.operands]
    arrays = [a for i in found if i is not None and i.opcode != "constant" for a in i.arrays]
    whole = float(sum(a.bytes for a in (*arrays, *instruction.arrays) if a.space == 0))
    return min(whole, instruction.number("bytes_accessed") or whole)


def _moved(instruction: Instruction) -> tuple[float, float]:
    # (operand, result, context): bytes go where the memory spaces say.
    arrays = [a for a in instruction.arrays if a.dtype not in ("u32", "s32") or len(a.shape)]
    if len(arrays) < 2:
        return 0.0, 0.0
    source, target = arrays[0], arrays[1]
    size = float(min(source.bytes, target.bytes))
    near = size * ((source.space == 0) + (target.space == 0))
    return near, size * (5 in (source.space, target.space))


def _read(
    module: Module, computation: Computation, instruction: Instruction, inner: Computation | None
) -> float:
    total = 0.0
    parameters = _parameters(inner) if inner else {}
    for at, name in enumerate(instruction.operands):
        operand = computation.by_name.get(name)
        if operand is None:
            continue
        whole = sum(a.bytes for a in operand.arrays if a.space == 0)
        if whole and operand.opcode != "constant":
            if inner is not None and at in parameters:
                whole = min(whole, _used(module, inner, parameters[at], whole))
            elif instruction.opcode in SLICES:
                whole = min(whole, instruction.bytes)
            elif instruction.opcode in ("dynamic-update-slice", "scatter") and at == 0:
                whole = 0
            total += whole
    return total


def _parameters(inner: Computation) -> dict[int, Instruction]:
    return {int(i.operands[0]): i for i in inner.instructions if i.opcode == "parameter"}


def _used(module: Module, inner: Computation, parameter: Instruction, whole: float) -> float:
    # Bytes of a fusion's parameter that are read, if all its uses only slice or update it.
    total = 0.0
    todo, seen = [parameter.name], set()
    while todo:
        name = todo.pop()
        for user in inner.instructions:
            if name not in user.operands or user.name in seen:
                continue
            if user.opcode in SLICES and user.operands[0] == name:
                total += user.bytes
            elif user.opcode in ("dynamic-update-slice", "scatter") and user.operands[0] == name:
                pass
            elif (user.opcode == "tuple" and user.root) or user.opcode in KINDS:
                pass  # handed on; what a collective reads goes to the network
            elif user.opcode == "fusion" and _copies(module, user) and not user.root:
                seen.add(user.name)
                todo.append(user.name)
            elif user.opcode == "fusion" and (nested := _inside(module, user)) is not None:
                seen.add(user.name)
                inputs = _parameters(nested)
                for at, operand in enumerate(user.operands):
                    if operand == name:
                        total += _used(module, nested, inputs[at], whole)
            elif user.opcode in PASSES and not user.root:
                seen.add(user.name)
                todo.append(user.name)
            else:
                return whole
    return total


def _written(
    computation: Computation, instruction: Instruction, inner: Computation | None
) -> float:
    root = inner.root if inner else instruction
    roots: list[Instruction | None] = [root]
    if inner and root is not None and root.opcode == "tuple":
        roots = [inner.by_name.get(name) for name in root.operands]
    source = (inner or computation).by_name
    arrays = instruction.arrays
    if len(roots) != len(arrays):
        return sum(a.bytes for a in arrays if a.space == 0)
    total = 0.0
    for part, array in zip(roots, arrays, strict=True):
        if array.space:
            continue
        if inner and part is not None and part.opcode in ("parameter", *KINDS):
            continue  # handed on; an asynchronous collective is counted where it starts
        while part is not None and part.opcode == "bitcast":
            part = source.get(part.operands[0])
        if part is not None and part.opcode in ("dynamic-update-slice", "scatter"):
            update = source.get(part.operands[-1 if part.opcode == "scatter" else 1])
            total += min(array.bytes, update.bytes if update is not None else array.bytes)
        else:
            total += array.bytes
    return total


def copies(module: Module, sizes: Iterable[int], within: str = "") -> list[Copy]:
    """Copies, transpositions and conversions of whole arrays of given sizes that are in HBM.

    Args:
      module: the program.
      sizes: numbers of elements to look for, such as those of a KV cache.
      within: only in computations that run more than once if "loops".
    """
    wanted = {size for size in sizes if size >= SMALL}
    found = []
    for computation, times in module.sequential():
        if within == "loops" and computation.entry:
            continue
        for instruction in computation.instructions:
            if instruction.opcode not in ("copy", "copy-start", "transpose", "convert", "fusion"):
                continue
            if instruction.opcode == "fusion" and not _copies(module, instruction, SLICES):
                continue
            array = next((a for a in instruction.arrays if a.elements in wanted), None)
            if array is not None and array.space == 0:
                found.append(
                    Copy(instruction.name, f"{array.dtype}{list(array.shape)}", array.bytes,
                         times, instruction.scope)
                )  # fmt: skip
    return found


def _inside(module: Module, fusion: Instruction) -> Computation | None:
    return module.computations.get(fusion.calls[0][1]) if fusion.calls else None


def _copies(module: Module, instruction: Instruction, also: tuple[str, ...] = ()) -> bool:
    # Whether a fusion only hands on what it is given, in another place, order or type.
    inner = _inside(module, instruction)
    return inner is not None and all(
        i.opcode in (*PASSES, *also, "parameter", "constant", "tuple") for i in inner.instructions
    )
