"""A tokenizer of bytes, and a small model over its ids."""

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.models import ModelConfig, Transformer


class ByteTokenizer:
    """Ids 0..255 are bytes, 256 is eos; the rest of a vocabulary is padding."""

    kind, vocab_size, eos_id, pad_id = "bytes", 257, 256, 256

    def encode(self, text, *, allow_special=False):
        return list(text.encode())

    def encode_batch(self, texts, *, allow_special=False, num_workers=None):
        return [self.encode(t) for t in texts]

    def decode_bytes(self, ids):
        return bytes(i for i in ids if i < 256)

    def decode(self, ids):
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_byte_lengths(self):
        return np.array([1] * 256 + [0], np.int32)

    def fingerprint(self):
        return "0" * 16

    def save(self, folder):
        raise NotImplementedError


CONFIG = ModelConfig(
    vocab_size=320, context_length=96, d_model=32, num_heads=2, num_layers=3, d_ff=64
)


def lively(params, factor=8.0):
    """Fresh weights give nearly flat logits; larger ones make the tokens vary."""
    return jax.tree.map(lambda x: x * factor if x.ndim > 1 else x, params)


def small_model(**changes):
    model = Transformer(CONFIG.replace(**changes))
    params = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))["params"]
    return model, lively(params)
