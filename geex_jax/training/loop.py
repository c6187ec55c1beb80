"""The training loop. Read from top to bottom: `train` is the algorithm."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from geex_jax import files, languages
from geex_jax.checkpoints import store
from geex_jax.checkpoints.states import StateStore
from geex_jax.data.batches import eval_batches
from geex_jax.data.loader import Loader
from geex_jax.models import Transformer
from geex_jax.parallel import batch_ways, use_mesh
from geex_jax.training import config as configs
from geex_jax.training import metrics as measures
from geex_jax.training.console import Progress, banner, say_compiled
from geex_jax.training.evaluate import make_evaluator
from geex_jax.training.run import Run
from geex_jax.training.step import (
    TrainState,
    jit_train_step,
    state_shardings,
)

# (model, params, tokenizer, prompts, language per prompt, new tokens) -> completions
Sampler = Callable[[Transformer, Any, Any, list[str], list[str], int], list[str]]


class Beside(Protocol):
    """What works on saved checkpoints while training goes on, and reports when it is done."""

    def poll(self) -> list[tuple[int, dict[str, Any]]]:
        """Returns at once; (step of a checkpoint, figures) of what has been finished."""
        ...

    def close(self, wait: bool) -> list[tuple[int, dict[str, Any]]]:
        """The same, after the newest checkpoint is done with if `wait`."""
        ...


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
) -> Result:
    """Trains, or goes on with training, in `workdir`.

    Args:
      config: see `training.config.default_config`.
      workdir: checkpoints, metrics and samples; an earlier run of the same config resumes.
      sample: makes completions of `config.evaluate.prompts`; none are made without it.
      functional: judges what the checkpoints generate, beside the run; see
        `benchmark.while_training`. No step waits for it.

    Returns:
      The last step and its validation.

    Raises:
      GeexError: whatever does not fit together, before anything is compiled; or too many steps
        in a row that had to be skipped.
    """
    workdir = pathlib.Path(workdir).absolute()
    run = Run(config, workdir)
    checkpoints = StateStore(
        workdir / "checkpoints", config.checkpoint.keep_last, config.checkpoint.keep_best
    )
    state = run.fresh_state()
    store.write_header(
        workdir / "model",
        run.model.config,
        state.params,
        run.tokenizer,
        {"data": str(pathlib.Path(config.data.folder).absolute()), "workdir": str(workdir)},
    )
    step = checkpoints.latest() or 0
    tokens_seen: dict[str, int] = {}
    if step:
        state, tokens_seen = _restore(checkpoints, step, state, run)
    writer = measures.MetricWriter(workdir, step, config.log.wandb)
    say = print if jax.process_index() == 0 else _silent
    banner(run, state, step, say)

    with use_mesh(run.mesh), _stop_requests() as stop:
        update = jit_train_step(run.mesh, state)
        validate = _validator(run, writer, sample, say)
        progress = Progress(run, writer, step, say)
        progress.resume(tokens_seen)
        if step < config.steps:
            began = time.monotonic()
            update = update.lower(state, run.put(_arrays(run.loader.batch(step)))).compile()
            say_compiled(update, time.monotonic() - began, say)
        validation: dict[str, float] = {}
        pending = None
        while step < config.steps and not stop.signal:
            batch = next(run.loader)
            on_mesh = run.put(_arrays(batch))
            with jax.transfer_guard("disallow"):
                state, numbers = update(state, on_mesh)
            step += 1
            # Numbers of the step before are read while this one runs.
            if pending is not None:
                progress.add(*pending)
            pending = (step, numbers, batch)
            last = step == config.steps
            evaluate_now = last or (config.evaluate.every and step % config.evaluate.every == 0)
            save_now = last or (config.checkpoint.every and step % config.checkpoint.every == 0)
            if evaluate_now or save_now:
                progress.add(*pending)
                pending = None
            if evaluate_now:
                validation = validate(state.params, step)
            if save_now:
                score = validation.get("all") if evaluate_now else None
                _save(checkpoints, step, state, run.loader, progress, score)
            if functional is not None and step % config.log.every == 0:
                _write_functional(writer, functional.poll(), say)
        if pending is not None:
            progress.add(*pending)
        if stop.signal:
            checkpoints.wait()  # the step at hand may be on its way to the disk
        if stop.signal and step and checkpoints.latest() != step:
            _save(checkpoints, step, state, run.loader, progress, None)
        checkpoints.close()
        if not validation and not stop.signal:
            validation = validate(state.params, step)
        if functional is not None:
            _write_functional(writer, functional.close(wait=not stop.signal), say)
    writer.close()
    measures.plot_losses(workdir, f"{config.name}: {run.model.config.name}")
    if stop.signal:
        say(f"{stop.signal}: saved step {step}; run the same command to go on")
    else:
        say(f"done: {step} steps, checkpoint in {workdir}, curve in {workdir / 'loss.png'}")
    return Result(step, not stop.signal, validation)


def _silent(*_: Any) -> None:
    """What processes other than the first say."""


def _arrays(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: v for k, v in batch.items() if k != "language"}


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
    kept = loader.get_state() | {"tokens_seen": progress.seen()}
    checkpoints.save(step, state.params, _rest(state), kept, score)


def _restore(
    checkpoints: StateStore, step: int, state: TrainState, run: Run
) -> tuple[TrainState, dict[str, int]]:
    place = state_shardings(run.mesh, state)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, place
    )
    params, rest, loader_state = checkpoints.load(step, shapes.params, _rest(shapes))
    run.loader.set_state(loader_state)
    state = dataclasses.replace(state, params=params, **rest)
    return state, loader_state.get("tokens_seen", {})


class _Stop:
    signal: str = ""


@contextlib.contextmanager
def _stop_requests() -> Iterator[_Stop]:
    """Ctrl-C and SIGTERM end the run after the step at hand; a second Ctrl-C at once."""
    stop = _Stop()

    def ask(number: int, _: Any) -> None:
        if stop.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = signal.Signals(number).name

    old = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread (a notebook's worker): nothing to catch there
        pass
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _validator(
    run: Run, writer: measures.MetricWriter, sample: Sampler | None, say: Any
) -> Callable[[Any, int], dict[str, float]]:
    """Returns what one evaluation does: bits per byte per language, and samples."""
    evaluate = make_evaluator(run.model, run.put)
    config = run.config.evaluate
    names = [language.name for language in run.manifest.languages]
    rows = batch_ways(run.mesh) * max(1, run.config.batch_size // batch_ways(run.mesh))

    def validate(params: Any, step: int) -> dict[str, float]:
        if not run.manifest.total("validation").rows:
            return {}
        batches = eval_batches(
            run.config.data.folder,
            "validation",
            rows,
            max_batches_per_language=(
                config.final_batches or None if step >= run.config.steps else config.batches
            ),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        bits = evaluate(params, batches, run.counter, names)
        complete = step >= run.config.steps and not config.final_batches
        writer.write(step, "validation", {"bits_per_byte": bits, "complete": complete})
        parts = "  ".join(f"{name} {value:.3f}" for name, value in bits.items())
        say(f"validation at step {step}, bits/byte: {parts}", flush=True)
        if sample is not None and config.prompts and jax.process_count() == 1:
            _write_samples(run, writer, sample, params, step)
        return bits

    return validate


def _write_functional(
    writer: measures.MetricWriter, found: list[tuple[int, dict[str, Any]]], say: Any
) -> None:
    for step, table in found:
        writer.write(step, "functional", table)
        for name, values in table.items():
            parts = "  ".join(f"{language} {value:.3f}" for language, value in values.items())
            say(f"checkpoint of step {step}, {name}: {parts}", flush=True)


def _write_samples(
    run: Run, writer: measures.MetricWriter, sample: Sampler, params: Any, step: int
) -> None:
    prompts, tongues = [], []
    for entry in run.config.evaluate.prompts:
        name, colon, text = entry.partition(": ")
        prompts.append(text if colon else entry)
        tongues.append(languages.get(name).name if colon else "")
    texts = sample(
        run.model, params, run.tokenizer, prompts, tongues, run.config.evaluate.sample_tokens
    )
    parts = [f"## Step {step}"]
    for prompt, tongue, text in zip(prompts, tongues, texts, strict=True):
        parts.append(f"{tongue or 'no language tag'}\n\n```\n{prompt}{text}\n```")
    page = "\n\n".join(parts) + "\n\n"
    with open(run.workdir / "samples.md", "a", encoding="utf-8") as file:
        file.write(page)
    writer.text(step, "samples", page)
