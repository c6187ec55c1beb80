"""Requests on their way: submitted together, read as they come, given up when the client goes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from starlette.types import Receive

from geex_jax.errors import GeexError
from geex_jax.inference.requests import Overloaded, Piece, Request, Sample, Stopped, Ticket
from geex_jax.serving.errors import ApiError, overloaded, refused, stopping
from geex_jax.serving.metrics import Metrics
from geex_jax.serving.served import Served


class ClientGone(Exception):
    """Nobody is left to answer."""


class Run:
    """The tickets of one HTTP request and a mailbox that their pieces meet in.

    The mailbox holds at most one piece for each choice: what comes while the client does not read
    is joined to it. So a slow reader costs the text it has not read, and no engine waits for it.
    Used as `async with`; leaving it cancels what has not ended.

    Args:
      served: the model. requests: one for each prompt; choice = prompt * n + sample.
      metrics: where times and tokens are counted.
    """

    def __init__(self, served: Served, requests: Sequence[Request], metrics: Metrics):
        self.served, self.metrics = served, metrics
        self.tickets: list[Ticket] = []
        self._starts: list[int] = []
        self._pending: dict[int, Piece] = {}
        self._arrived = asyncio.Event()
        self._pumps: list[asyncio.Task[None]] = []
        self._unfinished = 0
        self._failed: str | None = None
        try:
            for request in requests:
                self._starts.append(self._unfinished)
                self.tickets.append(served.engine.submit(request))
                self._unfinished += request.params.n
                metrics.prompted.labels(served.name).inc(len(request.prompt))
        except BaseException as error:
            self._cancel()
            if isinstance(error, Overloaded):
                raise overloaded(str(error)) from None
            if isinstance(error, Stopped):
                raise stopping() from None
            if isinstance(error, GeexError):
                raise refused(error) from None
            raise

    async def __aenter__(self) -> Run:
        self._pumps = [
            asyncio.create_task(self._pump(ticket, start))
            for ticket, start in zip(self.tickets, self._starts, strict=True)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._cancel()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def _cancel(self) -> None:
        for ticket in self.tickets:
            if not ticket.done:
                ticket.cancel()

    async def _pump(self, ticket: Ticket, start: int) -> None:
        last: dict[int, float] = {}  # when each sample's last piece came
        try:
            async for piece in ticket:
                if piece.tokens:
                    now = time.monotonic()
                    began = last.get(piece.sample, ticket.submitted)
                    self.metrics.tokens(
                        self.served.name, len(piece.tokens), now - began, piece.sample not in last
                    )
                    last[piece.sample] = now
                self._post(start + piece.sample, piece)
        except Exception as error:
            self._failed = f"{type(error).__name__}: {error}"
            self._arrived.set()

    def _post(self, choice: int, piece: Piece) -> None:
        waiting = self._pending.get(choice)
        if waiting is None:
            self._pending[choice] = piece
        else:
            waiting.tokens = waiting.tokens + piece.tokens
            waiting.text += piece.text
            if piece.logprobs is not None:
                waiting.logprobs = (waiting.logprobs or []) + piece.logprobs
            waiting.finish, waiting.error = piece.finish, piece.error
        self._arrived.set()

    async def pieces(self, idle: float | None = None) -> AsyncIterator[tuple[int, Piece] | None]:
        """Yields (choice, piece) until every choice has had its last one.

        Args:
          idle: after so many seconds without a piece, None is yielded; by default never.

        Raises:
          ApiError: 500, the engine failed.
        """
        while self._unfinished:
            if not self._pending:
                if self._failed:
                    raise ApiError(500, f"the engine failed: {self._failed}", code="engine_failed")
                try:
                    async with asyncio.timeout(idle):
                        await self._arrived.wait()
                except TimeoutError:
                    yield None
                self._arrived.clear()
                continue
            choice = next(iter(self._pending))
            piece = self._pending.pop(choice)
            if piece.finish == "error":
                raise ApiError(500, f"the engine failed: {piece.error}", code="engine_failed")
            self._unfinished -= piece.finish is not None
            yield choice, piece

    async def samples(self) -> list[Sample]:
        """Waits for the end; returns all choices in order.

        Raises:
          ApiError: 500, the engine failed; 504, the deadline came before the first token.
        """
        found = [Sample() for _ in range(self._unfinished)]
        async for arrived in self.pieces():
            if arrived is not None:
                found[arrived[0]].add(arrived[1])
        if all(s.finish == "deadline" and not s.tokens for s in found):
            raise ApiError(
                504, "the deadline came before the first token: too many requests wait, or the "
                "prompt takes longer to read", code="deadline",
            )  # fmt: skip
        return found

    def usage(self) -> dict[str, object]:
        """Token counts as OpenAI gives them: each prompt once, whatever n is."""
        prompt = sum(t.usage.prompt_tokens for t in self.tickets)
        completion = sum(t.usage.completion_tokens for t in self.tickets)
        cached = sum(t.usage.cached_tokens for t in self.tickets)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


@contextlib.asynccontextmanager
async def while_connected(receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client goes.

    Args:
      receive: ASGI's, after the body has been read.

    Raises:
      ClientGone: it did, in place of the cancellation.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
