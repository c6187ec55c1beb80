"""`geex bench kernels`: decode's kernels and their plain twins on the device that is here.

For attention over a cache (16 bits and int8) and matmuls of few rows with stored weights (int8,
int4, by groups, int8 activations): each way's largest difference from the plain one, milliseconds
(best of several rounds in turns), and the share that its floor, the bytes of weights or of live
keys and values, has of the copy bandwidth measured in the same run. Pallas kernels are TPU's: on
CPUs they run in the interpreter, for equality alone, and on GPUs not at all (there is no Triton
kernel; XLA's ways are compared with each other).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.errors import GeexError
from geex_jax.kernels import decode_attention, decode_pallas, quantize, quantized_pallas
from geex_jax.kernels.attention import platform
from geex_jax.kernels.decode_attention import block_diagonal, reference
from geex_jax.kernels.quantized import quantized_matmul
from geex_jax.kernels.quantized import reference as plain_matmul
from geex_jax.pages.tables import Table, text_table

SIZES = {  # heads, head width, slots, width of the MLP; bytes copied to measure the bandwidth
    "cpu": (4, 128, 512, 2048, 1 << 28),
    "gpu": (40, 128, 2048, 20480, 1 << 30),
    "tpu": (40, 128, 2048, 20480, 1 << 30),
}
WEIGHTS = (("int8", 0, "float"), ("int8", 0, "int8"), ("int8", 128, "float"),
           ("int4", 0, "float"), ("int4", 128, "float"))  # fmt: skip
TOLERANCE = {2: 0.03, 4: 1e-3}  # bytes of a number -> largest difference accepted
Way = Callable[..., Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the bench's flags."""
    add = parser.add_argument
    add("--rows", type=int, nargs="+", default=[1, 8], metavar="N", help="rows (default 1 8)")
    add("--rounds", type=int, default=5, help="timings of each way, in turns (default 5)")
    add("--dtype", choices=("bfloat16", "float32"), help="default: bfloat16, CPU: float32")
    add("--json", action="store_true", help="print JSON instead of a table")


