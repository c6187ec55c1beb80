"""One pure step, the loop around it, and what it is told by a config."""

from geex_jax.training.config import default_config, load_config
from geex_jax.training.loss import loss_fn
from geex_jax.training.optimizer import OptimizerConfig, make_optimizer
from geex_jax.training.step import StepConfig, TrainState, init_state, jit_train_step, train_step

__all__ = [
    "OptimizerConfig",
    "StepConfig",
    "TrainState",
    "default_config",
    "init_state",
    "jit_train_step",
    "load_config",
    "loss_fn",
    "make_optimizer",
    "train_step",
]
