"""Models behind HTTP: OpenAI's routes, the paper's, health and figures, and a page to try them.

    models = serving.load(serving.Wanted([("", "runs/small")]))
    serving.serve(serving.make_app(models), serving.bind("127.0.0.1", 8000))

`make_app` gives a plain ASGI application; whoever brings engines of their own (`Served`) can
mount it elsewhere.
"""

from geex_jax.serving.app import make_app
from geex_jax.serving.chat_templates import ChatTemplate
from geex_jax.serving.errors import ApiError
from geex_jax.serving.loading import Wanted, load, parse_checkpoint
from geex_jax.serving.served import Served
from geex_jax.serving.server import LOOPBACK, bind, serve, url_of
from geex_jax.serving.state import Settings

__all__ = [
    "LOOPBACK",
    "ApiError",
    "ChatTemplate",
    "Served",
    "Settings",
    "Wanted",
    "bind",
    "load",
    "make_app",
    "parse_checkpoint",
    "serve",
    "url_of",
]
