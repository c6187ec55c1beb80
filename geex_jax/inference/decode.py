"""Prefill and decode, compiled: token ids in, token ids out, for float and int8 weights alike.

One call of `_prefill` runs all prompts, padded on the right, and draws each row's first token;
`_decode` is one `lax.while_loop` that carries the cache and draws the rest. Prompt length and
cache slots are rounded up to a few sizes, so that few programs are compiled; sampling settings,
lengths and limits are values, not shapes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.errors import GeexError
from geex_jax.inference.sampling import BANNED, Sampling, make_sampling, row_keys, sample
from geex_jax.models import KVCache, ModelConfig, Transformer, init_cache

Params = dict[str, Any]
NO_EOS = -1
QUANTIZED = ("kernel_int8", "kernel_int4", "tokens_int8")


@flax.struct.dataclass
class DecodeState:
    """What the loop carries.

    Attributes:
      cache: keys and values of every token but each row's last.
      last: int32 [B], the last token drawn, not yet in the cache.
      drawn: int32 [B], tokens drawn in each row, an eos included.
      finished: bool [B]: eos drawn, budget spent, or stopped from outside.
      output: int32 [B, N], the tokens drawn.
    """

    cache: KVCache
    last: jax.Array
    drawn: jax.Array
    finished: jax.Array
    output: jax.Array


@flax.struct.dataclass
class Request:
    """What stays the same through the loop.

    Attributes:
      budget: int32 [B], tokens that a row may draw.
      eos: int32 [], the id that ends a row, or -1.
      override: float32 [V], logits that replace the model's; 0 leaves them.
      keys: PRNG keys [B].
      sampling: settings for each row.
    """

    budget: jax.Array
    eos: jax.Array
    override: jax.Array
    keys: jax.Array
    sampling: Sampling


@functools.partial(jax.jit, static_argnames=("model", "slots", "width"))
def _prefill(
    model: Transformer,
    params: Params,
    tokens: jax.Array,
    lengths: jax.Array,
    request: Request,
    *,
    slots: int,
    width: int,
) -> DecodeState:
    batch_size = tokens.shape[0]
    cache = init_cache(model.config, batch_size, slots)
    # The vocabulary is wide: logits of each row's last token only.
    passed: Any = model.apply({"params": params}, tokens, lengths, cache, True, method="prefill")
    logits, cache = passed
    zeros = jnp.zeros((batch_size,), jnp.int32)
    state = DecodeState(
        cache,
        zeros,
        zeros,
        request.budget <= 0,
        jnp.zeros((batch_size, width), jnp.int32),
    )
    return _draw(state, logits, request)


@functools.partial(jax.jit, static_argnames=("model",), donate_argnames=("state",))
def _decode(
    model: Transformer, params: Params, state: DecodeState, request: Request, steps: jax.Array
) -> DecodeState:
    """Runs up to `steps` (int32 []) steps, fewer if all rows finish."""

    def running(carry: tuple[jax.Array, DecodeState]) -> jax.Array:
        return (carry[0] < steps) & ~jnp.all(carry[1].finished)

    def step(carry: tuple[jax.Array, DecodeState]) -> tuple[jax.Array, DecodeState]:
        count, state = carry
        tied, tokens = pin_quantized(params, state.last[:, None])
        passed: Any = model.apply({"params": tied}, tokens, kv_cache=state.cache)
        logits, cache = passed
        # A finished row stays where it is, so that its writes never run past its slots.
        length = jnp.where(state.finished, state.cache.length, cache.length)
        state = dataclasses.replace(state, cache=dataclasses.replace(cache, length=length))
        return count + 1, _draw(state, logits[:, 0], request)

    return jax.lax.while_loop(running, step, (jnp.int32(0), state))[1]


def _draw(state: DecodeState, logits: jax.Array, request: Request) -> DecodeState:
    logits = jnp.where(request.override == 0, logits, request.override)
    # A row's n-th draw depends on its key and n alone, not on how the loop is cut into calls.
    keys = jax.vmap(jax.random.fold_in)(request.keys, state.drawn)
    token = sample(keys, logits, request.sampling)
    rows = jnp.arange(token.shape[0])
    column = jnp.where(state.finished, state.output.shape[1], state.drawn)
    drawn = state.drawn + ~state.finished
    ends = (token == request.eos) | (drawn >= request.budget)
    return dataclasses.replace(
        state,
        last=jnp.where(state.finished, state.last, token),
        drawn=drawn,
        finished=state.finished | ends,
        output=state.output.at[rows, column].set(token, mode="drop"),
    )


def pin_quantized(params: Params, value: jax.Array) -> tuple[Params, jax.Array]:
    """Ties quantized kernels outside the scanned stack to a value that changes in every step.

    XLA moves what does not change out of a loop. The conversion of an int8 kernel to float is
    such a thing, and would leave a float copy of the kernel in memory for the whole loop. Kernels
    of the scanned stack are sliced by layer inside an inner loop and need no tie.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    loose = [
        i
        for i, (path, _) in enumerate(leaves)
        if path[0].key != "layers" and path[-1].key in QUANTIZED
    ]
    if not loose:
        return params, value
    values = [leaf for _, leaf in leaves]
    *tied, value = jax.lax.optimization_barrier((*(values[i] for i in loose), value))
    for i, leaf in zip(loose, tied, strict=True):
        values[i] = leaf
    return jax.tree_util.tree_unflatten(treedef, values), value


