"""An engine that writes the alphabet, for what a real one does too fast or never."""

import threading
import time
from collections import deque

from geex_jax.inference.requests import (
    Overloaded,
    Piece,
    Stopped,
    Ticket,
    TokenLogprob,
    check_request,
)
from geex_jax.inference.stops import StopScanner
from geex_jax.serving import ChatTemplate, Served
from tests.inference.helpers import ByteTokenizer

CONTEXT = 4096
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class FakeEngine:
    """Sample i of a request writes the alphabet from letter (seed + i) on, a letter a step.

    Args:
      slots: requests at work; others wait. max_waiting: more than that are refused.
      pause: seconds a step. fail_at: step at which every request ends with an error.
      gate: an event; nothing is written before it is set. vocab: ids that prompts may hold.
    """

    def __init__(self, slots=8, max_waiting=256, pause=0.0, fail_at=None, gate=None, vocab=257):
        self.slots, self.max_waiting, self.pause, self.fail_at = slots, max_waiting, pause, fail_at
        self.gate, self.vocab = gate, vocab
        self.waiting, self.active = deque(), []
        self.seen, self.stopped = [], False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def submit(self, request):
        check_request(request, self.vocab, CONTEXT)
        with self.changed:
            if self.stopped:
                raise Stopped("the engine has stopped")
            if len(self.waiting) >= self.max_waiting:
                raise Overloaded(f"{len(self.waiting)} requests wait", "try again later")
            ticket = Ticket(request)
            self.seen.append(request)
            self.waiting.append((ticket, [_Writer(request, i) for i in range(request.params.n)]))
            self.changed.notify()
        return ticket

    def stats(self):
        now = {"slots_busy": len(self.active), "queue": len(self.waiting)}
        return now | ({"stopped": 1} if self.stopped else {})

    def stop(self, drain=True, timeout=None):
        with self.changed:
            self.stopped = True
            self.changed.notify()
        self.thread.join(timeout)

    def _work(self):
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.active or self.stopped)
                if self.stopped:
                    return
                while self.waiting and len(self.active) < self.slots:
                    self.active.append(self.waiting.popleft())
            if self.gate is not None:
                self.gate.wait(0.01)
                if not self.gate.is_set() and not any(map(ended_early, self.active)):
                    continue
            if self.pause:
                time.sleep(self.pause)
            for ticket, writers in self.active:
                for writer in writers:
                    if not writer.ended:
                        ticket.put(writer.step(ticket, self.fail_at))
            self.active = [(t, w) for t, w in self.active if not t.done]


def late(ticket):
    """Whether a request's deadline is over."""
    deadline = ticket.request.params.deadline
    return deadline is not None and time.monotonic() - ticket.submitted > deadline


def ended_early(work):
    """Whether a request ends although nothing may be written."""
    return work[0].cancelled or late(work[0])


class _Writer:
    def __init__(self, request, sample):
        self.request, self.sample, self.drawn, self.ended = request, sample, 0, False
        self.scanner = StopScanner(request.params.stop)

    def step(self, ticket, fail_at):
        params = self.request.params
        if params.prompt_logprobs and ticket.prompt_logprobs is None:
            rest = self.request.prompt[1:]
            ticket.prompt_logprobs = [None, *(self._logprob(t) for t in rest)]
        if ticket.cancelled or late(ticket):
            how = "cancelled" if ticket.cancelled else "deadline"
            return self._end([], self.scanner.flush(), how)
        if fail_at is not None and self.drawn >= fail_at:
            return self._end([], "", "error", "the chip caught fire")
        if self.drawn >= params.max_new_tokens:
            return self._end([], self.scanner.flush(), "length")
        token = ord(LETTERS[((params.seed or 0) + self.sample + self.drawn) % 26])
        self.drawn += 1
        text = self.scanner.push(chr(token))
        if self.scanner.stopped:
            return self._end([token], text, "stop")
        if self.drawn == params.max_new_tokens:
            return self._end([token], text + self.scanner.flush(), "length")
        return Piece(self.sample, [token], text, self._logprobs([token]))

    def _end(self, tokens, text, finish, error=None):
        self.ended = True
        return Piece(self.sample, tokens, text, self._logprobs(tokens), finish, error)

    def _logprobs(self, tokens):
        return None if self.request.params.logprobs is None else [self._logprob(t) for t in tokens]

    def _logprob(self, token):
        top = [(token, -0.5), (ord("?"), -1.5)][: self.request.params.logprobs or 0]
        return TokenLogprob(token, -0.5, top)


def served(name="fake", engine=None, template=None, **settings):
    tokenizer = ByteTokenizer()
    engine = engine or FakeEngine(**settings)
    queue = engine.slots + engine.max_waiting
    chat = ChatTemplate(tokenizer, template)
    return Served(name, engine, tokenizer, CONTEXT, tokenizer.vocab_size, chat, "fake", queue)
