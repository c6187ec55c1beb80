"""summary.json: the numbers of a report for programs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from geex_jax.benchmark.report.analysis import Analysis, GroupResult


def as_json(found: Analysis) -> dict[str, Any]:
    """What summary.json holds: rates from 0 to 1, seconds, bytes."""
    columns = ("cpu_seconds", "compile_seconds", "memory_bytes", "cached", "bleu", "codebleu")

    def group(x: GroupResult) -> dict[str, Any]:
        return {
            "language": x.group.language, "source": x.group.source or None, "set": x.group.set,
            "tasks": len(x.counts), "samples": x.samples, "not_run": x.not_run,
            "pass_at_k": {str(k): _plain(v) for k, v in x.scores.items()},
            "outcomes": x.outcomes, **{name: getattr(x, name) for name in columns},
        }  # fmt: skip

    return {
        "run": found.results.run,
        "k": list(found.ks),
        "set": found.main,
        "bootstrap": dataclasses.asdict(found.how),
        "generation": [group(x) for x in found.generation],
        "translation": [group(x) for x in found.translation],
        "average": {str(k): _plain(v) for k, v in found.averages.items()},
        "tests_compared": [
            {
                "result": group(x.second), "passed_given": x.passed, "not_correct": x.fooled.size,
                "drop": {str(k): _plain(v) for k, v in x.drop.items()}, "tasks": x.tasks,
            }
            for x in found.comparisons
        ],
        "budget": [_plain(x) for x in found.budget],
        "slowest": [_plain(x) for x in found.slowest],
        "findings": [_plain(x) for x in found.findings],
        "notes": found.notes,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return {"missing": value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return _finite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
