"""The model card that an export puts beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geex_jax.checkpoints.source import Source
from geex_jax.checkpoints.tensors import Lazy, size_of
from geex_jax.models import to_dict
from geex_jax.version import __version__

_LOADS = {
    "hf": '`transformers.AutoModelForCausalLM.from_pretrained("FOLDER")`',
    "codegeex": "the official CodeGeeX code (`torch.load(FILE)['module']`) or `geex convert`",
    "safetensors": "`geex convert FOLDER DEST`, then `geex_jax.load(DEST)`",
}


def render(
    source: Source, format: str, config: Mapping[str, Any], tensors: Mapping[str, Lazy], name: str
) -> str:
    """The card in Markdown: what it is, where it came from, how it is loaded.

    Args:
      source: the geex model that was exported.
      format: see `exporting.FORMATS`.
      config: the config.json that goes along.
      tensors: what was written.
      name: of the folder.
    """
    scales = any(t.endswith("_scale") for t in tensors)
    size = sum(map(size_of, tensors.values()))
    kinds = sorted({t.dtype.name for t in tensors.values()})
    shape = to_dict(source.config)
    listed = ("num_layers", "d_model", "num_heads", "d_ff", "vocab_size", "context_length")
    lines = [
        f"# {name}",
        "",
        f"Written by geex-jax {__version__} in format `{format}`"
        + (f" (`{config['model_type']}`)" if "model_type" in config else "")
        + f": {len(tensors)} tensors, {size:,} bytes, {', '.join(kinds)}"
        + (", quantized." if scales else "."),
        "",
        "| field | value |",
        "|---|---|",
        *(f"| {key} | {shape[key]} |" for key in listed),
        "",
        f"Load it with {_LOADS[format]}.",
        "",
        "## Provenance",
        "",
    ]
    provenance = (source.original or {}).get("provenance", {})
    lines += [f"- {key}: {_short(value)}" for key, value in sorted(provenance.items())]
    return "\n".join(lines) + "\n"


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k} {_short(v)}" for k, v in sorted(value.items()))
    return str(value)
