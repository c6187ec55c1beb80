"""The training loop. Read from top to bottom: `train` is the algorithm."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from geex_jax import files, languages, tokenizers
from geex_jax.checkpoints import Loaded, load_model, store
from geex_jax.checkpoints.states import StateStore
from geex_jax.data import manifest as manifests
from geex_jax.data.batches import eval_batches
from geex_jax.data.loader import Loader, make_loader
from geex_jax.errors import GeexError
from geex_jax.models import Transformer
from geex_jax.parallel import batch_sharding, batch_ways, make_mesh, use_mesh
from geex_jax.training import config as configs
from geex_jax.training import metrics as measures
from geex_jax.training.evaluate import ByteCounter, make_evaluator
from geex_jax.training.optimizer import make_optimizer, schedule
from geex_jax.training.step import (
    TrainState,
    init_state,
    jit_train_step,
    sharded_init,
    state_shardings,
)

# (model, params, tokenizer, prompts, language per prompt, new tokens) -> completions
Sampler = Callable[[Transformer, Any, Any, list[str], list[str], int], list[str]]


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


class Run:
    """What a run consists of once everything has been checked, before anything is compiled."""

    def __init__(self, config: ConfigDict, workdir: pathlib.Path):
        self.config, self.workdir = config, workdir
        if not config.data.folder:
            raise GeexError("config.data.folder is empty", "name a folder that geex prepare wrote")
        self.manifest = manifests.load(config.data.folder)
        self.tokenizer = tokenizers.load(pathlib.Path(config.data.folder) / "tokenizer")
        if self.tokenizer.fingerprint() != self.manifest.tokenizer.fingerprint:
            raise GeexError(
                f"the tokenizer in {config.data.folder} is not the one that made its rows",
                "run geex prepare again",
            )
        self.seq_len = self.manifest.seq_len
        vocab = self.manifest.tokenizer.vocab_size
        self.start = self._fine_tuned_from(config, vocab)
        if self.start is None:
            self.model = Transformer(configs.model_config(config, vocab, self.seq_len))
        else:
            self.model = Transformer(
                self.start.config.replace(
                    dropout=config.model.dropout, dtype=config.model.dtype, remat=config.model.remat
                )
            )
        self.optimizer_config = configs.optimizer_config(config)
        self.step_config = configs.step_config(config)
        self.mesh = make_mesh(config.mesh.to_dict())
        configs.check_batch(config, batch_ways(self.mesh))
        self.loader = make_loader(
            config.data.folder,
            "train",
            batch_size=config.batch_size,
            seed=config.seed,
            alpha=config.data.alpha,
            weights=config.data.weights.to_dict() or None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            prefetch=config.data.prefetch,
        )
        self.counter = ByteCounter.of(self.tokenizer, self.manifest, self.model.config.vocab_size)
        self._check_workdir()

    def _fine_tuned_from(self, config: ConfigDict, vocab: int) -> Loaded | None:
        if not config.init_from:
            return None
        loaded = load_model(config.init_from)
        found = loaded.tokenizer.fingerprint() if loaded.tokenizer else "none"
        if found != self.manifest.tokenizer.fingerprint:
            raise GeexError(
                f"vocabulary of {config.init_from} ({found}) is not the data's "
                f"({self.manifest.tokenizer.fingerprint}, {vocab} pieces)",
                f"run geex prepare with --tokenizer {config.init_from}/tokenizer",
            )
        if loaded.config.context_length < self.seq_len:
            raise GeexError(
                f"rows of {self.seq_len} tokens exceed the model's context of "
                f"{loaded.config.context_length}",
                f"run geex prepare with --seq-len {loaded.config.context_length}",
            )
        return loaded

    def _check_workdir(self) -> None:
        path = self.workdir / "experiment.json"
        mine = json.loads(json.dumps(self.config.to_dict(), default=list))
        mine["data_fingerprint"] = self.manifest.fingerprint
        if path.is_file():
            changes = configs.same_run(json.loads(path.read_text()), mine)
            if changes:
                raise GeexError(
                    f"{self.workdir} holds a run of another config ({'; '.join(changes[:3])})",
                    "choose another --workdir, or use the old values",
                )
        elif self.workdir.is_dir() and any(self.workdir.iterdir()):
            raise GeexError(
                f"{self.workdir} is not empty and no workdir", "choose another --workdir"
            )
        else:
            files.write_json(path, mine)

    def fresh_state(self) -> TrainState:
        """A state at step 0, born in its places on the mesh."""
        params = None if self.start is None else self.start.params
        optimizer = make_optimizer(self.optimizer_config)
        return sharded_init(
            self.mesh,
            lambda: init_state(
                self.model, optimizer, self.config.seed, self.step_config, params=params
            ),
        )

    def put(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Places this process's rows on the mesh."""
        place = batch_sharding(self.mesh)
        return {k: jax.make_array_from_process_local_data(place, v) for k, v in batch.items()}


