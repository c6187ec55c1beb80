"""13B weights decoded on a GPU, in the paper's table: `geex bench decode --gpu`.

The weights are random and made on the device; speed does not depend on them. For each length L the
time of L tokens from a prompt of one is taken, as in the repository's figure. A step reads every
weight once, and the cache as far as it is filled: that, over the measured bandwidth of a copy, is
the share reached. `--quick` runs all of it on a tiny shape and any device, to test the code.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from geex_jax.benchmark.decode_sides import PeerSide, step_bytes
from geex_jax.errors import GeexError

# Seconds for L tokens, batch 1: docs/images/inference_performance.png of the paper's repository.
LENGTHS = (128, 256, 512, 1024, 2048)
PAPER = {
    "PyTorch FP16, A100": (3.66, 7.16, 14.35, 29.95, 63.20),
    "FasterTransformer FP16, A100": (2.43, 4.93, 10.21, 22.60, 50.09),
    "FasterTransformer INT8, A100": (1.61, 3.24, 6.35, 14.32, 34.96),
    "LLM.int8(), A100": (20.65, 35.86, 72.76, 147.59, 301.93),
}
THROUGHPUT = (32, 256)  # rows and tokens
PEER_TOKENS = 128
COPIED = {"gpu": 4 << 30, "cpu": 64 << 20}  # bytes
FORMATS = {"int8": 8, "bfloat16": None}


def run(args: argparse.Namespace) -> None:
    """Measures and prints.

    Raises:
      GeexError: no GPU, lengths beyond the context.
    """
    import jax

    from geex_jax.benchmark.decode_bench import numbers

    device = jax.devices()[0]
    if device.platform != "gpu" and not args.quick:
        raise GeexError(
            f"no GPU: JAX sees {device.device_kind}",
            'pip install "geex-jax[gpu]" on a machine with one, or test the code with --quick',
        )
    lengths = numbers("lengths", args.lengths)
    config = config_of(args.quick)
    if max(lengths) > config.context_length:
        raise GeexError(f"--lengths {args.lengths} leave the context", "the longest is 2048")
    result = measure(config, lengths, args.rounds, (1, lengths[0]) if args.quick else THROUGHPUT)
    result["peer"] = peer(config, args.peer_python, device.platform, args.quick)
    print(json.dumps(result) if args.json else report(result))


def config_of(quick: bool) -> Any:
    """CodeGeeX-13B in bfloat16, or a tiny shape of its kind."""
    from geex_jax import models

    if quick:
        return models.ModelConfig(
            vocab_size=256, context_length=64, d_model=64, num_layers=1, dtype="bfloat16"
        )
    return models.preset("codegeex-13b", dtype="bfloat16", param_dtype="bfloat16")


def random_params(config: Any, bits: int | None) -> Any:
    """Parameters of the config's shape, made on the device leaf by leaf."""
    import jax
    import jax.numpy as jnp

    from geex_jax.models import Transformer
    from geex_jax.quantize import quantize_params

    def shapes() -> Any:
        tokens = jnp.zeros((1, 4), jnp.int32)
        params: Any = Transformer(config).init(jax.random.key(0), tokens)["params"]
        return quantize_params(params, bits) if bits else params

    leaves, treedef = jax.tree.flatten(jax.eval_shape(shapes))
    made = []
    for i, leaf in enumerate(leaves):
        key = jax.random.key(i)
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            made.append(jax.random.randint(key, leaf.shape, -127, 128, jnp.int8))
        elif leaf.dtype == jnp.float32 and bits:  # scales
            made.append(jnp.full(leaf.shape, 0.02 / 64, leaf.dtype))
        else:
            made.append(0.02 * jax.random.normal(key, leaf.shape, jnp.bfloat16))
        made[-1].block_until_ready()
    return jax.tree.unflatten(treedef, made)


