"""What of a config to change so that a step fits a slice, or runs better on it.

Candidates (remat policy, rows a device holds at once, mesh shape) are first weighed by arithmetic
alone; the best of those that fit are compiled. The global batch stays what it is: fewer rows at a
time mean more parts (`accumulate`).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from typing import Any, get_args

from geex_jax.errors import GeexError
from geex_jax.pages import Table, text_table
from geex_jax.plan import collectives
from geex_jax.plan.compile import ticking
from geex_jax.plan.jobs import Job, load, run
from geex_jax.plan.render import gib

# From least memory to least recomputation; those of them that the model knows are tried.
POLICIES = ("full", "ctx", "qkv", "minimal", "none")
ROWS = (1, 2, 4, 8, 16)  # of a device, at once
TENSOR = (1, 2, 4)
MARGIN = 0.95  # of the memory: the arithmetic may be off


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A choice and what arithmetic says of it.

    Attributes:
      words: `--config.KEY=VALUE` overrides that make it. total: bytes of one device.
      fits: by that total. score: ideal seconds over the longest of compute and communication.
    """

    words: tuple[str, ...]
    total: float
    fits: bool
    score: float


def search(
    job: Job, compiles: int = 3, quiet: bool = False, below: float = math.inf
) -> dict[str, Any] | None:
    """Finds overrides under which a job's step fits.

    Args:
      job: of a train step.
      compiles: candidates to compile at most; without libtpu none is.
      quiet: prints nothing on standard output.
      below: only what takes fewer bytes by arithmetic, because that many were found too many.

    Returns:
      None if nothing fits; else a dict: `overrides`, `candidates` (by arithmetic) and `plan` (the
      best one compiled, or None if none was).
    """
    say = (lambda text: print(text, file=sys.stderr)) if quiet else print
    with ticking("weighing candidates"):
        found = sorted(candidates(job), key=lambda c: (not c.fits, -c.score))
    fitting = [c for c in found if c.fits and c.total < below]
    say(_table(found[:8]))
    if not fitting:
        least = min(found, key=lambda c: c.total, default=None)
        need = f": the least takes {gib(least.total)} a device by arithmetic" if least else ""
        say(f"nothing tried fits {job.where().label}{need}; take a larger slice")
        return None
    best, plan = _compiled(job, fitting, compiles, say)
    if best is None:
        return None
    say("use: " + " ".join(best.words))
    return {
        "overrides": list(best.words),
        "candidates": [dataclasses.asdict(c) for c in found],
        "plan": plan,
    }


def _compiled(job: Job, fitting: list[Candidate], compiles: int, say: Any) -> tuple:
    # The first candidates through the compiler; the best by its word. What takes more by
    # arithmetic than one that did not fit is passed over.
    results, ceiling, tries = [], math.inf, 0
    for candidate in fitting:
        if tries == compiles:
            break
        if candidate.total >= ceiling:
            continue
        tries += 1
        try:
            plan = run(with_words(job, candidate.words))
        except GeexError as error:
            if "libtpu" in str(error):
                say(f"not compiled: {error}")
                return fitting[0], None
            say(f"{' '.join(candidate.words)}: {error}")
            continue
        fits = plan["compiled"]["fits"]
        mfu = plan["roofline"]["mfu_exposed"] if fits else 0.0
        verdict = f"fits, MFU bound {mfu:.2f} ({plan['label']})" if fits else "does not fit"
        say(f"compiled {' '.join(candidate.words)}: {verdict}")
        if fits:
            results.append((mfu, candidate, plan))
        else:
            ceiling = candidate.total
    if not results:
        if compiles:
            say("none of the compiled candidates fits; raise --compiles, or take a larger slice")
            return None, None
        return fitting[0], None
    _, best, plan = max(results, key=lambda r: r[0])
    return best, plan


def with_words(job: Job, words: tuple[str, ...]) -> Job:
    """The job with more overrides, which win."""
    return dataclasses.replace(job, overrides=(*job.overrides, *words))


def candidates(job: Job) -> Iterator[Candidate]:
    """Every choice whose sizes divide, weighed; each policy and each mesh is traced once."""
    from geex_jax.models.config import Remat
    from geex_jax.plan import topology

    topology.prepare()
    where, base = job.where(), load(job)
    policies = [p for p in POLICIES if p in get_args(Remat)]
    traced: dict[str, Any] = {}
    for tensor in TENSOR:
        ways = where.devices // tensor
        if where.devices % tensor or ways % where.slices:
            continue
        programs: dict[int, Any] = {}
        for rows in ROWS:
            if base.batch_size % (ways * rows):
                continue
            some = False
            for policy in policies:
                words = (
                    f"--config.mesh.data={where.slices}",
                    "--config.mesh.fsdp=-1",
                    f"--config.mesh.tensor={tensor}",
                    f"--config.accumulate={base.batch_size // (ways * rows)}",
                    f"--config.model.remat={policy}",
                )
                try:
                    config = load(with_words(job, words))
                    weighed = _weigh(config, where, tensor, policy, programs, traced)
                except GeexError:
                    continue  # a size that does not divide
                fits = weighed["total"] <= MARGIN * where.chip.usable
                yield Candidate(words, weighed["total"], fits, score(weighed, where))
                some |= fits
                if not fits:
                    break  # the next policies keep more
            if not some:
                break  # not even the first policy: more rows do not fit either


def _weigh(config: Any, where: Any, tensor: int, policy: str, programs: dict, traced: dict) -> dict:
    # Tracing costs a second or more: a policy's rows and a mesh's state are asked for once.
    from geex_jax.plan.estimate import estimate, mesh_sizes, place, trace

    sizes = mesh_sizes(config.mesh.to_dict(), where.devices)
    if policy not in traced:
        programs[tensor], traced[policy] = trace(config, sizes, where)
    elif tensor not in programs:
        programs[tensor] = place(config, sizes, where)
    return estimate(config, where, (programs[tensor], traced[policy]))


def score(weighed: dict[str, Any], where: Any) -> float:
    """Model FLOPs' time over the longest of compute and communication, by ring formulas.

    Parameters travel three times for each part of a batch: gathered forward and backward, and as
    gradients; on a tensor axis the activations of each block do, four times.
    """
    chip, sizes = where.chip, weighed["mesh"]
    parameters, tokens = weighed["elements"], weighed["tokens"]
    ideal = weighed["flops"] / where.chips / chip.bf16
    fsdp, tensor = sizes["fsdp"], sizes["tensor"]
    sent = 3 * weighed["accumulate"] * collectives.wire(
        "all-gather", 2 * parameters / tensor, fsdp
    )[0]  # fmt: skip
    if tensor > 1:
        moved = 2 * tokens / (sizes["data"] * fsdp) * weighed["width"] * weighed["blocks"]
        sent += 4 * collectives.wire("all-reduce", moved, tensor)[0] / 2
    network = sent * chip.devices / chip.ici
    compute = ideal * weighed["flops_ratio"]
    # Some of the communication is exposed; an eighth breaks ties between what hides all of it.
    return ideal / (max(compute, network) + network / 8)


def _table(found: list[Candidate]) -> str:
    rows: list[list[Any]] = [
        [" ".join(w.removeprefix("--config.") for w in c.words), gib(c.total),
         "yes" if c.fits else "no", f"{c.score:.2f}"]
        for c in found
    ]  # fmt: skip
    head = ["candidate (by arithmetic, not compiled)", "a device", "fits", "MFU bound"]
    return text_table(Table("", head, rows))
