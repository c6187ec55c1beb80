"""What each choice does to a compiled train step: remat, rows a device, mesh, compiler flags.

One change at a time from the config as it is, all compiled for the same slice. The second table
sets the arithmetic of `geex plan --memory-only` beside the compiler's bytes. All times are bounds
by arithmetic over the compiled programs; nothing runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, get_args

from geex_jax.errors import GeexError
from geex_jax.pages import Table, text_table

GIB = 1 << 30
FLAGS = {
    "async collective fusion": {
        "xla_tpu_enable_async_collective_fusion": True,
        "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
        "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
        "xla_tpu_overlap_compute_collective_tc": True,
        "xla_enable_async_all_gather": True,
    },
    "no windowed matmuls": {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1000000},
}
KINDS = ("remat", "rows", "mesh", "flags")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench plan`."""
    add = parser.add_argument
    add("--config", metavar="FILE", help="experiment file (default: a model of 3M parameters)")
    add("--topology", default="v5e:2x2", metavar="NAME", help="slice (default %(default)s)")
    add("--slice", default="", metavar="NAME", help="an entry of the experiment's SLICES")
    add("--override", action="append", default=[], metavar="KEY=VALUE",
        help="a key of the config, such as model.remat=qkv; repeatable")  # fmt: skip
    add("--choices", default=",".join(KINDS), metavar="LIST",
        help="which choices to vary (default %(default)s)")  # fmt: skip
    add("--fast", action="store_true", help="least effort of the compiler, no cycles")
    add("--cache", metavar="DIR", help="where compiled results are kept ('none': nowhere)")
    add("--json", action="store_true", help="print one JSON object")


@dataclasses.dataclass(frozen=True)
class Choice:
    """One change: its name, the overrides and the compiler options that make it."""

    name: str
    words: tuple[str, ...] = ()
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def run(args: argparse.Namespace) -> None:
    """Compiles every choice and prints both tables."""
    from geex_jax.plan import topology
    from geex_jax.plan.compile import default_cache
    from geex_jax.plan.experiments import find_slice
    from geex_jax.plan.jobs import Job

    kinds = [k.strip() for k in args.choices.split(",") if k.strip()]
    for kind in kinds:
        if kind not in KINDS:
            raise GeexError(f"--choices {kind}", "choose among " + ", ".join(KINDS))
    topology.require_libtpu()
    topology.prepare()
    entry = find_slice(args.config, args.slice) if args.slice else {}
    cache = "" if args.cache == "none" else args.cache or str(default_cache())
    job = Job(
        entry.get("topology", args.topology), entry.get("slices", 1),
        args.config or str(small_config()),
        tuple(f"--config.{word}" for word in args.override), args.slice,
        options=entry.get("options", {}), fast=args.fast, cache=cache,
    )  # fmt: skip
    job.where()  # a wrong name is said before anything is compiled
    rows = ladder(job, kinds)
    if args.json:
        print(json.dumps(rows))
    else:
        print(render(job, rows))


def small_config() -> pathlib.Path:
    """The experiment that is compiled when none is named: 3M parameters, three layers."""
    return pathlib.Path(__file__).parent / "plan_small.py"


def ladder(job: Any, kinds: list[str]) -> list[dict[str, Any]]:
    """Every choice compiled and estimated."""
    from geex_jax.plan.estimate import estimate
    from geex_jax.plan.jobs import load, run
    from geex_jax.plan.search import with_words

    rows = []
    for choice in choices(job, kinds):
        changed = with_words(job, choice.words)
        changed = dataclasses.replace(changed, options={**job.options, **choice.options})
        print(f"{choice.name} ...", file=sys.stderr, flush=True)
        try:
            plan = run(changed)
            guess = estimate(load(changed), job.where())
        except GeexError as error:
            rows.append({"name": choice.name, "error": str(error)})
            continue
        rows.append({"name": choice.name, "words": choice.words, "plan": plan, "memory": guess})
        print(f"  {_verdict(plan)}", file=sys.stderr, flush=True)
    return rows


