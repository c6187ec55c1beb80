"""Held-out bits per byte per language, what int8 would cost, and samples; on any mesh."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from geex_jax.data.manifest import Manifest
from geex_jax.models import Transformer
from geex_jax.parallel import shardings
from geex_jax.quantize.evaluate import token_costs
from geex_jax.quantize.weights import quantize_params
from geex_jax.tokenizers import Tokenizer
from geex_jax.training.loss import Batch, loss_fn


@dataclasses.dataclass(frozen=True)
class ByteCounter:
    """How many bytes of source text the counted targets of a batch stand for.

    Attributes:
      token_bytes: int32 [V], bytes of each token; rows beyond the vocabulary are 0.
      tag_tokens: int32 [languages], tokens of each language's tag line.
    """

    token_bytes: np.ndarray
    tag_tokens: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer, manifest: Manifest, vocab_size: int) -> ByteCounter:
        """Builds the tables for a model of `vocab_size` rows."""
        sizes = np.zeros(vocab_size, np.int32)
        sizes[: tokenizer.vocab_size] = tokenizer.token_byte_lengths()
        tags = np.array([language.tag_tokens for language in manifest.languages], np.int32)
        return cls(sizes, tags)

    def per_row(self, batch: Batch) -> np.ndarray:
        """Bytes of each row's counted targets, int64 [B]."""
        return np.sum(self.token_bytes[batch["targets"]] * (batch["loss_mask"] > 0), axis=1)

    def without_tags(self, batch: Batch) -> Batch:
        """The batch with tag lines masked: the model is told the language, it earns no bits.

        A target at position p + 1 of its segment belongs to the tag if p + 1 < tag tokens.
        """
        tags = self.tag_tokens[batch["language"]][:, None]
        mask = batch["loss_mask"] * (batch["positions"] + 1 >= tags)
        return {**batch, "loss_mask": mask.astype(np.float32)}


def _row_losses(params: Any, batch: Batch, model: Transformer) -> jax.Array:
    # float32 [B], nats
    _, aux = loss_fn(params, batch, model)
    return jnp.sum(aux["nll"] * batch["loss_mask"], axis=1)


def on_every_process(function: Any, mesh: Mesh | None) -> Any:
    """Jits a function whose (small) results each process of a mesh reads whole."""
    place = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jax.jit(function, out_shardings=place)


def make_evaluator(model: Transformer, put: Any = None, mesh: Mesh | None = None) -> Any:
    """Returns `evaluate(params, batches, counter, languages) -> {language: bits per byte}`.

    Args:
      model: the decoder.
      put: places a whole host batch on the mesh; jax.device_put by default.
      mesh: where the parameters lie, if on one.
    """
    run = on_every_process(functools.partial(_row_losses, model=model), mesh)
    put = put or jax.device_put

    def evaluate(
        params: Any, batches: Iterable[Batch], counter: ByteCounter, languages: list[str]
    ) -> dict[str, float]:
        """Bits per byte of each language and of "all", tag lines left out."""
        nats = np.zeros(len(languages))
        size = np.zeros(len(languages))
        for batch in batches:
            batch = counter.without_tags(batch)
            losses = run(params, put({k: v for k, v in batch.items() if k != "language"}))
            np.add.at(nats, batch["language"], np.asarray(jax.device_get(losses), np.float64))
            np.add.at(size, batch["language"], counter.per_row(batch))
        out = {
            name: float(n / math.log(2) / s)
            for name, n, s in zip(languages, nats, size, strict=True)
            if s
        }
        if size.sum():
            out["all"] = float(nats.sum() / math.log(2) / size.sum())
        return out

    return evaluate


