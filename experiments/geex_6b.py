"""Model of CodeGeeX's shape with 6 billion parameters, for a v6e slice of 16 chips.

Command, on every host of the slice (see `tpu_setup/`):
  geex prepare --input SOURCES --output data --tokenizer codegeex --seq-len 2048
  geex train --coordinator=auto --config=experiments/geex_6b.py --workdir=SHARED/6b \
    --config.data.folder=data

Hardware: v6e-16. Plan it with
  geex plan --config experiments/geex_6b.py --slice v6e-16

What the compiler says (libtpu 0.0.42.1): 4 rows a device at a time, 20.6 of 31.25 GiB;
MFU bounds 0.83 / 0.72 by arithmetic over the compiled program (communication hidden / what is
printed as synchronous exposed), NOT measured.
"""

from geex_jax.training.config import default_config

SLICES = {"v6e-16": {"topology": "v6e:4x4"}}


def get_config():
    """Returns the experiment."""
    config = default_config()
    config.name = "geex-6b"
    config.model.preset = "geex-6b"
    config.model.context_length = 2048
    config.model.dtype = "bfloat16"
    config.model.remat = "ctx"
    config.steps = 100_000
    config.batch_size = 1024
    config.accumulate = 16
    config.optimizer.lr = 1.5e-4
    config.optimizer.warmup = 2000
    return config
