"""AdamW as the paper trains: betas .9 and .95, no decay on norms and biases, warmup and cosine."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import optax

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.training.moments import scale_by_coded_adam

Moments = Literal["float32", "bfloat16", "int8"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The paper's settings by default (2303.17568, 3.2: 1e-4 to 1e-6 over 200k steps).

    Attributes:
      lr, end_lr: peak and final learning rate.
      warmup: steps of linear warmup from 0.
      steps: steps after which the cosine has reached end_lr.
      b1, b2, eps: Adam.
      weight_decay: decoupled; not on norms and biases.
      clip: largest global gradient norm; 0 for none.
      moments: how m and v are stored between steps; see `training.moments`.
    """

    lr: float = 1e-4
    end_lr: float = 1e-6
    warmup: int = 2000
    steps: int = 200_000
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    moments: Moments = "float32"

    def __post_init__(self):
        if self.moments not in get_args(Moments):
            raise GeexError(
                f"optimizer.moments = {self.moments!r} is not known",
                did_you_mean(str(self.moments), get_args(Moments)),
            )
        if self.lr <= 0 or self.end_lr < 0:
            raise GeexError(f"optimizer.lr = {self.lr}", "learning rates must be positive")
        if not 0 <= self.warmup <= self.steps:
            raise GeexError(
                f"optimizer.warmup {self.warmup} exceeds optimizer.steps {self.steps}",
                "warm up for fewer steps",
            )


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Linear warmup to lr, then a cosine to end_lr at `steps`, constant after."""
    return optax.warmup_cosine_decay_schedule(
        0.0, config.lr, config.warmup, max(config.steps, config.warmup + 1), config.end_lr
    )


def decay_mask(params: Any) -> Any:
    """True on kernels and tables, False on norms and biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key in ("kernel", "tokens", "positions"), params
    )


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW."""
    if config.moments == "float32":
        adamw = optax.adamw(
            schedule(config),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decay_mask,
        )
    else:
        adamw = optax.chain(
            scale_by_coded_adam(config.b1, config.b2, config.eps, config.moments),
            optax.add_decayed_weights(config.weight_decay, decay_mask),
            optax.scale_by_learning_rate(schedule(config)),
        )
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw) if config.clip else adamw
