"""Model of CodeGeeX's shape with 1.3 billion parameters, for one v5e host of 8 chips.

Command:
  geex prepare --input SOURCES --output data --tokenizer codegeex --seq-len 2048
  geex train --config=experiments/geex_1b.py --workdir=runs/1b --config.data.folder=data

Hardware: v5e-8. Plan it with
  geex plan --config experiments/geex_1b.py --slice v5e-8

What the compiler says (libtpu 0.0.42.1): 4 rows a device at a time, 8.4 of 15.75 GiB;
MFU bounds 0.83 / 0.83 by arithmetic over the compiled program (communication hidden / what is
printed as synchronous exposed), NOT measured.
"""

from geex_jax.training.config import default_config

SLICES = {"v5e-8": {"topology": "v5e:2x4"}}


def get_config():
    """Returns the experiment."""
    config = default_config()
    config.name = "geex-1b"
    config.model.preset = "geex-1.3b"
    config.model.context_length = 2048
    config.model.dtype = "bfloat16"
    config.model.remat = "ctx"
    config.steps = 50_000
    config.batch_size = 256
    config.accumulate = 8
    config.optimizer.lr = 2e-4
    config.optimizer.warmup = 1000
    return config
