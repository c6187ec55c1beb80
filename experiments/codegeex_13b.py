"""CodeGeeX-13B as the paper trains it: 13 billion parameters, 3072 rows of 2048 tokens a step.

Command, on every host of a slice (see `tpu_setup/`):
  geex prepare --input SOURCES --output data --tokenizer codegeex --seq-len 2048
  geex train --config=experiments/codegeex_13b.py --workdir=gs://BUCKET/13b \
    --config.data.folder=data --config.batch_size=3072 --config.accumulate=12

Plan, on any machine with `pip install "geex-jax[tpu]"`, for each entry of SLICES:
  geex plan --config experiments/codegeex_13b.py --slice v5e-256

Paper: arXiv 2303.17568, 3.2: Adam with betas .9 and .95, 1e-4 to 1e-6, 3072 rows, 1,536 chips.

SLICES holds what a slice needs beside the defaults below: `accumulate` divides the 3072 rows so
that a device holds few at a time, which is what its memory sees. `geex train` takes an entry's
keys as `--config.KEY=VALUE`. Names are Google's: behind v4 and v5p stands the number of
TensorCores, two a chip (v4-128 and v5p-128 have 64 chips, v5p-256 has 128).

Compiled (libtpu 0.0.42.1; bounds are arithmetic over the compiled program, nothing was measured):
one part of v5e-256's batch (`--config.batch_size=256 --config.accumulate=1`), 1 row a device,
remat full: 4.68 GiB of 15.75 a device; MFU at most .81 with communication hidden, .63 with
synchronous collectives exposed.
"""

from geex_jax.training.config import default_config

SLICES = {
    "v4-128": {"topology": "v4:4x4x4", "accumulate": 24, "model.remat": "full"},
    "v5e-256": {"topology": "v5e:16x16", "accumulate": 12, "model.remat": "full"},
    "v5p-128": {"topology": "v5p:4x4x4", "accumulate": 12, "model.remat": "minimal"},
    "v5p-256": {"topology": "v5p:4x4x8", "accumulate": 6, "model.remat": "minimal"},
    "v6e-64": {"topology": "v6e:8x8", "accumulate": 24, "model.remat": "full"},
    "v6e-256": {"topology": "v6e:16x16", "accumulate": 4, "model.remat": "full"},
    "tpu7x-128": {"topology": "tpu7x:4x4x4", "accumulate": 6, "model.remat": "minimal"},
}


def get_config():
    """Returns the experiment."""
    config = default_config()
    config.name = "codegeex-13b"
    config.model.preset = "codegeex-13b"
    config.model.context_length = 2048
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.steps = 213_000
    config.batch_size = 3072
    config.accumulate = 12
    config.loss_chunk = 512
    config.optimizer.lr = 1e-4
    config.optimizer.end_lr = 1e-6
    config.optimizer.warmup = 2000
    return config
