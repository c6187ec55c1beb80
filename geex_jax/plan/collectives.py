"""What a compiled program sends between chips: which collectives, how often, how many bytes.

Wire bytes are what one device sends, by the formulas of rings: (n-1)/n of the whole array for an
all-gather or reduce-scatter over n devices, twice that for an all-reduce. "Synchronous" is how
the compiler prints a collective, not a stall that somebody measured.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

import numpy as np

from geex_jax.plan.hlo import CALLS, Array, Computation, Instruction, Module, arrays_of

KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast", "ragged-all-to-all",
)  # fmt: skip
# TPU's reduce-scatter is often printed as an all-reduce and a slice in a fusion of its own, which
# this emitter runs as one reduce-scatter: its result is the shard.
SCATTER = "AllReduceScatterFusion"
AT_ONCE = "awaited at once"  # a start whose done follows with nothing computed in between
WORK = ("fusion", "convolution", "dot", "while", "reduce", "conditional")
ASYNC_TARGETS = ("AsyncCollectiveStart", "AsyncCollectiveDone")


@dataclasses.dataclass
class Collective:
    """One collective of the program.

    Attributes:
      kind: one of KINDS.
      group: devices of a group.
      slices: how many slices a group spans; above 1 it uses the data centre's network.
      count: times it runs in a call of the program.
      bytes: of the whole array, on one device.
      ici, dcn: bytes that one device sends in one run, over each network.
      asynchronous: whether the program goes on while it runs.
      how: "sync"; "awaited at once": as good as that; "start/done"; "fused"
        (async_collective_fusion); "windowed": permutes in turn with the parts of a matmul;
        "call-start": on a SparseCore or another core; "megascale": between slices.
      dtype, scope: of its array; the part of the model it serves.
      shapes: of its arrays, as text.
    """

    kind: str
    group: int
    slices: int
    count: float
    bytes: int
    ici: float
    dcn: float
    asynchronous: bool
    how: str
    dtype: str
    scope: str
    shapes: str


def find(module: Module, slice_of: Sequence[int]) -> list[Collective]:
    """Every collective, each once.

    A collective that the compiler spreads over several fusions appears in the text several times
    under one channel; it is counted once, and as asynchronous if one of its appearances is.

    Args:
      module: the optimized program.
      slice_of: the slice of each device, in the order of the program's devices.
    """
    seen: dict[tuple, Collective] = {}
    owners = _owners(module)
    for computation, instruction in _instructions(module):
        if instruction.opcode == "send" and "_xla_megascale" in instruction.rest:
            seen[computation.name, instruction.name] = _megascale(
                instruction, module.runs[computation.name], len(set(slice_of))
            )
        kind = _kind(instruction)
        if kind is None:
            continue
        owner, how = owners.get(computation.name, (None, "sync"))
        found = _collective(module, computation, instruction, kind, owner, how, slice_of)
        if found is None:
            continue
        channel = instruction.attribute("channel_id")
        # Channels of hand-written collectives are not unique: the array tells those apart.
        same = (found.kind, channel, found.bytes)
        key = same if channel else (computation.name, instruction.name)
        old = seen.get(key)
        if old is None:
            seen[key] = found
            continue
        better = found if found.count > old.count else old
        how = next((c.how for c in (old, found) if c.asynchronous), old.how)
        seen[key] = dataclasses.replace(
            better, asynchronous=old.asynchronous or found.asynchronous, how=how
        )
    return list(seen.values())


def _instructions(module: Module) -> Iterator[tuple[Computation, Instruction]]:
    for name in module.runs:
        for instruction in module.computations[name].instructions:
            yield module.computations[name], instruction


def _kind(instruction: Instruction) -> str | None:
    code = instruction.opcode.removesuffix("-start")
    return code if code in KINDS else None


def _owners(module: Module) -> dict[str, tuple[Instruction, str]]:
    """The instruction that runs each inner computation, and how that makes a collective run."""
    owners: dict[str, tuple[Instruction, str]] = {}
    for name in module.runs:
        for instruction in module.computations[name].instructions:
            for role, called in instruction.calls:
                calls = instruction.opcode in CALLS or role not in ("to_apply", "condition")
                if instruction.opcode != "while" and calls:
                    inherited = owners[name][1] if name in owners else "sync"
                    how = _how(module, module.computations[name], instruction, called)
                    owners[called] = (instruction, how or inherited)
    return owners


def _how(module: Module, outer: Computation, instruction: Instruction, called: str) -> str:
    # How an instruction runs what it calls; nothing if that does not make it asynchronous.
    inner = module.computations.get(called)
    parts = inner.instructions if inner else []
    if any(map(_async_part, parts)) or "async_collective_fusion" in called:
        return "fused"
    if instruction.opcode in ("async-start", "call-start"):
        how = "call-start" if instruction.opcode == "call-start" else "start/done"
        return how if _overlaps(outer, instruction) else AT_ONCE
    return ""


def _overlaps(computation: Computation, start: Instruction) -> bool:
    """Whether anything is computed between a start and its done."""
    begun = False
    for instruction in computation.instructions:
        if instruction is start:
            begun = True
        elif begun and instruction.opcode.endswith("-done") and start.name in instruction.operands:
            return False
        elif begun and (instruction.opcode in WORK or "tpu_custom_call" in instruction.rest):
            return True
    return True  # its done lies in another computation


def _async_part(instruction: Instruction) -> bool:
    return any(f'custom_call_target="{t}"' in instruction.rest for t in ASYNC_TARGETS)


def _collective(module, computation, instruction, kind, owner, how, slice_of) -> Collective | None:
    groups = groups_of(instruction, len(slice_of))
    group = groups.shape[1]
    arrays = _payload(instruction, kind)
    scope = instruction.scope or (owner.scope if owner is not None else "")
    if kind == "all-reduce" and owner is not None and _scatters(owner):
        kind = "reduce-scatter"
        arrays = [a for a in instruction.arrays if a.bytes]
    size = sum(a.bytes for a in arrays)
    if group < 2 or not size:
        return None
    if instruction.opcode.endswith("-start"):
        how = "start/done" if _overlaps(computation, instruction) else AT_ONCE
    if kind == "collective-permute" and how == "start/done" and _windowed(instruction):
        how = "windowed"
    spans = _spans(groups, slice_of)
    ici, dcn = wire(kind, size, group, spans)
    if kind == "collective-permute":
        pairs = _pairs(instruction)
        spans = 2 if any(slice_of[a] != slice_of[b] for a, b in pairs) else 1
        ici, dcn = (0.0, float(size)) if spans > 1 else (float(size), 0.0)
    return Collective(
        kind, group, spans, module.runs[computation.name], size, ici, dcn,
        how not in ("sync", AT_ONCE), how,
        arrays[0].dtype, scope,
        ", ".join(f"{a.dtype}[{','.join(map(str, a.shape))}]" for a in arrays[:4]),
    )  # fmt: skip


def _megascale(instruction: Instruction, count: float, slices: int) -> Collective:
    # Between slices the program sends to its host, whose runtime does the rest.
    kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', instruction.rest)
    name = kind[1].lower().replace("_", "-") if kind else "send"
    array = instruction.arrays[0]
    dcn = wire(name, array.bytes, slices, slices)[1] if name == "all-reduce" else array.bytes
    return Collective(
        name, slices, slices, count, array.bytes, 0.0, float(dcn), True, "megascale", array.dtype,
        instruction.scope, f"{array.dtype}{list(array.shape)}",
    )  # fmt: skip


def _scatters(owner: Instruction) -> bool:
    called = [name for _, name in owner.calls]
    return SCATTER in owner.rest or any("all-reduce-scatter" in name for name in called)


def _windowed(instruction: Instruction) -> bool:
    return "dot_general" in instruction.scope or "windowed" in instruction.rest


def _payload(instruction: Instruction, kind: str) -> list[Array]:
    # The whole array: an all-gather's result, a reduce-scatter's operand.
    arrays = [a for a in instruction.arrays if a.bytes and a.dtype not in ("u32", "token")]
    if instruction.opcode.endswith("-start") and instruction.type.startswith("("):
        inner = instruction.type[1:]
        if inner.startswith("("):  # ((operands), (results))
            half = len(arrays) // 2
            return arrays[half:] if kind != "reduce-scatter" else arrays[:half]
        if kind != "all-reduce":
            return arrays[1:2] if kind != "reduce-scatter" else arrays[:1]
    if kind == "reduce-scatter":
        sizes = _dimensions(instruction)
        return [Array(a.dtype, (*a.shape, sizes), a.space) for a in arrays]
    return arrays


def _dimensions(instruction: Instruction) -> int:
    # A synchronous reduce-scatter prints its shard: the operand is as many times as large.
    return groups_of(instruction, 0).shape[1]


def wire(kind: str, size: float, group: int, slices: int = 1) -> tuple[float, float]:
    """Bytes that a device sends over (ICI, DCN) in one collective, by the ring formulas.

    Across slices the ring within each slice goes first and each device then exchanges its part
    with its counterparts, as multi-slice programs do.

    Args:
      kind: one of KINDS. size: bytes of the whole array. group: devices. slices: they span.
    """
    local = max(1, group // slices)
    rounds = 2.0 if kind == "all-reduce" else 1.0
    if kind == "collective-permute":
        return float(size), 0.0
    if kind == "collective-broadcast":
        rounds = 1.0
    ici = rounds * size * (local - 1) / local
    dcn = rounds * size / local * (slices - 1) / slices
    return ici, dcn


def _spans(groups: np.ndarray, slice_of: Sequence[int]) -> int:
    if not len(slice_of) or groups.max() >= len(slice_of):
        return 1
    where = np.asarray(slice_of)[groups]
    return int(max(len(set(row)) for row in where.tolist()))


def _pairs(instruction: Instruction) -> list[tuple[int, int]]:
    found = re.search(r"source_target_pairs=\{(.*?)\}\}", instruction.rest)
    return [(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)", found[0])] if found else []


def groups_of(instruction: Instruction, devices: int) -> np.ndarray:
    """The groups of a collective, int [groups, devices of a group], in any of XLA's four forms."""
    rest = instruction.rest
    if "source_target_pairs" in rest:
        pairs = _pairs(instruction)
        return np.asarray([sorted({d for p in pairs for d in p}) or [0]])
    if lists := re.search(r"replica_groups=\{(\{[\d,{}\s]*\})\}", rest):
        rows = re.findall(r"\{([\d,]+)\}", lists[1])
        return np.asarray([[int(d) for d in row.split(",")] for row in rows])
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", rest):
        return _iota(*(_numbers(iota[i]) for i in (1, 2, 3)))
    if mesh := re.search(r"replica_groups=@?\w*mesh\[([^\]]*)\]([^{]*)\{([^}]*)\}", rest):
        return _of_mesh(mesh[1], mesh[2], mesh[3])
    return np.arange(max(devices, 1))[None]


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",")) if text else ()


