"""Small CodeGeeX-shaped model for `geex quickstart`: minutes on 2 CPU cores.

Command (`geex quickstart` prints it with its own folders and number of steps):
  geex train --config=experiments/quickstart.py --workdir=runs/q --config.data.folder=data

Hardware and time: 2 CPU cores, about 3 minutes. Result: see the README's quickstart output.
"""

from geex_jax.training.config import default_config


def get_config():
    """Returns the experiment."""
    config = default_config()
    config.name = "quickstart"
    config.model.preset = "geex-3m"
    config.model.context_length = 256
    # In minutes a shallow model on small batches learns most: more steps, more text seen.
    config.model.overrides.num_layers = 2
    config.model.overrides.scan_unroll = 2  # faster on a CPU than a loop over layers
    config.steps = 1500
    config.batch_size = 4
    config.loss_chunk = 64  # smaller temporaries: a CPU spends less time on fresh pages
    config.optimizer.lr = 3e-3
    config.optimizer.end_lr = 1e-4
    config.optimizer.warmup = 50
    config.data.alpha = 0.7
    config.evaluate.every = 300
    config.evaluate.batches = 4
    config.checkpoint.every = 300
    config.log.every = 50
    config.skip.sigma = 10.0  # four rows a step make a noisy loss
    config.evaluate.prompts = []
    return config
