"""The engine: many requests at once over the rows of one cache, each step for all of them.

One thread owns the device. In each turn it lets requests in, reads a piece of waiting prompts,
and draws the next tokens of all rows; other threads only queue requests and read streams.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import Any

from jax.sharding import Mesh

from geex_jax.errors import GeexError
from geex_jax.inference import prefix, programs, warming
from geex_jax.inference.prepare import prepare
from geex_jax.inference.requests import (
    Finish,
    Overloaded,
    Piece,
    Request,
    Stopped,
    Ticket,
    check_request,
)
from geex_jax.inference.scheduler import Scheduler, Sequence
from geex_jax.inference.settings import EngineConfig
from geex_jax.inference.state import check_mesh
from geex_jax.inference.statistics import Statistics
from geex_jax.inference.text import TextStream
from geex_jax.inference.turns import Turns
from geex_jax.models import ModelConfig, Transformer
from geex_jax.tokenizers import Tokenizer

LOG = logging.getLogger(__name__)
MOST_FAILURES = 3  # in a row


class Engine:
    """Continuous batching over one model.

    Args:
      model, params: the decoder, with float or quantized parameters (on `mesh`, if there is one).
      tokenizer: its own.
      config: sizes and limits.
      mesh: splits over `tensor`; None: where the parameters are.
      draft: (model, params) of a smaller model with the same vocabulary, whose guesses the large
        one checks; `config.speculate` says how many.
      consume: where the parameters have to be laid out anew (see `prepare`, without a mesh),
        empties `params` on the way, so that they are not in memory twice; `draft` is kept.

    Raises:
      GeexError: a context, mesh or draft model that does not fit.
    """

    def __init__(
        self,
        model: Transformer,
        params: Any,
        tokenizer: Tokenizer,
        config: EngineConfig | None = None,
        mesh: Mesh | None = None,
        draft: tuple[Transformer, Any] | None = None,
        consume: bool = False,
    ):
        self.config = config = config or EngineConfig()
        self.model, self.tokenizer = model, tokenizer
        self.sizes = config.sizes(model.config)
        if draft is not None:
            check_draft(model.config, draft[0].config, config, self.sizes.context)
        if mesh is not None:
            check_mesh(mesh)
        else:
            model, params = prepare(model, params, consume=consume)
            draft = draft and prepare(*draft)
        if config.compile_cache is not None:
            programs.persist(config.compile_cache)
        self.statistics = Statistics()
        drafter, draft_params = draft or (None, None)
        limit = min(tokenizer.vocab_size, model.config.vocab_size)
        self.programs = programs.Programs(model, params, drafter, draft_params, limit, mesh)
        self.scheduler = Scheduler(config.slots)
        self._turns = Turns(self)
        self._turns.reset()
        self._inbox: deque[Sequence] = deque()
        self._changed = threading.Condition()
        self._stopping: str | None = None  # "drain", "now", or why it failed
        self._thread: threading.Thread | None = None
        self._failures = 0

    def submit(self, request: Request) -> Ticket:
        """Queues a request; it runs once the engine is started.

        Raises:
          GeexError: a request that cannot run.
          Overloaded: too many wait.
          Stopped: the engine takes no more.
        """
        check_request(request, self.model.config.vocab_size, self.sizes.context)
        params = request.params
        ticket = Ticket(request, self._notify)
        seed = int.from_bytes(os.urandom(4), "little") if params.seed is None else params.seed
        eos = None if params.ignore_eos else self.tokenizer.eos_id
        budget = min(params.max_new_tokens, self.sizes.context - len(request.prompt))
        sequences = [
            Sequence(
                ticket, i, seed,
                TextStream(
                    self.tokenizer, request.prompt, params.stop, params.end_rule, eos,
                    params.stop_ids,
                ),
                budget,
            )
            for i in range(params.n)
        ]  # fmt: skip
        for sequence in sequences[1:]:
            sequence.leader = sequences[0]
        with self._changed:
            if self._stopping is not None:
                raise Stopped("the engine has stopped", "start a new one")
            waiting = len(self._inbox) + len(self.scheduler.waiting)
            free = self.config.slots - self.scheduler.busy
            if waiting + params.n > self.config.max_waiting + free:
                self.statistics.add(rejected=1)
                raise Overloaded(f"{waiting} samples wait already", "try again later")
            self._inbox.extend(sequences)
            self.statistics.add(requests=1, samples=params.n, prompt_tokens=len(request.prompt))
            self._changed.notify_all()
        return ticket

    def warm(self, progress: programs.Progress | None = None) -> int:
        """Compiles all programs of plain requests; returns how many.

        Those with penalties, biases and log-probabilities are compiled when first asked for.

        Args:
          progress: called with (done, total, label).
        """
        return warming.warm(self, progress)

    def start(self) -> None:
        """Starts the thread that owns the device.

        Raises:
          Stopped: the engine has been stopped before.
        """
        with self._changed:
            if self._stopping is not None:
                raise Stopped("the engine has stopped", "make a new one")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
                self._thread.start()

    def stop(self, drain: bool = True, timeout: float | None = None) -> bool:
        """Takes no more requests, and ends.

        Args:
          drain: finish what has been submitted; else it ends as "cancelled".
          timeout: seconds to drain before the rest is cancelled.

        Returns:
          Whether all that was submitted ran to its end.
        """
        with self._changed:
            if self._stopping is None:
                self._stopping = "drain" if drain else "now"
            elif not drain:
                self._stopping = "now"
            self._changed.notify_all()
        if self._thread is None:
            return self._end_all("cancelled") == 0
        self._thread.join(timeout)
        if not self._thread.is_alive():
            return drain
        with self._changed:
            self._stopping = "now"
            self._changed.notify_all()
        self._thread.join()
        return False

    def stats(self) -> dict[str, Any]:
        """Counters since the start, and what is in use now.

        Counters: `requests`, `samples`, `rejected`, `prompt_tokens`, `prefilled_tokens`,
        `drawn_tokens`, `decode_steps`, `prefix_hits`, `prefix_misses`, `prefix_tokens_saved`,
        `draft_proposed`, `draft_accepted`, `errors`; `finished` by reason; the histograms
        `time_to_first_token` and `time_per_token` in seconds. Now: `queue`, `slots`, `slots_busy`,
        `prefix_blocks`, `prefix_bytes`, `programs`; `stopped` is 1 once it takes nothing any more.
        """
        return self.statistics.to_dict() | {
            "queue": len(self._inbox) + len(self.scheduler.waiting),
            "slots": self.config.slots,
            "slots_busy": self.scheduler.busy,
            "prefix_blocks": self._turns.kept_blocks,
            "prefix_bytes": prefix.pool_bytes(self.programs.pool),
            "programs": self.programs.compiled,
            "stopped": int(self._stopping is not None),
        }

    def turn(self) -> bool:
        """Takes one turn in this thread, for an engine that is not started.

        Returns:
          Whether anything is left to do.
        """
        with self._changed:
            self.scheduler.waiting.extend(self._inbox)
            self._inbox.clear()
        self._turns.take()
        return not self.scheduler.idle

    def finish(self, sequence: Sequence, reason: Finish, error: str | None = None) -> None:
        """Ends a sequence with a last piece of what text was held back."""
        text = sequence.stream.close()
        self.end(sequence, Piece(sequence.sample, [], text, None, reason, error))

    def end(self, sequence: Sequence, last: Piece) -> None:
        """Gives a sequence's last piece to its reader and frees its row."""
        self.scheduler.release(sequence)
        assert last.finish is not None
        self.statistics.finish(last.finish)
        sequence.ticket.put(last)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopping is not None or self._inbox or not self.scheduler.idle
                )
                stop = self._stopping
                if stop == "drain" and not self._inbox and self.scheduler.idle:
                    return
            if stop is not None and stop != "drain":
                self._end_all("cancelled")
                return
            try:
                self.turn()
                self._failures = 0
            except Exception as error:  # whatever happened, no reader may wait for ever
                self._recover(error)

    def _recover(self, error: Exception) -> None:
        LOG.exception("the engine failed; its %d requests end", self.scheduler.busy)
        self.statistics.add(errors=1)
        self._failures += 1
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        self._end_all("error", reason)
        if self._failures >= MOST_FAILURES:
            with self._changed:
                self._stopping = reason
            return
        try:
            self._turns.reset()  # the state may have been given up to the call that failed
        except Exception:
            LOG.exception("the engine cannot start again")
            with self._changed:
                self._stopping = reason

    def _end_all(self, reason: Finish, error: str | None = None) -> int:
        with self._changed:
            self.scheduler.waiting.extend(self._inbox)
            self._inbox.clear()
        rows = [r.sequence for r in self.scheduler.rows if r.sequence is not None]
        left = [*self.scheduler.waiting, *rows]
        for sequence in left:
            self.finish(sequence, reason, error)
        return len(left)


def check_draft(model: ModelConfig, small: ModelConfig, config: EngineConfig, context: int) -> None:
    """Refuses a draft model that cannot guess for a model.

    Args:
      model, small: of the two models. config: of the engine. context: slots of its rows.

    Raises:
      GeexError: another vocabulary, a context that is too short, nothing to guess.
    """
    if small.vocab_size != model.vocab_size:
        raise GeexError(
            f"a draft model of {small.vocab_size} ids for one of {model.vocab_size}",
            "choose one with the same tokenizer",
        )
    if small.context_length < context:
        raise GeexError(
            f"the draft model's context is {small.context_length}, the engine's {context}",
            "set engine.context lower",
        )
    if not config.speculate:
        raise GeexError("a draft model and engine.speculate = 0", "set it to 4, say")
