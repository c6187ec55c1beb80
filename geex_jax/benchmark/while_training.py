"""pass@k while a model trains: each saved checkpoint is judged by a process of its own.

That process computes on the CPU, at the lowest priority, so a training step never waits for it.
It takes the newest checkpoint that is whole; those saved while it works are left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from geex_jax import files
from geex_jax.benchmark import languages
from geex_jax.benchmark.humaneval_x import tasks
from geex_jax.checkpoints.store import saved_steps

_STOP_WAIT = 10.0  # seconds for a process that was asked to end


class Functional:
    """Judges checkpoints of a training run beside it.

    Args:
      workdir: of the run; results go to `functional/STEP` in it.
      data: folder or file of the problems, as for `geex bench humaneval-x --data`.
      names: languages, as for `--language`.
      samples: a task. temperature, max_tokens: of the samples.

    Raises:
      GeexError: problems or a language are not there.
    """

    def __init__(
        self, workdir: files.Path, data: str, names: str, samples: int = 1,
        temperature: float = 0.0, max_tokens: int = 256,
    ):  # fmt: skip
        self.workdir = pathlib.Path(workdir)
        for name in languages.parse(names):
            tasks.load(name, data or None)  # a mistake shows before anything is trained
        self._flags = [
            "--language", names, "--n", str(samples), "--temperature", str(temperature),
            "--max-tokens", str(max_tokens), *(["--data", data] if data else []),
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._step = 0
        self._last = -1

    def poll(self) -> list[tuple[int, dict[str, Any]]]:
        """Starts the next checkpoint if none is being judged.

        Returns:
          (step, {"pass@1": {language: value}, ...}) of what has been finished since.
        """
        found: list[tuple[int, dict[str, Any]]] = []
        if self._process is not None and self._process.poll() is not None:
            found += self._read()
            self._process = None
        if self._process is None:
            steps = saved_steps(self.workdir / "checkpoints")
            if steps and steps[-1] > max(self._last, self._done()):
                self._start(steps[-1])
        return found

    def close(self, wait: bool) -> list[tuple[int, dict[str, Any]]]:
        """Ends, after the newest checkpoint has been judged if `wait`. Returns as `poll` does."""
        found = self.poll() if wait else []
        while wait and self._process is not None:
            self._process.wait()
            found += self.poll()
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_WAIT)
            self._process.kill()
            self._process.wait()
            self._process = None
        return found

    def _folder(self, step: int) -> pathlib.Path:
        return self.workdir / "functional" / str(step)

    def _done(self) -> int:
        """The newest step that an earlier run has judged."""
        folder = self.workdir / "functional"
        steps = [int(p.parent.name) for p in folder.glob("*/summary.json")]
        return max(steps, default=-1)

    def _start(self, step: int) -> None:
        folder = self._folder(step)
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "geex_jax", "bench", "humaneval-x", "--checkpoint",
            str(self.workdir / "checkpoints" / str(step)), "--output", str(folder), *self._flags,
        ]  # fmt: skip
        with open(folder / "log.txt", "wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "JAX_PLATFORMS": "cpu"}, start_new_session=True,
            )  # fmt: skip
        with contextlib.suppress(OSError):  # runs when nobody else wants the core
            os.sched_setscheduler(self._process.pid, os.SCHED_IDLE, os.sched_param(0))
        self._step = self._last = step

    def _read(self) -> list[tuple[int, dict[str, Any]]]:
        try:
            summary = json.loads((self._folder(self._step) / "summary.json").read_text())
        except (OSError, ValueError):
            return []  # its log.txt says why
        table: dict[str, dict[str, float]] = {}
        for group in summary["generation"]:
            for k, value in group["pass_at_k"].items():
                if "value" in value:
                    table.setdefault(f"pass@{k}", {})[group["language"]] = value["value"]
        return [(self._step, table)] if table else []
