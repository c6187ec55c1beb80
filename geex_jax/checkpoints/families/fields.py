"""config.json of other libraries to ModelConfig and back: one `Field` for each thing it says.

Every key is either read by a field, known to be without effect on the logits, or refused: a key
that nobody read might change the mathematics.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig

REQUIRED = object()

# Without effect on the logits of a forward pass: training, generation and bookkeeping.
_FREE = """
    architectures model_type auto_map transformers_version torch_dtype dtype _name_or_path
    _commit_hash name_or_path tokenizer_class prefix use_cache bos_token_id eos_token_id
    pad_token_id sep_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
    initializer_range init_std gradient_checkpointing attn_implementation _attn_implementation
    _attn_implementation_autoset attn_pdrop embd_pdrop resid_pdrop attention_dropout
    hidden_dropout attention_probs_dropout_prob hidden_dropout_prob activation_dropout dropout
    layerdrop embedding_dropout residual_dropout classifier_dropout summary_type
    summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout return_dict
    output_hidden_states output_attentions torchscript use_bfloat16 tf_legacy_loss
    chunk_size_feed_forward max_length min_length do_sample early_stopping num_beams
    num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens finetuning_task
    id2label label2id num_labels task_specific_params problem_type is_decoder
    tie_encoder_decoder pretraining_tp attention_softmax_in_fp32 scale_attention_softmax_in_fp32
    n_ctx use_mems_eval cross_attention_hidden_size unsloth_version unsloth_fixed
"""
FREE = frozenset(_FREE.split())
# Supported by no family, unless they say nothing.
ONLY: dict[str, tuple[Any, ...]] = {
    "pruned_heads": ({}, []),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "quantization_config": ({},),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
}


@dataclasses.dataclass(frozen=True)
class Raw:
    """A config.json, with errors that name the file and the key."""

    values: Mapping[str, Any]
    file: pathlib.Path

    def get(self, key: str, kind: Any, default: Any = REQUIRED) -> Any:
        """The value of a key, checked to be of `kind`; absent or null means `default`.

        Raises:
          GeexError: absent and required, or of another type.
        """
        value = self.values.get(key)
        if value is None:
            if default is REQUIRED:
                raise GeexError(f"{self.file}: no {key}", "bring the checkpoint's own config.json")
            return default
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise GeexError(f"{self.file}: {key} = {value!r} is no {kind.__name__}", "correct it")
        if kind is float and not math.isfinite(value):
            raise self.refuse(key, value, "finite numbers")
        return value

    def size(self, key: str, default: Any = REQUIRED) -> Any:
        """As `get` for an int, which must be above 0.

        Raises:
          GeexError: as `get`, or zero or less.
        """
        value = self.get(key, int, default)
        if value is not None and value <= 0:
            raise self.refuse(key, value, "sizes above 0")
        return value

    def epsilon(self, key: str, default: float) -> float:
        """As `get` for a float, which must not be negative.

        Raises:
          GeexError: as `get`, or less than zero.
        """
        value = self.get(key, float, default)
        if value < 0:
            raise self.refuse(key, value, "0 and above")
        return value

    def refuse(self, key: str, value: Any, known: str) -> GeexError:
        """The error for a value whose mathematics is not here."""
        return GeexError(f"{self.file}: {key} = {value!r} is not supported", f"known: {known}")


@dataclasses.dataclass(frozen=True)
class Field:
    """Keys of config.json that belong together.

    Attributes:
      keys: the keys.
      read: (raw, fields of ModelConfig so far) -> more fields of ModelConfig.
      write: ModelConfig -> keys.
    """

    keys: tuple[str, ...]
    read: Callable[[Raw, dict[str, Any]], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]


def same(key: str, *ours: str, default: Any = REQUIRED, kind: Any = int) -> Field:
    """A key that says what one or several of our fields say.

    Args:
      key: in config.json.
      ours: fields of ModelConfig; all get the value.
      default: for an absent key: a value, or a function of our fields so far.
      kind: type of the value.
    """

    def read(raw: Raw, so_far: dict[str, Any]) -> dict[str, Any]:
        absent = None if callable(default) else default
        value = raw.size(key, absent) if kind is int else raw.get(key, kind, absent)
        if value is None and callable(default):
            value = default(so_far)
        return dict.fromkeys(ours, value)

    return Field((key,), read, lambda config: {key: getattr(config, ours[0])})


def epsilon(key: str, default: float) -> Field:
    """What a normalization adds to the variance."""
    return Field(
        (key,),
        lambda raw, so_far: {"norm_eps": raw.epsilon(key, default)},
        lambda config: {key: config.norm_eps},
    )


def choice(key: str, ours: str, table: Mapping[Any, Any], default: Any = REQUIRED) -> Field:
    """A key whose values have other names here; the first of equal ones is written back."""

    def read(raw: Raw, so_far: dict[str, Any]) -> dict[str, Any]:
        value = raw.values.get(key)
        if value is None and default is REQUIRED:
            raise GeexError(f"{raw.file}: no {key}", "bring the checkpoint's own config.json")
        value = default if value is None else value
        if not isinstance(value, str | bool) or value not in table:
            raise raw.refuse(key, value, ", ".join(map(str, table)))
        return {ours: table[value]}

    def write(config: ModelConfig) -> dict[str, Any]:
        names = [name for name, value in table.items() if value == getattr(config, ours)]
        return {key: names[0]} if names else {}

    return Field((key,), read, write)


TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate")


def activation(key: str, tanh: str = "gelu_pytorch_tanh", default: Any = REQUIRED) -> Field:
    """The activation; `tanh` is the family's own name of the tanh form of GELU."""
    names = {tanh: "gelu_tanh"} | dict.fromkeys(TANH, "gelu_tanh")
    names |= {"gelu": "gelu", "gelu_python": "gelu", "quick_gelu": "fast_gelu"}
    names |= {"relu": "relu", "silu": "silu", "swish": "silu"}
    return choice(key, "activation", names, default)