def _verdict(plan: dict[str, Any]) -> str:
    # One line while the ladder goes on; what is compiled is kept in the cache.
    compiled, times = plan["compiled"], plan["roofline"]
    if not compiled["fits"]:
        return f"does not fit: {compiled['message']}"
    return (
        f"fits, {compiled['used'] / GIB:.2f} GiB, MFU bounds {times['mfu_overlap']:.2f} / "
        f"{times['mfu_exposed']:.2f}, {compiled['seconds']:.0f} s"
    )


def choices(job: Any, kinds: list[str]) -> Iterator[Choice]:
    """The config as it is, and then with one thing changed at a time."""
    from geex_jax.models.config import Remat
    from geex_jax.plan.jobs import load

    config = load(job)
    yield Choice("as configured")
    if "remat" in kinds:
        for policy in get_args(Remat):
            if policy != config.model.remat:
                yield Choice(f"remat {policy}", (f"--config.model.remat={policy}",))
    if "rows" in kinds:
        for factor in (2, 4):
            if config.accumulate % factor == 0:
                yield Choice(f"{factor} x the rows at once",
                             (f"--config.accumulate={config.accumulate // factor}",))  # fmt: skip
            else:
                yield Choice(f"{factor} x the batch",
                             (f"--config.batch_size={config.batch_size * factor}",))  # fmt: skip
    if "mesh" in kinds:
        for tensor in (2, 4):
            devices = job.where().devices
            if devices % tensor == 0 and config.mesh.tensor != tensor:
                yield Choice(f"tensor {tensor}", (f"--config.mesh.tensor={tensor}",))
    if "flags" in kinds:
        for name, options in FLAGS.items():
            yield Choice(f"flags: {name}", options=options)


def render(job: Any, rows: list[dict[str, Any]]) -> str:
    """Both tables as text."""
    from geex_jax.plan.roofline import LABEL

    ladder_rows: list[list[Any]] = []
    memory_rows: list[list[Any]] = []
    for row in rows:
        if "error" in row:
            ladder_rows.append([row["name"], row["error"], *[""] * 9])
            continue
        plan, compiled = row["plan"], row["plan"]["compiled"]
        if not compiled["fits"]:
            over = f"no, by {compiled['over'] / GIB:.2f}" if compiled["over"] else "no"
            ladder_rows.append([row["name"], over, *[""] * 9])
            continue
        times, cycles = plan["roofline"], compiled["traffic"]["cycles"]
        ladder_rows.append([
            row["name"], "yes", f"{compiled['used'] / GIB:.2f}", f"{plan['flops']['ratio']:.3f}",
            f"{times['compute'] * 1e3:.1f}", f"{times['hbm'] * 1e3:.1f}",
            f"{times['ici'] * 1e3:.1f}", f"{times['exposed'] * 1e3:.1f}",
            f"{times['mfu_overlap']:.2f} / {times['mfu_exposed']:.2f}",
            "" if plan["fast"] else f"{cycles:.3g}", f"{compiled['seconds']:.0f}",
        ])  # fmt: skip
        guess = row["memory"]["total"]
        memory_rows.append([
            row["name"], f"{guess / GIB:.2f}", f"{compiled['used'] / GIB:.2f}",
            f"{compiled['memory']['peak'] / GIB:.2f}", f"{guess / compiled['used'] - 1:+.0%}",
        ])  # fmt: skip
    head = ["choice", "fits", "GiB", "FLOPs ratio", "compute ms", "HBM ms", "ICI ms", "sync ms",
            "MFU overlap/exposed", "cycles", "compile s"]  # fmt: skip
    left = ["choice", "memory-only GiB", "compiled GiB", "peak GiB", "difference"]
    return (
        f"choices for {job.where().label} ({LABEL})\n{text_table(Table('', head, ladder_rows))}\n\n"
        "bytes of one device, by shapes alone and by the compiler (arguments + temporaries)\n"
        f"{text_table(Table('', left, memory_rows))}"
    )
