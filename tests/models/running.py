"""Models run as one program: op by op, each of a hundred ops would be compiled by itself."""

import functools
from typing import Any

import jax

from geex_jax.models import Transformer


@functools.partial(jax.jit, static_argnums=0)
def init(model: Transformer, tokens: jax.Array) -> Any:
    """Parameters from key 0."""
    return model.init(jax.random.key(0), tokens)["params"]


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "mutable", "fresh"))
def apply(
    model: Transformer, params: Any, *args: Any, method=None, mutable=False, fresh=False, **words
) -> Any:
    """`model.apply`; a mutable collection is given as a tuple."""
    words |= {"fresh": True} if fresh else {}
    return model.apply({"params": params}, *args, method=method, mutable=mutable, **words)