class Decoding:
    """One batch of prompts on its way: prefilled at once, then advanced a few steps at a time.

    Attributes:
      budget: int [B], tokens each row may still draw at the start.
    """

    def __init__(
        self,
        model: Transformer,
        params: Params,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int = 128,
        temperature: float | Sequence[float] = 0.0,
        top_k: int | Sequence[int] = 0,
        top_p: float | Sequence[float] = 0.0,
        seed: int = 0,
        eos_id: int | None = None,
        banned: Iterable[int] = (),
        vocab_limit: int | None = None,
        first_row: int = 0,
    ):
        config = model.config
        lengths = check_prompts(prompts, config)
        if max_new_tokens < 1:
            raise GeexError(f"max_new_tokens = {max_new_tokens}", "give a number above 0")
        self.budget = np.minimum(max_new_tokens, config.context_length - lengths)
        rows = jnp.arange(first_row, first_row + len(prompts), dtype=jnp.uint32)
        self._model, self._params = model, params
        self._request = Request(
            jnp.asarray(self.budget, jnp.int32),
            jnp.asarray(NO_EOS if eos_id is None else eos_id, jnp.int32),
            override(config.vocab_size, banned, vocab_limit),
            row_keys(seed, rows),
            make_sampling(len(prompts), config.vocab_size, temperature, top_k, top_p),
        )
        padded = bucket(int(lengths.max()), config.context_length)
        tokens = np.zeros((len(prompts), padded), np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        self._state = _prefill(
            model,
            params,
            jnp.asarray(tokens),
            jnp.asarray(lengths, jnp.int32),
            self._request,
            slots=max(padded, bucket(int((lengths + self.budget).max()), config.context_length)),
            width=bucket(int(self.budget.max()), config.context_length),
        )

    def advance(self, steps: int, stop: np.ndarray | None = None) -> None:
        """Draws up to `steps` more tokens in every unfinished row; `stop` bool [B] ends rows."""
        if stop is not None:
            finished = self._state.finished | jnp.asarray(stop)
            self._state = dataclasses.replace(self._state, finished=finished)
        # The state is given up to the call, which writes its cache in place.
        self._state = _decode(
            self._model, self._params, self._state, self._request, jnp.asarray(steps, jnp.int32)
        )

    def tokens(self) -> list[list[int]]:
        """All tokens drawn so far, an eos included; waits for the device."""
        output, drawn = jax.device_get((self._state.output, self._state.drawn))
        return [row[:n].tolist() for row, n in zip(output, drawn, strict=True)]

    def finished(self) -> np.ndarray:
        """Bool [B], rows that draw no more."""
        return np.asarray(self._state.finished)


def generate_tokens(
    model: Transformer,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 128,
    on_tokens: Callable[[list[list[int]]], None] | None = None,
    **settings: Any,
) -> list[list[int]]:
    """Continues prompts given as ids.

    Args:
      model: the decoder.
      params: float or quantized parameters.
      prompts: one or more lists of at least one id, of any lengths below the context.
      max_new_tokens: most tokens for a row; a row also ends when the context is full.
      on_tokens: called with all tokens drawn so far, after every 16 steps.
      **settings: `temperature`, `top_k`, `top_p` (each a number or one for each row), `seed`,
        `eos_id` (None: no token ends a row), `banned` (ids whose logits become -10000, as in the
        official code), `vocab_limit` (ids at or above it are never drawn), `first_row` (number of
        the first row: row r draws the same alone or in a batch).

    Returns:
      For each prompt the new ids, ending with eos if that was drawn.

    Raises:
      GeexError: no prompt, an empty one, one that leaves no room, ids or settings out of range.
    """
    decoding = Decoding(model, params, prompts, max_new_tokens=max_new_tokens, **settings)
    if on_tokens is None:
        decoding.advance(int(decoding.budget.max()))
        return decoding.tokens()
    while not decoding.finished().all():
        decoding.advance(16)
        on_tokens(decoding.tokens())
    return decoding.tokens()


def bucket(length: int, limit: int) -> int:
    """Rounds up to 16, 32, 64, 128 or a multiple of 128, but not beyond `limit`."""
    size = next((s for s in (16, 32, 64) if s >= length), -(-length // 128) * 128)
    return min(size, limit)


def check_prompts(prompts: Sequence[Sequence[int]], config: ModelConfig) -> np.ndarray:
    """Returns the prompts' lengths, int [B].

    Raises:
      GeexError: no prompt, an empty one, one that leaves no room, an id outside the vocabulary.
    """
    if not len(prompts):
        raise GeexError("no prompt given", "give at least one")
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise GeexError(f"prompt {i} is empty", "give at least one token")
        if len(prompt) >= config.context_length:
            raise GeexError(
                f"prompt {i} has {len(prompt)} tokens, and the context {config.context_length}",
                f"shorten it to {config.context_length - 1} or fewer",
            )
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise GeexError(
                f"prompt {i} holds an id outside 0..{config.vocab_size - 1}",
                "was it made by this model's tokenizer?",
            )
    return np.array([len(p) for p in prompts])


def override(vocab_size: int, banned: Iterable[int], limit: int | None) -> jax.Array:
    """Logits float32 [V] that replace the model's: -inf from `limit` on, -10000 where banned.

    Raises:
      GeexError: a banned id outside the vocabulary.
    """
    values = np.zeros(vocab_size, np.float32)
    if limit is not None:
        values[limit:] = -np.inf
    for token in banned:
        if not 0 <= token < vocab_size:
            raise GeexError(f"banned id {token} is outside 0..{vocab_size - 1}", "leave it out")
        values[token] = min(values[token], BANNED)
    return jnp.asarray(values)
