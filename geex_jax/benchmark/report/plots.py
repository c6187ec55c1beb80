"""Plots as SVG text that takes the colours of the page around it.

Text and axes are drawn in a colour that is replaced by `currentColor`, so that one drawing reads
well on light and on dark pages. Fills are those of Okabe and Ito and of cividis, which people
with colour-blindness can tell apart.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from geex_jax.benchmark.report.tables import outcome_title

LONGEST = 14  # characters of a label
INK = "#010203"  # replaced by currentColor
OUTCOME_COLORS = {
    "passed": "#009E73", "wrong answer": "#E69F00", "runtime error": "#D55E00",
    "compile error": "#0072B2", "timeout": "#CC79A7", "memory": "#56B4E9",
    "output limit": "#F0E442", "sandbox violation": "#8c8c8c",
}  # fmt: skip
LINES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c8c8c")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), "-")
_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "geex-jax", "text.parse_math": False,
    "font.family": "sans-serif", "font.size": 11.0, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.unicode_minus": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none",
    "figure.facecolor": "none", "savefig.facecolor": "none", "legend.frameon": False,
}  # fmt: skip


def outcome_bars(totals: Mapping[str, Mapping[str, int]]) -> str:
    """Stacked bars: share of each class of outcome per language.

    Args:
      totals: name of a language -> class -> samples.
    """
    totals = {name: x for name, x in totals.items() if sum(x.values())}
    used = [key for key in OUTCOME_COLORS if any(x.get(key) for x in totals.values())]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 1.5 + 0.42 * len(totals)), layout="constrained")
        axes = figure.add_subplot()
        left = np.zeros(len(totals))
        for key in used:
            share = np.array([100 * x.get(key, 0) / sum(x.values()) for x in totals.values()])
            axes.barh(range(len(totals)), share, left=left, color=OUTCOME_COLORS[key],
                      label=outcome_title(key), height=0.72)  # fmt: skip
            for at, value in enumerate(share):
                if value >= 6:
                    axes.text(left[at] + value / 2, at, f"{value:.0f}", ha="center", va="center",
                              color="#ffffff" if key == "compile error" else "#000000",
                              fontsize=9)  # fmt: skip
            left += share
        axes.set_yticks(range(len(totals)), _short(totals))
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of samples")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper left", ncols=3, fontsize=10, handlelength=1)
        return _svg(figure, "Error classes per language, stacked bars")


def radar(spokes: Sequence[str], lines: Mapping[str, Sequence[float]], label: str) -> str:
    """One closed line per model over the languages; the first is drawn thick and filled.

    Args:
      spokes: names around the circle, 3 or more.
      lines: name -> one percentage per spoke; NaN leaves a gap.
      label: what the plot shows, for screen readers.
    """
    angles = np.linspace(0, 2 * math.pi, len(spokes), endpoint=False)
    closed = np.append(angles, angles[0])
    with matplotlib.rc_context(_STYLE):
        rows = math.ceil(len(lines) / 2)
        figure = Figure(figsize=(4.8, 4.5 + 0.24 * rows), layout="constrained")
        axes: Any = figure.add_subplot(projection="polar")
        axes.set_theta_offset(math.pi / 2)
        axes.set_theta_direction(-1)
        for at, (name, values) in enumerate(lines.items()):
            around = np.append(values, values[0])
            axes.plot(closed, around, label=name, color=LINES[at % len(LINES)],
                      linestyle=DASHES[at % len(DASHES)], linewidth=2.4 if at == 0 else 1.5,
                      marker="o" if at == 0 else None, markersize=4,
                      zorder=3 if at == 0 else 2)  # fmt: skip
            if at == 0 and not np.isnan(around).any():
                axes.fill(closed, around, color=LINES[0], alpha=0.15)
        axes.set_xticks(angles, _short(spokes))
        axes.tick_params(axis="x", pad=9)
        axes.set_rlabel_position(180 / len(spokes))
        axes.tick_params(axis="y", labelsize=9)
        axes.grid(color=INK, alpha=0.2)
        axes.spines["polar"].set_alpha(0.3)
        axes.set_ylim(0, top := _top(lines))
        axes.set_yticks([x for x in (5, 10, 20, 30, 40, 60, 80, 100)
                         if x <= top and (x % 20 == 0 or top <= 50)])  # fmt: skip
        figure.legend(loc="outside lower center", ncols=2, fontsize=10)
        return _svg(figure, label)


def boxes(rates: Mapping[str, Sequence[float]]) -> str:
    """Box plots: how the share of correct samples is spread over tasks, per language."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(4.8, 1.2 + 0.6 * len(rates)), 4.4), layout="constrained")
        axes = figure.add_subplot()
        ink = {"color": INK}
        plot = axes.boxplot(
            [100 * np.asarray(x) for x in rates.values()], widths=0.6,
            showmeans=True, patch_artist=True, whis=(5, 95), showfliers=False,
            boxprops={"facecolor": "#56B4E9", "alpha": 0.75, "edgecolor": INK}, whiskerprops=ink,
            capprops=ink, medianprops={"color": INK, "linewidth": 2.4},
            meanprops={"marker": "D", "markerfacecolor": "#D55E00", "markeredgecolor": INK,
                       "markersize": 6},
        )  # fmt: skip
        axes.set_xticks(range(1, len(rates) + 1), _short(rates), rotation=25, ha="right",
                        rotation_mode="anchor")  # fmt: skip
        axes.set_ylim(-2, 102)
        axes.set_ylabel("% of a task's samples that pass")
        axes.grid(axis="y", color=INK, alpha=0.15)
        axes.set_axisbelow(True)
        figure.legend(
            [plot["medians"][0], plot["means"][0]], ["median task", "mean"],
            loc="outside upper left", ncols=2, fontsize=10,
        )  # fmt: skip
        return _svg(figure, "Share of correct samples per task, box plots")


