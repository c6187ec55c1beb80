"""A model folder small enough to be served in seconds."""

import jax
import jax.numpy as jnp

from geex_jax import checkpoints
from geex_jax.models import ModelConfig, Transformer
from geex_jax.tokenizers import train_sentencepiece
from tests.inference.helpers import lively

CONFIG = ModelConfig(
    vocab_size=448, context_length=128, d_model=32, num_heads=2, num_layers=2, d_ff=64
)


def write_model(folder):
    """Writes random weights and a vocabulary of 400 made of simple functions."""
    texts = [f"def item_{i}(a, b):\n    return a * {i} + b\n" for i in range(300)]
    tokenizer = train_sentencepiece(texts, None, 400)
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = lively(jax.jit(Transformer(CONFIG).init)(jax.random.key(0), tokens)["params"], 4.0)
    return checkpoints.save_model(folder, CONFIG, params, tokenizer)
