"""Who is in which row: the host's side of the engine, without a device."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Literal

from geex_jax.inference import prefix
from geex_jax.inference.programs import fitting
from geex_jax.inference.requests import Ticket
from geex_jax.inference.text import TextStream

Phase = Literal["waiting", "prefill", "decode", "ended"]
Gone = Literal["cancelled", "deadline"]


@dataclasses.dataclass
class Sequence:
    """One sample of a request on its way.

    Attributes:
      ticket, sample: whose it is.
      seed: of the request.
      stream: its ids on their way to text.
      phase: where it is.
      ready: tokens of the prompt that are in the cache.
      drawn: ids drawn so far, an end-of-text included.
      budget: most that may be drawn.
      row: its row, if it has one.
      hits: how often guessed tokens were right lately, of 1.
      scores: log-probabilities of the prompt as they come, on the device.
      leader: the request's first sequence, whose reading of the prompt serves all; None: itself.
    """

    ticket: Ticket
    sample: int
    seed: int
    stream: TextStream
    budget: int
    phase: Phase = "waiting"
    ready: int = 0
    drawn: list[int] = dataclasses.field(default_factory=list)
    row: int = -1
    hits: float = 1.0
    scores: list[Any] = dataclasses.field(default_factory=list)
    leader: Sequence | None = None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The request's prompt."""
        return self.ticket.request.prompt

    @property
    def length(self) -> int:
        """Tokens in the cache once it decodes: all but the last."""
        return len(self.prompt) + len(self.drawn) - 1

    @property
    def wanted(self) -> int:
        """Tokens of the prompt that must be in the cache before it decodes: all but the last."""
        return len(self.prompt) - 1

    def overdue(self, now: float) -> bool:
        """Whether its time is over."""
        seconds = self.ticket.request.params.deadline
        return seconds is not None and now - self.ticket.submitted >= seconds


@dataclasses.dataclass
class Row:
    """A row of the cache.

    Attributes:
      held: tokens whose keys and values are in it from the first slot on, even after its sequence
        has ended.
      sequence: whose it is now.
    """

    held: list[int] = dataclasses.field(default_factory=list)
    sequence: Sequence | None = None


class Scheduler:
    """Rows and the queue.

    Args:
      rows: of the cache.
    """

    def __init__(self, rows: int):
        self.rows = [Row() for _ in range(rows)]
        self.waiting: deque[Sequence] = deque()

    def running(self, phase: Phase) -> list[Sequence]:
        """Sequences of a phase that have a row, by row."""
        found = (row.sequence for row in self.rows)
        return [s for s in found if s is not None and s.phase == phase]

    @property
    def busy(self) -> int:
        """Rows in use."""
        return sum(row.sequence is not None for row in self.rows)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.waiting and self.busy == 0

    def free_row(self) -> int | None:
        """The lowest row that nobody has: few rows from the first on make a small batch."""
        return next((i for i, row in enumerate(self.rows) if row.sequence is None), None)

    def place(self, sequence: Sequence, row: int) -> None:
        """Gives a row to a sequence."""
        self.rows[row].sequence, sequence.row, sequence.phase = sequence, row, "prefill"
        self.rows[row].held = []

    def release(self, sequence: Sequence) -> None:
        """Takes its row, which keeps what it holds, or its place in the queue, away."""
        if sequence.row >= 0:
            self.rows[sequence.row].sequence = None
            self.rows[sequence.row].held = held(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        sequence.row, sequence.phase = -1, "ended"

    def nearest(self, sequence: Sequence, own_only: bool) -> tuple[int, int]:
        """The row that holds most of a sequence's prompt, and how many tokens of it: (row, count).

        Args:
          sequence: a waiting one.
          own_only: look only at rows whose tokens begin with the whole prompt but its last.
        """
        wanted = sequence.prompt[: sequence.wanted]
        best = (-1, 0)
        for i, row in enumerate(self.rows):
            tokens = row.held if row.sequence is None else held(row.sequence)
            count = prefix.common(tokens, wanted)
            if count > best[1] and (not own_only or count == len(wanted)):
                best = (i, count)
        return best

    def move_down(self, sizes: Iterable[int]) -> tuple[Sequence, int] | None:
        """A sequence of a high row and a free low one, if that makes the batch smaller."""
        active = self.running("decode")
        if not active:
            return None
        highest, target = active[-1], self.free_row()
        if target is None or target > highest.row:
            return None
        sizes = list(sizes)
        smaller = fitting(sizes, len(active)) < fitting(sizes, highest.row + 1)
        return (highest, target) if smaller else None

    def ended(self) -> list[tuple[Sequence, Gone]]:
        """Sequences that their reader has given up, or whose time is over."""
        now = time.monotonic()
        found: list[tuple[Sequence, Gone]] = []
        sequences = [*self.waiting, *(r.sequence for r in self.rows if r.sequence is not None)]
        for sequence in sequences:
            if sequence.ticket.cancelled:
                found.append((sequence, "cancelled"))
            elif sequence.overdue(now):
                found.append((sequence, "deadline"))
        return found


def held(sequence: Sequence) -> list[int]:
    """Tokens whose keys and values are in a sequence's row."""
    if sequence.phase == "prefill":
        return list(sequence.prompt[: sequence.ready])
    return [*sequence.prompt, *sequence.drawn][: sequence.length]
