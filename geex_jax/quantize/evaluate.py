"""Two parameter trees of one model, compared on the same validation tokens."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.errors import GeexError
from geex_jax.models import Transformer, init_cache

Params = dict[str, Any]
LOGITS_AT_ONCE = 2**24  # float32 elements, 64 MB for each tree


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What changed between a float tree and a quantized one, on validation tokens.

    Attributes:
      tokens: targets that the loss counts.
      text_bytes: bytes of text that these targets stand for.
      bits_per_byte_before, bits_per_byte_after: total nll / ln 2 / text_bytes.
      kl: mean over tokens of KL(float || quantized) between next-token distributions, in nats.
      top1_agreement: share of tokens at which both put the same token first.
    """

    tokens: int
    text_bytes: int
    bits_per_byte_before: float
    bits_per_byte_after: float
    kl: float
    top1_agreement: float

    @property
    def bits_per_byte_change(self) -> float:
        """After minus before."""
        return self.bits_per_byte_after - self.bits_per_byte_before


@functools.partial(jax.jit, static_argnames=("model", "other", "cached"))
def token_costs(
    model: Transformer,
    before: Params,
    after: Params,
    batch: Mapping[str, jax.Array],
    other: Transformer | None = None,
    cached: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Compares next-token distributions, a slice of positions at a time.

    Args:
      model: the decoder.
      before, after: two parameter trees.
      batch: `tokens`, `targets`, `positions`, `segment_ids`, each int32 [B, S].
      other: the decoder that `after` runs in, such as one with int8 activations; by default
        `model`.
      cached: `after` reads keys and values back from a cache of its config's kind. A cache holds
        one text a row: give rows of one segment (see `one_segment`).

    Returns:
      Four float32 [B, S]: nll before, nll after, KL(before || after), 1 where both agree on the
      most likely token.
    """
    inputs = (batch["tokens"], batch["positions"], batch["segment_ids"])
    models = (model, other or model)
    hidden: list[Any] = [model.apply({"params": before}, *inputs, method="hidden")]
    if cached:
        cache = init_cache(models[1].config, *batch["tokens"].shape)
        passed: Any = models[1].apply({"params": after}, inputs[0], kv_cache=cache, method="hidden")
        hidden.append(passed[0])
    else:
        hidden.append(models[1].apply({"params": after}, *inputs, method="hidden"))
    shape = batch["tokens"].shape
    count, width = math.prod(shape), model.config.d_model
    size = max(1, min(count, LOGITS_AT_ONCE // model.config.vocab_size))
    pad = -count % size

    def slices(x: jax.Array) -> jax.Array:
        flat = x.reshape(count, *x.shape[2:])
        return jnp.pad(flat, [(0, pad)] + [(0, 0)] * (flat.ndim - 1)).reshape(
            -1, size, *flat.shape[1:]
        )

    def costs(piece: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        log_probs = []
        for model, params, h in zip(models, (before, after), piece[:2], strict=True):
            logits = model.apply({"params": params}, h.reshape(1, size, width), method="logits")
            assert isinstance(logits, jax.Array)
            log_probs.append(jax.nn.log_softmax(logits[0]))
        p, q = log_probs
        target = piece[2][:, None]
        nll = [-jnp.take_along_axis(x, target, axis=1)[:, 0] for x in log_probs]
        kl = jnp.sum(jnp.exp(p) * (p - q), axis=1)
        same = jnp.argmax(p, axis=1) == jnp.argmax(q, axis=1)
        return *nll, kl, same.astype(jnp.float32)

    out = jax.lax.map(costs, (slices(hidden[0]), slices(hidden[1]), slices(batch["targets"])))
    return tuple(x.reshape(-1)[:count].reshape(shape) for x in out)  # pyright: ignore


def one_segment(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch with each row as one text: positions count through, padding stays padding."""
    segments = (np.asarray(batch["segment_ids"]) > 0).astype(np.int32)
    positions = np.broadcast_to(np.arange(segments.shape[1], dtype=np.int32), segments.shape)
    return {**batch, "segment_ids": segments, "positions": positions}


def compare(
    model: Transformer,
    before: Params,
    after: Params,
    batches: Iterable[Mapping[str, np.ndarray]],
    byte_lengths: np.ndarray,
    other: Transformer | None = None,
    cached: bool = False,
) -> Comparison:
    """Measures what `after` costs against `before` on validation batches.

    Args:
      model: the decoder.
      before, after: float and quantized parameters.
      batches: the loader's dicts (contract in `geex_jax/README.md`).
      byte_lengths: int32 [vocab], bytes of text of each token (`token_byte_lengths()`).
      other, cached: see `token_costs`; `cached` takes each row as one text.

    Raises:
      GeexError: no batch, or none with a counted target that stands for text.
    """
    sums = np.zeros(4)
    tokens = text_bytes = 0
    for batch in batches:
        mask = np.asarray(batch["loss_mask"]) > 0
        batch = one_segment(batch) if cached else batch
        names = ("tokens", "targets", "positions", "segment_ids")
        placed = {k: jnp.asarray(batch[k]) for k in names}
        costs = token_costs(model, before, after, placed, other, cached)
        sums += [np.asarray(c, np.float64)[mask].sum() for c in costs]
        tokens += int(mask.sum())
        text_bytes += int(byte_lengths[np.asarray(batch["targets"])[mask]].sum())
    if not text_bytes:
        raise GeexError("no validation text to compare on", "the validation split is empty")
    bits = sums[:2] / math.log(2) / text_bytes
    kl, agreement = sums[2:] / tokens
    return Comparison(
        tokens, text_bytes, float(bits[0]), float(bits[1]), float(kl), float(agreement)
    )
