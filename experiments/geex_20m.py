"""CodeGeeX-shaped model of 20M parameters: one evening on a workstation, minutes on one TPU chip.

Command:
  geex prepare --input SOURCES --output data --tokenizer codegeex --seq-len 1024
  geex train --config=experiments/geex_20m.py --workdir=runs/20m --config.data.folder=data

Hardware: one device of any kind; the batch of 64 x 1024 tokens is run in 8 parts to fit a laptop.
On 2 CPU cores a step takes about 100 s (see `geex bench train-step`), so expect to use fewer
steps there (`--config.steps=200`). No result on a public corpus has been measured yet.
"""

from geex_jax.training.config import default_config


def get_config():
    """Returns the experiment."""
    config = default_config()
    config.name = "geex-20m"
    config.model.preset = "geex-20m"
    config.steps = 10_000
    config.batch_size = 64
    config.accumulate = 8
    config.optimizer.lr = 1e-3
    config.optimizer.warmup = 500
    return config
