"""What all requests of a server share: models, figures, settings, whether it is going down."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from geex_jax.serving.errors import ApiError, overloaded
from geex_jax.serving.metrics import Metrics
from geex_jax.serving.running import ClientGone
from geex_jax.serving.served import Catalogue

SLOWEST = 10  # times `read_seconds` that a whole body may take
MOST_BODIES = 32  # times `max_body` that unfinished bodies may hold in memory together


@dataclasses.dataclass(frozen=True)
class Settings:
    """Limits and doors.

    Attributes:
      api_keys: any of them opens `/v1/`; none: no key is asked for.
      cors: origins whose pages may call, "*" for all; none: browsers keep other pages out.
      hosts: names in a Host header that are answered; none: any. Without it, a page whose name an
        attacker points to this machine could call a server that listens on loopback only.
      max_body: bytes of a request.
      deadline: seconds after which a request ends where it is; None: never.
      read_seconds: a client that sends no head of a request, or no more of a body, for so long is
        refused; a whole body may take ten times as long.
      stall_seconds: a client that reads no more of an answer for so long is cut off.
      drain_seconds: how long what runs may go on once the server is told to stop.
    """

    api_keys: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    max_body: int = 8 << 20
    deadline: float | None = 600.0
    read_seconds: float = 30.0
    stall_seconds: float = 60.0
    drain_seconds: float = 60.0


class State:
    """Attributes: catalogue, metrics, settings; `draining`; `running`, requests at work; `reading`,
    bytes of bodies that are not whole."""

    def __init__(self, catalogue: Catalogue, settings: Settings):
        self.catalogue, self.settings = catalogue, settings
        self.metrics = Metrics()
        self.metrics.watch(catalogue)
        self.draining = False
        self.running = self.reading = 0
        # More cannot be queued anyway: they would only hold bodies in memory.
        self.most_running = 2 * sum(m.queue for m in catalogue.models.values())

    async def read(self, http: HttpRequest) -> bytes:
        """The body of a request.

        Raises:
          ApiError: 415 not JSON, 413 too large, 408 too slow, 429 too many bytes of other bodies.
          ClientGone: it went while sending.
        """
        # A page elsewhere can post text, forms, and what has no type, without asking, but not JSON.
        usual = "" if "origin" in http.headers else "application/json"
        kind = http.headers.get("content-type", usual).partition(";")[0].strip()
        if kind.lower() != "application/json" and not kind.lower().endswith("+json"):
            raise ApiError(
                415, f"content type {kind[:100]!r}; send JSON with Content-Type: application/json"
            )
        packed = http.headers.get("content-encoding", "identity")
        if packed.strip().lower() != "identity":
            raise ApiError(415, f"content encoding {packed[:100]!r}; send the body as it is")
        try:
            return await self._whole(http)
        except ClientDisconnect:
            raise ClientGone from None

    async def _whole(self, http: HttpRequest) -> bytes:
        limit = self.settings.max_body
        length = http.headers.get("content-length", "0")
        size, parts = 0, bytearray()
        try:
            async for chunk in self._chunks(http):
                size += len(chunk)
                self.reading -= len(parts)
                if size <= limit:
                    parts += chunk
                else:
                    parts.clear()
                self.reading += len(parts)
                if self.reading > MOST_BODIES * limit:
                    raise overloaded("many large bodies are being read")
                # Most clients read the answer only when they have sent everything: a little more
                # is taken and thrown away. What is far too large is cut off.
                if size > 8 * limit:
                    break
        finally:
            self.reading -= len(parts)
        if size > limit:
            sent = max(size, int(length) if length.isdecimal() else 0)
            raise ApiError(
                413, f"the body has {sent} bytes or more, and this server takes {limit}",
                code="body_too_large", headers={"Connection": "close"},
            )  # fmt: skip
        return bytes(parts)

    async def _chunks(self, http: HttpRequest) -> AsyncIterator[bytes]:
        """The parts of a body, as long as they come, and not for ever."""
        seconds, chunks = self.settings.read_seconds, http.stream()
        loop = asyncio.get_running_loop()
        end = loop.time() + SLOWEST * seconds
        while True:
            try:
                async with asyncio.timeout_at(min(loop.time() + seconds, end)):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise ApiError(408, "the body did not arrive", headers={"Connection": "close"}) \
                    from None  # fmt: skip
            if chunk is None:
                return
            yield chunk


def state_of(http: HttpRequest) -> State:
    """The state of the server that a request came to."""
    return http.app.state.serving
