"""The training loop. Read from top to bottom: `train` is the algorithm."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from typing import Any

import jax
import numpy as np

from geex_jax import files
from geex_jax.checkpoints import store
from geex_jax.checkpoints.states import StateStore
from geex_jax.data.loader import Loader
from geex_jax.parallel import startup, use_mesh
from geex_jax.training import config as configs
from geex_jax.training import metrics as measures
from geex_jax.training.console import Progress, banner, say_compiled
from geex_jax.training.goodput import Clock, Goodput
from geex_jax.training.nans import first_not_finite
from geex_jax.training.profiling import Profiler
from geex_jax.training.run import Run
from geex_jax.training.step import (
    TrainState,
    jit_train_step,
    state_shardings,
)
from geex_jax.training.stopping import stop_requests
from geex_jax.training.validation import Beside, Sampler, validator, write_functional
from geex_jax.training.watchdog import Watchdog


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
      step: steps taken.
      finished: False if Ctrl-C or SIGTERM ended it; run it again to go on.
      validation: bits per byte per language at the last evaluation.
    """

    step: int
    finished: bool
    validation: dict[str, float]


def train(
    config: configs.Config,
    workdir: files.Path,
    sample: Sampler | None = None,
    functional: Beside | None = None,
    profile_steps: tuple[int, int] | None = None,
    debug_nans: bool = False,
) -> Result:
    """Trains, or goes on with training, in `workdir`.

    With several processes (`parallel.startup.initialize`) all of them call this with the same
    arguments and a workdir that all can reach.

    Args:
      config: see `training.config.default_config`.
      workdir: checkpoints, metrics and samples; an earlier run of the same config resumes, on any
        mesh and number of processes.
      sample: makes completions of `config.evaluate.prompts`; none are made without it.
      functional: judges what the checkpoints generate, beside the run; see
        `benchmark.while_training`. No step waits for it. On the first process alone.
      profile_steps: first and last step of a trace in the workdir's `profile/`.
      debug_nans: a step that is not finite is run again, and the first layer where it went wrong
        is named. Each step then waits for the one before.

    Returns:
      The last step and its validation.

    Raises:
      GeexError: whatever does not fit together, before anything is compiled; or too many steps
        in a row that had to be skipped.
    """
    clock = Clock()
    workdir = pathlib.Path(workdir).absolute()
    first = jax.process_index() == 0
    say = print if first else _silent
    run = startup.agreed(lambda: Run(config, workdir))
    dog = Watchdog(workdir, clock, config.watchdog.seconds, config.watchdog.grace)
    checkpoints = StateStore(
        workdir / "checkpoints", config.checkpoint.keep_last, config.checkpoint.keep_best
    )
    step = checkpoints.latest() or 0
    profiler = Profiler(workdir, profile_steps, step, config.steps, say)
    state = run.fresh_state()
    if first:
        about = {"data": str(pathlib.Path(config.data.folder).absolute()), "workdir": str(workdir)}
        store.write_header(workdir / "model", run.model.config, state.params, run.tokenizer, about)
    kept: dict[str, Any] = {}
    if step:
        clock.enter("restore")
        state, kept = _restore(checkpoints, step, state, run)
    writer = measures.MetricWriter(workdir, step, config.log.wandb)
    for line in checkpoints.passed_over:
        say(line, flush=True)
    banner(run, state, step, say)

    with use_mesh(run.mesh), stop_requests() as stop, dog.watching():
        update = jit_train_step(run.mesh, state)
        validate = validator(run, writer, sample, say)
        productive = float(kept.get("productive_seconds", 0.0))
        goodput = Goodput(workdir, clock, step, productive, first)
        progress = Progress(run, writer, step, say, clock, goodput)
        progress.resume(kept)
        if step < config.steps:
            clock.enter("compile")
            began = time.monotonic()
            update = update.lower(state, run.put(_arrays(run, run.loader.batch(step)))).compile()
            say_compiled(update, time.monotonic() - began, say)
        validation: dict[str, float] = {}
        pending = None
        while step < config.steps and not stop.reached(step):
            clock.enter("data", step + 1)
            batch = next(run.loader)
            clock.enter("host")
            on_mesh = run.put(_arrays(run, batch))
            profiler.before(step + 1)
            with jax.transfer_guard("disallow"):
                state, numbers = update(state, on_mesh)
            step += 1
            profiler.after(step, numbers)
            # Numbers of the step before are read while this one runs.
            if pending is not None:
                progress.add(*pending)
            pending = (step, numbers)
            last = step == config.steps
            evaluate_now = last or (config.evaluate.every and step % config.evaluate.every == 0)
            save_now = last or (config.checkpoint.every and step % config.checkpoint.every == 0)
            if evaluate_now or save_now or debug_nans:
                progress.add(*pending)
                pending = None
            if debug_nans and progress.not_finite:
                say(f"step {step}: {first_not_finite(state, on_mesh, step - 1)}", flush=True)
            if evaluate_now:
                with clock.during("evaluate"):
                    validation = validate(state.params, step)
            if save_now:
                score = validation.get("all") if evaluate_now else None
                with clock.during("save"):
                    _save(checkpoints, step, state, run.loader, progress, score)
            if functional is not None and step % config.log.every == 0:
                write_functional(writer, functional.poll(), say)
        if pending is not None:
            progress.add(*pending)
        profiler.close()
        clock.enter("save")
        if stop.signal and step and checkpoints.saved != step:
            _save(checkpoints, step, state, run.loader, progress, None)
        checkpoints.wait()
        if not validation and not stop.signal:
            clock.enter("evaluate")
            validation = validate(state.params, step)
        checkpoints.close()
        clock.enter("start")
        goodput.write(step, at_once=True)
        if config.evaluate.functional.languages:  # the others need not wait for the judging
            startup.part()
        if functional is not None:
            write_functional(writer, functional.close(wait=not stop.signal), say)
    writer.close()
    if first:
        measures.plot_losses(workdir, f"{config.name}: {run.model.config.name}")
    if stop.signal:
        say(f"{stop.signal}: saved step {step}; run the same command to go on")
    else:
        say(
            f"done: {step} steps, goodput {goodput.value():.0%}, checkpoint in {workdir}, "
            f"curve in {workdir / 'loss.png'}"
        )
    return Result(step, not stop.signal, validation)


def _silent(*_: Any, **__: Any) -> None:
    """What processes other than the first say."""


def _arrays(run: Run, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The step's batch, all [B, S]: `language` spread over its row, and the targets' bytes."""
    language = np.broadcast_to(batch["language"][:, None], batch["tokens"].shape)
    return {**batch, "language": language, "text_bytes": run.counter.token_bytes[batch["targets"]]}


def _rest(state: TrainState) -> dict[str, Any]:
    names = ("step", "skipped", "opt_state", "history", "good", "seed")
    return {name: getattr(state, name) for name in names}


def _save(
    checkpoints: StateStore,
    step: int,
    state: TrainState,
    loader: Loader,
    progress: Progress,
    score: float | None,
) -> None:
    kept = loader.get_state() | progress.kept()
    checkpoints.save(step, state.params, _rest(state), kept, score)


def _restore(
    checkpoints: StateStore, step: int, state: TrainState, run: Run
) -> tuple[TrainState, dict[str, Any]]:
    place = state_shardings(run.mesh, state)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, place
    )
    params, rest, loader_state = checkpoints.load(step, shapes.params, _rest(shapes))
    run.loader.set_state(loader_state)
    state = dataclasses.replace(state, params=params, **rest)
    return state, loader_state
