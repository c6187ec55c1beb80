"""CodeGeeX and its training step in plain PyTorch: the peer of `geex bench train-step`, gpu-step.

Written as one writes PyTorch today: `scaled_dot_product_attention`, `cross_entropy` over flat
logits, fused AdamW, autocast for bfloat16; torch.compile where it is asked for. It computes
exactly what `training.step` computes from the same parameters; the benches and a test hold it to
that.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from geex_jax.errors import GeexError

os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
try:
    import torch  # pyright: ignore[reportMissingImports]
    import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
    from torch import nn  # pyright: ignore[reportMissingImports]
except ImportError:
    raise GeexError("this bench needs PyTorch", 'pip install "geex-jax[convert]"') from None

from geex_jax.models import ModelConfig, to_dict
from geex_jax.training.optimizer import OptimizerConfig

# Sizes may differ from the default config; every other field must not.
SIZES = {"name", "vocab_size", "context_length", "d_model", "num_layers", "num_heads", "d_ff"}
# These do not change what is computed.
FREE = {"dtype", "norm_eps", "scan_layers", "scan_unroll", "remat", "attention"}


def check_config(config: ModelConfig) -> None:
    """Raises GeexError for parts that the reference does not have."""
    usual = to_dict(ModelConfig())
    for field, value in to_dict(config).items():
        if field not in SIZES | FREE and value != usual[field]:
            raise GeexError(
                f"the PyTorch reference knows no {field} = {value!r}",
                "measure one of the CodeGeeX presets",
            )
    if config.dtype == "float16":
        raise GeexError("the PyTorch reference knows no float16", "use float32 or bfloat16")


class Block(nn.Module):
    """Pre-norm attention and MLP; the query may be made of another input."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width, inner = config.d_model, config.num_heads * config.head_width
        self.heads = config.num_heads
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner)
        self.value = nn.Linear(width, inner)
        self.output = nn.Linear(inner, width)
        self.mlp_norm = nn.LayerNorm(width, eps=config.norm_eps)
        self.up = nn.Linear(width, config.d_ff)
        self.down = nn.Linear(config.d_ff, width)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, query_input: torch.Tensor | None = None
    ) -> torch.Tensor:
        """X and query_input [B, T, D], mask bool [B, 1, T, T] or None (causal); gives [B, T, D]."""
        batch, length, _ = x.shape
        normed = self.attention_norm(x)

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, length, self.heads, -1).transpose(1, 2)

        attended = F.scaled_dot_product_attention(
            split(self.query(normed if query_input is None else query_input)),
            split(self.key(normed)),
            split(self.value(normed)),
            attn_mask=mask,
            is_causal=mask is None,
        )
        x = x + self.output(attended.transpose(1, 2).reshape(batch, length, -1))
        hidden = self.up(self.mlp_norm(x))
        return x + self.down(hidden * torch.sigmoid(1.702 * hidden))


class CodeGeeX(nn.Module):
    """The decoder: learned positions, blocks, final norm, top query layer, tied head."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.context_length, config.d_model)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = nn.LayerNorm(config.d_model, eps=config.norm_eps)
        self.top_positions = nn.Embedding(config.context_length, config.d_model)
        self.top = Block(config)

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Tokens and positions int [B, T] to logits [B, T, V]."""
        x = self.tokens(tokens) + self.positions(positions)
        for layer in self.layers:
            x = layer(x, mask)
        x = self.top(self.final_norm(x), mask, self.top_positions(positions))
        return F.linear(x, self.tokens.weight)


class TorchStep:
    """Model, fused AdamW and clipping: `step(batch, lr)` trains on one batch.

    Args:
      config: a CodeGeeX shape; dtype "bfloat16" means autocast over float32 parameters.
      params: our parameter tree (stacked layers); it is copied.
      optimizer: the same settings as ours; the learning rate is given to each step.
      device: "cpu" or "cuda".
      compiled: forward pass and loss go through torch.compile.

    Raises:
      GeexError: parts of the config that the reference does not have.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: dict[str, Any],
        optimizer: OptimizerConfig,
        device: str = "cpu",
        compiled: bool = False,
    ):
        check_config(config)
        self.device = device
        self.model = CodeGeeX(config)
        self.model.load_state_dict(state_dict(params))
        self.model.to(device)
        self.clip = optimizer.clip
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16")
        self.loss = torch.compile(self._loss) if compiled else self._loss
        self.mask: torch.Tensor | None = None
        named = dict(self.model.named_parameters())
        plain = [p for name, p in named.items() if "norm" in name or name.endswith("bias")]
        decayed = [p for p in named.values() if all(p is not q for q in plain)]
        groups = [
            {"params": decayed, "weight_decay": optimizer.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=optimizer.lr,
            betas=(optimizer.b1, optimizer.b2),
            eps=optimizer.eps,
            fused=True,
        )

    def step(self, batch: dict[str, np.ndarray], lr: float) -> float:
        """Takes one optimizer step on a batch of `geex_jax.data`'s layout; returns the loss.

        Rows of one segment take PyTorch's causal fast path, packed rows an explicit mask.
        """
        tokens, positions = (
            torch.from_numpy(batch[k]).long().to(self.device) for k in ("tokens", "positions")
        )
        targets = torch.from_numpy(batch["targets"]).long()
        targets = targets.masked_fill(torch.from_numpy(batch["loss_mask"]) == 0, -100)
        mask = segment_mask(batch["segment_ids"])
        mask = None if mask is None else mask.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(tokens, positions, mask, targets.to(self.device))
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return float(loss.detach())

    def _loss(
        self,
        tokens: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        with self.autocast:
            logits = self.model(tokens, positions, mask)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def segment_mask(segment_ids: np.ndarray) -> torch.Tensor | None:
    """Bool [B, 1, T, T]: causal and within segments; None if every row is one segment."""
    if (segment_ids == segment_ids[:, :1]).all():
        return None
    ids = torch.from_numpy(segment_ids)
    same = ids[:, :, None] == ids[:, None, :]
    return (same & torch.ones(same.shape[1:], dtype=torch.bool).tril())[:, None]


def state_dict(params: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Our parameter tree (stacked layers) as a state dict of `CodeGeeX`; everything is copied."""

    def tensor(x: Any) -> torch.Tensor:
        return torch.from_numpy(np.array(x, np.float32))

    out = {
        "tokens.weight": tensor(params["embedding"]["tokens"]),
        "positions.weight": tensor(params["embedding"]["positions"]),
        "top_positions.weight": tensor(params["top_query"]["positions"]),
        "final_norm.weight": tensor(params["final_norm"]["scale"]),
        "final_norm.bias": tensor(params["final_norm"]["bias"]),
    }

    def block(prefix: str, tree: dict[str, Any], pick: Any) -> None:
        linears = {**tree["attention"], **tree["mlp"]}
        for name, linear in linears.items():
            out[f"{prefix}.{name}.weight"] = tensor(np.asarray(pick(linear["kernel"])).T)
            out[f"{prefix}.{name}.bias"] = tensor(pick(linear["bias"]))
        for name in ("attention_norm", "mlp_norm"):
            out[f"{prefix}.{name}.weight"] = tensor(pick(tree[name]["scale"]))
            out[f"{prefix}.{name}.bias"] = tensor(pick(tree[name]["bias"]))

    for i in range(params["layers"]["attention_norm"]["scale"].shape[0]):
        block(f"layers.{i}", params["layers"], lambda x, i=i: x[i])
    block("top", params["top_query"]["layer"], lambda x: x)
    return out
