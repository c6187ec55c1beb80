"""Before any route: who may come in, whether there is room, and the books."""

from __future__ import annotations

import hmac
import time

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from geex_jax.serving.errors import ApiError, overloaded, stopping
from geex_jax.serving.state import State

OPEN = ("/v1/health",)  # below /v1/, and without a key
GUARDED = ("/tokenize", "/detokenize", "/tokenizer_info")  # elsewhere, and with one


class Gate:
    """ASGI middleware: host, key, draining and room, each refused before a body is read."""

    def __init__(self, app: ASGIApp, state: State, paths: frozenset[str]):
        self._app, self._state, self._paths = app, state, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it; counts it either way."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state, metrics = self._state, self._state.metrics
        began, status = time.monotonic(), 500
        route = scope["path"] if scope["path"] in self._paths else "other"

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        state.running += 1
        metrics.running.inc()
        try:
            error = self._refusal(scope)
            if error is not None:
                await refusal(error)(scope, receive, noting)
            else:
                await self._app(scope, receive, noting)
        finally:
            state.running -= 1
            metrics.running.dec()
            metrics.requests.labels(route, str(status)).inc()
            metrics.seconds.labels(route).observe(time.monotonic() - began)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = dict(scope["headers"])
        settings, path = self._state.settings, scope["path"]
        host = headers.get(b"host", b"").decode("latin-1")
        if settings.hosts and _name(host) not in settings.hosts:
            return ApiError(
                403, f"Host {host[:100]!r} is not one of this server's names; "
                "start it with --allow-host NAME to answer to it", code="wrong_host",
            )  # fmt: skip
        guarded = (path.startswith("/v1/") and path not in OPEN) or path in GUARDED
        if not guarded:
            return None
        if settings.api_keys and not self._known(headers.get(b"authorization", b"")):
            return ApiError(
                401, "no valid API key; send Authorization: Bearer KEY", code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        if scope["method"] == "POST":
            if self._state.draining:
                return stopping()
            if self._state.running > self._state.most_running:
                return overloaded(f"{self._state.running} requests are being answered")
        return None

    def _known(self, header: bytes) -> bool:
        kind, _, key = header.partition(b" ")
        # Every key is compared in full, so that time tells nothing.
        same = [hmac.compare_digest(key.strip(), k.encode()) for k in self._state.settings.api_keys]
        return kind.lower() == b"bearer" and any(same)


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def refusal(error: ApiError) -> Response:
    """The response of an error."""
    return Response(error.encoded(), error.status, error.headers, "application/json")
