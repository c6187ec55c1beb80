"""`geex bench attention`: the implementations of attention that run here, side by side.

For each shape, on packed ragged segments: the largest difference from the plain implementation
(result and gradients, as a share of their largest value), and milliseconds of forward, and of
forward with backward, best of several rounds in turns. On a GPU that is cuDNN against XLA, on a
TPU splash against XLA; on a CPU only XLA is timed, and splash is compared in Pallas's interpreter.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.errors import GeexError
from geex_jax.kernels import attention, choose
from geex_jax.kernels.attention import platform
from geex_jax.pages.tables import Cell, Table, text_table

# rows, length, query heads, key heads, head width: of the 1.3B and 13B presets, and grouped heads.
SHAPES = {
    "cpu": ["1,256,4,2,64"],
    "gpu": ["8,2048,16,16,128", "4,2048,40,40,128", "1,8192,32,8,128"],
}
SHAPES["tpu"] = SHAPES["gpu"]
NAMES = ("xla", "splash", "cudnn")
TOLERANCE = {2: 0.03, 4: 1e-3}  # bytes of a number -> largest difference accepted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the bench's flags."""
    parser.add_argument(
        "--shape",
        action="append",
        metavar="B,T,H,K,W",
        help="rows, length, query heads, key heads, head width; may be repeated",
    )
    parser.add_argument("--window", type=int, default=0, help="sliding window; 0: none")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each, in turns")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="default: bfloat16, CPU: float32"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def parse_shape(text: str) -> tuple[int, int, int, int, int]:
    """Five sizes of "B,T,H,K,W".

    Raises:
      GeexError: not five positive numbers, or heads that do not divide into groups.
    """
    parts = text.split(",")
    if len(parts) != 5 or not all(p.strip().isdigit() and int(p) for p in parts):
        raise GeexError(
            f"shape {text!r}", "write rows,length,heads,key heads,head width: 4,2048,16,16,128"
        )
    rows, length, heads, kv_heads, width = map(int, parts)
    if heads % kv_heads:
        raise GeexError(f"shape {text!r}: {heads} heads, {kv_heads} key heads", "give equal groups")
    return rows, length, heads, kv_heads, width


def make_inputs(shape: tuple[int, int, int, int, int], dtype: str, seed: int = 0) -> Any:
    """Query, key, value, the result's gradient, and segments int32 [B, T] with padding last."""
    rows, length, heads, kv_heads, width = shape
    keys = jax.random.split(jax.random.key(seed), 4)
    counts = (heads, kv_heads, kv_heads, heads)
    arrays = [
        jax.random.normal(k, (rows, length, n, width), jnp.dtype(dtype))
        for k, n in zip(keys, counts, strict=True)
    ]
    rng = np.random.default_rng(seed)
    ids = np.zeros((rows, length), np.int32)
    for row in ids:
        ends = np.sort(rng.choice(np.arange(1, length), min(6, length - 1), replace=False))
        row[: ends[-1]] = 1 + np.searchsorted(ends, np.arange(ends[-1]), side="right")
    return *arrays, jnp.asarray(ids)


def measure(shape: Any, dtype: str, window: int | None, rounds: int) -> list[dict[str, Any]]:
    """One row for each implementation that can run here."""
    query, key, value, gradient, ids = make_inputs(shape, dtype)

    def forward(name: str, q: Any, k: Any, v: Any) -> Any:
        return attention(q, k, v, ids, window=window, implementation=name)

    def both(name: str, q: Any, k: Any, v: Any) -> Any:
        out, pull = jax.vjp(functools.partial(forward, name), q, k, v)
        return out, *pull(gradient)

    names, results, rows = [], {}, []
    for name in NAMES:
        try:
            choose(name, query.shape, query.dtype)
        except GeexError:
            continue
        names.append(name)
    steps = {
        (name, kind): jax.jit(functools.partial(run, name))
        for name in names
        for kind, run in (("forward", forward), ("both", both))
    }
    for name in names:
        results[name] = [np.asarray(x, np.float32) for x in steps[name, "both"](query, key, value)]
    timed = [n for n in names if n == "xla" or platform() != "cpu"]  # an interpreter is not timed
    times = _in_turns(
        {k: v for k, v in steps.items() if k[0] in timed}, (query, key, value), rounds
    )
    for name in names:
        worst = max(
            float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-9))
            for a, b in zip(results[name], results["xla"], strict=True)
        )
        rows.append(
            {
                "shape": ",".join(map(str, shape)),
                "implementation": name,
                "difference": worst,
                "equal": bool(worst <= TOLERANCE[query.dtype.itemsize]),
                "forward_ms": times.get((name, "forward")),
                "both_ms": times.get((name, "both")),
            }
        )
    return rows


def _in_turns(steps: dict[Any, Any], arguments: Any, rounds: int) -> dict[Any, float]:
    best: dict[Any, float] = {}
    for step in steps.values():
        jax.block_until_ready(step(*arguments))
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            spent = (time.perf_counter() - start) * 1000
            best[name] = min(best.get(name, spent), spent)
    return best


def table(rows: list[dict[str, Any]], about: str) -> Table:
    """The rows of all shapes, with speed relative to xla."""
    plain = {r["shape"]: r for r in rows if r["implementation"] == "xla"}

    def cell(row: dict[str, Any], field: str) -> str | Cell:
        if row[field] is None:
            return Cell("interpreted", tone="muted")
        return Cell(f"{row[field]:.3f}", small=f"{plain[row['shape']][field] / row[field]:.2f}x")

    return Table(
        f"attention on {about}",
        ["shape B,T,H,K,W", "implementation", "difference", "forward ms", "with backward ms"],
        [
            [
                row["shape"],
                row["implementation"],
                f"{row['difference']:.1e}" + ("" if row["equal"] else " NOT EQUAL"),
                cell(row, "forward_ms"),
                cell(row, "both_ms"),
            ]
            for row in rows
        ],
        labels=2,
    )


def run(args: argparse.Namespace) -> int:
    """Prints the table; 1 if an implementation differs from the plain one."""
    where = platform()
    dtype = args.dtype or ("float32" if where == "cpu" else "bfloat16")
    if args.rounds < 1 or args.window < 0:
        raise GeexError(
            f"--rounds {args.rounds} --window {args.window}", "give 1 or more, 0 or more"
        )
    shapes = [parse_shape(s) for s in args.shape or SHAPES.get(where, SHAPES["cpu"])]
    rows = [row for s in shapes for row in measure(s, dtype, args.window or None, args.rounds)]
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        found = table(rows, f"{jax.devices()[0].device_kind}, {dtype}")
        print(f"{found.caption}\n{text_table(found)}")
    return 0 if all(row["equal"] for row in rows) else 1
