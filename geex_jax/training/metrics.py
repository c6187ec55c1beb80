"""Where numbers go: metrics.jsonl, TensorBoard, the loss curve; and what a FLOP count means."""

from __future__ import annotations

import functools
import json
import math
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer

# Dense bf16 FLOP/s per device by `device_kind`, from the makers' public pages.
# TPU: cloud.google.com/tpu/docs/system-architecture; NVIDIA: the data sheets, without sparsity.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,  # a chip has 2,307e12 and shows as two devices
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def count_params(config: ModelConfig) -> int:
    """Parameters, a tied head counted once."""
    tokens = jax.ShapeDtypeStruct((1, 1), np.int32)
    shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Model FLOPs to train on one token: 6 per matmul parameter + 12 L H W S for attention.

    The convention of PaLM (2204.02311, appendix B): the tied head counts as a matmul, look-ups
    and norms do not, attention counts the full S x S square, rematerialization counts nothing.
    """
    width = config.head_width
    per_block = config.d_model * width * (2 * config.num_heads + 2 * config.kv_heads)
    per_block += config.d_model * config.d_ff * (3 if config.gated_mlp else 2)
    matmul = config.num_blocks * per_block + config.d_model * config.vocab_size
    return 6.0 * matmul + 12.0 * config.num_blocks * config.num_heads * width * seq_len


@functools.cache
def peak_flops(dtype: str) -> tuple[float, str]:
    """FLOP/s of one device and where the figure comes from.

    A device that the table does not know is measured: a 2048^3 matmul in the compute dtype on
    the first device, the best of five. Simulated CPU devices share one machine, so the measured
    figure is divided by their number.
    """
    kind = jax.local_devices()[0].device_kind
    if kind in PEAK_FLOPS:
        return PEAK_FLOPS[kind], f"public bf16 peak of {kind}"
    n = 2048
    x = jax.device_put(jnp.ones((n, n), dtype), jax.local_devices()[0])
    matmul = jax.jit(jnp.matmul)
    jax.block_until_ready(matmul(x, x))
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(matmul(x, x))
        best = min(best, time.perf_counter() - start)
    share = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return 2 * n**3 / best / share, f"measured {n}^3 {dtype} matmul on {kind}"


class MetricWriter:
    """Appends to metrics.jsonl and TensorBoard; drops what a killed run wrote ahead of its state.

    Only the first process writes.
    """

    def __init__(self, workdir: pathlib.Path, start_step: int, wandb_project: str = ""):
        """Rows of steps after `start_step` are removed: they will be computed again.

        Raises:
          GeexError: a Weights & Biases project is named and `wandb` is not installed.
        """
        self.path = workdir / "metrics.jsonl"
        self.active = jax.process_index() == 0
        if not self.active:
            return
        kept = [row for row in read_metrics(workdir) if row["step"] <= start_step]
        with files.atomic_write(self.path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (kept open)
        from tensorboardX import SummaryWriter

        self.wandb = _wandb_run(wandb_project, workdir)
        self.board = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Writes one row; nested dicts become "a/b" scalars in TensorBoard."""
        if not self.active:
            return
        self.file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self.file.flush()
        for key, value in values.items():
            for name, number in value.items() if isinstance(value, dict) else [("", value)]:
                if isinstance(number, int | float):
                    tag = f"{kind}/{key}" + (f"/{name}" if name else "")
                    self.board.add_scalar(tag, number, step)
                    if self.wandb is not None:
                        self.wandb.log({tag: number}, step=step)

    def text(self, step: int, tag: str, text: str) -> None:
        """Writes a text to TensorBoard."""
        if self.active:
            self.board.add_text(tag, text, step)

    def close(self) -> None:
        """Closes both."""
        if self.active:
            self.file.close()
            self.board.close()
            if self.wandb is not None:
                self.wandb.finish()


def _wandb_run(project: str, workdir: pathlib.Path) -> Any:
    # None without a project. The run's id is the workdir's name, so that a resumed run goes on.
    if not project:
        return None
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise GeexError(
            f"config.log.wandb={project} needs wandb", 'pip install "geex-jax[wandb]"'
        ) from None
    return wandb.init(project=project, id=workdir.name, resume="allow", dir=str(workdir))


def read_metrics(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a last line that a kill cut short is left out."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def plot_losses(workdir: pathlib.Path, title: str) -> pathlib.Path | None:
    """Draws loss.png: training bits per byte, and validation per language. None: no rows yet."""
    rows = read_metrics(workdir)
    train = [(r["step"], r["bits_per_byte"]) for r in rows if r["kind"] == "train"]
    if not train:
        return None
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    steps, values = np.array(train).T
    axes.plot(steps, values, color="0.88", lw=0.7)
    window = max(1, len(values) // 40)
    smooth = np.convolve(values, np.ones(window) / window, mode="valid")
    axes.plot(steps[window - 1 :], smooth, color="0.55", lw=1.5, label=f"train, mean of {window}")
    curves: dict[str, list[tuple[int, float]]] = {}
    final: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row["kind"] == "validation":
            # The last evaluation reads all files, the others a sample: another set, another mark.
            kind = final if row.get("complete") else curves
            for language, value in row["bits_per_byte"].items():
                kind.setdefault(language, []).append((row["step"], value))
    for language, points in curves.items():
        (line,) = axes.plot(
            [x for x, _ in points], [y for _, y in points], marker="o", ms=3, lw=1.2, label=language
        )
        if language == "all":
            line.set(color="black", linewidth=2.2)
    axes.set(xlabel="step", ylabel="bits per byte", title=title)
    colors = {line.get_label(): line.get_color() for line in axes.lines}
    for language, points in final.items():
        known = language in colors
        axes.plot(
            *points[-1], "D", ms=7, color=colors.get(language), label="" if known else language
        )
    last = [points[-1][1] for points in (*curves.values(), *final.values())]
    top = max([np.percentile(values, 95), *last])
    axes.set_ylim(0.9 * min([*smooth, *last]), 1.1 * top)
    axes.grid(alpha=0.3)
    title = "validation (line: a sample, diamond: all files)" if final else "validation"
    axes.legend(title=title, fontsize=8, ncols=2)
    path = workdir / "loss.png"
    with files.atomic_write(path, "wb") as file:
        figure.savefig(file, dpi=120, format="png")
    plt.close(figure)
    return path
