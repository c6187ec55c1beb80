"""Quality against bytes, as a picture: every format of one model is a point."""

from __future__ import annotations

import io
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax import files

COLORS = {"plain": "#0072B2", "calibrated": "#D55E00", "activations": "#009E73"}
WORDS = {
    "plain": "weights, rounded to nearest",
    "calibrated": "weights, GPTQ",
    "activations": "int8 activations or cache",
}


def draw(rows: Sequence[Mapping[str, Any]], before: Mapping[str, Any]) -> Any:
    """A figure of bits per byte and KL over megabytes.

    Args:
      rows: of a report: `name`, `kind`, `bytes`, `bits_per_byte_change`, `kl`.
      before: of the float model: `bytes`, `bits_per_byte`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    base = before["bits_per_byte"]
    for axes, key, offset, words in (
        (left, "bits_per_byte_change", base, "bits per byte of held-out code"),
        (right, "kl", 0.0, "KL(float || quantized), nats a token"),
    ):
        for kind, color in COLORS.items():
            mine = [r for r in rows if r["kind"] == kind]
            if mine:
                x, y = [r["bytes"] / 1e6 for r in mine], [r[key] + offset for r in mine]
                axes.scatter(x, y, color=color, s=42, label=WORDS[kind], zorder=3)
        _name(axes, [(r["bytes"] / 1e6, r[key] + offset, r["name"]) for r in rows])
        axes.set_xlabel("megabytes of parameters")
        axes.set_ylabel(words)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.16, y=0.12)
    left.axhline(base, color="#8c8c8c", linestyle="--", linewidth=1)
    left.annotate(
        f"float: {before['bytes'] / 1e6:,.1f} MB", (0.99, base), (0, 3), color="#555555",
        xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8, ha="right",
    )  # fmt: skip
    if all(r["kl"] > 0 for r in rows):
        right.set_yscale("log")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  frameon=False)  # fmt: skip
    return figure


def _name(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    # Names of points that lie close stand on alternating sides.
    for i, (x, y, name) in enumerate(sorted(points)):
        up = i % 2 == 0
        axes.annotate(name, (x, y), (0, 7 if up else -7), textcoords="offset points",
                      fontsize=7.5, ha="center", va="bottom" if up else "top")  # fmt: skip


def save(folder: pathlib.Path, figure: Any) -> str:
    """Writes quality.png and quality.svg; returns the SVG element for a page."""
    import matplotlib

    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "geex-jax", "svg.fonttype": "none"}):
            about = {"Date": None} if kind == "svg" else None
            figure.savefig(buffer, format=kind, dpi=130, metadata=about)
        with files.atomic_write(folder / f"quality.{kind}", "wb") as file:
            file.write(buffer.getvalue())
    text = buffer.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    return text.replace("<svg ", '<svg role="img" aria-label="quality against bytes" ', 1)
