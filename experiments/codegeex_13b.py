"""CodeGeeX-13B as the paper trains it: 13 billion parameters, 3072 rows of 2048 tokens a step.

Command, on every host of a slice (`tpu_setup/README.md`); the defaults are those of a v5e-256, for
another slice add its overrides from SLICES (`--config.accumulate=6 --config.model.remat=ctx`):
  geex prepare --input SOURCES --output data --tokenizer codegeex --seq-len 2048
  geex train --coordinator=auto --config=experiments/codegeex_13b.py --workdir=SHARED/13b \
    --config.data.folder=data

Plan, on any machine with `pip install "geex-jax[tpu]"`, for each entry of SLICES:
  geex plan --config experiments/codegeex_13b.py --slice v5e-256

What the compiler says (libtpu 0.0.42.1, 2 cores, default effort): GiB a device are arguments and
temporaries; MFU bounds are arithmetic over the compiled program, NOT measured: if communication
overlaps with compute perfectly, and if what is printed as synchronous does not at all.
  v4-128       64 chips   6 rows at a time, ctx       24.5 of 31.25 GiB   0.82 / 0.76
  v5e-256     256 chips   4 rows at a time, ctx       12.6 of 15.75 GiB   0.82 / 0.77
  v5p-128      64 chips   4 rows at a time, minimal   42.3 of 94.75 GiB   0.99 / 0.88
  v5p-256     128 chips   4 rows at a time, minimal   39.8 of 94.75 GiB   0.99 / 0.88
  v6e-64       64 chips   8 rows at a time, ctx       28.3 of 31.25 GiB   0.82 / 0.71
  v6e-256     256 chips   6 rows at a time, ctx       19.4 of 31.25 GiB   0.82 / 0.68
  tpu7x-128    64 chips   8 rows at a time, minimal   75.4 of 94.75 GiB   0.99 / 0.99

Paper: arXiv 2303.17568, 3.2: Adam with betas .9 and .95, 1e-4 to 1e-6, 3072 rows, 1,536 chips.

SLICES holds what a slice needs beside the defaults below: `accumulate` divides the 3072 rows so
that a device holds few at a time, which is what its memory sees.
"""

from geex_jax.training.config import default_config

SLICES = {
    "v4-128": {"topology": "v4:4x4x4", "accumulate": 8, "model.remat": "ctx"},
    "v5e-256": {"topology": "v5e:16x16", "accumulate": 3, "model.remat": "ctx"},
    "v5p-128": {"topology": "v5p:4x4x4", "accumulate": 12, "model.remat": "minimal"},
    "v5p-256": {"topology": "v5p:4x4x8", "accumulate": 6, "model.remat": "minimal"},
    "v6e-64": {"topology": "v6e:8x8", "accumulate": 6, "model.remat": "ctx"},
    "v6e-256": {"topology": "v6e:16x16", "accumulate": 2, "model.remat": "ctx"},
    "tpu7x-128": {"topology": "tpu7x:4x4x4", "accumulate": 3, "model.remat": "minimal"},
}


def get_config():
    """Returns the experiment."""
    config = default_config()
    config.name = "codegeex-13b"
    config.model.preset = "codegeex-13b"
    config.model.context_length = 2048
    config.model.dtype = "bfloat16"
    config.model.remat = "ctx"
    config.steps = 213_000
    config.batch_size = 3072
    config.accumulate = 3
    config.loss_chunk = 512
    config.optimizer.lr = 1e-4
    config.optimizer.end_lr = 1e-6
    config.optimizer.warmup = 2000
    return config
