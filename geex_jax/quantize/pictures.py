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

    figure = Figure(figsize=(13, 4.8), layout="constrained")
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
        axes.set_xlabel("megabytes of parameters")
        axes.set_ylabel(words)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.08, y=0.08)
    left.ticklabel_format(useOffset=False)
    left.axhline(base, color="#8c8c8c", linestyle="--", linewidth=1)
    left.annotate(
        f"float: {before['bytes'] / 1e6:,.1f} MB", (0.01, base), (0, 3), color="#555555",
        xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=8, ha="left",
    )  # fmt: skip
    if all(r["kl"] > 0 for r in rows):
        right.set_yscale("log")
    for axes, key, offset in ((left, "bits_per_byte_change", base), (right, "kl", 0.0)):
        axes.autoscale_view()
        _name(axes, [(r["bytes"] / 1e6, r[key] + offset, r["name"]) for r in rows])
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3,
                  frameon=False)  # fmt: skip
    return figure


def _name(axes: Any, points: Sequence[tuple[float, float, str]]) -> None:
    """Names in a column beside the axes, in the order of the points, each tied to its own."""
    step = 0.058  # of the axes' height: lines of text do not touch
    heights = [axes.transAxes.inverted().transform(axes.transData.transform(p[:2]))[1]
               for p in points]  # fmt: skip
    order = sorted(range(len(points)), key=lambda i: heights[i])
    room = max(0.0, 1 - step * (len(order) - 1))
    places, last = {}, -step
    for rank, i in enumerate(order):
        last = places[i] = max(last + step, min(heights[i], room + step * rank))
    for i, (x, y, name) in enumerate(points):
        axes.annotate(
            name, (x, y), (1.06, places[i]), textcoords="axes fraction", fontsize=8, va="center",
            arrowprops={"arrowstyle": "-", "color": "#8c8c8c", "linewidth": 0.5, "shrinkB": 3,
                        "relpos": (0, 0.5)},
        )  # fmt: skip


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