def heat_map(
    sources: Sequence[str], targets: Sequence[str], values: Sequence[Sequence[float]], name: str
) -> str:
    """A matrix of percentages, source by target; NaN stays empty."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(1.6 + 0.66 * len(targets), 1.6 + 0.5 * len(sources)),
                        layout="constrained")  # fmt: skip
        axes = figure.add_subplot()
        colors = matplotlib.colormaps["cividis"]
        # Rectangles, for an image would be a file inside the page, which its policy forbids.
        for (row, column), value in np.ndenumerate(np.asarray(values, dtype=float)):
            empty = math.isnan(value)
            fill = "none" if empty else colors(value / 100)
            axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=fill))
            color = INK if empty else "#ffffff" if value < 50 else "#000000"
            axes.text(column, row, "–" if empty else f"{value:.0f}", color=color, ha="center",
                      va="center")  # fmt: skip
        axes.set_xlim(-0.5, len(targets) - 0.5)
        axes.set_ylim(len(sources) - 0.5, -0.5)
        axes.set_xticks(range(len(targets)), _short(targets), rotation=40, ha="left",
                        rotation_mode="anchor")  # fmt: skip
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(sources)), _short(sources))
        axes.set_ylabel("from")
        axes.set_title(name, fontsize=11, fontweight="bold", y=-0.13)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure, f"Translation, {name}, source by target")


def _top(lines: Mapping[str, Sequence[float]]) -> float:
    values = [x for line in lines.values() for x in line if not math.isnan(x)]
    return max(10.0, math.ceil(max(values, default=0.0) / 10) * 10)


def _short(names: Iterable[str]) -> list[str]:
    """Labels: short, and of characters that the font has (Latin, Greek, Cyrillic)."""
    return [re.sub("[^ -~\xa1-\u04ff]", "?", name)[:LONGEST] for name in names]


def _svg(figure: Figure, label: str) -> str:
    """The drawing as an <svg> element without size, ready for a page."""
    out = io.StringIO()
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    opening = text[: text.index(">")]
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None
    safe = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    text = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box[0]} role="img" aria-label="{safe}">' + text[text.index(">") + 1 :]
    )
    text = text.replace(INK, "currentColor")
    return re.sub(r"\n\s*", "\n", text)
