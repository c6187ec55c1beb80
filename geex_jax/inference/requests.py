"""What goes into the engine and what comes out: settings, requests, streams of pieces."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Literal

from geex_jax import languages
from geex_jax.errors import GeexError

Finish = Literal["eos", "stop", "length", "cancelled", "deadline", "error"]
MOST_LOGPROBS = 20
MOST_SAMPLES = 128


class Overloaded(GeexError):
    """The queue is full: try again later (HTTP 429 or 503)."""


class Stopped(GeexError):
    """The engine takes no requests any more, or never started."""


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn, and where they end.

    Attributes:
      max_new_tokens: most tokens of a sample; a full context ends it as well.
      temperature: 0 takes the most likely token.
      top_k, top_p, min_p: which tokens stay, 0 is off; `min_p` keeps those at least that many
        times as likely as the most likely one.
      repetition_penalty: divides positive logits, and multiplies negative ones, of all tokens of
        the prompt and the sample (arXiv 1909.05858); 1 is off.
      presence_penalty, frequency_penalty: taken from a logit if its token has been drawn, and for
        each time that it has; the prompt does not count (OpenAI's definition); 0 is off.
      logit_bias: id -> what is added to its logit.
      banned: ids that are never drawn.
      stop: strings that end a sample and are not part of it.
      stop_ids: ids that end a sample and are not part of it, such as those of `infill`.
      end_rule: name of a language, whose rule of the paper ends a sample (see `languages`).
      seed: same seed, same tokens, whatever else runs; None draws one.
      n: samples of one prompt; sample i draws like row i of `generate`.
      logprobs: None; or k: natural-log probabilities of each token drawn and of the k most
        likely ones, of the model's distribution before any of the settings above.
      prompt_logprobs: those of the prompt's tokens too (with `logprobs` most likely ones).
      ignore_eos: the end-of-text token does not end a sample.
      deadline: seconds from submission after which samples end where they are.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 0.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    banned: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    end_rule: str | None = None
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: bool = False
    ignore_eos: bool = False
    deadline: float | None = None

    def check(self, vocab_size: int) -> None:
        """Refuses settings out of range.

        Raises:
          GeexError: the first of them.
        """
        for name, low, high, remedy in (
            ("max_new_tokens", 0, math.inf, "give 0 or more"),
            ("temperature", 0, 1e6, "give 0 (greedy) or a positive number"),
            ("top_k", 0, vocab_size, f"give 0 (off) to {vocab_size}"),
            ("top_p", 0, 1, "give 0 (off) to 1"),
            ("min_p", 0, 1, "give 0 (off) to 1"),
            ("repetition_penalty", 1e-6, 1e6, "give 1 (off), or more to repeat less"),
            ("presence_penalty", -1e4, 1e4, "give 0 (off), or more to repeat less"),
            ("frequency_penalty", -1e4, 1e4, "give 0 (off), or more to repeat less"),
            ("n", 1, MOST_SAMPLES, f"give 1 to {MOST_SAMPLES}"),
            ("logprobs", 0, min(MOST_LOGPROBS, vocab_size), f"give 0 to {MOST_LOGPROBS}"),
            ("deadline", 0, math.inf, "give seconds from now"),
            ("seed", -(2**63), 2**64 - 1, "give an integer of 64 bits"),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise GeexError(f"{name} = {value}", remedy)
        for token, bias in self.logit_bias.items():
            if not 0 <= token < vocab_size or not math.isfinite(bias):
                raise GeexError(
                    f"logit_bias of {bias} for id {token}",
                    f"give finite numbers for ids in 0..{vocab_size - 1}",
                )
        for name, ids in (("banned", self.banned), ("stop", self.stop_ids)):
            for token in ids:
                if not 0 <= token < vocab_size:
                    what = f"{name} id {token} is outside 0..{vocab_size - 1}"
                    raise GeexError(what, "leave it out")
        if any(not s for s in self.stop):
            raise GeexError("an empty stop string", "leave it out")
        if self.end_rule is not None:
            languages.end_rule(self.end_rule)


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt, as ids, and how to continue it."""

    prompt: tuple[int, ...]
    params: SamplingParams = dataclasses.field(default_factory=SamplingParams)