def copy_of(key: str, other: str) -> Field:
    """A key that repeats another one: transformers reads only that one, so they must agree."""

    def read(raw: Raw, so_far: dict[str, Any]) -> dict[str, Any]:
        value = raw.values.get(key)
        if value is not None and value != raw.values.get(other):
            raise raw.refuse(key, value, f"what {other} says, {raw.values.get(other)!r}")
        return {}

    return Field((key,), read, lambda config: {})


def kv_heads(key: str = "num_key_value_heads", default: Any = REQUIRED) -> Field:
    """Key and value heads; null means as many as query heads."""

    def read(raw: Raw, so_far: dict[str, Any]) -> dict[str, Any]:
        # In the families whose default is a number, null is not absent: it means the query heads.
        null = key in raw.values and raw.values[key] is None
        return {"num_kv_heads": None if null else raw.size(key, default)}

    return Field((key,), read, lambda config: {key: config.kv_heads})


def head_dim(key: str = "head_dim", default: Any = None) -> Field:
    """Width of a head; absent means d_model / num_heads, or the family's own `default`."""

    def read(raw: Raw, so_far: dict[str, Any]) -> dict[str, Any]:
        return {"head_dim": raw.size(key, default)}

    def write(config: ModelConfig) -> dict[str, Any]:
        usual = config.head_width * config.num_heads == config.d_model
        return {} if usual and default is None else {key: config.head_width}

    return Field((key,), read, write)


SCALINGS = "default, linear, dynamic, llama3, yarn"


def rope(
    theta: str = "rope_theta",
    partial: str = "partial_rotary_factor",
    default_theta: float = 10000.0,
    default_partial: float | None = None,
) -> Field:
    """Rotary positions, as transformers 4 (flat keys) or 5 (`rope_parameters`) writes them.

    Args:
      theta: the flat key of the base.
      partial: the flat key of the rotated share of a head.
      default_theta: base if the file names none; transformers has one for all families.
      default_partial: rotated share if the file names none; None: the family rotates whole heads.
    """
    flat = ("rope_theta", "partial_rotary_factor")
    keys = (theta, partial, *flat, "rope_scaling", "rope_parameters")

    def read(raw: Raw, so_far: dict[str, Any]) -> dict[str, Any]:
        nested = [raw.get(key, dict, {}) for key in ("rope_parameters", "rope_scaling")]
        if all(nested) and nested[0] != nested[1]:
            raise raw.refuse("rope_scaling", nested[1], "what rope_parameters says")
        inner = Raw(nested[0] or nested[1], raw.file)
        # Versions of transformers differ in which of several bases they read.
        base = _agreeing(raw, default_theta, [(inner, flat[0]), (raw, theta), (raw, flat[0])])
        share = _agreeing(raw, default_partial, [(inner, flat[1]), (raw, partial), (raw, flat[1])])
        if base <= 1:
            raise raw.refuse(theta, base, "numbers above 1")
        if default_partial is None and share not in (None, 1.0):
            raise raw.refuse(partial, share, "1.0 in this family")
        out = {"rotary_theta": base}
        if default_partial is not None:
            width = so_far.get("head_dim") or so_far["d_model"] // so_far["num_heads"]
            out["rotary_dim"] = int(width * share)
        return out | _scaling(inner, so_far["context_length"])

    def write(config: ModelConfig) -> dict[str, Any]:
        out: dict[str, Any] = {theta: config.rotary_theta}
        if default_partial is not None:
            share = config.rotated / config.head_width
            if int(config.head_width * share) < config.rotated:  # the quotient was rounded down
                share = math.nextafter(share, 2)
            out[partial] = share
        scaling = _write_scaling(config)
        return out | ({"rope_scaling": scaling} if scaling else {})

    return Field(tuple(dict.fromkeys(keys)), read, write)


