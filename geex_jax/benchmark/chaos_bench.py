"""Training that is killed: 4 processes, one killed -9, on with 2, one killed, on with 4.

Each round trains a tiny model on 4 simulated CPU devices (gloo, loopback): 4 processes of one
device until one of them, chosen at random, is killed -9 at a random moment; everything ends and
starts again as 2 processes of two devices, until one of those is killed; 4 processes finish it.
The final weights are compared with those of a run of 4 processes that nobody disturbed. Odd
rounds keep the mesh (fsdp=4): equal bit for bit. In even ones the 2 processes use another mesh
(fsdp=2,tensor=2), which sums in another order: equal within a tolerance.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError

TOLERANCE = 1e-3  # of the largest weight, for sums in another order over some tens of steps
SAME, OTHER = {"fsdp": 4}, {"fsdp": 2, "tensor": 2}
_DEVICES = "--xla_force_host_platform_device_count"
_WAIT = 900.0  # seconds for one group of processes
_EXPERIMENT = """
from geex_jax.training.config import default_config

def get_config():
    config = default_config()
    config.name = "chaos"
    config.steps = {steps}
    config.batch_size = 8
    config.model.preset = "geex-3m"
    config.model.overrides = {{
        "num_layers": 2, "d_model": 32, "num_heads": 4, "d_ff": 64, "top_query_layer": False,
    }}
    config.data.folder = {data!r}
    config.optimizer.warmup = 5
    config.mesh = {{"data": 1, "fsdp": 1, "tensor": 1}}
    config.evaluate.update(every=0, prompts=[])
    config.checkpoint.update(every=2, keep_best=0)
    config.log.every = 1
    return config
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument("--rounds", type=int, default=20, help="rounds (20)")
    parser.add_argument("--first", type=int, default=1, help="number of the first round (1)")
    parser.add_argument("--steps", type=int, default=40, help="steps of a run (40)")
    parser.add_argument("--seed", type=int, default=0, help="draws victims and moments")
    parser.add_argument("--output", metavar="FILE", help="write the figures as JSON too")


def run(args: argparse.Namespace) -> int:
    """Runs the rounds; 1 if any ended with other weights."""
    if args.rounds < 1 or args.first < 1 or args.steps < 12:
        raise GeexError("--rounds, --first and --steps", "give 1 round and 12 steps or more")
    numbers = range(args.first, args.first + args.rounds)
    with tempfile.TemporaryDirectory(prefix="geex-chaos-") as folder:
        result = measure(pathlib.Path(folder), numbers, args.steps, args.seed, print)
    for line in lines(result):
        print(line)
    if args.output:
        files.write_json(args.output, result)
    return 0 if all(row["equal"] for row in result["rounds"]) else 1


def measure(
    folder: pathlib.Path, rounds: Iterable[int], steps: int, seed: int, say: Any
) -> dict[str, Any]:
    """Prepares data, trains undisturbed, and plays the rounds; returns what `lines` tells.

    Raises:
      GeexError: a run that nobody killed did not end well; quotes its last lines.
    """
    experiment = folder / "chaos.py"
    experiment.write_text(_EXPERIMENT.format(steps=steps, data=str(_data(folder))))
    cache = folder / "compiled"
    whole = folder / "undisturbed"
    with _Group(experiment, whole, 4, SAME, cache) as group:
        group.finish()
    expected, found = _weights(whole), []
    for number in rounds:
        chance, began = random.Random(f"{seed}:{number}"), time.monotonic()
        workdir = folder / f"round-{number}"
        same = number % 2 == 1
        kills, resumed = [], []
        for count, mesh in ((4, SAME), (2, SAME if same else OTHER)):
            with _Group(experiment, workdir, count, mesh, cache) as group:
                kills.append(group.kill_one(chance, steps))
            resumed.append(group.resumed())
        with _Group(experiment, workdir, 4, SAME, cache) as group:
            group.finish()
        resumed.append(group.resumed())
        error = _difference(_weights(workdir), expected)
        row = {
            "same_mesh": same,
            "kills": kills,
            "resumed": resumed,  # at which step each start went on
            "error": error,
            "equal": error == 0 if same else error < TOLERANCE,
            "seconds": time.monotonic() - began,
        }
        found.append(row)
        told = "; ".join(
            f"on from {at}, process {k['victim']} of {k['of']} killed after step {k['step']}"
            for at, k in zip(resumed, kills, strict=False)
        )
        told += f"; on from {resumed[-1]}"
        verdict = "bit for bit" if error == 0 else f"largest difference {error:.1e}"
        say(
            f"round {number:>2} ({'same mesh' if same else 'another mesh on 2'}): {told}: "
            f"{verdict}, {row['seconds']:.0f} s",
            flush=True,
        )
    return {"steps": steps, "seed": seed, "tolerance": TOLERANCE, "rounds": found}


