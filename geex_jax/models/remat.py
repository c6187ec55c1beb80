"""What a block's backward pass keeps, by name: the table behind `config.remat`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

# Checkpoint names that the model writes: what each linear gives, and what attention does (its
# kernels' log-sum-exp included).
QKV = ("query", "key", "value")
LINEARS = (*QKV, "output", "gate", "up", "down")
CONTEXT = ("context",)

_policies = jax.checkpoint_policies


def _on_host(names: tuple[str, ...]) -> Callable[..., Any]:
    # Attention's result stays: the fused backward kernel wants it first, and it is small.
    return _policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(CONTEXT),
        names_which_can_be_offloaded=list(names),
        offload_src="device",
        offload_dst="pinned_host",
    )


POLICIES: dict[str, Callable[..., Any]] = {
    "full": _policies.nothing_saveable,
    "ctx": _policies.save_only_these_names(*CONTEXT),
    "qkv": _policies.save_only_these_names(*QKV),
    # By name and not `dots_with_no_batch_dims_saveable`, which would keep an int8 matmul's int32.
    "minimal": _policies.save_only_these_names(*LINEARS, *CONTEXT),
    "dots": _policies.save_from_both_policies(
        _policies.dots_saveable, _policies.save_only_these_names(*LINEARS, *CONTEXT)
    ),
    "qkv_offload": _on_host(QKV),
    "minimal_offload": _on_host(LINEARS),
}
