"""The ASGI application: routes, the page, and every error in OpenAI's shape."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from geex_jax import languages
from geex_jax.errors import GeexError
from geex_jax.serving import answers, product, tokens
from geex_jax.serving.chat import chat
from geex_jax.serving.completions import completions
from geex_jax.serving.errors import ApiError, refused
from geex_jax.serving.gate import Gate, refusal
from geex_jax.serving.running import ClientGone
from geex_jax.serving.served import Catalogue, Served
from geex_jax.serving.state import Settings, State, state_of

STATIC = pathlib.Path(__file__).parent / "static"
PAGE = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"),
        "/page.css": ("page.css", "text/css")}  # fmt: skip
# The page loads its own two files, talks to its own server, and can do nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def make_app(models: Sequence[Served], settings: Settings | None = None) -> Starlette:
    """Builds the application.

    Args:
      models: what is served, the default one first; their engines are started and stopped by the
        caller.
      settings: limits and doors.

    Returns:
      An ASGI application; `app.state.serving` is its State.
    """
    state = State(Catalogue(models), settings or Settings())
    routes = [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/v1/translate", product.translate, methods=["POST"]),
        Route("/v1/explain", product.explain, methods=["POST"]),
        Route("/tokenize", tokens.tokenize, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
        Route("/tokenizer_info", tokens.tokenizer_info),
        Route("/v1/models", models_list),
        Route("/v1/models/{name:path}", one_model),
        Route("/v1/languages", languages_list),
        Route("/health", health),
        Route("/v1/health", health),
        Route("/metrics", metrics),
        *(Route(path, page) for path in PAGE),
    ]
    paths = frozenset(route.path for route in routes)
    middleware = [Middleware(Gate, state=state, paths=paths)]
    if state.settings.cors:
        cors = Middleware(
            CORSMiddleware, allow_origins=list(state.settings.cors), allow_methods=["GET", "POST"],
            allow_headers=["*"], max_age=600,
        )  # fmt: skip
        middleware.insert(0, cors)
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={
            ApiError: _api_error,
            GeexError: _geex_error,
            HTTPException: _http_error,
            ClientGone: _gone,
            Exception: _unexpected,
        },
    )
    app.state.serving = state
    return app


async def models_list(http: HttpRequest) -> Response:
    """`GET /v1/models`."""
    served = state_of(http).catalogue.models.values()
    return answers.answer({"object": "list", "data": [m.card() for m in served]})


async def one_model(http: HttpRequest) -> Response:
    """`GET /v1/models/NAME`."""
    return answers.answer(state_of(http).catalogue.get(http.path_params["name"]).card())


async def languages_list(http: HttpRequest) -> Response:
    """`GET /v1/languages`: what `language`, `from` and `to` may be."""
    del http
    known = [{"id": x.slug, "name": x.name, "tag": x.tag} for x in languages.LANGUAGES]
    return answers.answer({"object": "list", "data": known})


async def health(http: HttpRequest) -> Response:
    """`GET /health`: 200, or 503 once the server is going down or an engine has given up."""
    state = state_of(http)
    models = state.catalogue.models
    trouble = [f"{name}: the engine has stopped" for name, m in models.items() if m.stopped]
    status = "draining" if state.draining else "failed" if trouble else "ok"
    about = {"status": status, "models": [*models]} | ({"trouble": trouble} if trouble else {})
    return answers.answer(about, 200 if status == "ok" else 503)


async def metrics(http: HttpRequest) -> Response:
    """`GET /metrics`, for Prometheus."""
    text, kind = state_of(http).metrics.render()
    return Response(text, headers={"Content-Type": kind})


async def page(http: HttpRequest) -> Response:
    """The page at `/` and its two files."""
    name, kind = PAGE[http.url.path]
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response((STATIC / name).read_bytes(), headers=headers, media_type=kind)


async def _api_error(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return refusal(error)


async def _geex_error(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, GeexError)
    return refusal(refused(error))


async def _http_error(http: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: f"there is no {http.url.path[:200]!r} here",
            405: f"{http.method} does not go with {http.url.path[:200]!r}"}  # fmt: skip
    message = said.get(error.status_code, error.detail)
    return refusal(ApiError(error.status_code, message, headers=error.headers))


async def _gone(http: HttpRequest, error: Exception) -> Response:
    state_of(http).metrics.gone.inc()
    return Response(status_code=499)  # nobody reads it; the books do


async def _unexpected(http: HttpRequest, error: Exception) -> Response:
    # Starlette raises the error again after this answer, and uvicorn logs it.
    return refusal(ApiError(500, "the server made a mistake; its log says more"))
