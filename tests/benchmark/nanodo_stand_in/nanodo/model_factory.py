"""A module of nanodo's parameter names, whose loss is ours."""

import flax.linen as nn
import jax.numpy as jnp

from geex_jax.models import Transformer, preset
from geex_jax.training.loss import loss_fn

NAMES = ("query", "key", "value", "attn_out_proj")


class Module:
    def __init__(self, sizes, vocab_size):
        assert sizes["fsdp_enabled"] and sizes["remat"] is False
        self.sizes, self.vocab_size = dict(sizes), vocab_size
        self.model = Transformer(
            preset(
                "geex-3m",
                vocab_size=vocab_size, context_length=sizes["L"], d_model=sizes["D"],
                num_layers=sizes["N"], num_heads=sizes["H"], d_ff=sizes["F"], dtype=sizes["dtype"],
                activation="gelu_tanh", qkv_bias=False, output_bias=False, mlp_bias=False,
                top_query_layer=False, norm_eps=1e-6,
            )
        )  # fmt: skip

    def init(self, rng, inputs):
        d, f, h = self.sizes["D"], self.sizes["F"], self.sizes["H"]

        def box(*shape, split=0):
            names = tuple("data" if i == split else None for i in range(len(shape)))
            return nn.Partitioned(jnp.zeros(shape), names)

        tree = {
            "embed": {"embedding": box(self.vocab_size, d)},
            "pos_embed": {"embedding": box(self.sizes["L"], d)},
            "out_ln": {"scale": jnp.ones(d)},
        }
        for i in range(self.sizes["N"]):
            kernels = {n: {"kernel": box(d, h, d // h)} for n in NAMES[:3]}
            kernels["attn_out_proj"] = {"kernel": box(h, d // h, d, split=2)}
            tree[f"blocks_{i}"] = {
                "LayerNorm_0": {"scale": jnp.ones(d)},
                "LayerNorm_1": {"scale": jnp.ones(d)},
                "CausalAttn_0": kernels,
                "Mlp_0": {"Dense_0": {"kernel": box(d, f)}, "Dense_1": {"kernel": box(f, d)}},
            }
        return {"params": tree}

    def apply(self, tree, tokens):
        """The mean loss, as ours computes it from the same numbers."""
        tree, d, n = nn.unbox(tree), self.sizes["D"], self.sizes["N"]

        def stack(*path):
            out = []
            for i in range(n):
                leaf = tree[f"blocks_{i}"]
                for key in path:
                    leaf = leaf[key]
                out.append(leaf)
            return jnp.stack(out)

        def norm(scale):
            return {"scale": scale, "bias": jnp.zeros_like(scale)}

        attention = {
            ours: {"kernel": stack("CausalAttn_0", name, "kernel").reshape(n, d, d)}
            for ours, name in zip(("query", "key", "value", "output"), NAMES, strict=True)
        }
        params = {
            "embedding": {
                "tokens": tree["embed"]["embedding"],
                "positions": tree["pos_embed"]["embedding"],
            },
            "layers": {
                "attention_norm": norm(stack("LayerNorm_0", "scale")),
                "mlp_norm": norm(stack("LayerNorm_1", "scale")),
                "attention": attention,
                "mlp": {
                    "up": {"kernel": stack("Mlp_0", "Dense_0", "kernel")},
                    "down": {"kernel": stack("Mlp_0", "Dense_1", "kernel")},
                },
            },
            "final_norm": norm(tree["out_ln"]["scale"]),
        }
        targets = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))
        batch = {
            "tokens": tokens,
            "targets": targets,
            "positions": jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape),
            "segment_ids": jnp.ones_like(tokens),
            "loss_mask": (targets != 0).astype(jnp.float32),
        }
        return loss_fn(params, batch, self.model)[0]


def get_model_and_loss(c, vocab_size):
    return Module(c.model, vocab_size), None