def train(config: ConfigDict, workdir: files.Path, sample: Sampler | None = None) -> Result:
    """Trains, or goes on with training, in `workdir`.

    Args:
      config: see `training.config.default_config`.
      workdir: checkpoints, metrics and samples; an earlier run of the same config resumes.
      sample: makes completions of `config.evaluate.prompts`; none are made without it.

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
    if step:
        state = _restore(checkpoints, step, state, run)
    writer = measures.MetricWriter(workdir, step)
    say = print if jax.process_index() == 0 else _silent
    _banner(run, state, step, say)

    with use_mesh(run.mesh), _stop_requests() as stop:
        update = jit_train_step(run.mesh, state)
        validate = _validator(run, writer, sample, say)
        progress = _Progress(run, writer, step, say)
        if step < config.steps:
            began = time.monotonic()
            update = update.lower(state, run.put(_arrays(run.loader.batch(step)))).compile()
            _say_compiled(update, time.monotonic() - began, say)
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
                _save(checkpoints, step, state, run.loader, score)
        if pending is not None:
            progress.add(*pending)
        if stop.signal and step and checkpoints.latest() != step:
            _save(checkpoints, step, state, run.loader, None)
        checkpoints.close()
        if not validation and not stop.signal:
            validation = validate(state.params, step)
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
    checkpoints: StateStore, step: int, state: TrainState, loader: Loader, score: float | None
) -> None:
    checkpoints.save(step, state.params, _rest(state), loader.get_state(), score)


def _restore(checkpoints: StateStore, step: int, state: TrainState, run: Run) -> TrainState:
    place = state_shardings(run.mesh, state)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, place
    )
    params, rest, loader_state = checkpoints.load(step, shapes.params, _rest(shapes))
    run.loader.set_state(loader_state)
    return dataclasses.replace(state, params=params, **rest)


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


class _Progress:
    """Reads the numbers of a step, writes them, prints a line, stops a run that cannot learn."""

    def __init__(self, run: Run, writer: measures.MetricWriter, step: int, say: Any):
        self.run, self.writer, self.say = run, writer, say
        self.skipped_in_a_row = 0
        self.peak, _ = measures.peak_flops(run.model.config.dtype)
        self.flops = measures.flops_per_token(run.model.config, run.seq_len)
        self.lr = schedule(run.optimizer_config)
        self.first = self.last_step = step
        self.began = self.last_time = time.monotonic()

    def add(self, step: int, numbers: dict[str, jax.Array], batch: dict[str, np.ndarray]) -> None:
        """Takes the numbers of a step that has been dispatched."""
        values = {k: float(v) for k, v in jax.device_get(numbers).items()}
        self._mind_skips(step, values)
        row = {
            "loss": values["loss"],
            "bits_per_byte": self._bits_per_byte(values["loss"], batch),
            "grad_norm": values["grad_norm"],
            "lr": float(np.asarray(self.lr(step - 1))),
            "skipped": values["skipped"],
        }
        config = self.run.config
        if step % config.log.every == 0 or step == config.steps:
            row |= self._speed(step)
            self.say(
                f"step {step:>6}/{config.steps}  loss {row['loss']:.4f}  "
                f"{row['bits_per_byte']:.3f} bits/byte  grad {row['grad_norm']:.2f}  "
                f"lr {row['lr']:.2e}  {row['tokens_per_second']:,.0f} tokens/s  "
                f"MFU {row['mfu']:.1%}  {files.seconds(row['seconds_left'])} left",
                flush=True,
            )
        self.writer.write(step, "train", row)

    def _bits_per_byte(self, loss: float, batch: dict[str, np.ndarray]) -> float:
        # With several processes this is the bits per byte of this process's rows' byte count.
        tokens = float(np.sum(batch["loss_mask"]))
        size = float(np.sum(self.run.counter.per_row(batch)))
        return loss * tokens / math.log(2) / max(size, 1.0)

    def _mind_skips(self, step: int, values: dict[str, float]) -> None:
        if not values["skipped"]:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        if values["not_finite"]:
            what = f"loss {values['loss']}, gradient norm {values['grad_norm']}: not finite"
        else:
            what = (
                f"spike: loss {values['loss']:.3f} (limit {values['limit']:.3f}), "
                f"gradient norm {values['grad_norm']:.3g}"
            )
        self.say(f"step {step} skipped, parameters unchanged: {what}", file=sys.stderr)
        if self.skipped_in_a_row >= self.run.config.skip.stop_after:
            raise GeexError(
                f"{self.skipped_in_a_row} steps in a row had to be skipped, the last one {step} "
                f"({what})",
                "lower optimizer.lr or look at the data; the last checkpoint is good",
            )

    def _speed(self, step: int) -> dict[str, float]:
        now, config = time.monotonic(), self.run.config
        rows = config.batch_size * self.run.seq_len
        rate = rows * (step - self.last_step) / max(now - self.last_time, 1e-9)
        mfu = rate * self.flops / (self.peak * self.run.mesh.size)
        self.last_step, self.last_time = step, now
        left = (config.steps - step) * (now - self.began) / max(step - self.first, 1)
        return {"tokens_per_second": rate, "mfu": mfu, "seconds_left": left}


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
        writer.write(step, "validation", {"bits_per_byte": bits})
        parts = "  ".join(f"{name} {value:.3f}" for name, value in bits.items())
        say(f"validation at step {step}, bits/byte: {parts}", flush=True)
        if sample is not None and config.prompts and jax.process_count() == 1:
            _write_samples(run, writer, sample, params, step)
        return bits

    return validate


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


def _banner(run: Run, state: TrainState, step: int, say: Any) -> None:
    config, shape, total = run.config, run.model.config, run.manifest.total("train")
    count = sum(x.size for x in jax.tree.leaves(state.params))
    held = sum(x.nbytes for x in jax.tree.leaves(state)) / run.mesh.shape["fsdp"]
    held /= run.mesh.shape["tensor"]
    _, source = measures.peak_flops(shape.dtype)
    sizes = " x ".join(f"{name} {size}" for name, size in run.mesh.shape.items())
    tokens = config.batch_size * run.seq_len
    say(
        f"experiment  {config.name} in {run.workdir}\n"
        f"model       {shape.name}: {count:,} parameters, {shape.num_layers} layers"
        f"{' + top query layer' if shape.top_query_layer else ''} of {shape.d_model}, "
        f"vocabulary {shape.vocab_size}, computing in {shape.dtype}\n"
        f"mesh        {sizes} ({run.mesh.devices.flat[0].device_kind}, "
        f"{jax.process_count()} process(es))\n"
        f"data        {config.data.folder} ({run.manifest.fingerprint}): {total.tokens:,} tokens, "
        f"{len(run.manifest.splits.get('train', {}))} languages\n"
        f"step        {config.batch_size} rows x {run.seq_len} = {tokens:,} tokens, "
        f"{config.steps} steps = {config.steps * tokens / max(total.tokens, 1):.2f} epochs\n"
        f"memory      about {held / 1e6:,.0f} MB per device for parameters and optimizer\n"
        f"MFU         6 FLOPs per matmul parameter and token + full-square attention, over the "
        f"{source}\n" + (f"resuming    at step {step}" if step else "starting    at step 0"),
        flush=True,
    )


def _say_compiled(program: Any, spent: float, say: Any) -> None:
    memory = program.memory_analysis()
    if memory is None:  # some backends do not tell
        say(f"compiled    in {spent:.0f} s", flush=True)
        return
    say(
        f"compiled    in {spent:.0f} s; the compiler predicts "
        f"{(memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e6:,.0f} MB per device: "
        f"{memory.argument_size_in_bytes / 1e6:,.0f} state and batch, "
        f"{memory.temp_size_in_bytes / 1e6:,.0f} temporaries",
        flush=True,
    )