def _agreeing(raw: Raw, default: Any, places: list[tuple[Raw, str]]) -> Any:
    """The one number that several keys give; `default` if the family's own two give none.

    The last place is the name of other families, which transformers reads or not: it must agree.
    """
    found = [(key, where.get(key, float, None)) for where, key in places]
    given = [(key, value) for key, value in found if value is not None]
    value = next((value for _, value in found[:2] if value is not None), default)
    for key, other in given:
        if other != value:
            raise raw.refuse(key, other, f"{value}, as the rest of the file says")
    return value


def _scaling(inner: Raw, context: int) -> dict[str, Any]:
    kind = inner.values.get("rope_type") or inner.values.get("type") or "default"
    if inner.values.get("type") not in (None, kind):
        raise inner.refuse("rope_scaling.type", inner.values["type"], f"{kind}, as rope_type says")
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
    original = inner.size("original_max_position_embeddings", context)
    if kind == "dynamic" and original != context:
        # Some versions of transformers read it, later ones do not.
        key = "rope_scaling.original_max_position_embeddings"
        raise inner.refuse(key, original, f"max_position_embeddings, {context}")
    if kind == "default" or kind == "dynamic":
        # Dynamic NTK changes nothing up to the trained context, and we go no further.
        known |= {"factor", "original_max_position_embeddings"} if kind == "dynamic" else set()
        out: dict[str, Any] = {}
    elif kind == "linear":
        known |= {"factor"}
        out = {"rotary_factor": inner.get("factor", float)}
    elif kind == "llama3":
        known |= {"factor", "low_freq_factor", "high_freq_factor",
                  "original_max_position_embeddings"}  # fmt: skip
        bounds = inner.get("low_freq_factor", float), inner.get("high_freq_factor", float)
        out = {"rotary_factor": inner.get("factor", float), "rotary_bounds": bounds}
    elif kind == "yarn":
        known |= {"factor", "attention_factor", "beta_fast", "beta_slow", "mscale",
                  "mscale_all_dim", "truncate", "original_max_position_embeddings"}  # fmt: skip
        factor = inner.get("factor", float)
        bounds = inner.get("beta_slow", float, 1.0), inner.get("beta_fast", float, 32.0)
        out = {
            "rotary_factor": factor,
            "rotary_bounds": bounds,
            "rotary_attention_factor": _attention_factor(inner, factor),
            "rotary_truncate": inner.get("truncate", bool, True),
        }
    else:
        raise inner.refuse("rope_scaling.type", kind, SCALINGS)
    if kind in ("llama3", "yarn"):
        out |= {"rotary_scaling": kind, "rotary_original_context": original}
    for key in inner.values.keys() - known:
        if inner.values[key] is not None:
            raise inner.refuse(f"rope_scaling.{key}", inner.values[key], ", ".join(sorted(known)))
    return out


def _attention_factor(inner: Raw, factor: float) -> float:
    given = inner.get("attention_factor", float, None)
    if given is not None:
        return given

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    one, all_dims = (inner.get(k, float, None) for k in ("mscale", "mscale_all_dim"))
    return mscale(one) / mscale(all_dims) if one and all_dims else mscale(1.0)


def _write_scaling(config: ModelConfig) -> dict[str, Any] | None:
    if config.rotary_scaling == "linear":
        if config.rotary_factor == 1:
            return None
        return {"type": "linear", "rope_type": "linear", "factor": config.rotary_factor}
    kind = config.rotary_scaling
    out = {"type": kind, "rope_type": kind, "factor": config.rotary_factor}
    out["original_max_position_embeddings"] = config.rotary_original_context
    names = {"llama3": ("low_freq_factor", "high_freq_factor"), "yarn": ("beta_slow", "beta_fast")}
    out |= dict(zip(names[kind], config.rotary_bounds, strict=True))
    if kind == "yarn":
        out["attention_factor"] = config.rotary_attention_factor
        out["truncate"] = config.rotary_truncate
    return out
