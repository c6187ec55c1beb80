"""FLOPs of a traced program, counted on its jaxpr: multiply-adds of matmuls and convolutions x 2.

The compiler's own count (`cost_analysis`) takes the body of a loop once and a Pallas kernel at
what it declares, so it is of no use for a scanned model.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jax.interpreters import partial_eval


@dataclasses.dataclass
class Count:
    """FLOPs of a program over all devices.

    Attributes:
      total: all of them. kernels: those of Pallas kernels, by name.
      unknown: Pallas kernels that declare no cost and have no formula here; counted as 0.
      int8: the part of the total whose operands are 8-bit integers.
      loops: while loops of unknown length, whose bodies count once.
    """

    total: float = 0.0
    kernels: dict[str, float] = dataclasses.field(default_factory=dict)
    unknown: list[str] = dataclasses.field(default_factory=list)
    int8: float = 0.0
    loops: int = 0


def count(jaxpr: Any) -> Count:
    """FLOPs of a (closed) jaxpr; scanned bodies as often as they run, all devices together."""
    out = Count()
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    # What rematerialization traces again and nobody reads, the compiler drops.
    used, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    _walk(used, 1.0, out)
    return out


def _walk(jaxpr: Any, times: float, out: Count) -> None:
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            _add(eqn, times * _dot(eqn), out)
        elif name == "conv_general_dilated":
            _add(eqn, times * _conv(eqn), out)
        elif name == "pallas_call":
            _kernel(eqn, times, out)
        elif name == "cond":
            _widest(eqn.params["branches"], times, out)
        else:
            rounds = times
            if name == "scan":
                rounds *= eqn.params["length"]
            elif name == "while":
                out.loops += 1
            elif name == "shard_map":
                rounds *= _ways(eqn)
            for inner in _inner(eqn):
                _walk(inner, rounds, out)


def _inner(eqn: Any) -> list[Any]:
    # A rule of differentiation that is still there (custom_vjp) is no part of the forward pass.
    skipped = ("fwd_jaxpr_thunk", "bwd", "jvp_jaxpr_fun", "jvp_jaxpr_thunk", "cond_jaxpr")
    found = []
    for key, value in eqn.params.items():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if key not in skipped and hasattr(part, "eqns"):
                found.append(part)
    return found


def _add(eqn: Any, flops: float, out: Count) -> None:
    out.total += flops
    kinds = {str(v.aval.dtype) for v in eqn.invars[:2]}
    if kinds <= {"int8", "uint8", "int4", "uint4"}:
        out.int8 += flops


def _dot(eqn: Any) -> float:
    (contract, _), (batch, _) = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    right = eqn.invars[1].aval.shape
    shared = math.prod(left[i] for i in contract)
    batched = math.prod(left[i] for i in batch)
    return 2.0 * math.prod(left) * math.prod(right) / max(shared * batched, 1)


def _conv(eqn: Any) -> float:
    numbers = eqn.params["dimension_numbers"]
    kernel = eqn.invars[1].aval.shape
    outputs = eqn.outvars[0].aval.shape
    per_output = math.prod(kernel) / kernel[numbers.rhs_spec[0]]
    return 2.0 * math.prod(outputs) * per_output


def _ways(eqn: Any) -> int:
    # A shard_map's body is one device's part; unlisted axes repeat or split it further outside.
    mesh = eqn.params["mesh"]
    axes = eqn.params.get("manual_axes") or mesh.axis_names
    used = set()
    for name in ("in_specs", "in_names", "out_specs", "out_names"):
        for spec in eqn.params.get(name, ()):
            parts = spec.values() if isinstance(spec, dict) else spec
            for part in parts:
                used |= set(part if isinstance(part, tuple | list) else [part])
    # Along an axis that splits nothing every device repeats the same work, which is no more work.
    return math.prod(mesh.shape[a] for a in axes if a in used)


def _widest(branches: Any, times: float, out: Count) -> None:
    counts = []
    for branch in branches:
        one = Count()
        _walk(getattr(branch, "jaxpr", branch), times, one)
        counts.append(one)
    most = max(counts, key=lambda c: c.total)
    out.total += most.total
    out.int8 += most.int8
    out.unknown += most.unknown
    out.loops += most.loops
    for name, flops in most.kernels.items():
        out.kernels[name] = out.kernels.get(name, 0.0) + flops


# Matmuls of [T, W] x [W, S] for each head in an attention kernel, by the end of its name. A
# backward pass computes the scores again: dq takes 3 (q k', do v', ds k), dkv 4, both in one 5.
ATTENTION = (("dkv_dq", 5), ("dq_dkv", 5), ("dkv", 4), ("dq", 3), ("bwd", 5), ("fwd", 2))


def _kernel(eqn: Any, times: float, out: Count) -> None:
    name = _name(eqn)
    flops = _attention(name, eqn)
    cost = eqn.params.get("cost_estimate")
    if flops is None and cost is not None and getattr(cost, "flops", 0):
        flops = float(cost.flops)
    if flops is None:
        out.unknown += [] if name in out.unknown else [name]
        return
    out.kernels[name] = out.kernels.get(name, 0.0) + times * flops
    out.total += times * flops


def _name(eqn: Any) -> str:
    given = eqn.params.get("name")
    info = eqn.params.get("name_and_src_info")
    return str(given or getattr(info, "name", None) or "pallas kernel")


def _attention(name: str, eqn: Any) -> float | None:
    """FLOPs of flash and splash kernels over the full square, as the convention counts them."""
    lowered = name.lower()
    if "splash" not in lowered and "flash" not in lowered and "mha" not in lowered:
        return None
    part = lowered.removesuffix("_no_residuals").removesuffix("_segmented")
    matmuls = next((n for end, n in ATTENTION if end in part), 2)
    if "dkv" in part and "dq" not in part and _writes_three(eqn):
        matmuls = 5  # the fused backward kernel of splash attention makes dq as well
    operands = [
        v.aval.shape for v in eqn.invars
        if getattr(v.aval, "ndim", 0) >= 3 and "float" in str(v.aval.dtype)
    ]  # fmt: skip
    if len(operands) < 2:
        return None
    query, key = operands[0], operands[1]
    return 2.0 * matmuls * math.prod(query) * key[-2]


def _writes_three(eqn: Any) -> bool:
    wide = [v for v in eqn.outvars if getattr(v.aval, "ndim", 0) >= 3 and v.aval.shape[-1] >= 32]
    return len(wide) >= 3
