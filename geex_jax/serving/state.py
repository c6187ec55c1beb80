"""What all requests of a server share: models, figures, settings, whether it is going down."""

from __future__ import annotations

import asyncio
import dataclasses

from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest

from geex_jax.serving.errors import ApiError
from geex_jax.serving.metrics import Metrics
from geex_jax.serving.running import ClientGone
from geex_jax.serving.served import Catalogue


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
      read_seconds: a client that sends no more of a body for so long is refused.
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
    """Attributes: catalogue, metrics, settings; `draining`; `running`, requests at work."""

    def __init__(self, catalogue: Catalogue, settings: Settings):
        self.catalogue, self.settings = catalogue, settings
        self.metrics = Metrics()
        self.metrics.watch(catalogue)
        self.draining = False
        self.running = 0
        # More cannot be queued anyway: they would only hold bodies in memory.
        self.most_running = 2 * sum(m.queue for m in catalogue.models.values())

    async def read(self, http: HttpRequest) -> bytes:
        """The body of a request.

        Raises:
          ApiError: 415 not JSON, 413 too large, 408 too slow.
          ClientGone: it went while sending.
        """
        # A page elsewhere can post text and forms without asking, but not JSON.
        kind = http.headers.get("content-type", "application/json").partition(";")[0].strip()
        if kind.lower() != "application/json" and not kind.lower().endswith("+json"):
            raise ApiError(
                415, f"content type {kind[:100]!r}; send JSON with Content-Type: application/json"
            )
        try:
            return await self._whole(http)
        except ClientDisconnect:
            raise ClientGone from None

    async def _whole(self, http: HttpRequest) -> bytes:
        limit = self.settings.max_body
        length = http.headers.get("content-length", "0")
        size, parts = 0, bytearray()
        chunks = http.stream()
        while True:
            try:
                async with asyncio.timeout(self.settings.read_seconds):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise ApiError(408, "the body did not arrive", headers={"Connection": "close"}) \
                    from None  # fmt: skip
            if chunk is None:
                break
            size += len(chunk)
            if size <= limit:
                parts += chunk
            else:
                parts.clear()
            # Most clients read the answer only when they have sent everything: a little more is
            # taken and thrown away. What is far too large is cut off.
            if size > 8 * limit:
                break
        if size > limit:
            sent = max(size, int(length) if length.isdecimal() else 0)
            raise ApiError(
                413, f"the body has {sent} bytes or more, and this server takes {limit}",
                code="body_too_large", headers={"Connection": "close"},
            )  # fmt: skip
        return bytes(parts)


def state_of(http: HttpRequest) -> State:
    """The state of the server that a request came to."""
    return http.app.state.serving