def measure(config: Any, lengths: list[int], rounds: int, many: tuple[int, int]) -> dict[str, Any]:
    """Times, memory and bandwidth of both formats."""
    import jax

    from geex_jax.inference import prepare
    from geex_jax.models import Transformer

    device = jax.devices()[0]
    out: dict[str, Any] = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "copy_bytes_per_second": copy_rate(COPIED["gpu" if device.platform == "gpu" else "cpu"]),
        "formats": {},
    }
    for name, bits in FORMATS.items():
        params = random_params(config, bits)
        weights = step_bytes(params)
        model, params = prepare(Transformer(config), params)
        rows = {}
        for length in lengths:
            seconds = min(_seconds(model, params, 1, length) for _ in range(rounds + 1))
            cache = (
                2 * config.num_blocks * config.kv_heads * config.head_width * length
            )  # half full
            rows[str(length)] = {
                "seconds": seconds,
                "ms_per_token": seconds * 1e3 / length,
                "share": (weights + cache) * length / seconds / out["copy_bytes_per_second"],
                "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
            }
        batch, length = many
        seconds = min(_seconds(model, params, batch, length) for _ in range(2))
        out["formats"][name] = {
            "weights": weights,
            "lengths": rows,
            "throughput": {"batch": batch, "tokens_per_second": batch * length / seconds},
        }
        del params
    return out


def _seconds(model: Any, params: Any, batch: int, length: int) -> float:
    # The first token is the prefill's; the prompt's token is one of the L.
    from geex_jax.inference import Decoding

    start = time.perf_counter()
    decoding = Decoding(model, params, [[1]] * batch, max_new_tokens=length - 1)
    decoding.advance(length)
    decoding.tokens()
    return time.perf_counter() - start


def copy_rate(size: int) -> float:
    """Bytes read and written a second by a copy on the device, the best of ten."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(size // 4, jnp.int32)
    add = jax.jit(lambda x: x + 1)
    add(x).block_until_ready()
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        add(x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def peer(config: Any, python: str, platform: str, quick: bool) -> dict[str, Any] | None:
    """ms/token of transformers at a GPT-2 of this shape, random weights; None where it is not."""
    from geex_jax.models import to_dict

    shape = to_dict(config) | {"num_layers": config.num_blocks}
    spec = {
        "weights": None,
        "shape": shape,
        "device": "cuda" if platform == "gpu" else "cpu",
        "threads": 2,
    }
    side, name = PeerSide(python, spec), "transformers bfloat16"
    try:
        version = side.call("load", name)
        if version is None:
            return None
        tokens = 8 if quick else PEER_TOKENS
        side.call("decode", name, [[1]], tokens)  # warms
        seconds = min(side.call("decode", name, [[1]], tokens) for _ in range(3))
        peak = side.call("peak_bytes", name)
        return {"version": version, "ms_per_token": seconds * 1e3, "peak_bytes": peak}
    finally:
        side.close()


def report(result: dict[str, Any]) -> str:
    """The paper's table with our rows below, as text for people."""
    lengths = list(next(iter(result["formats"].values()))["lengths"])
    rate = result["copy_bytes_per_second"]
    lines = [
        f"{result['device']}, jax {result['jax']}, a copy moves {rate / 1e9:.0f} GB/s; "
        "ms/token, batch 1",
        f"{'L':<32}" + "".join(f"{x:>9}" for x in lengths),
    ]
    for name, seconds in PAPER.items():
        known = {str(x): s * 1e3 / x for x, s in zip(LENGTHS, seconds, strict=True)}
        cells = (f"{known[x]:9.1f}" if x in known else f"{'':9}" for x in lengths)
        lines.append(f"{name:<32}" + "".join(cells))
    for name, row in result["formats"].items():
        cells = [row["lengths"][x] for x in lengths]
        lines.append(f"{'geex ' + name:<32}" + "".join(f"{c['ms_per_token']:9.2f}" for c in cells))
        lines.append(
            f"{'  of the copy bandwidth':<32}" + "".join(f"{c['share']:9.0%}" for c in cells)
        )
        if cells[0]["peak_bytes"]:
            gib = (f"{c['peak_bytes'] / 2**30:9.1f}" for c in cells)
            lines.append(f"{'  peak GiB so far':<32}" + "".join(gib))
        many = row["throughput"]
        lines.append(f"  batch {many['batch']}: {many['tokens_per_second']:.0f} tokens/s")
    found = result["peer"]
    if found is None:
        lines.append("transformers: not found (--peer-python)")
        return "\n".join(lines)
    ours = result["formats"]["bfloat16"]["lengths"][lengths[0]]["ms_per_token"]
    best = result["formats"]["int8"]["lengths"][lengths[0]]["ms_per_token"]
    theirs = found["ms_per_token"]
    lines.append(
        f"{found['version']}, bfloat16: {theirs:.2f} ms/token; geex is {theirs / ours:.2f}x in "
        f"bfloat16, {theirs / best:.2f}x in int8"
    )
    return "\n".join(lines)
