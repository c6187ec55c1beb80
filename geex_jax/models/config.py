"""The one description of a decoder: every difference between model families is a field here."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from geex_jax.errors import GeexError, did_you_mean

Activation = Literal["fast_gelu", "gelu", "gelu_tanh", "relu", "silu"]
Norm = Literal["layernorm", "rmsnorm"]
Position = Literal["learned", "rotary", "sinusoidal"]
Residual = Literal["serial", "parallel"]
RotaryStyle = Literal["half", "interleaved"]
RotaryScaling = Literal["linear", "llama3", "yarn"]
Attention = Literal["auto", "xla", "splash", "cudnn"]
Matmul = Literal["float", "int8"]
Activations = Literal["float", "int8"]
Cache = Literal["model", "int8"]
Remat = Literal["none", "full", "ctx", "qkv", "dots", "minimal", "qkv_offload", "minimal_offload"]
DType = Literal["float32", "bfloat16", "float16"]
OFFSETS = ("position_offset", "window_from_layer")  # integers that may be 0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and parts of a decoder. The defaults are CodeGeeX's parts (arXiv 2303.17568, 2.2).

    Attributes:
      name: preset or free name; no effect on the mathematics.
      vocab_size: rows of the token embedding (CodeGeeX-13B pads 50,400 to 52,224).
      context_length: rows of a learned position table, and the longest sequence accepted.
      d_model: width of the residual stream.
      num_layers: blocks, the top query layer not counted.
      num_heads: query heads.
      num_kv_heads: key and value heads; None means num_heads.
      head_dim: width of a head; None means d_model / num_heads.
      d_ff: width inside the MLP.
      norm, norm_eps: the normalization before each half of a block and at the end.
      activation, gated_mlp: MLP is down(act(up x)) or down(act(gate x) * up x).
      position: how positions enter; "learned" adds a table, "sinusoidal" a computed one.
      position_offset: added to position ids before the table (XGLM: 2).
      rotary_dim: leading part of each head that is rotated; None means all of it.
      rotary_theta, rotary_style: base, and which elements form a pair.
      rotary_factor: how far the context is stretched: scaled frequencies are divided by it.
      rotary_scaling: which frequencies are scaled: "linear" all of them, "llama3" and "yarn" those
        that turn seldom within rotary_original_context, with a ramp between the rotary_bounds.
      rotary_bounds: turns at which a frequency counts as low and as high (llama3: low_freq_factor
        and high_freq_factor; yarn: beta_slow and beta_fast, usually 1 and 32).
      rotary_original_context: context before it was stretched; llama3 and yarn need it.
      rotary_attention_factor: cosine and sine are multiplied by it (yarn).
      rotary_truncate: the ends of yarn's ramp are whole dimensions.
      residual: "serial" x += attn(n1 x); x += mlp(n2 x), or "parallel" x += attn + mlp.
      shared_norm: one norm feeds both branches (parallel residual only; GPT-J).
      qkv_bias, output_bias, mlp_bias, head_bias: which linears have biases; a tied head may too.
      tied_head: logits use the token embedding.
      top_query_layer: one more block whose query comes from its own position table, after the
        final norm and with no norm after it.
      embedding_scale: token embeddings are multiplied by it.
      sliding_window: key j is seen from i if i - window < j <= i; None means all j <= i.
      window_from_layer: first layer that has the window; earlier ones see all j <= i (Qwen2).
      dropout: rate on embeddings, attention probabilities and both branches, in training.
      dtype: compute type; norms, softmax and logits are float32 whatever it is.
      param_dtype: type of fresh parameters.
      scan_layers: one compiled block over stacked parameters [num_layers, ...], or a loop over
        `layers_0`, `layers_1`, ... (see `stack_layers` and `unstack_layers`).
      scan_unroll: blocks in one turn of that loop. On a CPU all of them at once are faster (their
        parameters are not copied out of the stack) and compile longer.
      remat: what the backward pass keeps besides block inputs: "none" everything, "full" nothing,
        "ctx" attention's result, "qkv" q, k and v, "minimal" the results of all linears and of
        attention, "dots" those and scores and probabilities; "qkv_offload" and "minimal_offload"
        keep in the host's memory what "qkv" and "minimal" do on the device (and attention's
        result on the device).
      attention: which kernel, see `kernels.attention`; no effect on the mathematics. Passes with
        a cache, and "auto" also with dropout, window_from_layer or intermediates asked for, are
        plain; a kernel sows no "probs".
      matmul: "int8" rounds both operands of the blocks' linears in training, see
        `kernels.int8_matmul`; the stored parameters are the same.
      activations: what quantized weights are multiplied by: "float" the activations as they are,
        "int8" each token's rounded by its own largest magnitude (W8A8, `kernels.quantized`).
      kv_cache: what a cache holds: "model" the compute type, "int8" integers with a scale for
        each token and head.

    Raises:
      GeexError: dimensions that do not divide, an unknown part, a non-positive size.
    """

    name: str = "custom"
    vocab_size: int = 52224
    context_length: int = 2048
    d_model: int = 256
    num_layers: int = 7
    num_heads: int = 4
    num_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int = 1024
    norm: Norm = "layernorm"
    norm_eps: float = 1e-5
    activation: Activation = "fast_gelu"
    gated_mlp: bool = False
    position: Position = "learned"
    position_offset: int = 0
    rotary_dim: int | None = None
    rotary_theta: float = 10000.0
    rotary_style: RotaryStyle = "half"
    rotary_factor: float = 1.0
    rotary_scaling: RotaryScaling = "linear"
    rotary_bounds: tuple[float, float] = (1.0, 4.0)
    rotary_original_context: int | None = None
    rotary_attention_factor: float = 1.0
    rotary_truncate: bool = True
    residual: Residual = "serial"
    shared_norm: bool = False
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    head_bias: bool = False
    tied_head: bool = True
    top_query_layer: bool = True
    embedding_scale: float = 1.0
    sliding_window: int | None = None
    window_from_layer: int = 0
    dropout: float = 0.0
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    scan_layers: bool = True
    scan_unroll: int = 1
    remat: Remat = "none"
    attention: Attention = "auto"
    matmul: Matmul = "float"
    activations: Activations = "float"
    kv_cache: Cache = "model"

    def __post_init__(self):
        for name, kind in get_type_hints(ModelConfig).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal and value not in get_args(kind):
                raise GeexError(
                    f"model.{name} = {value!r} is not known",
                    did_you_mean(str(value), get_args(kind)),
                )
            if kind is int and name not in OFFSETS and value <= 0:
                raise GeexError(f"model.{name} = {value} must be positive", "give a size above 0")
        self._check_heads()
        self._check_positions()
        self._check_attention()
        if self.shared_norm and self.residual != "parallel":
            raise GeexError("model.shared_norm needs residual = 'parallel'", "set both or neither")
        if not 0 <= self.dropout < 1:
            raise GeexError(f"model.dropout = {self.dropout}", "give a rate from 0 to below 1")
        if self.sliding_window is not None and self.sliding_window <= 0:
            raise GeexError(
                f"model.sliding_window = {self.sliding_window} must be positive",
                "give a size above 0, or None",
            )
        if self.window_from_layer < 0:
            raise GeexError(
                f"model.window_from_layer = {self.window_from_layer} is negative",
                "0 gives every layer the window",
            )

    def _check_heads(self):
        if self.head_dim is None and self.d_model % self.num_heads:
            raise GeexError(
                f"model.d_model {self.d_model} does not divide into {self.num_heads} heads",
                "change num_heads, or set head_dim",
            )
        if self.num_heads % self.kv_heads:
            raise GeexError(
                f"model.num_heads {self.num_heads} is not a multiple of num_kv_heads "
                f"{self.kv_heads}",
                "query heads share key heads in equal groups",
            )

    def _check_attention(self):
        if self.attention in ("auto", "xla"):
            return
        early = self.sliding_window is not None and self.window_from_layer > 0
        for field, used in (("dropout", self.dropout > 0), ("window_from_layer", early)):
            if used:
                raise GeexError(
                    f"model.attention = {self.attention!r} has no {field}",
                    f"set model.attention to auto, or {field} to 0",
                )

    def _check_positions(self):
        if self.position != "rotary":
            return
        if self.top_query_layer:
            raise GeexError(
                "model.top_query_layer with rotary positions is not defined",
                "use learned positions, or no top query layer",
            )
        if self.rotated % 2:
            raise GeexError(
                f"model.rotary_dim {self.rotated} is odd", "rotary pairs need an even one"
            )
        if not 0 < self.rotated <= self.head_width:
            raise GeexError(
                f"model.rotary_dim {self.rotated} is not within a head of {self.head_width}",
                "give an even part of the head",
            )
        if self.rotary_factor <= 0:
            raise GeexError(
                f"model.rotary_factor = {self.rotary_factor} must be positive", "1 scales nothing"
            )
        if self.rotary_scaling == "linear":
            return
        if not self.rotary_original_context:
            raise GeexError(
                f"model.rotary_scaling {self.rotary_scaling!r} needs rotary_original_context",
                "give the context before it was stretched",
            )
        if len(self.rotary_bounds) != 2 or not 0 < self.rotary_bounds[0] < self.rotary_bounds[1]:
            raise GeexError(
                f"model.rotary_bounds = {self.rotary_bounds} do not ascend from above 0",
                "give (low, high), such as (1, 4) for llama3 or (1, 32) for yarn",
            )

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """Elements of one head."""
        return self.head_dim or self.d_model // self.num_heads

    @property
    def rotated(self) -> int:
        """Elements of a head that rotary positions turn."""
        return self.head_width if self.rotary_dim is None else self.rotary_dim

    @property
    def num_blocks(self) -> int:
        """Blocks with a KV cache of their own: the layers and the top query layer."""
        return self.num_layers + self.top_query_layer

    def replace(self, **changes: Any) -> ModelConfig:
        """Returns a copy with fields changed; an unknown field is a GeexError."""
        return from_dict({**to_dict(self), **changes})


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields as a JSON-able dict, which JSON gives back unchanged."""
    values = dataclasses.asdict(config)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def from_dict(values: dict[str, Any]) -> ModelConfig:
    """Builds a config from a dict; an unknown key is a GeexError that names the nearest field."""
    fields = [f.name for f in dataclasses.fields(ModelConfig)]
    for key in values:
        if key not in fields:
            raise GeexError(f"unknown model field {key!r}", did_you_mean(key, fields))
    # JSON knows no tuples, and a list would not be hashable.
    known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return ModelConfig(**known)
