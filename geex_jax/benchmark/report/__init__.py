"""Reports of HumanEval-X runs: report.html, report.md and summary.json from results.jsonl.

Each row of results.jsonl is one sample: task_id, language, sample, source (null but for
translation), set ("given", "extended"), outcome, message, cpu_seconds, compile_seconds,
memory_bytes, key, cached, code; and where they were asked for bleu and codebleu (0 to 1) and
findings (list of rule, severity, line, message). run.json beside it says how they were made; all
of it is optional. Its "benchmark", if it is not HumanEval-X, keeps published rows out.
"""

from __future__ import annotations

import pathlib
from typing import Any

from geex_jax.benchmark.report import html, markdown
from geex_jax.benchmark.report.analysis import Analysis, analyse
from geex_jax.benchmark.report.reading import benchmark, read_results
from geex_jax.benchmark.report.samples import choose
from geex_jax.benchmark.report.sections import sections
from geex_jax.benchmark.report.summary import as_json
from geex_jax.benchmark.statistics import Bootstrap
from geex_jax.files import Path, atomic_write, write_json

__all__ = ["Analysis", "analyse", "read_results", "write_report"]


def write_report(folder: Path, how: Bootstrap | None = None) -> Analysis:
    """Writes report.html, report.md and summary.json beside results.jsonl, each whole or not.

    Args:
      folder: with results.jsonl and, if it is there, run.json.
      how: how to make the confidence intervals.

    Returns:
      The numbers; `tables` makes tables of them and `pages.text_table` prints these.

    Raises:
      GeexError: results.jsonl or run.json is missing, empty or not what it should be.
    """
    folder = pathlib.Path(folder)
    found = analyse(read_results(folder), how)
    parts = sections(found)
    title = heading(found)
    failing = choose(found, cost=lambda one: len(html.sample(one).encode()))
    with atomic_write(folder / "report.html") as file:
        file.write(html.page(found, parts, failing, title))
    with atomic_write(folder / "report.md") as file:
        file.write(markdown.document(found, parts, title))
    write_json(folder / "summary.json", as_json(found))
    return found


def heading(found: Analysis) -> str:
    """Benchmark, task, model and day, as far as run.json says."""
    run: dict[str, Any] = found.results.run
    task = run.get("task") or ("translation" if found.translation else "generation")
    created = str(run.get("created") or "")[:10]
    words = [f"{benchmark(run)} {task}", *(str(x) for x in (run.get("model"), created) if x)]
    return " · ".join(words)
