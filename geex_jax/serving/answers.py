"""Answers that stream, and answers that do not."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from geex_jax.serving.errors import ApiError
from geex_jax.serving.running import ClientGone, Run, while_connected

IDLE_SECONDS = 15.0  # a stream says so much as a comment, so that no proxy ends it
DONE = b"data: [DONE]\n\n"
# The engine's words for an end, in OpenAI's. What it said itself stands in "finish_detail".
FINISH = {"eos": "stop", "stop": "stop", "length": "length", "deadline": "length",
          "cancelled": "length"}  # fmt: skip


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8; halves of surrogate pairs become question marks."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def answer(value: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(dumps(value), status, media_type="application/json")


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + dumps(value) + b"\n\n"


def head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    """What every object of an answer begins with."""
    ident = f"{prefix}-{uuid.uuid4().hex}"
    return {"id": ident, "object": kind, "created": int(time.time()), "model": model}


class EventStream(Response):
    """Server-sent events of a run, which ends when the client goes.

    Args:
      run: not yet entered. events: encoded ones; what they raise becomes the last event.
    """

    def __init__(self, run: Run, events: AsyncIterator[bytes]):
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(None, 200, headers, "text/event-stream")
        del self.headers["content-length"]
        self.run, self.events = run, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events; `send` waits while the client does not read."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            async with while_connected(receive), self.run:
                await send(start)
                async for data in self._all():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except ClientGone:
            self.run.metrics.gone.inc()
            return
        # Outside of the block: once an answer is whole, uvicorn says that the client went.
        await send({"type": "http.response.body", "body": b""})

    async def _all(self) -> AsyncIterator[bytes]:
        try:
            async for data in self.events:
                yield data
        except ApiError as error:
            yield event(error.body())
