"""The experiment that `geex bench plan` compiles when none is named: a minute a choice."""

from geex_jax.training.config import default_config


def get_config():
    """Returns the experiment."""
    config = default_config()
    config.name = "plan-small"
    config.model.preset = "geex-3m"
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.model.overrides = {"num_layers": 3}
    config.batch_size = 16
    config.accumulate = 2
    return config