@dataclasses.dataclass(frozen=True)
class TokenLogprob:
    """A token with the natural log of its probability, and the most likely ones with theirs."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclasses.dataclass
class Piece:
    """One step of a stream.

    Attributes:
      sample: which of the request's n samples.
      tokens: ids drawn since the sample's last piece; an end-of-text that ends it is left out.
      text: what became certain: whole characters, nothing of a stop string.
      logprobs: one for each of `tokens`, and for an end-of-text that ends it, if asked for.
      finish: why this is the sample's last piece, None if it is not.
      error: what went wrong, with "error".
    """

    sample: int
    tokens: list[int]
    text: str
    logprobs: list[TokenLogprob] | None = None
    finish: Finish | None = None
    error: str | None = None


@dataclasses.dataclass
class Sample:
    """All pieces of one sample, joined."""

    tokens: list[int] = dataclasses.field(default_factory=list)
    text: str = ""
    logprobs: list[TokenLogprob] | None = None
    finish: Finish | None = None
    error: str | None = None

    def add(self, piece: Piece) -> None:
        """Appends the next piece."""
        self.tokens += piece.tokens
        self.text += piece.text
        if piece.logprobs is not None:
            self.logprobs = (self.logprobs or []) + piece.logprobs
        self.finish, self.error = piece.finish, piece.error


@dataclasses.dataclass
class Usage:
    """Tokens of a request; `cached_tokens` of the prompt came from the prefix cache."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


class Ticket:
    """A request on its way: a stream of pieces that ends after each sample's last one.

    Any thread may iterate (blocking) or, in an event loop, iterate asynchronously; one reader at
    a time. Pieces wait for a slow reader: the engine never does.

    Attributes:
      request: as submitted.
      usage: counts so far; whole when the stream has ended.
      prompt_logprobs: of the prompt's tokens but the first, which nothing predicts (None there),
        if asked for; complete before the first piece.
      submitted, first_token: times (`time.monotonic`); `first_token` is None before it.
    """

    def __init__(self, request: Request, wake: Callable[[], None] = lambda: None):
        self.request = request
        self.usage = Usage(prompt_tokens=len(request.prompt))
        self.prompt_logprobs: list[TokenLogprob | None] | None = None
        self.submitted = time.monotonic()
        self.first_token: float | None = None
        self._wake = wake
        self._pieces: deque[Piece] = deque()
        self._changed = threading.Condition()
        self._listener: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._samples = [Sample() for _ in range(request.params.n)]
        self._unfinished = request.params.n
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return self._cancelled

    @property
    def done(self) -> bool:
        """Whether every sample has ended, read or not."""
        return self._unfinished == 0

    def cancel(self) -> None:
        """Ends the samples at the next step; each still gets a last piece, "cancelled"."""
        self._cancelled = True
        self._wake()

    def result(self, timeout: float | None = None) -> list[Sample]:
        """Waits for the end; returns the n samples, whatever has been read of the stream.

        Raises:
          GeexError: the time (seconds) is over, or the engine failed.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self.done, timeout):
                raise GeexError(f"no result after {timeout} s", "wait longer, or cancel")
        failed = next((s.error for s in self._samples if s.finish == "error"), None)
        if failed is not None:
            raise GeexError(f"the engine failed: {failed}", "see its log")
        return self._samples

    def texts(self) -> list[str]:
        """The text of each sample so far, read or not."""
        with self._changed:
            return [sample.text for sample in self._samples]

    def __iter__(self) -> Iterator[Piece]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pieces or self.done)
                if not self._pieces:
                    return
                piece = self._pieces.popleft()
            yield piece

    async def __aiter__(self) -> AsyncIterator[Piece]:
        event = asyncio.Event()
        with self._changed:
            self._listener = (asyncio.get_running_loop(), event)
        try:
            while True:
                with self._changed:
                    event.clear()
                    ready = list(self._pieces)
                    self._pieces.clear()
                    done = self.done
                for piece in ready:
                    yield piece
                if not ready:
                    if done:
                        return
                    await event.wait()
        finally:
            self._listener = None

    def put(self, piece: Piece) -> None:
        """Called by the engine: adds a piece and wakes the reader."""
        with self._changed:
            self._pieces.append(piece)
            self._samples[piece.sample].add(piece)
            self.usage.completion_tokens += len(piece.tokens)
            if piece.tokens and self.first_token is None:
                self.first_token = time.monotonic()
            self._unfinished -= piece.finish is not None
            listener = self._listener
            self._changed.notify_all()
        if listener is not None:
            loop, event = listener
            try:
                loop.call_soon_threadsafe(event.set)
            except RuntimeError:  # the reader's loop has been closed: nobody waits
                self._listener = None


def check_request(request: Request, vocab_size: int, context: int) -> None:
    """Refuses what cannot run.

    Raises:
      GeexError: an empty prompt, one that leaves no room, ids or settings out of range.
    """
    prompt: Sequence[int] = request.prompt
    request.params.check(vocab_size)
    if not len(prompt):
        raise GeexError("the prompt is empty", "give at least one token")
    if len(prompt) >= context:
        raise GeexError(
            f"the prompt has {len(prompt)} tokens, and the context {context}",
            f"shorten it to {context - 1} or fewer",
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise GeexError(
            f"the prompt holds an id outside 0..{vocab_size - 1}",
            "was it made by this model's tokenizer?",
        )
