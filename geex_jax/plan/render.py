"""A plan as text for a terminal."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax import files
from geex_jax.pages import Table, text_table
from geex_jax.plan.chips import GIB
from geex_jax.plan.roofline import seconds_of
from geex_jax.plan.topology import Topology

MANY = 12  # rows of the table of collectives


def gib(value: float) -> str:
    """Bytes in GiB, small ones in MiB."""
    return f"{value / GIB:.2f} GiB" if value >= GIB / 10 else f"{value / (1 << 20):.2f} MiB"


def render(plan: Mapping[str, Any], topology: Topology) -> str:
    """The whole plan: where, whether it fits, FLOPs, collectives, roofline, what it took."""
    parts = [_head(plan), _memory(plan)]
    if plan["compiled"]["fits"]:
        if plan.get("flops"):
            parts.append(_flops(plan))
        parts.append(_collectives(plan, topology))
        parts.append(_times(plan))
    parts.append(_made(plan))
    if plan["warnings"]:
        parts.append("\n".join(f"! {line}" for line in plan["warnings"]))
    return "\n\n".join(part for part in parts if part)


def _head(plan: Mapping[str, Any]) -> str:
    where, model, step = plan["topology"], plan["model"], plan["step"]
    slices = f"{where['slices']} slices of " if where["slices"] > 1 else ""
    mesh = " x ".join(f"{k}={v}" for k, v in step["mesh"].items() if v > 1) or "one device"
    lines = [
        f"{model['name']}: {model['parameters']:,} parameters, {model['length']} tokens a row",
        f"on {slices}{where['name']}: {where['chips']} chips, {where['devices']} devices, "
        f"{where['hosts']} host{'s' * (where['hosts'] > 1)}, {gib(where['usable'])} usable a device"
        + ("" if any(where["wrapped"]) else ", no wraparound"),
    ]
    if plan["kind"] == "train":
        wanted = step["model"]
        lines.append(
            f"mesh {mesh}; batch {step['batch_size']} rows in {step['accumulate']} "
            f"part{'s' * (step['accumulate'] > 1)}, {step['rows_per_device']:g} rows a device at a "
            f"time; {wanted['dtype']}, remat {wanted['remat']}"
        )
    else:
        lines.append(f"mesh {mesh}; {step['text']}")
    return "\n".join(lines)


def _memory(plan: Mapping[str, Any]) -> str:
    compiled, usable = plan["compiled"], plan["topology"]["usable"]
    rows: list[list[Any]] = [[name, gib(size)] for name, size in plan["state"].items() if size]
    memory = compiled["memory"]
    if compiled["fits"]:
        rest = memory["temp"]
        if plan["kind"] == "train":
            rows += [["gradients (one set, a temporary)", gib(plan["gradients"])],
                     ["kept for the backward pass (a temporary)",
                      gib(plan["activations"]["device"])]]  # fmt: skip
            rest = max(0.0, rest - plan["gradients"] - plan["activations"]["device"])
        rows += [["other temporaries", gib(rest)],
                 ["arguments + temporaries", gib(compiled["used"])],
                 ["most at once, by the compiler", gib(memory["peak"])]]  # fmt: skip
        if memory["host"] + memory["host_argument"]:
            rows.append(["in the host's memory", gib(memory["host"] + memory["host_argument"])])
        verdict = f"FITS: the compiler made a program for {gib(usable)} a device"
    else:
        over = f" by {gib(compiled['over'])}" if compiled["over"] else ""
        verdict = f"DOES NOT FIT{over}. The compiler: {compiled['message']}"
    return f"{verdict}\n{text_table(Table('', ['bytes of one device', ''], rows))}"


def _flops(plan: Mapping[str, Any]) -> str:
    flops = plan["flops"]
    lines = [
        f"model FLOPs per token: {flops['model_per_token'] / 1e9:.3f} G ({flops['convention']})",
        f"the program's, counted on the jaxpr: {flops['program_per_token'] / 1e9:.3f} G, "
        f"{flops['ratio']:.3f} x (rematerialization)",
    ]
    if flops["kernels"]:
        names = ", ".join(f"{k} {v:.2e}" for k, v in flops["kernels"].items())
        lines.append(f"of it in Pallas kernels, attention as the full square: {names}")
    if flops["int8_share"]:
        lines.append(f"of it in int8: {flops['int8_share']:.0%}")
    return "\n".join(lines)


def grouped(found: Sequence[Mapping[str, Any]], topology: Topology) -> list[dict[str, Any]]:
    """Collectives of one kind, group, way and place together, largest first."""
    groups: dict[tuple, dict[str, Any]] = collections.defaultdict(
        lambda: {"count": 0.0, "bytes": 0.0, "seconds": 0.0}
    )
    for one in found:
        part = _part(one["scope"])
        entry = groups[one["kind"], one["group"], one["slices"], one["how"], part]
        entry["count"] += one["count"]
        entry["bytes"] += (one["ici"] + one["dcn"]) * one["count"]
        entry["seconds"] += sum(seconds_of(topology, one))
    rows = [
        {"kind": k, "group": g, "slices": s, "how": h, "part": p, **v}
        for (k, g, s, h, p), v in groups.items()
    ]
    return sorted(rows, key=lambda r: -r["bytes"])


def _part(scope: str) -> str:
    # jit(train_step)/transpose(jvp(..))/.../layers/mlp/down/dot_general -> backward mlp/down
    if not scope:
        return "?"
    turn = "backward " if "transpose(" in scope else ""
    turn = "again " if "rematted_computation" in scope else turn
    words = [w for w in scope.split("/") if w and "(" not in w and "->" not in w]
    known = ("attention", "mlp", "top_query", "embedding", "head", "final_norm")
    at = next((i for i, w in enumerate(words) if w in known), None)
    name = "/".join(words[at:-1][:3]) if at is not None else (words[-1] if words else "step")
    return turn + (name or (words[-1] if words else "step"))


def _collectives(plan: Mapping[str, Any], topology: Topology) -> str:
    rows = grouped(plan["compiled"]["collectives"], topology)
    if not rows:
        return "no collectives"
    body: list[list[Any]] = [
        [
            f"{r['kind']} over {r['group']}" + (" (DCN)" if r["slices"] > 1 else ""), r["part"],
            r["how"], f"{r['count']:,.0f}", f"{r['bytes'] / 1e9:.3f}", f"{r['seconds'] * 1e3:.1f}",
        ]
        for r in rows[:MANY]
    ]  # fmt: skip
    rest = rows[MANY:]
    if rest:
        body.append([f"{len(rest)} others", "", "", f"{sum(r['count'] for r in rest):,.0f}",
                     f"{sum(r['bytes'] for r in rest) / 1e9:.3f}",
                     f"{sum(r['seconds'] for r in rest) * 1e3:.1f}"])  # fmt: skip
    body.append(["all", "", "", f"{sum(r['count'] for r in rows):,.0f}",
                 f"{sum(r['bytes'] for r in rows) / 1e9:.3f}",
                 f"{sum(r['seconds'] for r in rows) * 1e3:.1f}"])  # fmt: skip
    head = ["collective", "part", "how printed", "times", "GB sent a device", "ms"]
    return text_table(Table("", head, body, labels=3))


def _times(plan: Mapping[str, Any]) -> str:
    r = plan["roofline"]
    rows: list[list[Any]] = [
        ["compute: the model's FLOPs at peak", f"{r['ideal'] * 1e3:.1f} ms"],
        ["compute: all FLOPs", f"{r['compute'] * 1e3:.1f} ms"],
        ["HBM: bytes its instructions move", f"{r['hbm'] * 1e3:.1f} ms"],
        ["ICI", f"{r['ici'] * 1e3:.1f} ms"],
    ]
    if r["dcn"]:
        rows.append(["DCN", f"{r['dcn'] * 1e3:.1f} ms"])
    rows.append(["of ICI and DCN, printed as synchronous", f"{r['exposed'] * 1e3:.1f} ms"])
    lines = [
        f"roofline ({r['label']}); bound by {r['bound']}",
        text_table(Table("", ["", ""], rows)),
    ]
    if plan["kind"] == "train":
        low, high = r["tokens_per_second"]
        lines.append(
            f"MFU {r['mfu_overlap']:.2f} if compute, ICI and DCN overlap perfectly, "
            f"{r['mfu_exposed']:.2f} with synchronous collectives exposed, "
            f"{r['mfu_half_ici']:.2f} the same at half the ICI rate; "
            f"{r['mfu_memory']:.2f} with HBM as counted"
        )
        lines.append(f"{low:,.0f} to {high:,.0f} tokens/s ({r['label']})")
    else:
        lines.append(plan["speed"])
    cycles = plan["compiled"]["traffic"]["cycles"]
    if cycles and not plan["fast"]:
        lines.append(
            f"the compiler's estimated cycles: {cycles:.4g} (relative use only; without Pallas "
            "kernels and collectives)"
        )
    return "\n".join(lines)


def _made(plan: Mapping[str, Any]) -> str:
    compiled = plan["compiled"]
    effort = "least effort (--fast), no cycles" if plan["fast"] else "default effort"
    text = (
        f"compiled in {files.seconds(compiled['seconds'])}"
        + (" (kept from an earlier run)" if compiled["cached"] else "")
        + f", {effort}, {compiled['rss'] / 1e9:.1f} GB of this machine; "
        + ", ".join(f"{k} {v}" for k, v in compiled["versions"].items())
    )
    if compiled["options"]:
        text += "; options " + ", ".join(f"{k}={v}" for k, v in compiled["options"].items())
    return text


def render_prefill(plan: Mapping[str, Any]) -> str:
    """One paragraph on the program that takes prompts in."""
    first = plan["prefill"]
    what = f"prefill of {plan['step']['prefill']} tokens of a prompt into one row"
    if first["fits"]:
        memory = first["memory"]
        return (
            f"{what} fits: arguments {gib(memory['argument'])}, temporaries "
            f"{gib(memory['temp'])}, {gib(memory['peak'])} at most at once"
        )
    over = f" by {gib(first['over'])}" if first["over"] else ""
    return f"{what} DOES NOT FIT{over}. The compiler: {first['message']}"
