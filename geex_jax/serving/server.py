"""The process: a socket, uvicorn, and an orderly way down."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from geex_jax.errors import GeexError
from geex_jax.serving.state import State

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEEP_ALIVE = 30  # seconds that a connection stays open for the next request
log = logging.getLogger("geex_jax.serving")


def bind(host: str, port: int) -> socket.socket:
    """Takes an address before anything costly happens.

    Who connects before `serve` waits. Without listening, a second server could take the same
    address while this one loads.

    Args:
      host: a name or an address. port: 0 takes a free one.

    Raises:
      GeexError: no such host, or the address is taken.
    """
    if not 0 <= port < 1 << 16:
        raise GeexError(f"port {port}", "give 1 to 65535, or 0 for a free one")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise GeexError(f"no address {host}:{port} ({error})", "give --host and --port") from None
    try:
        if os.name == "posix":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        found.close()
        reason = error.strerror or str(error)
        raise GeexError(
            f"cannot listen on {host}:{port} ({reason})", "choose another --port, or stop the other"
        ) from None
    found.set_inheritable(False)
    return found


def url_of(sock: socket.socket) -> str:
    """The address of a bound socket, for people and browsers."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{host}:{port}"


def serve(app: Starlette, sock: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Serves until SIGTERM or SIGINT, then lets what runs finish, then stops the engines.

    From the signal on new requests get 503, and `/health` too, so that a load balancer looks
    elsewhere; after `drain_seconds`, or at a second signal, what still runs is cut off.

    Args:
      app: of `make_app`. sock: of `bind`. ready: called once requests are accepted.
    """
    state: State = app.state.serving
    server = _Server(app, state, ready)
    try:
        server.run([sock])
    finally:
        sock.close()
        for served in state.catalogue.models.values():
            served.engine.stop(drain=False, timeout=10.0)


class _Server(uvicorn.Server):
    """uvicorn, which drains before it closes its sockets and cuts off who does not read."""

    def __init__(self, app: Starlette, state: State, ready: Callable[[], None]):
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=5,
            )
        )
        self._state, self._ready = state, ready
        self._stopped_at: float | None = None
        self._stalled: dict[Any, tuple[int, float]] = {}
        self._silent: dict[Any, tuple[Any, float]] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; then says so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the drain, a second one ends it."""
        del frame
        if self._state.draining:
            self.should_exit = self.force_exit = True
        self._state.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to go."""
        if counter % 10 == 0:
            self._cut_off()
            self._hang_up()
        if self._state.draining:
            now, limit = time.monotonic(), self._state.settings.drain_seconds
            if self._stopped_at is None:
                self._stopped_at = now
                if self._state.running:
                    about = f"{self._state.running} requests have {limit:.0f} s to finish"
                    print(f"geex serve: {about}", file=sys.stderr, flush=True)
            over = now - self._stopped_at > limit
            if over or self._state.running == 0:
                self.should_exit = True
        return await super().on_tick(counter)

    def _cut_off(self) -> None:
        """Ends connections whose outgoing bytes have not moved for `stall_seconds`.

        uvicorn waits for such a client for ever, with its buffer and its socket.
        """
        now, known, self._stalled = time.monotonic(), self._stalled, {}
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is None:
                continue
            size = transport.get_write_buffer_size()
            before, since = known.get(connection, (-1, now))
            if size == 0 or size != before:
                since = now
            if now - since > self._state.settings.stall_seconds:
                log.warning("cut off a client that does not read (%d bytes waiting)", size)
                transport.abort()
            elif size:
                self._stalled[connection] = (size, since)

    def _hang_up(self) -> None:
        """Closes connections whose client has not sent the head of a request in time.

        uvicorn only closes those that are wholly silent after a request.
        """
        now, known, self._silent = time.monotonic(), self._silent, {}
        patience = self._state.settings.read_seconds
        for connection in list(self.server_state.connections):
            cycle, transport = getattr(connection, "cycle", None), connection.transport
            if transport is None or not (cycle is None or cycle.response_complete):
                continue
            # Another cycle is another request: between two glances it may have come and gone.
            before, since = known.get(connection, (cycle, now))
            since = since if before is cycle else now
            self._silent[connection] = (cycle, since)
            if now - since > patience + (0 if cycle is None else KEEP_ALIVE):
                transport.close()