def lines(result: dict[str, Any]) -> list[str]:
    """Returns the figures for people."""
    out = []
    for same, what in ((True, "same mesh"), (False, "another mesh on 2 processes")):
        rows = [row for row in result["rounds"] if row["same_mesh"] is same]
        if not rows:
            continue
        exact = sum(row["error"] == 0 for row in rows)
        out.append(
            f"{what}: {sum(row['equal'] for row in rows)} of {len(rows)} rounds equal "
            f"({exact} bit for bit; largest difference "
            f"{max(row['error'] for row in rows):.1e} of the largest weight)"
        )
    return out


def _data(folder: pathlib.Path) -> pathlib.Path:
    """Rows of this package's own source files."""
    from geex_jax.data import PrepareConfig, prepare
    from geex_jax.data.filters import Filters
    from geex_jax.tokenizers import train_sentencepiece

    sources = pathlib.Path(__file__).parent.parent / "models"
    texts = (path.read_text() for path in sorted(sources.glob("*.py")))
    tokenizer = train_sentencepiece(texts, folder / "tokenizer", 512)
    settings = PrepareConfig(
        seq_len=96, validation_fraction=0.0, workers=1, filters=Filters(min_bytes=1)
    )
    prepare([sources], folder / "data", tokenizer, settings)
    return folder / "data"


class _Group:
    """The processes of one start of a run."""

    def __init__(
        self, experiment: pathlib.Path, workdir: pathlib.Path, count: int, mesh: dict[str, int],
        cache: pathlib.Path,
    ):  # fmt: skip
        self.workdir = workdir
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}={4 // count}".strip(),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        top = str(pathlib.Path(__file__).parent.parent.parent)
        path = [top, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        sizes = [f"--config.mesh.{axis}={size}" for axis, size in mesh.items()]
        self.logs = [workdir.with_name(f"{workdir.name}-{port}-{i}.log") for i in range(count)]
        self.processes = []
        for number, log in enumerate(self.logs):
            command = [
                sys.executable, "-m", "geex_jax", "train", f"--config={experiment}",
                f"--workdir={workdir}", *sizes, f"--coordinator=127.0.0.1:{port}",
                f"--processes={count}", f"--process={number}", f"--start-timeout={_WAIT:.0f}",
            ]  # fmt: skip
            with open(log, "w") as file:
                self.processes.append(
                    subprocess.Popen(command, stdout=file, stderr=file, env=environment)
                )

    def running(self) -> bool:
        """Whether none has ended."""
        return all(process.poll() is None for process in self.processes)

    def steps(self) -> int:
        """The last step in the first process's output, of this start."""
        text = self.logs[0].read_text(errors="replace")
        return max((int(x.split()[1].split("/")[0]) for x in text.splitlines()
                    if x.startswith("step ")), default=0)  # fmt: skip

    def resumed(self) -> int:
        """The step that this start has gone on from."""
        text = self.logs[0].read_text(errors="replace")
        return max((int(x.split()[-1]) for x in text.splitlines()
                    if x.startswith("resuming ")), default=0)  # fmt: skip

    def kill_one(self, chance: random.Random, steps: int) -> dict[str, int]:
        """Kills one process at a random moment, then, as a supervisor would, ends the others.

        The moment is a random step, from the fourth that is taken on, so that something is saved;
        or, one time in five, while the processes start.
        """
        victim = chance.randrange(len(self.processes))
        early, after = chance.random() < 0.2, chance.random()
        time_after, target = chance.random() * 0.3, None
        end = time.monotonic() + _WAIT
        if early:
            time.sleep(2 + 6 * after)
        while not early and self.running() and time.monotonic() < end:
            now = self.steps()
            if now and target is None:
                target = now + 3 + int(after * max(steps - now - 5, 0))
            if target is not None and now >= target:
                time.sleep(time_after)
                break
            time.sleep(0.01)
        self.processes[victim].send_signal(signal.SIGKILL)
        self.processes[victim].wait()
        seen = self.steps()
        self.end()
        return {"victim": victim, "of": len(self.processes), "step": seen}

    def finish(self) -> None:
        """Waits for the run's end.

        Raises:
          GeexError: it did not end well; quotes its last lines.
        """
        end = time.monotonic() + _WAIT
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in self.processes:
                process.wait(max(end - time.monotonic(), 1))
        self.end()
        for process, log in zip(self.processes, self.logs, strict=True):
            if process.returncode:
                last = " | ".join(log.read_text(errors="replace").splitlines()[-3:])
                raise GeexError(f"a start nobody killed ended with {process.returncode}", last)

    def __enter__(self) -> _Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Kills what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _weights(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    from geex_jax.checkpoints import load_model
    from geex_jax.parallel import by_path

    return {path: np.asarray(x) for path, x in by_path(load_model(workdir).params).items()}


def _difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference of a leaf's numbers, in units of its largest one."""
    return max(float(np.max(np.abs(a[k] - b[k])) / max(np.max(np.abs(b[k])), 1e-9)) for k in b)