def bandwidth(size: int, rounds: int) -> float:
    """Bytes/s read and written by a copy of `size` bytes, the best of several."""
    x = jnp.zeros((size // 4,), jnp.float32)
    copy = jax.jit(lambda x: x + 1)
    return 2 * size / _in_turns({"copy": copy}, (x,), rounds)["copy"]


def attention_case(rows: int, held: str, dtype: str) -> tuple[str, dict[str, Way], Any, float]:
    """A name, ways, their arguments, and the bytes that must be read."""
    heads, width, slots, _, _ = SIZES[platform()]
    keys = jax.random.split(jax.random.key(0), 3)
    query = jax.random.normal(keys[0], (rows, 1, heads, width), jnp.dtype(dtype))
    cache = [jax.random.normal(k, (2, rows, slots, heads, width), query.dtype) for k in keys[1:]]
    scales: list[Any] = []
    if held == "int8":
        rounded = [quantize(x, -1) for x in cache]
        cache, scales = [x for x, _ in rounded], [s[..., 0] for _, s in rounded]
    live = jnp.linspace(slots // 2, slots - 1, rows).astype(jnp.int32)[:, None]
    flat = [x.reshape(2, rows, slots, -1) for x in cache]
    arguments = (query, *flat, jnp.int32(1), live, *scales)
    ways: dict[str, Way] = {"plain": reference, "as used": _used, "one matmul": block_diagonal}
    if platform() != "gpu" and decode_pallas.takes(query, flat[0]):
        ways["Pallas"] = functools.partial(
            decode_pallas.decode_attention, interpret=platform() == "cpu"
        )
    token = heads * (width * flat[0].dtype.itemsize + (4 if scales else 0))
    read = 2 * float(jnp.sum(live + 1)) * token
    name = f"attention, {rows} rows, {slots} slots of {heads} x {width} {flat[0].dtype.name}"
    return name, ways, arguments, read


def _used(query: Any, key: Any, value: Any, block: Any, slots: Any, *scales: Any) -> Any:
    given = dict(zip(("key_scale", "value_scale"), scales, strict=False))
    return decode_attention(query, key, value, block, slots, **given)


def matmul_case(
    rows: int, kind: str, group: int, activations: str, dtype: str
) -> tuple[str, dict[str, Way], Any, float]:
    """A name, ways, their arguments, and the bytes that must be read."""
    heads, width, _, out, _ = SIZES[platform()]
    columns = heads * width
    keys = jax.random.split(jax.random.key(1), 3)
    x = jax.random.normal(keys[0], (rows, columns), jnp.dtype(dtype))
    if kind == "int4":
        kernel = jax.random.bits(keys[1], (out, columns // 2), jnp.uint8)
    else:
        kernel = jax.random.randint(keys[1], (out, columns), -127, 128, jnp.int8)
    shape = (out, columns // group) if group else (out,)
    scale = jax.random.uniform(keys[2], shape) + 0.1

    def way(run: Way) -> Way:
        return lambda x, kernel, scale: run(
            x, {f"kernel_{kind}": kernel, "kernel_scale": scale}, activations=activations
        )

    ways: dict[str, Way] = {"plain": way(plain_matmul), "as used": way(quantized_matmul)}
    if platform() != "gpu" and quantized_pallas.takes(x, kernel, scale, activations):
        ways["Pallas"] = functools.partial(
            quantized_pallas.matmul, activations=activations, interpret=platform() == "cpu"
        )
    by = f" in groups of {group}" if group else ""
    name = f"matmul, {rows} rows, {out} x {columns} {kind}{by}, {activations} activations"
    return name, ways, (x, kernel, scale), float(kernel.nbytes + scale.nbytes)


def measure(case: Any, rounds: int, speed: float) -> list[dict[str, Any]]:
    """One row for each way of a case."""
    name, ways, arguments, read = case
    steps = {way: jax.jit(run) for way, run in ways.items()}
    results = {way: np.asarray(step(*arguments), np.float32) for way, step in steps.items()}
    interpreted = {"Pallas"} if platform() == "cpu" else set()
    times = _in_turns({k: v for k, v in steps.items() if k not in interpreted}, arguments, rounds)
    want = results["plain"]
    rows = []
    for way, got in results.items():
        difference = float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-9))
        seconds = times.get(way)
        rows.append(
            {
                "kernel": name,
                "way": way,
                "difference": difference,
                "equal": difference <= TOLERANCE[arguments[0].dtype.itemsize],
                "ms": None if seconds is None else seconds * 1e3,
                "bytes": read,
                "share": None if seconds is None else read / seconds / speed,
            }
        )
    return rows


def _in_turns(steps: dict[str, Way], arguments: Any, rounds: int) -> dict[str, float]:
    best = dict.fromkeys(steps, math.inf)
    for step in steps.values():
        jax.block_until_ready(step(*arguments))
    for _ in range(rounds):
        for way, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(*arguments))
            best[way] = min(best[way], time.perf_counter() - start)
    return best


def table(rows: list[dict[str, Any]], about: str) -> Table:
    """All ways of all cases."""
    body = [
        [
            r["kernel"],
            r["way"],
            f"{r['difference']:.1e}" + ("" if r["equal"] else " NOT EQUAL"),
            "interpreted" if r["ms"] is None else f"{r['ms']:.3f}",
            "" if r["share"] is None else f"{r['share']:.0%}",
        ]
        for r in rows
    ]
    head = ["kernel", "way", "difference", "ms", "of the copy bandwidth"]
    return Table(about, head, body, labels=2)


def run(args: argparse.Namespace) -> int:
    """Prints the table; 1 if a way differs from the plain one."""
    if args.rounds < 1 or min(args.rows) < 1:
        raise GeexError(f"--rounds {args.rounds} --rows {args.rows}", "give numbers above 0")
    where = platform()
    if where not in SIZES:
        raise GeexError(f"no sizes for a {where}", "run on a CPU, GPU or TPU")
    dtype = args.dtype or ("float32" if where == "cpu" else "bfloat16")
    speed = bandwidth(SIZES[where][4], args.rounds)
    cases = [functools.partial(attention_case, n, held, dtype)
             for n in args.rows for held in ("model", "int8")]  # fmt: skip
    cases += [functools.partial(matmul_case, n, *w, dtype) for n in args.rows for w in WEIGHTS]
    rows = [row for case in cases for row in measure(case(), args.rounds, speed)]
    about = (
        f"decode's kernels on {jax.devices()[0].device_kind}, {dtype}; a copy of "
        f"{SIZES[where][4] >> 20} MiB moves {speed / 1e9:.1f} GB/s"
    )
    if args.json:
        print(json.dumps({"device": about, "bandwidth": speed, "rows": rows}))
    else:
        found = table(rows, about)
        print(f"{found.caption}\n{text_table(found)}")
    return 0 if all(row["equal"] for row in rows) else 1
