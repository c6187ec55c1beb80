"""Held-out bits per byte, per language."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.data.manifest import Manifest
from geex_jax.models import Transformer
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


def _row_losses(params: Any, batch: Batch, model: Transformer) -> tuple[jax.Array, jax.Array]:
    _, aux = loss_fn(params, batch, model)
    mask = batch["loss_mask"]
    return jnp.sum(aux["nll"] * mask, axis=1), jnp.sum(mask, axis=1)


def make_evaluator(model: Transformer, put: Any = None) -> Any:
    """Returns `evaluate(params, batches, counter, languages) -> {language: bits per byte}`.

    Args:
      model: the decoder.
      put: places a host batch on the mesh; jax.device_put by default.
    """
    run = jax.jit(functools.partial(_row_losses, model=model))
    put = put or jax.device_put

    def evaluate(
        params: Any, batches: Iterable[Batch], counter: ByteCounter, languages: list[str]
    ) -> dict[str, float]:
        """Bits per byte of each language and of "all", tag lines left out."""
        nats = np.zeros(len(languages))
        size = np.zeros(len(languages))
        for batch in batches:
            batch = counter.without_tags(batch)
            losses, _ = run(params, put({k: v for k, v in batch.items() if k != "language"}))
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
