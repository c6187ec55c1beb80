"""One compilation as a job: plain values in, a plan as a dict out, here or in a child process.

libtpu and jax read their settings when they are loaded. A process that has loaded jax for other
devices, such as a notebook on a GPU, has its programs compiled by a child.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

from geex_jax.errors import GeexError
from geex_jax.plan import topology as topologies


@dataclasses.dataclass(frozen=True)
class Job:
    """What to compile.

    Attributes:
      topology: a name, see `topology.parse`. slices: how many.
      config: an experiment file, for a train step. overrides: `--config.KEY=VALUE` words.
      slice: the entry of the experiment's SLICES whose overrides come first; empty for none.
      decode: settings of `decode.plan_decode` in place of a config.
      options: compiler options. fast: least effort. cache: folder of summaries, empty for none.
    """

    topology: str
    slices: int = 1
    config: str = ""
    overrides: tuple[str, ...] = ()
    slice: str = ""
    decode: dict[str, Any] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    fast: bool = False
    cache: str = ""

    def where(self) -> topologies.Topology:
        """The topology."""
        return topologies.parse(self.topology, self.slices)


def run(job: Job) -> dict[str, Any]:
    """The plan of a job.

    Raises:
      GeexError: what the job's own code raises.
    """
    topologies.require_libtpu()
    return run_here(job) if topologies.prepared() else _run_child(job)


def run_here(job: Job) -> dict[str, Any]:
    """The plan of a job, in this process, which must be `prepared`."""
    topologies.prepare()
    where = job.where()
    if job.decode is not None:
        from geex_jax.plan.decode import plan_decode

        return plan_decode(where, job.options, job.cache or None, job.fast, **job.decode)
    from geex_jax.plan.train import plan_train

    return plan_train(load(job), where, job.options, job.cache or None, job.fast)


def load(job: Job) -> Any:
    """The experiment's config with the job's overrides, those of its slice first."""
    from geex_jax.plan.experiments import slice_overrides
    from geex_jax.training.config import load_config

    first = slice_overrides(job.config, job.slice) if job.slice else ()
    return load_config(job.config, (*first, *job.overrides))


def _run_child(job: Job) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-m", "geex_jax.plan.jobs"],
        input=json.dumps(dataclasses.asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **topologies.ENVIRONMENT},
        check=False,
    )
    try:
        answer = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise GeexError(
            f"the process that compiles ended with status {child.returncode}",
            "its last words are above; out of this machine's memory?",
        ) from None
    if "error" in answer:
        raise GeexError(*answer["error"])
    return answer["plan"]


def _main() -> None:
    values = json.loads(sys.stdin.read())
    values["overrides"] = tuple(values["overrides"])
    try:
        answer: dict[str, Any] = {"plan": run_here(Job(**values))}
    except GeexError as error:
        answer = {"error": [error.what, error.remedy]}
    print(json.dumps(answer))


if __name__ == "__main__":
    _main()
