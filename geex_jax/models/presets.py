"""Named shapes: CodeGeeX-13B, a family of the same shape for smaller machines, and rivals.

Our own widths are multiples of 128, the side of a TPU's matrix unit; heads are 128 wide from 125M
on. Parameter counts (tied head counted once) are held by
`tests/models/test_presets.py`.
"""

from __future__ import annotations

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.models.config import ModelConfig
from geex_jax.models.presets_rivals import RIVALS


def _shape(name: str, layers: int, width: int, heads: int, **changes) -> ModelConfig:
    # `layers` counts the top query layer, as the depth of a published model does.
    return ModelConfig(
        name=name,
        num_layers=layers - 1,
        d_model=width,
        num_heads=heads,
        d_ff=4 * width,
        **changes,
    )


PRESETS: dict[str, ModelConfig] = {
    p.name: p
    for p in (
        _shape("geex-3m", 8, 128, 2, vocab_size=8192, context_length=1024),
        _shape("geex-20m", 8, 256, 4),
        _shape("geex-125m", 12, 768, 6),
        _shape("geex-350m", 24, 1024, 8),
        _shape("geex-1.3b", 24, 2048, 16),
        _shape("geex-6b", 28, 4096, 32),
        _shape("codegeex-13b", 40, 5120, 40),
    )
} | RIVALS


def preset(name: str, **changes) -> ModelConfig:
    """Returns the named shape, with fields changed.

    Raises:
      GeexError: no such preset or field; the message names the closest.
    """
    if name not in PRESETS:
        raise GeexError(f"unknown model preset {name!r}", did_you_mean(name, PRESETS))
    return PRESETS[name].replace(**changes)
