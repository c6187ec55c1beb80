"""The report of a quantization: sizes, error of every linear, cost on validation text."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.quantize.evaluate import Comparison
from geex_jax.quantize.rounding import dequantize_kernel
from geex_jax.quantize.weights import (
    Params,
    Path,
    formats_of,
    map_weights,
    quantization_of,
)

NO_DATA = "no validation data given: pass --data"


def size_in_bytes(params: Params) -> int:
    """Bytes of all leaves, as they lie in memory."""
    return sum(
        math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(params)
    )


def layer_errors(before: Params, after: Params) -> dict[str, float]:
    """Relative error ||W - W'|| / ||W|| (Frobenius) of every quantized linear and layer.

    Args:
      before: the float tree.
      after: the same tree, quantized.

    Returns:
      Path to error; layer i of a stack is named `layers/i/...`. An all-zero kernel gives 0.
    """
    kernels: dict[Path, Any] = {}
    errors: dict[str, float] = {}

    def remember(path: Path, linear: Params) -> Params:
        kernels[path] = linear["kernel"]
        return linear

    def measure(path: Path, linear: Params) -> Params:
        if "kernel_scale" not in linear:
            return linear
        stacked = kernels[path].ndim == 3
        values = np.asarray(_relative_error(kernels[path], linear))
        for i, value in enumerate(np.atleast_1d(values)):
            where = (path[0], str(i), *path[1:]) if stacked else path
            errors["/".join(where)] = float(value)
        return linear

    map_weights(before, remember)
    map_weights(after, measure)
    return errors


@functools.partial(jax.jit)
def _relative_error(kernel: jax.Array, linear: Params) -> jax.Array:
    leaves = {k: v for k, v in linear.items() if k.startswith("kernel_")}
    if kernel.ndim == 3:
        return jax.lax.map(lambda pair: _relative_error(*pair), (kernel, leaves))
    weight = kernel.astype(jnp.float32)
    norm = jnp.linalg.norm(weight)
    error = jnp.linalg.norm(weight - dequantize_kernel(leaves))
    return jnp.where(norm > 0, error / norm, 0.0)


def make_report(
    before: Params,
    after: Params,
    comparison: Comparison | None = None,
    errors: dict[str, float] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Collects the figures of a quantization as a JSON-able dict.

    Args:
      before, after: float and quantized parameters; with `errors`, their shapes will do.
      comparison: cost on validation text, or None if no text was given.
      errors: see `layer_errors`, which makes them of the parameters if they are not given.
      **facts: further entries, e.g. the names of the checkpoint and the data.

    Raises:
      GeexError: `after` is not quantized.
    """
    how = quantization_of(after)
    if how is None:
        raise GeexError("cannot report on parameters that are not quantized", "quantize them")
    size_before, size_after = size_in_bytes(before), size_in_bytes(after)
    validation: dict[str, Any] | str = NO_DATA
    if comparison is not None:
        validation = dataclasses.asdict(comparison)
        validation["bits_per_byte_change"] = comparison.bits_per_byte_change
    return {
        **facts,
        "bits": how.bits,
        "rounding": how.rounding,
        "formats": formats_of(after),
        "bytes_before": size_before,
        "bytes_after": size_after,
        "ratio": size_after / size_before,
        "relative_error": layer_errors(before, after) if errors is None else errors,
        "validation": validation,
    }


def render(report: dict[str, Any]) -> str:
    """The report as Markdown: one row for each layer, one column for each linear."""
    held = {name for name in report["formats"].values() if name != "float"}
    lines = [
        f"# {' and '.join(sorted(held))} weights, {report['rounding']} rounding",
        "",
        *(f"- {key}: {report[key]}" for key in ("checkpoint", "data") if report.get(key)),
        f"- size: {report['bytes_before']:,} bytes before, {report['bytes_after']:,} after "
        f"({report['ratio']:.1%})",
    ]
    found = report["validation"]
    if isinstance(found, str):
        lines.append(f"- validation: {found}")
    else:
        lines += [
            f"- validation bits per byte: {found['bits_per_byte_before']:.4f} before, "
            f"{found['bits_per_byte_after']:.4f} after ({found['bits_per_byte_change']:+.5f})",
            f"- KL(float || quantized) of next-token distributions: {found['kl']:.3g} nats",
            f"- same most likely token: {found['top1_agreement']:.2%} of {found['tokens']:,} "
            f"tokens ({found['text_bytes']:,} bytes of text)",
        ]
    errors = report["relative_error"]
    rows: dict[str, dict[str, float]] = {}
    for path, value in errors.items():
        layer, _, linear = path.rpartition("/")
        layer = layer.removesuffix("/attention").removesuffix("/mlp")
        rows.setdefault(layer, {})[linear] = value
    columns = list(dict.fromkeys(path.rpartition("/")[2] for path in errors))
    lines += [
        "",
        "Relative error ||W - W'|| / ||W|| of each linear:",
        "",
        f"| layer | {' | '.join(columns)} |",
        f"|---{'|---' * len(columns)}|",
    ]
    for layer, values in rows.items():
        cells = (f"{values[c]:.5f}" if c in values else "" for c in columns)
        lines.append(f"| {layer} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_report(folder: files.Path, report: dict[str, Any]) -> pathlib.Path:
    """Writes `report.json` and `report.md` into the folder; returns the path of the latter."""
    folder = pathlib.Path(folder)
    files.write_json(folder / "report.json", report)
    with files.atomic_write(folder / "report.md") as file:
        file.write(render(report))
    return folder / "report.md"
