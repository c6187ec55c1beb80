"""An experiment whose step compiles in seconds: three layers, a short row, a small vocabulary."""

from geex_jax.training.config import default_config

SLICES = {
    "small": {"topology": "v5e:2x2", "batch_size": 16, "mesh.fsdp": 4},
    "two": {"topology": "v5e:2x2", "slices": 2, "options": {"xla_tpu_max_hbm_size_mib": 1}},
}


def get_config():
    config = default_config()
    config.model.preset = "geex-3m"
    config.model.vocab_size = 512
    config.model.context_length = 256
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.model.overrides = {"num_layers": 3}
    config.batch_size = 8
    return config