def _iota(shape: tuple, reshape: tuple, transpose: tuple) -> np.ndarray:
    ids = np.arange(int(np.prod(reshape))).reshape(reshape)
    if transpose:
        ids = ids.transpose(transpose)
    return ids.reshape(shape)


def _of_mesh(axes: str, order: str, chosen: str) -> np.ndarray:
    # mesh['a'=2,'b'=4] {'b'}, perhaps with device_ids=..., perhaps parts of axes: {'b':(2)2}
    sizes = {name: int(n) for name, n in re.findall(r"'?([\w.]+)'?=(\d+)", axes)}
    total = int(np.prod(list(sizes.values())))
    ids = np.arange(total)
    if listed := re.search(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", order):
        ids = _iota(*(_numbers(listed[i]) for i in (1, 2, 3))).reshape(-1)
    elif listed := re.search(r"\(\[([\d,]+)\]T\(([\d,]+)\)\)", order):
        ids = ids.reshape(_numbers(listed[1])).transpose(_numbers(listed[2])).reshape(-1)
    elif listed := re.search(r"\(([\d,\s]+)\)", order):
        ids = np.asarray([int(d) for d in listed[1].split(",")])
    names: list[str] = []
    shape: list[int] = []
    parts = {n: (int(a), int(b)) for n, a, b in re.findall(r"'([\w.]+)':\((\d+)\)(\d+)", chosen)}
    for name, size in sizes.items():
        if name in parts:
            before, part = parts[name]
            names += [f"{name}<", name, f"{name}>"]
            shape += [before, part, size // before // part]
        else:
            names.append(name)
            shape.append(size)
    wanted = re.findall(r"'([\w.]+)'", chosen)
    inner = [names.index(name) for name in wanted]
    outer = [i for i in range(len(names)) if i not in inner]
    arranged = ids.reshape(shape).transpose(*outer, *inner)
    return arranged.reshape(-1, int(np.prod([shape[i] for i in inner])) if inner else 1)


def full_gradients(found: list[Collective], kernels: set[int]) -> list[Collective]:
    """All-reduces that carry whole gradients of parameters which are themselves sharded.

    A reduce-scatter would send half as much.

    Args:
      found: from `find`.
      kernels: numbers of elements of the sharded parameters, of one layer each.
    """

    def carries(collective: Collective) -> bool:
        sizes = [a.elements for a in arrays_of(collective.shapes)]
        return any(n in kernels and n > 1 << 16 for n in sizes)

    return [c for c in found if c.kind == "all-reduce" and carries(c)]