def make_drift(model: Transformer, mesh: Mesh, put: Any) -> Any:
    """Returns `drift(params, batches, counter) -> {figure: value}`: what int8 weights would cost.

    Figures: `kl` (nats a token, KL of the float against the int8 distribution), `bits_per_byte`
    of both, `change` (int8 minus float) and `top1` (share of tokens where both agree).

    Args:
      model: the decoder.
      mesh: where the parameters lie; the int8 ones are made in the same places, a layer at a time.
      put: places a whole host batch on it.
    """

    def quantized(params: Any) -> Any:
        abstract = jax.eval_shape(quantize_params, params)
        return jax.jit(quantize_params, out_shardings=shardings(mesh, abstract))(params)

    def sums(before: Any, after: Any, batch: Batch) -> jax.Array:
        costs = token_costs(model, before, after, batch)
        counts = batch["loss_mask"] > 0
        return jnp.stack([jnp.sum(jnp.where(counts, c, 0)) for c in costs])

    run = on_every_process(sums, mesh)

    def drift(params: Any, batches: Iterable[Batch], counter: ByteCounter) -> dict[str, float]:
        after = quantized(params)
        total, tokens, size = np.zeros(4), 0, 0
        for batch in batches:
            batch = counter.without_tags(batch)
            placed = put({k: v for k, v in batch.items() if k != "language"})
            total += np.asarray(jax.device_get(run(params, after, placed)), np.float64)
            tokens += int(np.sum(batch["loss_mask"] > 0))
            size += int(counter.per_row(batch).sum())
        if not size:
            return {}
        before, now = total[:2] / math.log(2) / size
        return {
            "kl": float(total[2] / tokens),
            "bits_per_byte_float": float(before),
            "bits_per_byte_int8": float(now),
            "change": float(now - before),
            "top1": float(total[3] / tokens),
        }

    return drift


def make_greedy(model: Transformer, mesh: Mesh, put: Any) -> Any:
    """Returns `greedy(params, ids, rows, new_tokens) -> continuations`, for a model on a mesh.

    Without a cache, each token by a whole forward pass: a few samples while training, on any
    number of processes.

    Args:
      model: the decoder.
      mesh: where the parameters lie.
      put: places a whole host batch of `rows` rows on it.
    """

    def run(params: Any, batch: Batch, new_tokens: jax.Array) -> jax.Array:
        def body(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            tokens, length = carry
            hidden: Any = model.apply({"params": params}, tokens, method="hidden")
            last = jnp.take_along_axis(hidden, (length - 1)[:, None, None], axis=1)
            last = jnp.repeat(last, mesh.shape.get("sequence", 1), axis=1)  # it splits positions
            logits: Any = model.apply({"params": params}, last, method="logits")
            new = jnp.argmax(logits[:, 0], axis=-1).astype(tokens.dtype)
            rows = jnp.arange(tokens.shape[0])
            return tokens.at[rows, length].set(new, mode="drop"), length + 1

        start = (batch["tokens"], batch["length"][:, 0])
        return jax.lax.fori_loop(0, new_tokens, body, start)[0]

    compiled = on_every_process(run, mesh)

    def greedy(params: Any, ids: list[list[int]], rows: int, new_tokens: int) -> list[list[int]]:
        if len(ids) > rows:
            return greedy(params, ids[:rows], rows, new_tokens) + greedy(
                params, ids[rows:], rows, new_tokens
            )
        # One size for all prompts, so that one program is compiled; a multiple of any mesh axis.
        room = model.config.context_length - new_tokens
        ids = [x[-room:] for x in ids]
        width = min(model.config.context_length, -(-max(map(len, ids)) // 64) * 64 + new_tokens)
        width = min(model.config.context_length, -(-width // 64) * 64)
        tokens = np.zeros((rows, width), np.int32)
        length = np.ones((rows, width), np.int32)
        for row, prompt in enumerate(ids):
            tokens[row, : len(prompt)] = prompt
            length[row] = len(prompt)
        placed = put({"tokens": tokens, "length": length})
        found = jax.device_get(compiled(params, placed, np.int32(new_tokens)))
        return [
            found[row, len(prompt) : len(prompt) + new_tokens].tolist()
            for row, prompt in enumerate(ids)
        ]

    return greedy
