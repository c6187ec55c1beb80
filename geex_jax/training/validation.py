"""What is looked at while training goes on: held-out text, samples, int8 drift, pass@k."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from geex_jax import languages
from geex_jax.data.batches import Batch, eval_batches
from geex_jax.models import Transformer
from geex_jax.parallel import batch_sharding, batch_ways
from geex_jax.parallel.placing import put
from geex_jax.training.evaluate import make_drift, make_evaluator, make_greedy
from geex_jax.training.metrics import MetricWriter
from geex_jax.training.run import Run

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


def validator(
    run: Run, writer: MetricWriter, sample: Sampler | None, say: Any
) -> Callable[[Any, int], dict[str, float]]:
    """Returns what one evaluation does: bits per byte per language, samples, int8 drift.

    Every process reads the whole held-out batch and places its part of it, so the figures do not
    depend on how many processes there are.
    """
    config = run.config.evaluate
    rows = batch_ways(run.mesh) * max(1, run.config.batch_size // batch_ways(run.mesh))
    everything = np.arange(rows)

    def place(batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        return put(batch, batch_sharding(run.mesh), everything, rows)

    def batches(limit: int | None) -> Iterator[Batch]:
        return eval_batches(
            run.config.data.folder, "validation", rows, max_batches_per_language=limit
        )

    evaluate = make_evaluator(run.model, place, run.mesh)
    drift = make_drift(run.model, run.mesh, place)
    greedy = make_greedy(run.model, run.mesh, place)
    names = [language.name for language in run.manifest.languages]

    def validate(params: Any, step: int) -> dict[str, float]:
        if not run.manifest.total("validation").rows:
            return {}
        last = step >= run.config.steps
        limit = config.final_batches or None if last else config.batches
        bits = evaluate(params, batches(limit), run.counter, names)
        complete = last and not config.final_batches
        writer.write(step, "validation", {"bits_per_byte": bits, "complete": complete})
        parts = "  ".join(f"{name} {value:.3f}" for name, value in bits.items())
        say(f"validation at step {step}, bits/byte: {parts}", flush=True)
        if config.int8_every and (step % config.int8_every == 0 or last):
            found = drift(params, batches(config.batches), run.counter)
            writer.write(step, "int8", found)
            say(
                f"int8 at step {step}: {found['change']:+.4f} bits/byte, KL {found['kl']:.2e} "
                f"nats/token, same first choice {found['top1']:.1%}",
                flush=True,
            )
        if sample is not None and config.prompts:
            _write_samples(run, writer, sample, greedy, rows, params, step)
        return bits

    return validate


def write_functional(
    writer: MetricWriter, found: list[tuple[int, dict[str, Any]]], say: Any
) -> None:
    """Writes and says what has been found of checkpoints."""
    for step, table in found:
        writer.write(step, "functional", table)
        for name, values in table.items():
            parts = "  ".join(f"{language} {value:.3f}" for language, value in values.items())
            say(f"checkpoint of step {step}, {name}: {parts}", flush=True)


def _write_samples(
    run: Run,
    writer: MetricWriter,
    sample: Sampler,
    greedy: Any,
    rows: int,
    params: Any,
    step: int,
) -> None:
    prompts, tongues = [], []
    for entry in run.config.evaluate.prompts:
        name, colon, text = entry.partition(": ")
        prompts.append(text if colon else entry)
        tongues.append(languages.get(name).name if colon else "")
    count = run.config.evaluate.sample_tokens
    if run.mesh.size == 1:
        texts = sample(run.model, params, run.tokenizer, prompts, tongues, count)
    else:  # the sampler's cache and request live on one device
        texts = _greedy_texts(run, greedy, rows, params, prompts, tongues)
    if jax.process_index() != 0:
        return
    parts = [f"## Step {step}"]
    for prompt, tongue, text in zip(prompts, tongues, texts, strict=True):
        parts.append(f"{tongue or 'no language tag'}\n\n```\n{prompt}{text}\n```")
    page = "\n\n".join(parts) + "\n\n"
    with open(run.workdir / "samples.md", "a", encoding="utf-8") as file:
        file.write(page)
    writer.text(step, "samples", page)


def _greedy_texts(
    run: Run, greedy: Any, rows: int, params: Any, prompts: list[str], tongues: list[str]
) -> list[str]:
    """What the sampler would say at temperature 0."""
    tokenizer, texts = run.tokenizer, []
    ids = []
    for prompt, tongue in zip(prompts, tongues, strict=True):
        head = languages.get(tongue).tag + "\n" if tongue else ""
        ids.append(tokenizer.encode(head + prompt) or [tokenizer.eos_id])
    new = greedy(params, ids, rows, run.config.evaluate.sample_tokens)
    for before, after in zip(ids, new, strict=True):
        known = [token for token in after if token < tokenizer.vocab_size]
        if tokenizer.eos_id in known:
            known = known[: known.index(tokenizer.eos_id)]
        texts.append(tokenizer.decode([*before, *known])[len(tokenizer.decode(before)) :])
    return texts
