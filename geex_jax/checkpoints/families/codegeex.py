"""The official CodeGeeX checkpoint: q, k, v separate or fused, whole or in parallel parts."""

from __future__ import annotations

from collections.abc import Mapping

from geex_jax.checkpoints.families.base import Family, Rule, linear, norm, tensor
from geex_jax.checkpoints.tensors import Lazy
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig

PADDED_VOCABULARY = 52224  # rows beyond it are padding of some tensor-parallel layout
HEAD_WIDTH = 128


def _block(outside: str, ours: str, qkv: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return (
        *norm(f"{outside}.input_layernorm", f"{ours}/attention_norm"),
        *qkv,
        *linear(f"{outside}.attention.dense", f"{ours}/attention/output", weight_split=1),
        *norm(f"{outside}.post_attention_layernorm", f"{ours}/mlp_norm"),
        *_rows(f"{outside}.mlp.dense_h_to_4h", f"{ours}/mlp/up"),
        *linear(f"{outside}.mlp.dense_4h_to_h", f"{ours}/mlp/down", weight_split=1),
    )


def _rows(outside: str, *ours: str, ranks: int = 1) -> tuple[Rule, ...]:
    return linear(outside, *ours, blocks=lambda config: ranks, weight_split=0, bias_split=0)


def _separate(outside: str, ours: str) -> tuple[Rule, ...]:
    names = ("query", "key", "value")
    pairs = [_rows(f"{outside}.attention.{n}", f"{ours}/attention/{n}") for n in names]
    return tuple(rule for pair in pairs for rule in pair)


def _integers(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The quantized form of every kernel: integers [out, in] as they lie, and float16 scales."""
    out: list[Rule] = []
    for rule in rules:
        if rule.ours[0].endswith("/kernel"):
            scales = tuple(f"{path}_scale" for path in rule.ours)
            out.append(Rule(f"{rule.outside}_scale", scales, rule.blocks, _split_of_scale(rule)))
            for bits in (8, 4):
                ints = tuple(f"{path}_int{bits}" for path in rule.ours)
                out.append(Rule(rule.outside, ints, rule.blocks, rule.split))
    return tuple(out)


def _split_of_scale(rule: Rule) -> int | None:
    # Cut along the inputs, every part has all rows, and so a copy of their scales.
    return 0 if rule.split == 0 else None


def family(fused: bool = False, ranks: int = 1) -> Family:
    """The family's tables.

    Args:
      fused: layers hold `query_key_value` (rows q, k, v) and the top query layer `key_value`.
      ranks: tensor-parallel parts that were joined; each one's fused rows are a block.
    """
    layer, top = ("layers.{i}", "layers"), ("topQueryLayer", "top_query/layer")
    qkv, top_qkv = _separate(*layer), _separate(*top)
    if fused:
        paths = [f"layers/attention/{n}" for n in ("query", "key", "value")]
        qkv = _rows("layers.{i}.attention.query_key_value", *paths, ranks=ranks)
        paths = [f"top_query/layer/attention/{n}" for n in ("key", "value")]
        top_qkv = (
            *_rows("topQueryLayer.attention.query", "top_query/layer/attention/query"),
            *_rows("topQueryLayer.attention.key_value", *paths, ranks=ranks),
        )
    blocks = (*_block(*layer, qkv), *_block(*top, top_qkv))
    return Family(
        name="codegeex",
        architecture="CodeGeeX",
        example="codegeex_13b.pt",
        fields=(),
        parts={},
        tensors=(
            *tensor("word_embeddings.weight", "embedding/tokens", split=0),
            *tensor("position_embeddings.weight", "embedding/positions"),
            *tensor("top_query_embeddings.weight", "top_query/positions", split=0),
            *blocks,
            *_integers(blocks),
            *norm("final_layernorm", "final_norm"),
        ),
    )


FAMILY = family()


def config_of(tensors: Mapping[str, Lazy], where: object, heads: int | None) -> ModelConfig:
    """The model's shape, as far as the tensors tell it.

    Args:
      tensors: flat official names, parts joined.
      where: the file, for messages.
      heads: attention heads; by default heads are 128 wide, as the 13B model's.

    Raises:
      GeexError: tensors that the shape is read off are missing or not matrices.
    """
    needed = (
        "word_embeddings.weight",
        "position_embeddings.weight",
        "topQueryLayer.mlp.dense_h_to_4h.weight",
    )
    for name in needed:
        if name not in tensors or len(tensors[name].shape) != 2:
            raise GeexError(f"{where}: no matrix {name}", "give an official CodeGeeX checkpoint")
    rows, width = tensors[needed[0]].shape
    numbers = [int(n.split(".")[1]) for n in tensors if n.startswith("layers.")]
    if heads is None and width % HEAD_WIDTH and width > HEAD_WIDTH:
        raise GeexError(
            f"{where}: the number of heads is not in the file, and width {width} does not divide "
            f"into heads of {HEAD_WIDTH}",
            "give --num-heads",
        )
    return ModelConfig(
        vocab_size=min(rows, PADDED_VOCABULARY),
        context_length=tensors[needed[1]].shape[0],
        d_model=width,
        num_layers=1 + max(numbers, default=0),
        num_heads=heads or max(width // HEAD_WIDTH, 1),
        d_ff=tensors[needed[2]].shape[0],
    )
