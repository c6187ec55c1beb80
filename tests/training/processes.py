"""Starts real processes of one run on this machine: simulated CPU devices, gloo, loopback."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from geex_jax.training.metrics import read_metrics
from tests import xla

REPO = pathlib.Path(__file__).parent.parent.parent
EXPERIMENT = """
from geex_jax.training.config import default_config

def get_config():
    config = default_config()
    config.name = "several"
    config.steps = {steps}
    config.batch_size = 8
    config.model.preset = "geex-3m"
    config.model.overrides = {{
        "num_layers": 1, "d_model": 32, "num_heads": 4, "d_ff": 64, "top_query_layer": False,
    }}
    config.model.context_length = 96
    config.data.folder = {data!r}
    config.optimizer.warmup = 2
    config.optimizer.lr = 1e-2
    config.mesh = {{"data": 1, "fsdp": 1, "tensor": 1}}
    config.evaluate.update(every=0, final_batches=1, prompts=["Python: def "], sample_tokens=3)
    config.evaluate.int8_every = {int8}
    config.checkpoint.every = {save_every}
    config.log.every = 1
    return config
"""


def write_experiment(
    path: pathlib.Path, data: pathlib.Path, steps: int, save_every: int, int8: int = 0
) -> pathlib.Path:
    path.write_text(
        EXPERIMENT.format(steps=steps, data=str(data), save_every=save_every, int8=int8)
    )
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Group:
    """`count` processes with `devices` simulated devices each, training in one workdir."""

    def __init__(self, count, devices, experiment, workdir, mesh, *extra, script=None, **variables):
        self.workdir, self.devices = pathlib.Path(workdir), devices
        port = free_port()
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(REPO),
            "XLA_FLAGS": xla.flags(devices),
            "GEEX_COORDINATOR": f"127.0.0.1:{port}",
            "GEEX_PROCESSES": str(count),
            "GEEX_START_TIMEOUT": "300",
            **variables,
        }
        start = ["-m", "geex_jax"] if script is None else ["-c", script]
        command = [
            sys.executable, *start, "train", f"--config={experiment}", f"--workdir={workdir}",
            *(f"--config.mesh.{axis}={size}" for axis, size in mesh.items()), *extra,
        ]  # fmt: skip
        self.logs = [
            self.workdir.with_name(f"{self.workdir.name}.{port}.{i}") for i in range(count)
        ]
        self.processes = []
        for number, log in enumerate(self.logs):
            with open(log, "w") as file:
                self.processes.append(
                    subprocess.Popen(
                        command, stdout=file, stderr=subprocess.STDOUT,
                        env={**environment, "GEEX_PROCESS": str(number)},
                    )
                )  # fmt: skip

    def output(self, number: int = 0) -> str:
        """What a process has said."""
        return self.logs[number].read_text(errors="replace")

    def all_output(self) -> str:
        return "\n".join(f"--- process {i}\n{self.output(i)}" for i in range(len(self.logs)))

    def wait_for_step(self, step: int, timeout: float = 600) -> None:
        """Returns when the first process has logged a step, or a process has ended."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and all(p.poll() is None for p in self.processes):
            rows = [r["step"] for r in read_metrics(self.workdir)]
            if rows and max(rows) >= step:
                return
            time.sleep(0.02)

    def kill(self, number: int) -> None:
        """Kills one process and, as a supervisor does, ends the others."""
        self.processes[number].send_signal(signal.SIGKILL)
        self.processes[number].wait()
        self.end()

    def end(self) -> None:
        """Kills what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def wait(self, timeout: float = 600) -> list[int]:
        """Exit statuses, in order."""
        end = time.monotonic() + timeout
        try:
            return [p.wait(max(end - time.monotonic(), 0.1)) for p in self.processes]
        finally:
            self.end()
