"""One turn of the engine: let in, read prompts, draw tokens."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from geex_jax.inference import logprobs, prefix, speculative, steps
from geex_jax.inference.programs import fitting
from geex_jax.inference.requests import Piece, SamplingParams, TokenLogprob
from geex_jax.inference.scheduler import Sequence, held
from geex_jax.inference.state import settings_of

if TYPE_CHECKING:
    from geex_jax.inference.engine import Engine

SLOW_GUESSES = 0.1  # guesses that are right more seldom than this are not worth a wider step


class Turns:
    """What the engine's thread does, over its scheduler and programs.

    Attributes:
      kept_blocks: blocks in the prefix cache.
    """

    def __init__(self, engine: Engine):
        self._engine, self._config = engine, engine.config
        self._sizes, self._programs = engine.sizes, engine.programs
        self._scheduler, self._statistics = engine.scheduler, engine.statistics
        self._trie: prefix.Trie | None = None
        self._filler = 0
        self._seconds: dict[tuple[int, int], float] = {}

    @property
    def kept_blocks(self) -> int:
        """Blocks in the prefix cache."""
        return 0 if self._trie is None else len(self._trie)

    def reset(self) -> None:
        """An empty device: fresh state, nothing kept."""
        config = self._config
        block = self._sizes.block
        blocks = self._programs.reset(
            config.slots, self._sizes.context, config.prefix_cache_bytes, block
        )
        self._filler = blocks
        self._trie = prefix.Trie(blocks, block) if blocks else None
        for row in self._scheduler.rows:
            row.held = []

    def take(self) -> None:
        """One turn."""
        for sequence, reason in self._scheduler.ended():
            self._keep(sequence)
            self._engine.finish(sequence, reason)
        self._admit()
        self._read_prompts()
        self._draw()

    # Letting in

    def _admit(self) -> None:
        for sequence in list(self._scheduler.waiting):
            row = self._scheduler.free_row()
            if row is None:
                return
            leader = sequence.leader
            if leader is not None and leader.phase in ("waiting", "prefill"):
                continue  # its prompt is being read
            self._scheduler.waiting.remove(sequence)
            row, ready = self._reuse(sequence, row)
            self._scheduler.place(sequence, row)
            sequence.ready = ready

    def _reuse(self, sequence: Sequence, row: int) -> tuple[int, int]:
        """Brings what is known of a prompt into a free row; returns the row and tokens in it."""
        if sequence.ticket.request.params.prompt_logprobs and sequence.leader is None:
            return row, 0  # they have to be computed
        source, count = self._scheduler.nearest(sequence, own_only=self._trie is None)
        if self._trie is None and sequence.leader is None:
            count = 0
        places = [] if self._trie is None else self._trie.match(sequence.prompt[: sequence.wanted])
        pooled = len(places) * self._trie.block if self._trie is not None else 0
        if count and count >= pooled:
            if self._scheduler.rows[source].sequence is None:
                row = source
            else:
                self._programs.copy_row(source, row, fitting(self._sizes.windows, count))
        elif pooled and self._trie is not None:
            width = fitting(self._sizes.blocks, len(places))
            self._programs.load(row, prefix.padded(places, width, self._filler))
            count = pooled
        else:
            count = 0
        if self._trie is not None and sequence.wanted >= self._trie.block:
            kind = "prefix_hits" if count else "prefix_misses"
            self._statistics.add(**{kind: 1, "prefix_tokens_saved": count})
        if sequence.leader is None:
            sequence.ticket.usage.cached_tokens = count
        return row, count

    def _keep(self, sequence: Sequence) -> None:
        """Puts what a row holds into the prefix cache."""
        if self._trie is None or sequence.row < 0:
            return
        new = self._trie.add(held(sequence))
        if not new:
            return
        blocks, last = [block for block, _ in new], self._sizes.blocks[-1]
        width = fitting(self._sizes.blocks, len(blocks))
        first = min(blocks[0], last - width)
        places = prefix.padded([], width, self._filler)
        for block, place in new:
            places[block - first] = place
        self._programs.save(sequence.row, first, places)

    # Reading prompts

    def _read_prompts(self) -> None:
        spent = 0
        queue = self._scheduler.running("prefill")
        for sequence in sorted(queue, key=lambda s: (s.ticket.submitted, s.sample)):
            while sequence.ready < sequence.wanted:
                count = min(sequence.wanted - sequence.ready, self._sizes.chunks[-1])
                if spent and spent + count > self._config.prefill_chunk:
                    return
                self._read(sequence, count)
                spent += count
            self._begin(sequence)

    def _read(self, sequence: Sequence, count: int) -> None:
        params, start = sequence.ticket.request.params, sequence.ready
        size = fitting(self._sizes.chunks, count)
        window = fitting(self._sizes.windows, start + count)
        top = None
        if params.prompt_logprobs and sequence.leader is None:
            top = logprobs.top_size(params.logprobs or 0, self._engine.model.config.vocab_size)
        prompt = sequence.prompt
        scores = self._programs.prefill(
            steps.Chunk(size, window, top),
            _padded(prompt[start : start + count], size),
            _padded(prompt[start + 1 : start + 1 + count], size),
            sequence.row,
            start,
        )
        if scores is not None:
            sequence.scores.append((count, scores))
        sequence.ready += count
        self._statistics.add(prefilled_tokens=count)

    def _begin(self, sequence: Sequence) -> None:
        """A prompt has been read: its row draws from now on."""
        params = sequence.ticket.request.params
        if params.prompt_logprobs and sequence.leader is None:
            self._score_prompt(sequence, params)
        if sequence.leader is None:
            self._keep(sequence)
        if sequence.budget <= 0:
            self._engine.finish(sequence, "length")
            return
        numbers = settings_of(
            params, prompt=len(sequence.prompt), room=self._sizes.context,
            eos=self._engine.tokenizer.eos_id, seed=sequence.seed, sample=sequence.sample,
        )  # fmt: skip
        tokens = _padded(sequence.prompt, self._sizes.context)
        self._programs.activate(sequence.row, numbers, tokens)
        bias = None
        if has_bias(params):
            bias = np.zeros(self._engine.model.config.vocab_size, np.float32)
            for token, value in params.logit_bias.items():
                bias[token] = value
            bias[list(params.banned)] = -np.inf
        self._programs.set_bias(sequence.row, bias)
        sequence.phase = "decode"

    def _score_prompt(self, sequence: Sequence, params: SamplingParams) -> None:
        found: list[TokenLogprob | None] = [None]
        at = 1
        for count, scores in sequence.scores:
            tokens = list(sequence.prompt[at : at + count])
            scores = jax.device_get(scores)
            found += logprobs.to_list(tokens, scores, params.logprobs or 0)
            at += count
        sequence.scores.clear()
        sequence.ticket.prompt_logprobs = found

    # Drawing

    def _draw(self) -> None:
        while (move := self._scheduler.move_down(self._sizes.batches)) is not None:
            self._move(*move)
        active = self._scheduler.running("decode")
        if not active:
            return
        shape, count = self._shape(active)
        running = np.zeros(shape.batch, bool)
        running[[s.row for s in active]] = True
        known = self._programs.compiled
        began = time.monotonic()
        drawn = self._programs.decode(shape, running, count)
        elapsed = time.monotonic() - began
        made = max(1, int(drawn.steps))
        if known == self._programs.compiled:  # else it was compiled just now
            key = (shape.batch, shape.draft)
            old = self._seconds.get(key, elapsed / made)
            self._seconds[key] = old + 0.3 * (elapsed / made - old)
        self._statistics.add(decode_steps=made)
        for sequence in active:
            self._take(sequence, drawn, elapsed)

    def _move(self, sequence: Sequence, row: int) -> None:
        window = fitting(self._sizes.windows, sequence.length + 1)
        self._programs.copy_row(sequence.row, row, window)
        self._programs.copy_bias(sequence.row, row)
        rows = self._scheduler.rows
        rows[sequence.row].sequence, rows[sequence.row].held = None, held(sequence)
        rows[row].sequence, rows[row].held = sequence, []
        sequence.row = row

    def _shape(self, active: list[Sequence]) -> tuple[steps.Decode, int]:
        """What to compile for, and how many steps to make."""
        batch = fitting(self._sizes.batches, max(s.row for s in active) + 1)
        draft, ngram = self._guessing(active)
        left = [s.budget - len(s.drawn) for s in active]
        # A row that may be the next one's frees it as soon as it can.
        most = min(left) if self._scheduler.waiting else max(left)
        if self._scheduler.running("prefill"):
            most = 1
        pace = self._config.pace / max(self._seconds.get((batch, draft), 1.0), 1e-6)
        count = max(1, min(most, self._config.steps, int(pace)))
        longest = max(s.length for s in active) + 1 + count * (1 + draft)
        window = fitting(self._sizes.windows, longest)
        asked = [s.ticket.request.params for s in active]
        tops = [p.logprobs for p in asked if p.logprobs is not None]
        top = None
        if tops:
            top = logprobs.top_size(max(tops), self._engine.model.config.vocab_size)
        shape = steps.Decode(
            batch, window, self._config.steps, draft, ngram,
            any(map(has_penalties, asked)), any(map(has_bias, asked)), top,
        )  # fmt: skip
        return shape, count

    def _guessing(self, active: list[Sequence]) -> tuple[int, int]:
        """How many tokens to guess, and what has to match; (0, 0): nothing."""
        config = self._config
        if not config.speculate:
            return 0, 0
        if self._programs.has_drafter:
            return config.speculate, 0
        if len(active) > config.speculate_rows:
            return 0, 0
        for sequence in active:
            if sequence.hits < SLOW_GUESSES:
                sequence.hits += 0.01  # after a while it may try again
                continue
            tokens = [*sequence.prompt, *sequence.drawn]
            if speculative.promising(tokens, config.speculate_ngram):
                return config.speculate, config.speculate_ngram
        return 0, 0

    def _take(self, sequence: Sequence, drawn: Any, elapsed: float) -> None:
        """What one row has drawn, on its way to its reader."""
        row, stream, ticket = sequence.row, sequence.stream, sequence.ticket
        params = ticket.request.params
        count = int(drawn.count[row])
        tokens = drawn.tokens[row, :count].tolist()
        proposed, accepted = int(drawn.proposed[row]), int(drawn.accepted[row])
        if proposed:
            sequence.hits += 0.3 * (accepted / proposed - sequence.hits)
            self._statistics.add(draft_proposed=proposed, draft_accepted=accepted)
        before = len(stream.tokens)
        text = stream.push(tokens)
        new = stream.tokens[before:]
        used = min(count, len(new) + (stream.finish is not None and stream.by_id))
        sequence.drawn += tokens[:used]
        found = None
        if params.logprobs is not None:
            scores = tuple(x[row] for x in drawn.scores)
            found = logprobs.to_list(tokens[:used], scores, params.logprobs)
        finish: Any = stream.finish
        if finish is None and len(sequence.drawn) >= sequence.budget:
            finish = "length"
        if not ticket.usage.completion_tokens and new:
            self._statistics.first_token(time.monotonic() - ticket.submitted)
        self._statistics.add(drawn_tokens=used)
        self._statistics.tokens(elapsed, max(used, 1))
        if finish is None:
            ticket.put(Piece(sequence.sample, new, text, found))
            return
        text += stream.close()
        finish = stream.finish or finish  # what was held back may have ended it
        self._keep(sequence)
        self._engine.end(sequence, Piece(sequence.sample, new, text, found, finish))


def has_penalties(params: SamplingParams) -> bool:
    """Whether a request needs counts of tokens."""
    return (
        params.repetition_penalty != 1
        or params.presence_penalty != 0
        or params.frequency_penalty != 0
    )


def has_bias(params: SamplingParams) -> bool:
    """Whether a request adds to logits."""
    return bool(params.logit_bias or params.banned)


def _padded(tokens: Any, size: int) -> np.ndarray:
    array = np.zeros(size, np.int32)
    array[: len(tokens)] = tokens
    return array
