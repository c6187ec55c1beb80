"""`report.md` of the quickstart."""

from __future__ import annotations

import json
import pathlib
from typing import TYPE_CHECKING

from geex_jax import files
from geex_jax.quickstart.programs import HELD_OUT, TASKS, Judged
from geex_jax.quickstart.sources import Compressed, xz_bits_per_byte
from geex_jax.quickstart.stages import Stages

if TYPE_CHECKING:
    from geex_jax.quickstart import SourceCode


def write_report(
    output: pathlib.Path, judged: Judged, code: SourceCode, stages: Stages
) -> pathlib.Path:
    """Writes report.md and copies the loss curves beside it. Returns its path."""
    for run, name in (
        (output / "programs" / "run", "tasks.png"),
        (code.folder / "run", "loss.png"),
    ):
        (output / name).write_bytes((run / "loss.png").read_bytes())
    lines = ["# Quickstart report", "", f"{files.seconds(stages.gone)} in all.", ""]
    lines += _programs(judged)
    lines += _source_code(code)
    lines += ["## Commands", "", "```"]
    lines += [f"{s.command}   # {files.seconds(s.seconds)}" for s in stages.done]
    lines += ["```", ""]
    path = output / "report.md"
    with files.atomic_write(path) as file:
        file.write("\n".join(lines))
    return path


def _programs(judged: Judged) -> list[str]:
    from geex_jax.benchmark.humaneval_x.tasks import names

    titles = {x: names(x).title for x in judged.languages}
    lines = [
        "## Programs that run: pass@1 on tasks it has not seen",
        "",
        f"A model trained on {TASKS:,} small tasks in {', '.join(titles.values())} ({judged.steps} "
        f"steps = {judged.tokens:,} tokens) answers {HELD_OUT} tasks of other compositions, one "
        "greedy answer each; the programs were run against the tasks' tests.",
        "",
    ]
    if not judged.before:
        return [*lines, "Not judged: this machine cannot run the programs safely (see above).", ""]
    columns = [x for x in (*titles, "mean") if x in judged.before]
    lines += [
        f"| pass@1, % (95 % interval) | {' | '.join(titles.get(x, x) for x in columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for name, scores in (("float", judged.before), ("int8", judged.after)):
        cells = [
            "{:.0f} ({:.0f} - {:.0f})".format(*(100 * v for v in scores[x])) if x in scores else "-"
            for x in columns
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "![loss](tasks.png)", ""]
    for language, (prompt, solution) in judged.solved.items():
        lines += [f"Solved by the int8 model, {titles[language]}:", "", "```"]
        lines += [f"{prompt}{solution}".strip(), "```", ""]
    return lines


def _source_code(code: SourceCode) -> list[str]:
    from geex_jax.training.metrics import read_metrics

    manifest, run = code.manifest, code.folder / "run"
    rows = read_metrics(run)
    validated = [r["bits_per_byte"] for r in rows if r["kind"] == "validation"]
    ours = validated[-1] if validated else {}
    steps = max(r["step"] for r in rows)
    batch_size = json.loads((run / "experiment.json").read_text())["batch_size"]
    quantized = json.loads((code.folder / "int8" / "report.json").read_text())
    peer = xz_bits_per_byte(code.folder / "data")
    train, seen = manifest.total("train"), steps * batch_size * manifest.seq_len
    lines = [
        "## Source code of this machine: bits per byte of held-out files (lower is better)",
        "",
        f"{train.files:,} files, {train.bytes / 1e6:.1f} MB, {train.tokens:,} tokens of source in "
        f"{len(manifest.splits['train'])} languages; trained for {steps} steps = {seen:,} tokens "
        f"({seen / train.tokens:.2f} epochs).",
        "",
        "| language | train MB | validation KB | model | xz -9 per file | xz -9 of all as one |",
        "|---|---|---|---|---|---|",
    ]
    for name, xz in peer.items():
        if name not in ours:
            continue
        amount = train if name == "all" else manifest.amount("train", name)
        lines.append(
            f"| {name} | {amount.bytes / 1e6:.1f} | {xz.size / 1e3:.0f} | {ours[name]:.3f} "
            f"| {xz.alone:.3f} | {xz.together:.3f} |"
        )
    lines += ["", _verdict(ours, peer), "", "![loss](loss.png)", "", "int8:", ""]
    lines += _quantized_lines(quantized)
    lines += ["", "Completions by the int8 model (temperature 0.4, top-p 0.95):", ""]
    for name, (prompt, text) in code.completions.items():
        lines += [f"{name}:", "", "```", f"{prompt}{text}", "```", ""]
    return lines


def _verdict(ours: dict[str, float], peer: dict[str, Compressed]) -> str:
    if "all" not in ours or "all" not in peer:
        return "No validation files: give more input."
    sentences = []
    for how, xz in (("file by file", peer["all"].alone), ("as one stream", peer["all"].together)):
        change = ours["all"] / xz - 1
        does = (
            f"needs {-change:.0%} fewer" if change < 0 else f"misses by needing {change:.0%} more"
        )
        sentences.append(f"Against xz -9 {how} the model {does} bits.")
    if ours["all"] >= peer["all"].together:
        sentences.append("More time (`--minutes`) or more cores bring it down.")
    return " ".join(sentences)


def _quantized_lines(report: dict) -> list[str]:
    size = f"{report['bytes_before']:,} bytes before, {report['bytes_after']:,} after"
    lines = [f"- size: {size} ({report['ratio']:.1%}; embeddings, norms and biases stay float)"]
    cost = report["validation"]
    if isinstance(cost, str):
        return [*lines, f"- drift: {cost}"]
    return [
        *lines,
        f"- on {cost['tokens']:,} validation tokens: "
        f"{cost['bits_per_byte_before']:.4f} bits per byte before, "
        f"{cost['bits_per_byte_after']:.4f} after ({cost['bits_per_byte_change']:+.5f}); "
        f"KL {cost['kl']:.2g} nats, same most likely token {cost['top1_agreement']:.2%}",
    ]
